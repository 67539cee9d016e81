"""What only the SQLite store has to do: outlive kills and faults, keep others out, never answer from a damaged row."""

import errno
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import copyfile, rmtree
from typing import cast

import pytest

from dagorama_broker.errors import StoreError
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.model.domain import State
from dagorama_broker.model.queries import InstanceQuery
from dagorama_broker.model.rows import (
    Changes,
    FunctionRow,
    InstanceEnd,
    LargeRow,
    LinkRow,
    NodeRow,
    ProgressRow,
    RebindingRow,
    ReboundRow,
    RemovedRow,
    ResolvedRow,
    WorkerNameRow,
)
from dagorama_broker.model.signals import NO_MAIL
from dagorama_broker.store.checksums import row_sum
from dagorama_broker.store.sql import restore as restore_module
from dagorama_broker.store.sql.restore import NODES_QUERY, OUTCOMES_QUERY, PROGRESS_QUERY
from dagorama_broker.store.sqlite import connection as connection_module
from dagorama_broker.store.sqlite.backup import back_up, restore
from dagorama_broker.store.sqlite.connection import connect, translate_sqlite_errors
from dagorama_broker.store.sqlite.schema import APPLICATION_ID, FIRST_SCHEMA, FIRST_VERSION, LATEST_VERSION
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.records import (
    RICH,
    begun,
    completed,
    failed,
    graph,
    instance_row,
    node,
    node_id,
    opened,
)

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sqlite3"


def fill(path: Path) -> None:
    """One instance with a row in every table; node 5 waits for nodes 1 and 3, node 4 is RESOLVING."""
    with opened(path) as store:
        store.commit(graph(node(1), node(2), node(3), node(4), node(5, 1, 3), node(6)))
        changes = Changes(functions=[FunctionRow(2, RICH)], outcomes=[completed(1, 3), completed(3), failed(2)])
        changes.outcomes += [completed(4, 5, state=State.RESOLVING), completed(6, 3, state=State.RESOLVING)]
        changes.resolved = [ResolvedRow(6, int(State.COMPLETED), 0, 1700000003.5)]
        changes.progress = [ProgressRow(5, 1, 2, 3, 1700000009.5, b"why", 9.5, 7, 6)]
        changes.instance_ends = [InstanceEnd(1, None, True)]
        changes.large = [LargeRow(1, bytes(32))]
        changes.rebindings = [RebindingRow(1, b"signed")]
        changes.rebound = [ReboundRow(5, 2, 1)]
        changes.workers_joined = [(b"worker-id", "host:1")]
        changes.worker_names = [WorkerNameRow(1, "node:7")]
        changes.actions = [ActionRow(ActionKind.PAUSE, "ada", target="q", time=1700000000.5)]
        store.commit(changes)


def read_all(path: Path) -> list[object]:
    """All that a store can be asked, epochs apart."""
    with opened(path) as store:
        every = range(1, 7)
        return [
            store.live(),
            store.arguments(every),
            store.values([1, 3, 4, 6]),
            store.find([node_id(counter) for counter in range(7)]),
            store.ended(every),
            store.ids(every),
            [store.outcome(key) for key in every],
            store.last_block(node_id(0)[:12], 1),
            store.instance(instance_row().id),
            store.has_instance(instance_row().id),
            store.view.list_instances(InstanceQuery(9, 9)),
            store.view.list_instances(InstanceQuery(9, 9, unfinished=True, failed=True)),
            store.view.node_keys(1, 0, 9),
            store.view.size_of(1),
            store.described(every),
            store.failed_ends(1),
            store.failed([2]),
            store.view.worker_names([1]),
            store.view.list_actions(9, 9),
        ]


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


# --- the file ---------------------------------------------------------------------------------------------


