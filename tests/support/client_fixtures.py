"""A recording broker for the client's tests."""

from collections.abc import Iterator

import pytest

from dagorama.client.channel import quieten_grpc

quieten_grpc()

from tests.support.recording_broker import RecordingBroker, serving  # noqa: E402


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingBroker]:
    with serving() as broker:
        monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
        monkeypatch.setenv("DAGORAMA_PORT", str(broker.port))
        yield broker
