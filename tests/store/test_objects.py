"""Large values as objects: a row names each, none is written twice, and late deletes hit no value."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dagorama_broker.errors import Deposed, SettingsError, StoreError, ValuesAway
from dagorama_broker.model.looks import Wanted
from dagorama_broker.model.objects import NewObject, ObjectRow, object_name
from dagorama_broker.model.rows import Changes, LargeRow, RemovedRow
from dagorama_broker.store import StoreOptions, open_store
from dagorama_broker.store.objects import large_objects
from dagorama_broker.store.objects.large_objects import LargeObjects
from dagorama_broker.store.objects.remote import Remote
from dagorama_broker.store.postgres.store import PostgresStore
from dagorama_broker.store.sql.objects import drop_objects
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.object_fixtures import bucket, gateway, object_server
from tests.support.object_server import Gateway
from tests.support.postgres_server import new_schema
from tests.support.records import begun, completed, graph, instance_row, node

__all__ = ["bucket", "gateway", "object_server"]

#: Each asks a server, and one sends more than a thousand objects to it.
pytestmark = pytest.mark.slow

Kept = SqliteStore | PostgresStore
CONTENT = b"0123456789abcdef" * 20_000
NAME = sha256(CONTENT).digest()


def never(_: bytes) -> bool:
    return False


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/broker.sqlite3"
        return
    with new_schema(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def opened(url: str, bucket: str) -> Iterator[Callable[[], Kept]]:
    """Opens the store, as the start of a broker does; all are closed at the end."""
    with ExitStack() as stack:

        def open() -> Kept:
            store = open_store(url, StoreOptions(bucket))
            assert isinstance(store, Kept)
            stack.callback(store.close)
            begun(store)
            return store

        yield open


@pytest.fixture
def store(opened: Callable[[], Kept]) -> Kept:
    return opened()


def objects_of(store: Kept) -> LargeObjects:
    assert store.objects is not None
    return store.objects


def uploaded(store: Kept, content: bytes = CONTENT) -> ObjectRow:
    return objects_of(store).upload([content])


def kept(store: Kept, content: bytes = CONTENT) -> ObjectRow:
    """Store a value as the broker does that has received its bytes."""
    row = uploaded(store, content)
    (found,) = store.name_objects([NewObject(row)])
    assert objects_of(store).restart_grace(found)
    return found


def listed(store: Kept) -> set[str]:
    """The names of all objects but those that are no values."""
    return {each.name for page in objects_of(store).remote.pages() for each in page if each.name.count("/") == 2}


def emptied(store: Kept) -> None:
    """Let the thread of the objects do what it has begun."""
    store.delete_collected(60.0)
    thread = objects_of(store)._thread
    assert thread is not None
    thread.submit(lambda: None).result(30)


# --- giving and getting -----------------------------------------------------------------------------------


def test_a_value_is_an_object_from_the_commit_of_its_row_on(store: Kept) -> None:
    row = uploaded(store)
    assert (row.sha256, row.length) == (NAME, len(CONTENT))
    assert not store.has_large(NAME)
    assert store.name_objects([NewObject(row)]) == [row]
    assert store.has_large(NAME)
    assert store.object_of(NAME) == row
    assert store.look(Wanted(large={NAME, bytes(32)})).large == {NAME}
    assert b"".join(objects_of(store).read(row) or ()) == CONTENT


def test_rows_outlive_the_broker(opened: Callable[[], Kept]) -> None:
    row = kept(first := opened())
    first.close()
    assert opened().object_of(NAME) == row


def test_of_two_who_give_a_value_at_once_the_first_row_counts(store: Kept) -> None:
    first, second = uploaded(store), uploaded(store)
    assert first.object != second.object
    assert store.name_objects([NewObject(first), NewObject(second)]) == [first, first]
    assert store.name_objects([NewObject(second)]) == [first]


def test_an_object_that_is_lost_is_replaced_and_no_other_one(store: Kept) -> None:
    first, second, third = kept(store), uploaded(store), uploaded(store)
    assert store.name_objects([NewObject(second, replaced="another")]) == [first]
    assert store.name_objects([NewObject(second, replaced=first.object)]) == [second]
    assert store.name_objects([NewObject(third, replaced=first.object)]) == [second]


def test_an_upload_is_accepted_once_and_only_as_it_was_offered(store: Kept) -> None:
    objects = objects_of(store)
    placing = objects.offer(NAME, len(CONTENT))
    assert f"/{placing.object}?" in placing.url
    objects.remote.put(placing.object, BytesIO(CONTENT))
    assert objects.accept(bytes(32), len(CONTENT), placing.object) is None
    assert objects.accept(NAME, len(CONTENT) - 1, placing.object) is None
    assert objects.accept(NAME, len(CONTENT), object_name(NAME, bytes(8))) is None
    row = objects.accept(NAME, len(CONTENT), placing.object)
    assert row is not None
    assert row[:3] == (NAME, len(CONTENT), placing.object)
    assert objects.accept(NAME, len(CONTENT), placing.object) is None


@pytest.mark.parametrize("content", [None, CONTENT[:-1]], ids=["nothing", "a part"])
def test_an_upload_that_did_not_arrive_is_not_accepted(store: Kept, content: bytes | None) -> None:
    placing = objects_of(store).offer(NAME, len(CONTENT))
    if content is not None:
        objects_of(store).remote.put(placing.object, BytesIO(content))
    assert objects_of(store).accept(NAME, len(CONTENT), placing.object) is None
    emptied(store)
    assert listed(store) == set()


def test_an_object_with_other_bytes_never_yields_its_end(store: Kept) -> None:
    row = kept(store)
    objects_of(store).remote.put(row.object, BytesIO(CONTENT[:-1] + b"!"))
    seen: list[bytes] = []
    with pytest.raises(StoreError, match="does not hold the value"):
        seen.extend(objects_of(store).read(row) or ())
    assert sum(map(len, seen)) < len(CONTENT)
    assert not objects_of(store).is_there(row), "it is replaced when the value is given again"


def test_what_breaks_off_leaves_no_object(store: Kept) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT
        raise ConnectionError("the caller hung up")

    with pytest.raises(ConnectionError):
        objects_of(store).upload(chunks())
    assert listed(store) == set()


# --- collecting -------------------------------------------------------------------------------------------


def test_a_value_without_a_node_goes_after_its_grace_row_first(store: Kept) -> None:
    row = kept(store)
    assert not store.collect_large(60.0, 10, never)
    assert store.has_large(NAME)
    assert not store.collect_large(0.0, 10, never)
    assert not store.has_large(NAME)
    assert store.look(Wanted(large={NAME})).large == set()
    assert not objects_of(store).restart_grace(row), "it is going"
    assert listed(store) == {row.object}
    emptied(store)
    assert store.object_of(NAME) is None
    emptied(store)
    assert listed(store) == set()


def test_a_value_that_a_node_names_stays_until_the_node_is_gone(store: Kept) -> None:
    kept(store)
    changes = graph(node(1))
    changes.large = [LargeRow(1, NAME)]
    store.commit(changes)
    store.collect_large(0.0, 10, never)
    emptied(store)
    assert store.has_large(NAME)
    store.commit(Changes(outcomes=[completed(1)]))
    store.commit(Changes(removed=[RemovedRow(1, instance_row(1).id, 5.0, False, 1.0)]))
    store.sweep(100)
    store.collect_large(0.0, 10, never)
    assert not store.has_large(NAME)


def test_a_value_that_is_given_again_while_it_goes_gets_another_object(store: Kept) -> None:
    old = kept(store)
    store.collect_large(0.0, 10, never)
    new = uploaded(store)
    assert store.name_objects([NewObject(new, replaced=old.object)]) == [new]
    assert objects_of(store).restart_grace(new)
    emptied(store)
    emptied(store)
    assert store.object_of(NAME) == new
    assert listed(store) == {new.object}


def test_values_that_an_earlier_broker_left_are_found(opened: Callable[[], Kept]) -> None:
    kept(first := opened())
    first.close()
    later = opened()
    later.collect_large(0.0, 10, never)
    assert later.has_large(NAME)
    later.find_unnamed_large()
    later.collect_large(0.0, 10, never)
    assert not later.has_large(NAME)


def test_a_sweep_deletes_old_objects_without_a_row(store: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    row, left = kept(store), uploaded(store, b"left behind")
    objects = objects_of(store)

    def named(names: list[str]) -> set[str]:
        return {name for name in names if name == row.object}

    foreign = ["notes.txt", f"other/{NAME.hex()}/0123456789abcdef", f"ab/{NAME.hex()}"]
    for name in (*foreign, "check-0123456789abcdef"):
        objects.remote.put(name, BytesIO(b"an object"))
    assert objects.sweep(named) == 0, "they are not a day old"
    monkeypatch.setattr(large_objects, "LEFT_BEHIND", -60.0)
    assert objects.sweep(named) == 2
    assert all(objects.remote.length(name) for name in foreign), "only what has our names is deleted"
    assert listed(store) == {row.object, foreign[1]}
    assert objects.remote.length(left.object) is None
    assert store.has_large(NAME)


def test_the_broker_sweeps_by_its_rows(store: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    row = kept(store)
    uploaded(store, b"left behind")
    monkeypatch.setattr(large_objects, "LEFT_BEHIND", -60.0)
    objects_of(store)._next_sweep = 0.0
    emptied(store)
    assert listed(store) == {row.object}


def test_late_deletes_of_a_broker_that_was_replaced_lose_no_value(bucket: str, postgres_url: str) -> None:
    contents = [b"value %d" % number for number in range(100)]
    with new_schema(postgres_url) as url, ExitStack() as stack, ThreadPoolExecutor(8) as threads:

        def leading(lease: float) -> Kept:
            store = PostgresStore(url, LargeObjects(bucket), lease=lease)
            stack.callback(store.close)
            begun(store)
            return store

        def given(store: Kept, contents: Sequence[bytes]) -> list[ObjectRow]:
            rows = list(threads.map(lambda content: uploaded(store, content), contents))
            return store.name_objects([NewObject(row) for row in rows])

        zombie = leading(lease=0.3)
        first = given(zombie, contents)
        objects_of(zombie).unnamed([row.sha256 for row in first])
        # It deletes the rows of half of the values, and is replaced before it deletes an object.
        zombie.collect_large(0.0, 50, never)
        gone = objects_of(zombie).take_gone()
        zombie.transact(lambda connection: drop_objects(connection, gone))
        successor = leading(lease=60.0)
        second = given(successor, contents[40:60])
        assert sum(old.object == new.object for old, new in zip(first[40:60], second, strict=True)) == 10
        objects_of(zombie).rows_deleted(gone)
        objects_of(zombie)._empty_trash()
        zombie.collect_large(0.0, 100, never)
        with pytest.raises(Deposed):
            zombie.delete_collected(0.0)
        objects_of(zombie)._empty_trash()
        there = listed(successor)
        assert {row.object for row in (*second, *first[50:])} <= there
        assert not {row.object for row in gone} & there


# --- what cannot be used ----------------------------------------------------------------------------------


def test_a_prefix_belongs_to_one_store(store: Kept, bucket: str, tmp_path: Path) -> None:
    other = open_store(f"sqlite:///{tmp_path}/other.sqlite3", StoreOptions(bucket))
    with pytest.raises(StoreError, match="has the large values of another store"):
        begun(other)
    other.close()


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "s3://ada:s3cret@bucket/x", "gs://bucket?key=s3cret"])
def test_a_url_without_a_bucket_or_with_a_secret_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="credentials belong into the variables") as refused:
        Remote(url)
    assert f" must be {url[:2]}://BUCKET/PREFIX; " in str(refused.value)


def test_a_missing_bucket_is_refused_in_one_sentence(bucket: str) -> None:
    with pytest.raises(StoreError, match=r"NoSuchBucket.*check the bucket, and AWS_ACCESS_KEY_ID") as refused:
        LargeObjects("s3://no-such-bucket/prefix").open()
    assert "\n" not in str(refused.value)
    assert "secret-of-a-test" not in str(refused.value)


def test_wrong_credentials_are_refused_without_showing_them(gateway: Gateway, bucket: str) -> None:
    gateway.refuse_all(403)
    with pytest.raises(StoreError, match=r"refuses to keep values there \(403 Forbidden\)") as refused:
        LargeObjects(bucket).open()
    assert "-of-a-test" not in str(refused.value)


def test_a_missing_package_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama_broker.store.objects.remote.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'dagorama\[objects\]'"):
        Remote("s3://bucket/prefix")


def test_a_store_that_is_away_at_the_start_is_reported_and_awaited(
    gateway: Gateway, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.shut()
    store = open_store(f"sqlite:///{tmp_path}/broker.sqlite3", StoreOptions(bucket))
    assert isinstance(store, Kept)
    with caplog.at_level(logging.ERROR, "dagorama_broker"):
        begun(store)
    assert "nodes with large values wait until it answers" in caplog.text
    assert objects_of(store).remote.is_away
    with pytest.raises(ValuesAway, match=f"the object store of large values, {bucket}"):
        uploaded(store)
    gateway.open()
    kept(store)
    assert not objects_of(store).remote.is_away
    store.close()


def test_urls_are_signed_for_each_kind_of_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    remote = Remote("az://container/prefix")
    remote.open()
    url = remote.sign("PUT", "ab/name", 60.0)
    assert url.startswith("https://account.blob.core.windows.net/container/prefix/ab/name?")
    assert dict(remote.upload_headers)["x-ms-blob-type"] == "BlockBlob"
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account", "private_key": pem, "private_key_id": "1", "client_email": "broker@example.com",
        "client_id": "1", "token_uri": "https://oauth2.example.com/token",
    }  # fmt: skip
    (tmp_path / "key.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/key.json")
    google = Remote("gs://bucket/prefix")
    google.open()
    url = google.sign("GET", "ab/name", 600.0)
    assert url.startswith("https://storage.googleapis.com/bucket/prefix/ab/name?")
    assert "X-Goog-Expires=600" in url
