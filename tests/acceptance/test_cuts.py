"""The network between a worker and its broker goes away without either of them hearing of it, and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama import resolve
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.relay import Relay
from tests.support.troubles import Gated, Troubles
from tests.support.worker_command import WAIT, await_that
from tests.support.workers import launch_workers


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    """One that gives up after 3 seconds whom others give up after 30, and that is reached over the network only."""
    environment = {"DAGORAMA_LEASE": "3", "DAGORAMA_HEARTBEAT": "0.5", "DAGORAMA_LOCAL_SOCKET": "0"}
    with launch_broker(port=0, environment=environment) as made:
        yield made


@pytest.fixture
def relay(broker: LaunchedBroker) -> Iterator[Relay]:
    made = Relay(broker.port)
    yield made
    made.close()


def test_a_worker_goes_on_after_a_cut_that_was_longer_than_its_lease(
    broker: LaunchedBroker, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 34: what it ran was given to another meanwhile and counts there; what comes later it runs as before."""
    running, gate = tmp_path / "running", tmp_path / "gate"
    running.mkdir()
    monkeypatch.setenv("DAGORAMA_PORT", str(relay.port))
    with launch_workers(1) as [worker]:
        monkeypatch.setenv("DAGORAMA_PORT", str(broker.port))
        instance, promise = Gated()(str(running), str(gate))
        await_that(lambda: any(running.iterdir()))
        (first,) = running.iterdir()
        relay.cut()
        with launch_workers(1):
            await_that(lambda: len(list(running.iterdir())) == 2)
            relay.heal()
            gate.touch()
            (second,) = {*running.iterdir()} - {first}
            assert resolve(instance, promise, timeout=WAIT) == int(second.name)
        assert resolve(*Troubles()("none"), timeout=WAIT) == int(first.name)
        assert worker.is_alive()
