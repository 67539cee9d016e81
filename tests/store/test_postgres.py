"""The PostgreSQL store: who may commit, what becomes of commits without an answer, and what it refuses."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dagorama_broker.errors import Deposed, SettingsError, StoreError
from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import Changes, ProgressRow, RemovedRow
from dagorama_broker.store import StoreOptions, open_store
from dagorama_broker.store.checksums import row_sum
from dagorama_broker.store.postgres import database, snapshots
from dagorama_broker.store.postgres.address import parse_address
from dagorama_broker.store.postgres.connection import Session
from dagorama_broker.store.postgres.schema import LATEST_VERSION
from dagorama_broker.store.postgres.store import PostgresStore
from tests.support.broker_fixtures import server_or_skip
from tests.support.cutting_proxy import CuttingProxy, Loss
from tests.support.postgres_server import PostgresServer, new_schema
from tests.support.records import begun, completed, graph, instance_row, node, run_row

#: Seconds of a lease that is renewed in a test, and of one that runs out in it.
LONG, SHORT = 60.0, 0.3
#: Seconds of a lease that must be renewed in time although the machine is busy.
RENEWED = 3.0
_RENEWED = "SELECT extract(epoch FROM renewed) FROM leader"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that may be crashed, and that keeps what it has acknowledged."""
    with server_or_skip() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    with new_schema(server.url) as url:
        yield url


@contextmanager
def opened(url: str, values: Path, patience: float = 30.0, lease: float = LONG) -> Iterator[PostgresStore]:
    store = PostgresStore(url, values, patience, lease)
    begun(store)
    try:
        yield store
    finally:
        store.close()


def not_lost(error: StoreError) -> None:
    raise error


@contextmanager
def through_proxy(server: PostgresServer, url: str) -> Iterator[tuple[str, CuttingProxy]]:
    """Yield the URL of the server by way of a proxy, and the proxy."""
    with closing(CuttingProxy(server.port)) as proxy:
        yield url.replace(f":{server.port}", f":{proxy.port}"), proxy


def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    address = parse_address(url)
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute(f"SET search_path = {address.schema}".encode())
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def added(key: int) -> Changes:
    """A node and its block, after `graph`."""
    return Changes(blocks=[run_row(key, 1, key)], nodes=[node(key)])


# --- commits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 255, 256, 1_000])
def test_few_rows_and_many_are_read_as_they_were_written(url: str, tmp_path: Path, count: int) -> None:
    with opened(url, tmp_path) as store:
        store.commit(graph(*[node(key, *([key - 1] if key > 1 else [])) for key in range(1, count + 1)]))
        store.commit(Changes(outcomes=[completed(key) for key in range(1, count)]))
        keys = list(range(1, count + 1))
        assert store.arguments(keys) == {key: b"arguments of %d" % key for key in keys}
        assert store.values(keys[:-1]) == {key: b"value of %d" % key for key in keys[:-1]}
        assert [each.key for each in store.live().nodes] == [count]
        assert [each.state for each in store.ended(keys[:-1])] == [State.COMPLETED] * (count - 1)


@pytest.mark.parametrize("count", [2, 256, 300])
def test_rows_of_tables_without_copy_are_read_as_they_were_written(url: str, tmp_path: Path, count: int) -> None:
    failures = [None, b"", b"failure"]
    rows = [ProgressRow(key, 1, 2, 3, key + 0.5, failures[key % 3], 0.25, key, -key) for key in range(1, count + 1)]
    with opened(url, tmp_path) as store:
        store.commit(graph(*[node(row.key) for row in rows]))
        store.commit(Changes(progress=rows))
        assert sorted(store.live().progress) == rows