def test_a_commit_is_synced_before_it_is_acknowledged(path: Path) -> None:
    with opened(path), closing(connect(path, 0.0)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_statement_takes_many_rows(path: Path) -> None:
    """Each statement waits for its turn next to the broker's loop: rows cost less than statements."""
    keys = range(1, 1001)
    statements: list[str] = []
    with opened(path) as store:
        writer = store._database._writer
        assert writer is not None
        writer.set_trace_callback(statements.append)
        store.commit(graph(*map(node, keys)))
        store.commit(Changes(outcomes=[completed(key) for key in keys], instance_ends=[InstanceEnd(1, 1.0, False)]))
    assert len(statements) < 60


def test_the_file_and_a_new_folder_are_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "dagorama" / "broker.sqlite3"
    with opened(path) as store:
        store.commit(graph(node(1)))
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert set(modes) == {path.name + suffix for suffix in ("", "-wal", "-shm", ".lock", ".state")}
    assert set(modes.values()) == {0o600}


def test_the_file_says_whose_it_is_and_which_version(path: Path) -> None:
    with opened(path), closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (LATEST_VERSION,)


def test_a_store_of_the_first_version_is_migrated_at_the_start_and_keeps_its_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(connection_module, "MIGRATIONS", (FIRST_SCHEMA,))
        older.setattr(connection_module, "LATEST_VERSION", FIRST_VERSION)
        # It has no such tables.
        older.setattr(restore_module, "DELAYS_QUERY", "SELECT 1 WHERE FALSE")
        older.setattr(restore_module, "read_live_mail", lambda connection: (NO_MAIL, 1))
        older.setattr(restore_module, "read_schedules", lambda connection: [])
        older.setattr(restore_module, "read_cached", lambda connection: [])
        older.setattr(restore_module, "read_unfinished_hooks", lambda connection: {})
        older.setattr(restore_module, "live_turns", lambda connection: {})
        older.setattr(restore_module, "read_key_pauses", lambda connection: [])
        with opened(path) as store:
            store.commit(graph(node(1), node(2, 1)))
            before = store.live()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (FIRST_VERSION,)
    for number in (1, 2):
        with opened(path) as store:
            assert store.live() == before
            store.commit(Changes(actions=[ActionRow(ActionKind.CANCEL, "", instance_row().id, nodes=number)]))
            listed = store.view.list_actions(9, 9).actions
            assert [each.row.nodes for each in listed] == list(range(number, 0, -1))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (LATEST_VERSION,)


@pytest.mark.parametrize("version", range(1, FIRST_VERSION))
def test_a_store_from_before_the_first_release_is_refused_and_left_as_it_is(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("CREATE TABLE runs (first_key INTEGER PRIMARY KEY); INSERT INTO runs VALUES (1)")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"written by dagorama before its release 0\.2\.0 .*: choose another store"):
        begun(SqliteStore(path))
    assert path.read_bytes() == before


def test_a_store_keeps_its_secret(path: Path) -> None:
    with opened(path) as store:
        assert len(secret := store.secret) == 32
    with opened(path) as store:
        assert store.secret == secret


def test_a_secret_that_is_damaged_is_an_error(path: Path) -> None:
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE secrets SET value = zeroblob(32)")
    with pytest.raises(StoreError, match="table secrets is damaged"), opened(path):
        pass


def test_an_option_that_this_version_does_not_know_is_named_at_the_start(path: Path) -> None:
    with opened(path) as store:
        store.commit(graph(node(1)))
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = (
            "id, name, hash, queue, taint, max_attempts, retry_interval, retry_base, retry_max_interval, retry_jitter,"
            " is_async, protocol"
        )
        row = (*connection.execute(f"SELECT {columns} FROM functions").fetchone(), '{"eager": true}')
        connection.execute("UPDATE functions SET options = ?, chk = ? WHERE id = ?", (row[-1], row_sum(row), row[0]))
    with opened(path) as store, pytest.raises(StoreError, match="option 'eager', which this version does not know"):
        store.live()


def test_a_closed_store_refuses_calls(path: Path) -> None:
    with opened(path) as store:
        pass
    with pytest.raises(StoreError, match="is closed"):
        store.live()


# --- kills -------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.records import completed, graph, node
store = SqliteStore(Path(sys.argv[1]))
store.open()
print("epoch", store.take(), flush=True)
for key in range(1, 100_000):
    store.commit(graph(node(key, instance=key), instance=key, origin=key.to_bytes(12, "big")))
    print(key, flush=True)
"""


@contextmanager
def another_broker(path: Path, program: str = WRITER) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store and commits node after node; it is killed at the block's end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("commits", [1, 7, 150])
def test_what_was_acknowledged_outlives_a_kill(path: Path, commits: int) -> None:
    with another_broker(path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(commits + 1)]
    acknowledged = int(lines[-1])
    with opened(path) as store:
        nodes = [found.key for found in store.live().nodes]
        assert nodes == list(range(1, len(nodes) + 1))
        assert len(nodes) >= acknowledged
        assert store.arguments([acknowledged]) == {acknowledged: b"arguments of %d" % acknowledged}


def test_a_second_broker_is_refused_with_the_pid_of_the_first(path: Path) -> None:
    with another_broker(path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "epoch 1\n"
        with pytest.raises(StoreError, match=rf"in use by another broker \(pid {process.pid}\)"):
            begun(SqliteStore(path))


def test_a_store_that_another_broker_has_can_be_opened_and_not_taken(path: Path) -> None:
    with another_broker(path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        waiting = SqliteStore(path)
        waiting.open()
        with pytest.raises(StoreError, match="in use by another broker"):
            waiting.take()
    assert waiting.take() == 2
    waiting.close()


def test_the_lock_goes_with_the_process_that_held_it(path: Path) -> None:
    with another_broker(path) as process:
        assert process.stdout is not None
        process.stdout.readline()
    store = SqliteStore(path)
    assert begun(store) == 2
    store.close()


def test_a_refused_broker_does_not_disturb_the_one_that_has_the_store(path: Path) -> None:
    with opened(path) as store:
        for _ in range(2):
            with pytest.raises(StoreError, match=f"pid {os.getpid()}"):
                begun(SqliteStore(path))
        store.commit(graph(node(1)))


# --- files that cannot be used --------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    fill(path)
    sql(path, f"PRAGMA user_version = {LATEST_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="written by a newer dagorama"):
        begun(SqliteStore(path))
    assert path.read_bytes() == before


def test_another_programs_file_is_refused_and_left_as_it_is(path: Path) -> None:
    sql(path, "CREATE TABLE contacts (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a dagorama store"):
        begun(SqliteStore(path))
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("dear diary, " * 1000)
    with pytest.raises(StoreError, match="not a dagorama store"):
        begun(SqliteStore(path))
    assert path.read_text().startswith("dear diary")


def test_a_refused_file_is_not_kept_locked(path: Path) -> None:
    path.write_text("dear diary, " * 1000)
    for _ in range(2):
        with pytest.raises(StoreError, match="not a dagorama store"):
            begun(SqliteStore(path))


def test_a_file_that_another_program_keeps_locked_is_an_error_that_says_so(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another program"):
            begun(SqliteStore(path, busy=0.0))
        other.execute("ROLLBACK")
        with opened(path) as store:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked by another program"):
                store.commit(Changes(workers_left=[b"worker-id"]))
            assert [found.key for found in store.live().nodes] == [4, 5]


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """Yield a folder as a user that cannot write to it if it is read-only, which root could."""
    folder = Path(tempfile.mkdtemp(prefix="dagorama-test-"))
    user = os.geteuid()
    try:
        if user == 0:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
        rmtree(folder)


def test_a_folder_that_may_not_be_written_is_an_error_that_says_so(unprivileged_folder: Path) -> None:
    unprivileged_folder.chmod(0o500)
    with pytest.raises(StoreError, match=r"broker\.sqlite3: Permission denied"):
        begun(SqliteStore(unprivileged_folder / "broker.sqlite3"))
    with pytest.raises(StoreError, match=r"broker\.sqlite3: Permission denied"):
        begun(SqliteStore(unprivileged_folder / "new" / "broker.sqlite3"))


# --- one broker to a store, whatever it is called ---------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as error, opened(path):
        pass
    return str(error.value)


def test_a_store_is_taken_under_each_of_its_names(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = path.parent / "folder", path.parent / "other"
    folder.mkdir()
    (path.parent / "linked").symlink_to(folder)
    (path.parent / "link.sqlite3").symlink_to(folder / "real.sqlite3")
    (path.parent / "link-to-link").symlink_to("link.sqlite3")
    monkeypatch.chdir(folder)
    names = [Path("real.sqlite3"), Path("../folder/real.sqlite3"), path.parent / "linked" / "real.sqlite3",
             path.parent / "link.sqlite3", path.parent / "link-to-link"]  # fmt: skip
    for first in names:
        with opened(first):
            for second in names:
                assert f"{folder}/real.sqlite3 is in use by another broker (pid {os.getpid()})" in refused(second)
    with opened(folder / "real.sqlite3"), opened(other):
        assert {file.name for file in path.parent.iterdir()} >= {"link.sqlite3", "link-to-link", "other"}
    assert not list(path.parent.glob("link*.*-*")), "nothing lies beside a link"


def test_a_hard_link_to_a_store_in_use_is_refused(path: Path) -> None:
    link = path.with_name("link.sqlite3")
    with opened(path):
        os.link(path, link)
        assert "is one of 2 names (hard links)" in refused(link)
        path.with_name("link.sqlite3.lock").touch()
        assert "in use by another broker (which uses another name of the file)" in refused(link)
    with opened(path):
        pass


def test_a_hard_link_is_refused_where_what_lies_beside_the_other_name_would_be_missing(path: Path) -> None:
    fill(path)
    link = path.with_name("link.sqlite3")
    os.link(path, link)
    assert "use the other name, or a copy" in refused(link)
    with opened(path):
        pass
    path.unlink()
    with opened(link):
        pass


def test_what_sqlite_closes_takes_no_lock_away(path: Path) -> None:
    link = path.with_name("link.sqlite3")
    with opened(path) as store:
        os.link(path, link)
        path.with_name("link.sqlite3.lock").touch()
        connect(path, 0.0).close()
        os.close(os.open(path, os.O_RDWR))
        assert "in use" in refused(link)
        assert store.commit(Changes()) is None


def test_a_read_only_file_is_an_error_that_says_so(unprivileged_folder: Path) -> None:
    path = unprivileged_folder / "broker.sqlite3"
    fill(path)
    path.chmod(0o400)
    with pytest.raises(StoreError, match=r"broker\.sqlite3: Permission denied"):
        begun(SqliteStore(path))
    path.chmod(0o600)
    Path(f"{path}.lock").chmod(0o400)
    asks = rf"Permission denied: give this user write permission .* \({path}\.lock\)"
    with pytest.raises(StoreError, match=asks):
        begun(SqliteStore(path))


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a full disk: the system refuses to write past this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_fails_the_commit_and_keeps_what_is_there(path: Path) -> None:
    fill(path)
    before = read_all(path)
    with opened(path) as store:
        many = Changes(nodes=[node(key)._replace(arguments=bytes(4000)) for key in range(100, 400)])
        with no_file_above(200_000), pytest.raises(StoreError, match="the disk reported an error"):
            store.commit(many)
    assert read_all(path) == before


def test_a_copy_that_a_disk_does_not_take_is_told_of_the_copy_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    fill(path)
    target = tmp_path / "copies" / "copy"
    with no_file_above(100_000):
        with pytest.raises(StoreError, match=rf"^{target}: the disk"):
            back_up(path, None, target)
        with pytest.raises(StoreError, match=rf"^{target}: the disk"):
            restore(path, target, None)
    assert not os.listdir(target.parent)


def test_files_of_a_killed_command_with_the_same_process_id_are_not_in_the_way(path: Path, tmp_path: Path) -> None:
    fill(path)
    target = tmp_path / "copy"
    leftover = Path(f"{target}.unfinished-{os.getpid()}")
    leftover.write_text("half of a copy")
    back_up(path, None, target)
    assert read_all(target) == read_all(path)
    assert leftover.read_text() == "half of a copy"


def test_a_copy_in_a_read_only_folder_becomes_a_store_and_gets_no_files_beside_it(unprivileged_folder: Path) -> None:
    copy, restored = unprivileged_folder / "copies" / "copy", unprivileged_folder / "restored"
    fill(unprivileged_folder / "served")
    back_up(unprivileged_folder / "served", None, copy)
    restore(copy, restored, Path(f"{restored}.values"))
    assert os.listdir(copy.parent) == [copy.name]
    copy.parent.chmod(0o500)
    try:
        restore(copy, unprivileged_folder / "again", None)
    finally:
        copy.parent.chmod(0o700)
    assert read_all(unprivileged_folder / "again") == read_all(unprivileged_folder / "served")


def test_a_copy_with_a_log_has_what_the_log_holds(path: Path, tmp_path: Path) -> None:
    with opened(path):
        (tmp_path / "crashed").mkdir()
        for name in ("", "-wal"):
            copyfile(f"{path}{name}", tmp_path / "crashed" / f"copy{name}")
    assert restore(tmp_path / "crashed" / "copy", tmp_path / "restored", None).path == tmp_path / "restored"


def test_what_is_wrong_with_a_copy_is_told_of_the_copy_alone(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=rf"^{path}: it is damaged or not a dagorama store") as error:
        restore(path, tmp_path / "restored", Path(f"{tmp_path}/restored.values"))
    assert "restored" not in str(error.value)
    with pytest.raises(StoreError, match=rf"^{path}: it is damaged or not a dagorama store"):
        back_up(path, Path(f"{path}.values"), tmp_path / "target")


def test_a_full_disk_is_an_error_that_says_so(path: Path) -> None:
    fill(path)
    with closing(connect(path, 0.0)) as connection:
        connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="the disk is full"), translate_sqlite_errors(path):
            connection.execute("INSERT INTO workers VALUES (?, 'w', 0)", (bytes(100_000),))


def test_a_full_disk_is_told_as_one_whatever_the_system_refuses(path: Path) -> None:
    refusal = OSError(errno.ENOSPC, "No space left on device", f"{path}.lock")
    with pytest.raises(StoreError) as error, translate_sqlite_errors(path):
        raise refusal
    assert f"{error.value}" == f"{path}: the disk is full: free some space ({path}.lock)"


@pytest.mark.parametrize("end", [".lock", ".state"])
def test_the_file_beside_a_store_that_cannot_be_used_is_named(path: Path, end: str) -> None:
    Path(f"{path}{end}").mkdir()
    assert refused(path) == f"{path}: Is a directory ({path}{end})"


def test_a_store_that_is_no_regular_file_is_refused_and_nothing_is_made_beside_it(path: Path) -> None:
    os.mkfifo(path)
    assert refused(path) == f"{path} is not a regular file: a store is a file"
    assert os.listdir(path.parent) == [path.name]


# --- damage ---------------------------------------------------------------------------------------------------

COLUMNS = {
    "functions": ["name", "hash", "queue", "taint", "max_attempts", "retry_interval", "is_async", "options", "chk"],
    "instances": ["id", "definition", "entry", "created", "failed", "chk", "end_chk"],
    "node_blocks": ["first_key", "origin", "first", "size", "instance", "digest", "creator", "created", "chk"],
    "nodes": ["key", "instance", "function", "sources", "arguments", "chk"],
    "outcomes": ["key", "state", "attempt", "root_cause", "ended", "microseconds", "worker", "refs", "value", "chk"],
    "resolved": ["state", "root_cause", "ended", "chk"],
    "progress": [
        "failed_attempts",
        "crashes",
        "worker_losses",
        "retry_at",
        "failure",
        "pause",
        "attempt",
        "lost_attempt",
        "chk",
    ],
    "rebound_nodes": ["function", "rebinding", "chk"],
    "rebindings": ["id", "signed", "chk"],
    "workers": ["id", "name", "chk"],
    "worker_names": ["name", "chk"],
    "actions": ["number", "time", "by", "action", "instance", "target", "nodes", "chk"],
    "meta": ["value", "chk"],
    "secrets": ["name", "value", "chk"],
}


def changed(value: object) -> object:
    if isinstance(value, bytes):
        return value + bytes(8) if value[:0] == value else bytes([value[0] ^ 1]) + value[1:]
    return value + "x" if isinstance(value, str) else value + 1 if isinstance(value, (int, float)) else 1


@pytest.mark.parametrize(("table", "column"), [(table, column) for table, names in COLUMNS.items() for column in names])
def test_a_changed_column_is_an_error_that_names_the_table_never_an_answer(path: Path, table: str, column: str) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    for place in range(rows):
        fresh = path.with_name(f"{place}.sqlite3")
        fresh.write_bytes(path.read_bytes())
        with closing(sqlite3.connect(fresh)) as connection, connection:
            key = connection.execute(f"PRAGMA table_info({table})").fetchone()[1]
            select = f"SELECT {key}, {column} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {place}"
            row_key, value = connection.execute(select).fetchone()
            connection.execute(f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {key} = ?", (changed(value), row_key))
        with pytest.raises(StoreError, match=rf"{fresh.name}: .*(table {table}|has no|are there|is damaged)"):
            read_all(fresh)


def flip(path: Path, find: bytes) -> None:
    content = path.read_bytes()
    assert content.count(find) == 1
    path.write_bytes(content.replace(find, find[:-1] + bytes([find[-1] ^ 0x10])))


@pytest.mark.parametrize(
    ("find", "row"),
    [(b"arguments of 3", "row 3 of table nodes"), (b"value of 4", "row 4 of table outcomes"),
     (b"failure of 2", "row 2 of table outcomes"), (b"host:1", f"row {b'worker-id'.hex()} of table workers")],
)  # fmt: skip
def test_a_byte_that_went_wrong_on_the_disk_is_an_error_that_names_the_row(path: Path, find: bytes, row: str) -> None:
    fill(path)
    flip(path, find)
    with pytest.raises(StoreError, match=f"{row} is damaged"):
        read_all(path)


def test_a_changed_definition_of_a_table_is_an_error_that_names_it(path: Path) -> None:
    """Found by a changed byte: with `PRIMARj KEY` the table reads as one without rows that have a key."""
    fill(path)
    content = path.read_bytes()
    start = content.index(b"CREATE TABLE outcomes")
    place = content.index(b"PRIMARY", start)
    path.write_bytes(content[: place + 6] + b"j" + content[place + 7 :])
    with pytest.raises(StoreError, match="damaged, in the definition of outcomes"), opened(path):
        pass


def test_a_damaged_row_does_not_keep_others_from_being_read(path: Path) -> None:
    fill(path)
    flip(path, b"arguments of 3")
    with opened(path) as store:
        assert [found.key for found in store.live().nodes] == [4, 5]
        assert store.arguments([1, 2]) == {1: b"arguments of 1", 2: b"arguments of 2"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE outcomes SET key = 77 WHERE key = 2", "row 77 of table outcomes is damaged"),
        ("UPDATE outcomes SET key = 3 WHERE key = 2", "row 3 of table outcomes is damaged"),
        ("UPDATE resolved SET key = 77", "row 77 of table resolved is damaged"),
        ("UPDATE meta SET name = 'epoci' WHERE name = 'epoch'", "row epoci of table meta is damaged"),
        ("UPDATE meta SET value = 9 WHERE name = 'epoch'", "row epoch of table meta is damaged"),
    ],
    ids=["to nobody", "to another node", "a resolved node's", "the epoch's", "another epoch"],
)
def test_a_row_that_damage_has_put_elsewhere_is_found_at_the_start(path: Path, damage: str, said: str) -> None:
    """Nobody would look for it there: a node that has ended would run again, an epoch be used twice."""
    with opened(path) as store:
        store.commit(graph(*map(node, range(1, 5))))
        store.commit(Changes(outcomes=[completed(1, 2, state=State.RESOLVING), completed(2)]))
        store.commit(Changes(resolved=[ResolvedRow(1, State.COMPLETED, 0, 1700000001.0)]))
    sql(path, damage)
    with pytest.raises(StoreError, match=said), opened(path):
        pass


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_an_error_or_the_same_answer(path: Path) -> None:
    fill(path)
    expected, content, seeded = read_all(path), path.read_bytes(), random.Random(7)
    refused = []
    for number in range(200):
        place, bit = seeded.randrange(len(content)), seeded.randrange(8)
        flipped = path.with_name(f"{number}.sqlite3")
        flipped.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        try:
            assert read_all(flipped) == expected, f"bit {bit} of byte {place}"
        except StoreError as error:
            refused.append((flipped.name, str(error)))
    assert refused
    assert all(name in sentence for name, sentence in refused)


def test_a_node_without_an_outcome_in_an_instance_that_has_ended_is_an_error(path: Path) -> None:
    with opened(path) as store:
        store.commit(graph(node(1), node(2)))
        store.commit(Changes(outcomes=[completed(1), completed(2)], instance_ends=[InstanceEnd(1, 1.0, False)]))
    sql(path, "DELETE FROM outcomes WHERE key = 2")
    with opened(path) as store:
        assert store.find([node_id(0)])
        with pytest.raises(StoreError, match="instance 1 has ended and one of its nodes has no outcome"):
            store.find([node_id(0), node_id(1)])


def test_a_node_that_is_gone_from_an_unfinished_instance_is_an_error(path: Path) -> None:
    fill(path)
    sql(path, "DELETE FROM nodes WHERE key = 5")
    with opened(path) as store, pytest.raises(StoreError, match="6 nodes and 5 are there"):
        store.live()


# --- starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [NODES_QUERY, OUTCOMES_QUERY, PROGRESS_QUERY], ids=["nodes", "outcomes", "progress"])
def test_a_start_looks_at_nothing_that_ended_with_its_instance(path: Path, query: str) -> None:
    with opened(path), closing(sqlite3.connect(path)) as connection:
        plan = [step[3] for step in connection.execute("EXPLAIN QUERY PLAN " + query)]
    assert [step for step in plan if step.startswith("SCAN")] == ["SCAN i USING INDEX unfinished_instances"]


def test_what_is_asked_while_a_commit_runs_does_not_wait_for_it(path: Path) -> None:
    fill(path)
    with opened(path) as store:
        seen: list[object] = []

        def rows() -> Iterator[NodeRow]:
            """Read inside of the transaction that writes them."""
            yield node(7)
            seen.append(store.values([3]))
            seen.append(store.has_instance(instance_row().id))
            yield node(8)

        store.commit(Changes(nodes=cast("list[NodeRow]", rows())))
        assert seen == [{3: b"value of 3"}, True]


def test_a_first_schema_is_made_once_and_kept(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    read_all(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall() == before


# --- removal --------------------------------------------------------------------------------------------------


def remove_and_sweep(store: SqliteStore, key: int) -> None:
    store.commit(Changes(removed=[RemovedRow(key, instance_row(key).id, 1.0, False, 60.0)]))
    while store.sweep(1000):
        pass


def instance_that_ended(key: int, size: int) -> Changes:
    first = (key - 1) * size + 1
    nodes = [node(number, instance=key)._replace(arguments=bytes(500)) for number in range(first, first + size)]
    changes = graph(*nodes, instance=key, origin=key.to_bytes(12, "big"))
    changes.outcomes = [completed(each.key) for each in nodes]
    changes.instance_ends = [InstanceEnd(key, 1.0, False)]
    return changes


def test_the_search_for_removable_rows_uses_only_an_index(path: Path) -> None:
    with opened(path) as store:
        statements: list[str] = []
        assert store._database._looker is not None
        store._database._looker.set_trace_callback(statements.append)
        store.expired(False, 1.0, 10)
        store._database._looker.set_trace_callback(None)
        (select,) = statements
        plan = [step[3] for step in store._database._looker.execute("EXPLAIN QUERY PLAN " + select)]
    assert plan[0] == "SEARCH instances USING INDEX ended_instances (failed=? AND ended<?)"
    assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step]


def test_what_becomes_free_in_the_file_is_used_again(path: Path) -> None:
    sizes = []
    with opened(path) as store:
        for key in range(1, 21):
            store.commit(instance_that_ended(key, 500))
            if key > 1:
                remove_and_sweep(store, key - 1)
            assert store._database._writer is not None
            sizes.append(store._database._writer.execute("PRAGMA page_count").fetchone()[0])
    assert sizes[-1] < 1.1 * sizes[3]


def statements_of_a_removal(path: Path, instances: int) -> list[str]:
    """What SQLite is asked to do for every second of so many instances that ended."""
    statements: list[str] = []
    with opened(path) as store:
        for key in range(1, 2 * instances + 1):
            store.commit(instance_that_ended(key, 2))
        gone = range(1, 2 * instances, 2)
        assert store._database._writer is not None
        store._database._writer.set_trace_callback(statements.append)
        store.commit(Changes(removed=[RemovedRow(key, instance_row(key).id, 1.0, False, 60.0) for key in gone]))
        assert not store.sweep(1000)
        store._database._writer.set_trace_callback(None)
        plans = [step[3] for each in statements if " IN (" in each for step in explained(store._database._writer, each)]
        assert not [step for step in plans if "SCAN" in step and "json_each" not in step and "subquery" not in step]
        (left,) = store._database._writer.execute("SELECT count(*) FROM nodes").fetchone()
        assert left == 2 * instances
    return statements


def explained(connection: sqlite3.Connection, statement: str) -> list[tuple[int, int, int, str]]:
    return connection.execute("EXPLAIN QUERY PLAN " + statement).fetchall()


def test_removing_many_instances_takes_as_many_statements_as_removing_few(tmp_path: Path) -> None:
    few, many = (statements_of_a_removal(tmp_path / str(count), count) for count in (16, 128))
    assert len(few) == len(many) < 30


SWEEPER = """
import sys
from pathlib import Path
from dagorama_broker.model.rows import Changes, RemovedRow
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.records import instance_row
store = SqliteStore(Path(sys.argv[1]))
store.open()
store.take()
store.commit(Changes(removed=[RemovedRow(1, instance_row(1).id, 1.0, False, 60.0)]))
print("removed", flush=True)
while store.sweep(10):
    print("swept", flush=True)
"""


@pytest.mark.parametrize("sweeps", [0, 1, 5, 40])
def test_a_kill_while_it_sweeps_leaves_no_key_to_be_used_again_and_the_next_sweeps_on(path: Path, sweeps: int) -> None:
    with opened(path) as store:
        store.commit(instance_that_ended(1, 1000))
    with another_broker(path, SWEEPER) as process:
        assert process.stdout is not None
        for _ in range(sweeps + 1):
            process.stdout.readline()
    with opened(path) as store:
        live = store.live()
        assert (live.next_node, live.next_instance) == (1001, 2)
        assert store.find([(1).to_bytes(12, "big") + bytes(4)]) == {}
        assert store.sweep(100)
        while store.sweep(100):
            pass
        assert (store.live().next_node, store.live().next_instance) == (1001, 2)
    with closing(sqlite3.connect(path)) as connection:
        for table in ("nodes", "outcomes", "node_blocks", "instances", "leftovers"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_a_start_drops_unused_functions_if_there_are_very_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path) as store:
        store.commit(graph(node(1), node(2, function=3)))
        store.commit(Changes(functions=[FunctionRow(number, RICH) for number in range(2, 11)]))
    with opened(path) as store:
        assert len(store.live().functions) == 10
    monkeypatch.setattr("dagorama_broker.store.sql.retention.MANY_FUNCTIONS", 10)
    with opened(path) as store:
        assert [row.id for row in store.live().functions] == [1, 3]
        assert store.live().next_function == 11


def go_on_removing(store: SqliteStore) -> None:
    store.live()
    store.removed(instance_row(2).id)
    store.sweep(1000)
    store.commit(Changes(removed=[RemovedRow(3, instance_row(3).id, 1.0, False, 60.0)]))


@pytest.mark.parametrize(
    ("damage", "table"),
    [
        ("UPDATE removed SET kept = 1.0", "removed"),
        ("UPDATE leftovers SET instance = 3", "leftovers"),
        ("UPDATE node_blocks SET size = 100 WHERE instance = 2", "node_blocks"),
        ("UPDATE links SET named = 4", "links"),
    ],
)
def test_damage_to_what_removal_goes_by_is_an_error_and_deletes_nothing(path: Path, damage: str, table: str) -> None:
    with opened(path) as store:
        for key in (1, 2, 3):
            store.commit(instance_that_ended(key, 5))
        remove_and_sweep(store, 1)
        store.commit(Changes(removed=[RemovedRow(2, instance_row(2).id, 1.0, False, 60.0)], links=[LinkRow(3, 9)]))
    sql(path, damage)
    with opened(path) as store:
        with pytest.raises(StoreError, match=f"table {table} is damaged"):
            go_on_removing(store)
        assert store.values(range(11, 16))


def test_the_size_of_its_files_is_told(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "broker.sqlite3")
    assert store.usage()[:3] == (0, 0, 0)
    begun(store)
    store.commit(graph(node(1)))
    store.put_large([b"a" * 100_000])
    usage = store.usage()
    assert usage.database == (tmp_path / "broker.sqlite3").stat().st_size > 0
    assert usage.log == (tmp_path / "broker.sqlite3-wal").stat().st_size > 0
    assert usage.values >= 100_000
    assert usage.free
    store.close()


def test_the_size_of_files_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the size of store .* cannot be read: No such file"):
        SqliteStore(tmp_path / "nowhere" / "broker.sqlite3").usage()
