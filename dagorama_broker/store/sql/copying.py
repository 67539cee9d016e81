"""Copies all records from one database to another, table by table, and compares every row with its checksum.

No broker may use either of them. Epochs and keys in the copy go on after the last ones of the first store, so that none
is used a second time. Until it is complete, the copy is marked and no broker starts with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from dagorama_broker.errors import StoreError
from dagorama_broker.store.checksums import SqlValue, check_payload, check_row, damaged, node_sum, outcome_sum
from dagorama_broker.store.sql.connection import Connection, execute_rows
from dagorama_broker.store.sql.counters import read_marks, read_number, read_secrets, replace_secrets, write_number
from dagorama_broker.store.sql.signals import SIGNAL_COLUMNS, WAIT_COLUMNS
from dagorama_broker.store.sql.view import Source
from dagorama_broker.store.sql.writer import INSTANCE_COLUMNS, NODE_COLUMNS, OUTCOME_COLUMNS, PROGRESS_COLUMNS

T = TypeVar("T")

#: Rows of one page, and of one page of a table whose rows may be large.
_PAGE, _PAGE_OF_PAYLOADS = 5_000, 500
_UNFINISHED = "unfinished copy"


class Copyable(Protocol):
    """A store that is open and taken."""

    @property
    def source(self) -> Source: ...

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Do the work in one transaction, and return what it returns."""
        ...

    def continue_after(self, epoch: int) -> None:
        """Make the epoch of the next start larger than this one."""
        ...


class _Table(NamedTuple):
    name: str
    key: tuple[str, ...]  #: the columns by which rows are ordered
    columns: tuple[str, ...]  #: in the order of their checksum, which is the last one; unless `check` says otherwise
    check: Callable[[_Table, Sequence[Any]], None]
    page: int = _PAGE


def _check_all(table: _Table, row: Sequence[Any]) -> None:
    check_row(table.name, row[0], row[-1], row[:-1])


def _check_after_first(table: _Table, row: Sequence[Any]) -> None:
    check_row(table.name, row[0], row[-1], row[1:-1])


def _check_node(table: _Table, row: Sequence[Any]) -> None:
    key, chk, instance, function, sources, arguments = row
    if node_sum(key, instance, function, sources) != chk >> 32:
        raise damaged(table.name, key)
    check_payload(table.name, key, chk, arguments)


def _check_outcome(table: _Table, row: Sequence[Any]) -> None:
    key, chk, *head, value, failure = row
    if outcome_sum(key, *head) != chk >> 32:
        raise damaged(table.name, key)
    check_payload(table.name, key, chk, value, failure)


def _check_instance(table: _Table, row: Sequence[Any]) -> None:
    key, *rest, chk, ended, failed, end_chk, _ = row
    check_row(table.name, key, chk, (key, *rest))
    check_row(table.name, key, end_chk, (key, ended, failed))


def _plain(name: str, columns: str, keys: int = 1) -> _Table:
    """Return a table whose checksum covers its columns, of which the first ones are its key."""
    names = tuple(columns.split())
    return _Table(name, names[:keys], (*names, "chk"), _check_all)


