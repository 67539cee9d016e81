"""Large values in an object store, with a real broker and real workers: each is one object, and trouble passes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest

from dagorama import put, resolve
from dagorama.client import object_values
from dagorama.client.connection import connection
from dagorama.client.large_values import broker_values, dereference
from dagorama.client.object_http import upload
from dagorama.errors import NodeFailed, NotFound, ValuesUnavailable
from dagorama.values.out_of_band import Verified
from dagorama_broker.launch import BrokerNotStarted
from dagorama_broker.store.objects.remote import Remote
from tests.support.broker_fixtures import postgres_url
from tests.support.brokers import launch_broker
from tests.support.commands import data, printed, refusal
from tests.support.object_fixtures import bucket, gateway, object_server
from tests.support.object_nodes import SIZE, Small, Summing
from tests.support.object_server import Gateway
from tests.support.postgres_server import new_schema
from tests.support.workers import launch_workers

__all__ = ["bucket", "gateway", "object_server", "postgres_url"]

#: Its tests start brokers and workers, half a minute together.
pytestmark = pytest.mark.slow

SECONDS = 60
DATA = bytes([1]) * SIZE


def remote_of(url: str) -> Remote:
    remote = Remote(url)
    remote.open()
    return remote


def objects_in(url: str) -> list[str]:
    """The names of the values in a place, which are in it."""
    remote = remote_of(url)
    return [each.name for page in remote.pages() for each in page if each.name.count("/") == 2]


def value(digest: bytes) -> bytes:
    """Return the value as a client reads it."""
    found = broker_values().get(digest)
    return bytes(found.data if isinstance(found, Verified) else found)


@contextmanager
def broker_with(values: str, store: str, patch: pytest.MonkeyPatch, **settings: str) -> Iterator[None]:
    patch.setenv("DAGORAMA_VALUES", values)
    for name, value in settings.items():
        patch.setenv(name, value)
    with launch_broker(store=store):
        yield


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.sqlite3"


@pytest.fixture
def served(bucket: str, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with broker_with(bucket, sqlite, monkeypatch):
        yield


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, sqlite: str) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite
        return
    with new_schema(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.mark.parametrize("transfer", ["direct", "broker"])
def test_a_value_that_many_nodes_take_is_one_object_that_each_worker_reads_once(
    store: str, transfer: str, gateway: Gateway, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broker_with(bucket, store, monkeypatch), launch_workers(2):
        monkeypatch.setenv("DAGORAMA_VALUES_TRANSFER", transfer)
        instance, promise = Summing()(put(DATA), 20)
        assert resolve(instance, promise, timeout=SECONDS) == 20 * SIZE
    names = objects_in(bucket)
    assert len(names) == 21, "the value that was given, and a result of each node"
    digest = sha256(DATA).hexdigest()
    (name,) = [name for name in names if digest in name]
    assert sum(name in each for each in gateway.requests if each.startswith("GET")) <= 2


def test_a_store_that_is_away_for_some_time_fails_no_node(
    gateway: Gateway, bucket: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broker_with(bucket, sqlite, monkeypatch), launch_workers(2):
        instance, promise = Summing()(put(DATA), 40)
        threading.Timer(0.2, gateway.shut).start()
        threading.Timer(1.7, gateway.open).start()
        assert resolve(instance, promise, timeout=SECONDS) == 40 * SIZE


def test_a_client_that_cannot_reach_the_store_learns_why(
    gateway: Gateway, bucket: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_values, "PATIENCE", 0.5)
    with broker_with(bucket, sqlite, monkeypatch):
        kept = put(DATA)
        gateway.shut()
        with pytest.raises(ValuesUnavailable, match=r"could not be stored or read for 0\.5 s: the object store"):
            put(DATA + b"other")
        with pytest.raises(ValuesUnavailable, match="the object store"):
            dereference(kept)
        gateway.open()
        assert dereference(kept) == DATA


@pytest.mark.usefixtures("served")
def test_bytes_that_were_changed_in_the_store_are_no_value(bucket: str) -> None:
    kept = put(DATA)
    (name,) = objects_in(bucket)
    remote_of(bucket).put(name, BytesIO(bytes(SIZE)))
    with pytest.raises(NotFound, match="has other bytes in the object store"):
        dereference(kept)
    put(DATA)
    assert dereference(kept) == DATA
    assert len(objects_in(bucket)) == 2, "the changed one is swept later"


@pytest.mark.usefixtures("served")
def test_a_value_whose_object_was_deleted_is_missing_until_it_is_given_again(bucket: str) -> None:
    kept = put(DATA)
    (name,) = objects_in(bucket)
    remote_of(bucket).delete([name])
    with pytest.raises(NotFound, match="is missing in the object store"):
        dereference(kept)
    put(DATA)
    assert dereference(kept) == DATA
    assert objects_in(bucket) != [name]


def test_a_url_that_has_expired_is_asked_for_again(
    gateway: Gateway, bucket: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broker_with(bucket, sqlite, monkeypatch):
        gateway.refuse("PUT", 403)
        kept = put(DATA)
        gateway.refuse("GET", 403)
        assert dereference(kept) == DATA


def test_an_upload_that_breaks_off_leaves_no_value(
    gateway: Gateway, bucket: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broker_with(bucket, sqlite, monkeypatch):
        gateway.cut_upload(after=SIZE // 2)
        assert dereference(put(DATA)) == DATA
        assert sum(each.startswith("PUT") for each in gateway.requests if "/some/prefix/" in each) >= 2


def test_an_upload_counts_only_at_the_broker_that_gave_its_name_out(
    bucket: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGORAMA_VALUES", bucket)
    digest = sha256(DATA).digest()
    with launch_broker(store=sqlite) as broker:
        link = connection()
        asked = link.keep_value(digest, SIZE)
        upload(asked.url, asked.headers, DATA, SIZE)
        broker.restart()
        again = link.keep_value(digest, SIZE, asked.object)
        assert not again.kept
        assert again.object != asked.object
        upload(again.url, again.headers, DATA, SIZE)
        assert link.keep_value(digest, SIZE, again.object).kept
        assert link.keep_value(digest, SIZE, again.object).kept, "the reply may have been lost"
        assert value(digest) == DATA


@pytest.mark.usefixtures("served")
def test_clients_that_know_no_urls_send_and_read_values_through_the_broker() -> None:
    link = connection()
    digest = link.put_value(DATA)
    assert link.get_value(digest) == DATA
    assert link.import_value(digest, SIZE)
    assert value(digest) == DATA


def test_two_who_give_the_same_value_at_once_leave_one_object(
    bucket: str, served: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [threading.Thread(target=put, args=(DATA,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dereference(put(DATA)) == DATA


def test_a_copy_of_a_store_names_the_objects_and_is_restored_with_the_same_place(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, copy, restored = tmp_path / "store", tmp_path / "copy", tmp_path / "restored"
    with broker_with(bucket, f"sqlite:///{store}", monkeypatch), launch_workers(1):
        instance, promise = Summing()(DATA, 1)
        assert resolve(instance, promise, timeout=SECONDS) == SIZE
        assert printed("backup", copy, "--store", store) == f"{copy} (instances: 1, large values: 2)\n"
    monkeypatch.delenv("DAGORAMA_VALUES")
    _, said = refusal("restore", copy, "--store", restored)
    assert "are in an object store: pass it with --values" in said
    assert not restored.exists()
    assert "large values: 2" in printed("restore", copy, "--store", restored, "--values", bucket)
    with broker_with(bucket, f"sqlite:///{restored}", monkeypatch):
        assert value(sha256(DATA).digest()) == DATA


def test_a_node_says_for_which_value_it_waits(
    gateway: Gateway, bucket: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broker_with(bucket, sqlite, monkeypatch):
        instance, promise = Summing()(put(DATA), 2)
        gateway.shut()
        with launch_workers(1):
            said, deadline = "", time.monotonic() + SECONDS
            while not said and time.monotonic() < deadline:
                nodes = data("show", instance.instance_id)["nodes"]
                said = next((found for each in nodes if (found := each.get("report"))), "")
            assert re.match(f"waits for fetching the large value {sha256(DATA).hexdigest()}: the object store", said)
            assert f"it says: waits for fetching the large value {sha256(DATA).hexdigest()}" in printed(
                "explain", instance.instance_id
            )
            gateway.open()
            assert resolve(instance, promise, timeout=SECONDS) == 2 * SIZE


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("what", ["changed", "deleted"])
def test_a_node_whose_value_is_spoiled_fails_with_a_reason(bucket: str, what: str) -> None:
    kept = put(DATA)
    instance, promise = Summing()(kept, 1)
    (name,) = objects_in(bucket)
    if what == "changed":
        remote_of(bucket).put(name, BytesIO(bytes(SIZE)))
    else:
        remote_of(bucket).delete([name])
    with launch_workers(1), pytest.raises(NodeFailed, match="no longer has the large value"):
        resolve(instance, promise, timeout=SECONDS)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [("s3://no-such-bucket/prefix", "NoSuchBucket"), ("s3://", "credentials belong into the variables"),
     ("ftp://values", "must be file:///absolute/path, s3://BUCKET/PREFIX")],
)  # fmt: skip
@pytest.mark.usefixtures("bucket")
def test_a_broker_that_cannot_use_its_place_for_values_says_why_and_does_not_start(
    values: str, sentence: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BrokerNotStarted, match=sentence), broker_with(values, sqlite, monkeypatch):
        pass


def test_nodes_without_large_values_run_while_the_store_is_away_and_the_others_when_it_is_back(
    gateway: Gateway, bucket: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGORAMA_VALUES_PATIENCE", "0.2")
    with broker_with(bucket, sqlite, monkeypatch):
        instance, promise = Summing()(put(DATA), 2)
        gateway.shut()
        small = [Small()(number) for number in range(5)]
        with launch_workers(1):
            assert [resolve(*each, timeout=SECONDS) for each in small] == [1, 2, 3, 4, 5]
            gateway.open()
            assert resolve(instance, promise, timeout=SECONDS) == 2 * SIZE