def test_other_threads_run_while_many_rows_are_written(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with through_proxy(server, url) as (through, _), opened(through, tmp_path) as store:  # whose threads carry the rows
        store.commit(graph(*[node(key) for key in range(1, 20_001)]))
        assert len(store.live().nodes) == 20_000


@pytest.mark.parametrize("asking", [b"BEGIN", b"COPY nodes", b"arguments of 300", b"INTO node_blocks", b"COMMIT"])
@pytest.mark.parametrize("loss", ["question", "answer"])
def test_a_commit_of_many_rows_without_an_answer_is_made_once(
    server: PostgresServer, url: str, tmp_path: Path, loss: Loss, asking: bytes
) -> None:
    with through_proxy(server, url) as (through, proxy), opened(through, tmp_path) as store:
        store.commit(graph(node(1)))
        proxy.lose(loss, asking=asking)
        store.commit(Changes(blocks=[run_row(2, 300, 2)], nodes=[node(key) for key in range(2, 302)]))
        assert proxy.lost == 1
        assert sorted(each.key for each in store.live().nodes) == list(range(1, 302))


@pytest.mark.parametrize("loss", ["question", "answer"])
def test_a_commit_without_an_answer_is_made_once(server: PostgresServer, url: str, tmp_path: Path, loss: Loss) -> None:
    with through_proxy(server, url) as (through, proxy), opened(through, tmp_path) as store:
        store.commit(graph(node(1)))
        for key in range(2, 12):
            proxy.lose(loss)
            store.commit(added(key))
        assert proxy.lost == 10
        assert sorted(each.key for each in store.live().nodes) == list(range(1, 12))


def test_a_transaction_without_an_answer_is_made_once(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with through_proxy(server, url) as (through, proxy), opened(through, tmp_path) as store:
        store.commit(graph(*[node(key) for key in range(1, 6)]))
        store.commit(Changes(removed=[RemovedRow(1, instance_row().id, 5.0, False, 1.0)]))
        more = True
        while more:
            proxy.lose("answer")
            more = store.sweep(2)
        assert sql(url, "SELECT count(*) FROM nodes") == [(0,)]
        assert sql(url, "SELECT count(*) FROM leftovers") == [(0,)]


def test_a_crash_of_the_server_loses_no_commit(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path) as store:
        store.keep(not_lost)
        store.commit(graph(node(1)))
        committed = [1]
        some = threading.Semaphore(0)

        def commit() -> None:
            for key in range(2, 400):
                store.commit(added(key))
                committed.append(key)
                some.release()

        thread = threading.Thread(target=commit)
        thread.start()
        for more in (50, 100, 100):
            assert all(some.acquire(timeout=30) for _ in range(more))
            server.stop()
            server.start()
        thread.join()
        assert committed == list(range(1, 400))
        assert sorted(each.key for each in store.live().nodes) == committed


def test_a_session_that_the_server_ends_is_opened_again(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path) as store:
        store.commit(graph(node(1)))
        store.live()
        sql(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dagorama-broker'")
        store.commit(added(2))
        assert [each.key for each in store.live().nodes] == [1, 2]
        assert store.view.node_keys(1, 0, 10) == [1, 2]


def test_the_patience_with_a_server_that_is_away_ends(tmp_path: Path) -> None:
    with server_or_skip() as server:
        store = PostgresStore(server.url, tmp_path, patience=0.3)
        begun(store)
        server.stop()
        try:
            with pytest.raises(StoreError, match=r"has not answered for 0.3 s \(DAGORAMA_STORE_PATIENCE\)"):
                store.commit(graph(node(1)))
        finally:
            server.start()
            store.close()


def test_a_server_that_hangs_does_not_keep_a_store_from_being_closed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "HANGS_AFTER", 0.2)
    with closing(Session(parse_address(url))) as locking, ThreadPoolExecutor(1) as threads:
        with opened(url, tmp_path) as store:
            locking.execute("BEGIN")
            locking.execute("LOCK TABLE nodes")
            committing = threads.submit(store.commit, graph(node(1)))
            wait_until_locked(locking)
        with pytest.raises(StoreError, match="being closed while its server does not answer"):
            committing.result(30)


def wait_until_locked(session: Session) -> None:
    """Wait until another session waits for a lock."""
    deadline = time.monotonic() + 30
    while session.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchall() == [(0,)]:
        assert time.monotonic() < deadline


def test_a_damaged_row_is_an_error(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path) as store:
        store.commit(graph(node(1)))
        sql(url, "UPDATE nodes SET arguments = 'other'")
        with pytest.raises(StoreError, match="row 1 of table nodes is damaged"):
            store.arguments([1])


# --- who leads --------------------------------------------------------------------------------------------


def test_a_broker_that_does_not_renew_its_lease_is_replaced_and_can_no_longer_commit(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path, lease=SHORT) as old:
        old.commit(graph(node(1)))
        with opened(url, tmp_path) as new:
            with pytest.raises(Deposed, match="another broker has taken the store over"):
                old.commit(added(2))
            assert not old.is_sure
            new.commit(added(3))
            assert [each.key for each in new.live().nodes] == [1, 3]


def test_a_lead_that_is_renewed_is_not_taken(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path, lease=RENEWED) as leading:
        leading.keep(not_lost)
        waiting = PostgresStore(url, tmp_path)
        waiting.open()
        found: list[object] = []

        def take() -> None:
            try:
                found.append(waiting.take())
            except StoreError as error:
                found.append(str(error))

        thread = threading.Thread(target=take)
        thread.start()
        leading.commit(graph(node(1)))
        (start,) = sql(url, _RENEWED)[0]
        while float(str(sql(url, _RENEWED)[0][0])) < float(str(start)) + RENEWED:  # for longer than a lease
            time.sleep(0.05)
        assert leading.is_sure
        assert not found
        waiting.stop_waiting()
        thread.join()
        assert found == ["the broker was stopped while it waited for its turn"]


def test_a_broker_that_leaves_gives_its_lead_up_at_once(url: str, tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        with opened(url, tmp_path, lease=3600.0) as store:
            epochs.append(int(str(sql(url, "SELECT epoch FROM leader")[0][0])))
            assert store.is_sure
    assert epochs == [1, 2, 3]


def test_the_lead_of_a_process_that_died_is_taken_before_its_lease_is_over(url: str, tmp_path: Path) -> None:
    if not (child := os.fork()):
        begun(PostgresStore(url, tmp_path, lease=3600.0))
        os._exit(0)
    os.waitpid(child, 0)
    with opened(url, tmp_path) as store:
        store.commit(graph(node(1)))


def test_a_broker_that_was_replaced_is_told(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path, lease=SHORT) as old:
        told = threading.Event()
        sql(url, "UPDATE leader SET epoch = epoch + 1")
        old.keep(lambda error: told.set() if isinstance(error, Deposed) else None)
        assert told.wait(30)


def test_an_epoch_of_another_timeline_is_far_from_the_lost_ones(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path):
        pass
    sql(url, "UPDATE leader SET timeline = '000000FF'")
    with opened(url, tmp_path):
        assert sql(url, "SELECT epoch FROM leader") == [(1_001,)]


def test_numbers_of_commits_are_not_kept_for_long(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path, lease=SHORT) as store:
        store.commit(graph(*[node(key) for key in range(1, 3)]))
        for key in range(3, 60):
            store.commit(added(key))
        store.keep(not_lost)
        deadline = time.monotonic() + 30
        while int(str(sql(url, "SELECT count(*) FROM commits")[0][0])) > 10:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_session_that_keeps_an_old_snapshot_is_named(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(snapshots, "OLD", 0.0)
    warned = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "has kept a snapshot" in record.getMessage():
                warned.set()

    with opened(url, tmp_path, lease=SHORT) as store, closing(Session(parse_address(url))) as forgotten:
        forgotten.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        forgotten.execute("SELECT count(*) FROM nodes")
        (pid,) = forgotten.execute("SELECT pg_backend_pid()").fetchall()[0]
        log = logging.getLogger("dagorama_broker")
        log.addHandler(heard := Heard())
        store.keep(not_lost)
        assert warned.wait(30)
        log.removeHandler(heard)
    (message,) = [each for each in caplog.messages if "has kept a snapshot" in each]
    assert f"process {pid} of the server (user " in message
    assert "until its transaction ends, deleted rows are not removed" in message


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("schema=Upper", "must be a name of lower-case letters"),
        ("schema=pg_own", "does not begin with a digit or with pg_"),
        ("schema=a;DROP", "must be a name of lower-case letters"),
        ("unsafe=yes", "unsafe='yes' must be 0 or 1"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        open_store(f"postgresql://ada:s3cret@127.0.0.1/postgres?{change}", StoreOptions(f"file://{tmp_path}"))
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("secret", ["s3c@ret", "s3c/ret", "/s3cret", "s3c%ret", "s3c%00ret"])
def test_a_password_that_libpq_would_misread_is_refused_and_not_shown(tmp_path: Path, secret: str) -> None:
    url = f"postgresql://ada:{secret}@127.0.0.1:1/jobs"
    with pytest.raises(SettingsError, match="in a user and a password, write @ as %40") as refused:
        open_store(url, StoreOptions(f"file://{tmp_path}"))
    assert "store postgresql://ada@127.0.0.1:1/jobs:" in str(refused.value)


@pytest.mark.parametrize("secret", ["s3c#ret", "s3c?ret", "s3c[ret", "s3c:ret", "s3c%2Fret"])
def test_a_password_is_what_libpq_takes_for_one(secret: str) -> None:
    address = parse_address(f"postgresql://ada:{secret}@127.0.0.1:1/jobs?schema=own")
    assert conninfo_to_dict(address.conninfo)["password"] == secret.replace("%2F", "/")
    assert address.shown == "postgresql://ada@127.0.0.1:1/jobs?schema=own"


def test_a_url_that_is_none_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^postgresql://\[::1/jobs: .*IPv6"):
        PostgresStore("postgresql://[::1/jobs", tmp_path).open()


def test_a_url_without_a_host_names_the_folder_of_a_socket(server: PostgresServer, url: str, tmp_path: Path) -> None:
    query = url.partition("?")[2]
    local = f"postgresql:///postgres?user=dagorama&host={server.folder}&port={server.port}&{query}"
    with opened(local, tmp_path) as store:
        store.commit(graph(node(1)))
    with opened(url, tmp_path) as store:
        assert [each.key for each in store.live().nodes] == [1]


def test_text_is_kept_whatever_encoding_the_url_names(url: str, tmp_path: Path) -> None:
    changes = graph(node(1))
    changes.instances = [changes.instances[0]._replace(definition="work:\N{CJK UNIFIED IDEOGRAPH-6570}")]
    with opened(f"{url}&client_encoding=LATIN1", tmp_path) as store:
        store.commit(changes)
        assert [each.definition for each in store.live().instances] == [changes.instances[0].definition]
    with opened(url, tmp_path) as store:
        assert [each.definition for each in store.live().instances] == [changes.instances[0].definition]


def test_a_database_whose_encoding_lacks_most_text_is_refused(server: PostgresServer, url: str, tmp_path: Path) -> None:
    sql(url, "CREATE DATABASE latin ENCODING LATIN1 TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(StoreError, match="the encoding of the database is LATIN1"):
        PostgresStore(server.url.replace("/postgres", "/latin"), tmp_path).open()


def test_parameters_of_libpq_reach_it_as_they_are() -> None:
    given = "options=-c%20work_mem%3D8MB&application_name=a+b&schema=jobs&sslcert=%2Fetc%2Fa%2520b"
    found = conninfo_to_dict(parse_address(f"postgresql://ada@127.0.0.1/postgres?{given}").conninfo)
    assert found["options"] == "-c work_mem=8MB"
    assert (found["application_name"], found["sslcert"]) == ("a+b", "/etc/a%20b")
    assert "schema" not in found


@pytest.mark.parametrize("values", ["", "relative", "file://relative", "ftp://bucket"])
def test_a_store_without_a_folder_for_large_values_is_refused(values: str) -> None:
    with pytest.raises(SettingsError, match="file:///absolute/path"):
        open_store("postgresql://127.0.0.1/postgres", StoreOptions(values))


@pytest.mark.parametrize("where", ["user", "query"])
def test_a_password_is_never_shown(server: PostgresServer, tmp_path: Path, where: str) -> None:
    parts = urlsplit(server.url)
    url = f"postgresql://ada:s3cret@127.0.0.1:{parts.port}/nowhere"
    if where == "query":
        url = f"postgresql://127.0.0.1:{parts.port}/nowhere?user=ada&password=s3cret"
    store = PostgresStore(url, tmp_path)
    assert "s3cret" not in repr(store)
    with pytest.raises(StoreError) as refused:
        store.open()
    assert "s3cret" not in str(refused.value)
    assert "nowhere" in str(refused.value)


def test_a_server_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"postgresql://127\.0\.0\.1:1/postgres: .*refused"):
        PostgresStore("postgresql://127.0.0.1:1/postgres", tmp_path, patience=3600.0).open()


def test_a_server_that_may_lose_commits_is_refused_unless_the_url_allows_it(postgres_url: str, tmp_path: Path) -> None:
    safe = postgres_url.replace("unsafe=1", "")
    with pytest.raises(StoreError, match=r"fsync=off, so it may lose commits .* add unsafe=1 to the URL"):
        PostgresStore(safe, tmp_path).open()


def test_tables_of_a_newer_version_are_refused_and_left_alone(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path) as store:
        store.commit(graph(node(1)))
    sql(url, "DELETE FROM meta WHERE name = 'version'")
    newer = LATEST_VERSION + 1
    sql(url, f"INSERT INTO meta VALUES ('version', {newer}, {row_sum(('version', newer))})")
    with pytest.raises(StoreError, match=f"written by a newer dagorama \\(its version is {newer}"):
        PostgresStore(url, tmp_path).open()
    assert sql(url, "SELECT count(*) FROM nodes") == [(1,)]


def test_a_user_who_may_make_no_schema_is_told_what_to_grant(server: PostgresServer, url: str, tmp_path: Path) -> None:
    sql(url, "CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(StoreError, match="grant it the right to create a schema"):
            PostgresStore(url.replace("dagorama@", "guest@"), tmp_path).open()
    finally:
        sql(url, "DROP ROLE guest")


def test_a_schema_that_an_owner_has_made_is_enough(server: PostgresServer, url: str, tmp_path: Path) -> None:
    sql(url, "CREATE ROLE guest LOGIN")
    sql(url, "CREATE SCHEMA made_for_guest AUTHORIZATION guest")
    own = f"{server.url.replace('dagorama@', 'guest@')}?schema=made_for_guest"
    try:
        with opened(own, tmp_path) as store:
            store.commit(graph(node(1)))
            assert [each.key for each in store.live().nodes] == [1]
    finally:
        sql(url, "DROP OWNED BY guest CASCADE")
        sql(url, "DROP ROLE guest")


def test_a_missing_row_of_the_leader_is_an_error_of_one_sentence(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path):
        pass
    sql(url, "DELETE FROM leader")
    store = PostgresStore(url, tmp_path)
    store.open()
    with closing(store), pytest.raises(StoreError, match=r"^postgresql://.*: the row of table leader is missing"):
        store.take()


def test_a_read_only_server_is_refused(server: PostgresServer, url: str, tmp_path: Path) -> None:
    sql(url, "CREATE ROLE reader LOGIN")
    sql(url, "ALTER ROLE reader SET default_transaction_read_only = on")
    try:
        with pytest.raises(StoreError, match="read-only"):
            PostgresStore(url.replace("dagorama@", "reader@"), tmp_path).open()
    finally:
        sql(url, "DROP ROLE reader")


def test_brokers_of_one_database_may_have_schemas_of_their_own(server: PostgresServer, tmp_path: Path) -> None:
    with (
        new_schema(server.url) as one,
        new_schema(server.url) as other,
        opened(one, tmp_path / "one") as first,
        opened(other, tmp_path / "other") as second,
    ):
        first.commit(graph(node(1)))
        assert not second.live().nodes