TABLES = (
    _plain(
        "functions",
        "id name hash queue taint max_attempts retry_interval retry_base retry_max_interval retry_jitter is_async"
        " protocol options",
    ),
    _Table("instances", ("key",), (*INSTANCE_COLUMNS, "named"), _check_instance),
    _plain("instance_names", "instance definition name digest"),
    _plain("labels", "instance label value", 2),
    _plain("turns", "instance fair turn"),
    _plain("links", "instance named", 2),
    _Table(
        "removed", ("number",), ("number", "instance", "id", "ended", "failed", "kept", "chk"), _check_after_first
    ),
    _plain("leftovers", "instance"),
    _plain("node_blocks", "first_key origin first size instance digest creator created"),
    _Table("nodes", ("key",), NODE_COLUMNS, _check_node, _PAGE_OF_PAYLOADS),
    _Table("outcomes", ("key",), OUTCOME_COLUMNS, _check_outcome, _PAGE_OF_PAYLOADS),
    _plain("resolved", "key state root_cause ended"),
    _Table("progress", ("key",), ("key", *PROGRESS_COLUMNS), _check_all),
    _plain("large_refs", "key sha256", 2),
    _plain("larges", "sha256 length object kept"),
    _plain("node_keys", "key concurrency_key"),
    _plain("node_delays", "key seconds until"),
    _plain("cached", "key function function_id instance instance_id node node_id completed expires has_refs proof"),
    _plain("signal_waits", " ".join(WAIT_COLUMNS)),
    _plain("signals", " ".join(SIGNAL_COLUMNS)),
    _plain("eager_attempts", "attempt node parent eager_state"),
    _plain("eager_blocks", "first_key attempt"),
    _plain("block_traces", "first_key trace"),
    _plain("rebindings", "id signed"),
    _plain("rebound_nodes", "key function rebinding"),
    _plain("used_failures", "key instance"),
    _plain("drafts", "first_key last_key"),
    _plain("workers", "id name"),
    _plain("paused_queues", "queue since by"),
    _plain("worker_names", "number name"),
    _plain("key_pauses", "name key of_limit until seconds node", 3),
    _plain(
        "schedules",
        "name definition function arguments cron zone every start overlap catch_up paused fired instance waiting"
        " digest key put by last missed missed_at uncounted",
    ),
    _plain("hooks", "instance function arguments is_deaf failure"),
    _plain("actions", "number action by instance target nodes time"),
)  # fmt: skip


def refuse_unfinished(connection: Connection) -> None:
    """Raise StoreError if a copy into this database was not finished."""
    if read_number(connection, _UNFINISHED):
        raise StoreError("it holds an unfinished copy of another store: remove it, and copy again")


def copy_records(source: Copyable, target: Copyable, epoch: int) -> int:
    """Copy all records to an empty store; return how many rows. `epoch`: the one in which the source was taken.

    Raise StoreError if the target is not empty, or a row is damaged; the target then stays marked as unfinished.
    """
    if not source.source.read(lambda reader: _has_rows(reader.connection)):
        raise StoreError("there is nothing to copy: it has no record")
    target.transact(_begin)
    copied = sum(_copy_table(source.source, target, table) for table in TABLES)
    marks, secrets = source.source.read(lambda reader: (read_marks(reader.connection), read_secrets(reader.connection)))
    target.transact(lambda connection: _finish(connection, marks, secrets))
    target.continue_after(epoch)
    return copied


def _begin(connection: Connection) -> None:
    if _has_rows(connection):
        raise StoreError("it is not empty: copy into a new file or another schema")
    write_number(connection, _UNFINISHED, 1)


def _has_rows(connection: Connection) -> bool:
    return any(connection.execute(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone() for table in TABLES)


def _copy_table(source: Source, target: Copyable, table: _Table) -> int:
    names, keys = ", ".join(table.columns), ", ".join(table.key)
    places = [table.columns.index(key) for key in table.key]
    insert = f"INSERT INTO {table.name} ({names}) VALUES {{rows}}"
    where, after, copied = "", (), 0
    while rows := _read_page(source, f"SELECT {names} FROM {table.name} {where} ORDER BY {keys} LIMIT ?", after, table):
        target.transact(partial(_insert, insert, rows))
        copied += len(rows)
        where = f"WHERE ({keys}) > ({', '.join('?' * len(places))})"
        after = tuple(rows[-1][place] for place in places)
    return copied


def _read_page(source: Source, select: str, after: tuple[SqlValue, ...], table: _Table) -> list[Any]:
    rows = source.read(lambda reader: reader.connection.execute(select, (*after, table.page)).fetchall())
    for row in rows:
        table.check(table, row)
    return rows


def _insert(statement: str, rows: Sequence[Sequence[SqlValue]], connection: Connection) -> None:
    execute_rows(connection, statement, len(rows[0]), rows)


def _finish(connection: Connection, marks: Sequence[tuple[str, int]], secrets: Sequence[tuple[str, bytes]]) -> None:
    for name, value in marks:
        write_number(connection, name, value)
    replace_secrets(connection, secrets)
    connection.execute("DELETE FROM meta WHERE name = ?", (_UNFINISHED,))
