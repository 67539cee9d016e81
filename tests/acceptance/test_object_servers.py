"""The same values in other object stores than moto's, which `make test-objects` installs: Azurite and s3rver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama import put, resolve
from dagorama.client.large_values import dereference
from dagorama_broker.store import StoreOptions, open_store
from dagorama_broker.store.objects import large_objects
from dagorama_broker.store.objects.remote import Remote
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.brokers import launch_broker
from tests.support.object_nodes import SIZE, Summing
from tests.support.object_programs import is_installed, running_azurite, running_s3rver
from tests.support.records import begun
from tests.support.workers import launch_workers

pytestmark = [pytest.mark.objects, pytest.mark.slow]

SERVERS = {"azurite-blob": (running_azurite, "az://values/some/prefix"), "s3rver": (running_s3rver, "s3://values/some")}


@pytest.fixture(params=SERVERS)
def values(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty place in a server of each kind."""
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed: run `make test-objects`")
    running, url = SERVERS[request.param]
    (tmp_path / "objects").mkdir()
    with running(tmp_path / "objects") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield url


@pytest.mark.parametrize("transfer", ["direct", "broker"])
def test_values_of_nodes_are_objects(
    values: str, transfer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGORAMA_VALUES", values)
    monkeypatch.setenv("DAGORAMA_VALUES_TRANSFER", transfer)
    with launch_broker(store=f"sqlite:///{tmp_path}/broker.sqlite3"), launch_workers(2):
        kept = put(bytes([1]) * SIZE)
        instance, promise = Summing()(kept, 5)
        assert resolve(instance, promise, timeout=60) == 5 * SIZE
        assert dereference(kept) == bytes([1]) * SIZE
    remote = Remote(values)
    remote.open()
    assert sum(each.name.count("/") == 2 for page in remote.pages() for each in page) == 6


def test_values_are_collected_and_leftovers_swept(values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"sqlite:///{tmp_path}/broker.sqlite3", StoreOptions(values))
    assert isinstance(store, SqliteStore)
    begun(store)
    objects = store.objects
    assert objects is not None
    rows = [objects.upload([b"value %d" % number]) for number in range(3)]
    left = objects.upload([b"left behind"])
    monkeypatch.setattr(large_objects, "LEFT_BEHIND", -60.0)
    assert objects.sweep(lambda names: {row.object for row in rows}) == 1
    assert objects.remote.length(left.object) is None
    objects.remote.delete([rows[0].object])
    objects.remote.delete([row.object for row in rows])  # one of them does not exist
    deadline = time.monotonic() + 10
    while any(objects.remote.length(row.object) is not None for row in rows):
        assert time.monotonic() < deadline
    store.close()
