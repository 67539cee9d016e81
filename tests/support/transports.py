"""Run whole programs over both transports."""

import pytest


@pytest.fixture(params=["local socket", "grpc"])
def both_transports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all that the test starts use each transport in turn."""
    monkeypatch.setenv("DAGORAMA_LOCAL_SOCKET", "1" if request.param == "local socket" else "0")
