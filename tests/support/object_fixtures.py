"""An object server for all tests of a process of pytest, and for each test a bucket in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.object_server import Gateway, ObjectServer, running_objects


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    with running_objects() as server:
        yield server


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty place in the server, which this process and its children reach directly."""
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    return object_server.bucket()


@pytest.fixture
def gateway(object_server: ObjectServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """The way that this process and its children take to the server from now on."""
    with closing(Gateway(object_server.port)) as gateway:
        for name, value in gateway.environment.items():
            monkeypatch.setenv(name, value)
        yield gateway
