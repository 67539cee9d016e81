"""The logs of nodes, in a SQLite file of their own next to the store, or in memory. They are bounded and expendable.

The rule: a full disk or a damaged file costs logs, and nothing else. A damaged file is set aside.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from dagorama_broker.errors import StoreError
from dagorama_broker.model.logs import KeptPart, LogPart, LogQuery
from dagorama_broker.store.sqlite.connection import transaction, translate_sqlite_errors

T = TypeVar("T")

#: Seconds for which another program may lock the file.
BUSY_SECONDS = 1.0
#: Bytes of text of an attempt that are kept in addition to its head.
TAIL_BYTES = 48 << 10
#: Bytes and rows of one page of an answer.
PAGE_BYTES, PAGE_ROWS = 1 << 20, 256
#: The part of the bound to which the logs are reduced, and bytes that a row takes besides its records.
REDUCED, ROW_BYTES = 0.95, 300
#: Level of compression: the fastest.
LEVEL = 1
_WAL_BYTES = 16 << 20
_APPLICATION_ID, _VERSION = 0x6461676C, 1
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SCHEMA = """
CREATE TABLE logs (
  id INTEGER PRIMARY KEY,
  instance BLOB NOT NULL,
  node BLOB NOT NULL,
  function TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  number INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  is_head INTEGER NOT NULL,
  left_out INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  size INTEGER NOT NULL,
  records BLOB NOT NULL
);
CREATE UNIQUE INDEX logs_by_attempt ON logs (node, attempt, sequence);
CREATE INDEX logs_by_instance ON logs (instance, id)
"""
_COLUMNS = "instance, node, function, attempt, number, sequence, is_head, left_out, first, last, size, records"
#: A report is sent again after a reconnect, with the same parts.
_ADD = f"INSERT OR IGNORE INTO logs ({_COLUMNS}) VALUES ({', '.join('?' * 12)})"
_TAIL = "SELECT id, size, left_out FROM logs WHERE attempt = ? AND node = ? AND is_head = 0 ORDER BY id DESC"
_SIZES = "SELECT id, length(records) FROM logs ORDER BY id"


class LogFile:
    """Keeps logs. One thread at a time calls it. Each call raises StoreError, with one sentence, if it fails."""

    def __init__(self, path: Path | None, most: int) -> None:
        """Without a path the logs are in memory. `most`: bytes that they may take."""
        self._path = path
        self._most = most
        self._connection: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"{self._path}" if self._path is not None else "memory"

    # --- writing --------------------------------------------------------------------------------------

    def add(self, parts: Sequence[LogPart]) -> None:
        """Add parts in one transaction, drop what is too much of their attempts, and what is too much in all."""

        def add(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(_ADD, map(_row, parts))
                for key in {
                    (part.attempt, part.owner.node) for part in parts if not part.is_head and part.sequence > 1
                }:
                    _shorten(connection, key)
            self._keep_bound(connection)

        self._call(add)

    def remove(self, instances: Collection[bytes]) -> None:
        """Remove the logs of instances."""
        if not self._exists:
            return

        def remove(connection: sqlite3.Connection) -> None:
            for id in instances:
                with transaction(connection):
                    connection.execute("DELETE FROM logs WHERE instance = ?", (id,))

        self._call(remove)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _keep_bound(self, connection: sqlite3.Connection) -> None:
        used = self._used(connection)
        if used <= self._most:
            return
        excess, last = used - self._most * REDUCED, 0
        for last, size in connection.execute(_SIZES):  # noqa: B007 - the last one is used
            excess -= size + ROW_BYTES
            if excess <= 0:
                break
        with transaction(connection):
            connection.execute("DELETE FROM logs WHERE id <= ?", (last,))
        connection.executescript("PRAGMA incremental_vacuum")  # execute() makes only its first step

    def _used(self, connection: sqlite3.Connection) -> int:
        """Return the bytes of all pages that are in use."""
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    # --- reading --------------------------------------------------------------------------------------

    def read(self, asked: LogQuery, after: int) -> list[KeptPart]:
        """Return the next parts after this ID, in the order in which they were added; empty at the end."""
        if not self._exists:
            return []
        return self._call(lambda connection: list(_page(connection, asked, after)))

    def instances(self, after: bytes, most: int) -> list[bytes]:
        """Return up to `most` IDs of instances with logs, after this one, in their order."""
        if not self._exists:
            return []
        statement = "SELECT DISTINCT instance FROM logs WHERE instance > ? ORDER BY instance LIMIT ?"
        return self._call(lambda connection: [id for (id,) in connection.execute(statement, (after, most))])

    # --- the file -------------------------------------------------------------------------------------

    @property
    def _exists(self) -> bool:
        """Whether anything was ever written."""
        return self._connection is not None or (self._path is not None and self._path.exists())

    def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        with self._translated():
            if self._connection is None:
                self._connection = self._opened()
            return call(self._connection)

    def _opened(self) -> sqlite3.Connection:
        if self._path is not None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # logs are private to this user
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translate_sqlite_errors(self._path or Path("logs in memory")):
                yield
        except StoreError as error:
            code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED and self._path is not None:
                raise StoreError(f"{error}; it is now {self._set_aside(self._path)}, and a new one is begun") from error
            raise

    def _set_aside(self, path: Path) -> Path:
        """Rename a damaged file, in place of an earlier damaged one."""
        aside = path.with_name(path.name + ".damaged")
        with suppress(sqlite3.Error):
            self.close()
        self._connection = None
        with suppress(OSError):
            path.replace(aside)
        for end in ("-wal", "-shm"):
            with suppress(OSError):
                path.with_name(path.name + end).unlink()
        return aside


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    connection.execute("PRAGMA temp_store = MEMORY")
    if connection.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID:
        return
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StoreError("it is some other program's SQLite file: move it away, or choose another name for the store")
    with transaction(connection):
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")


def _row(part: LogPart) -> tuple[object, ...]:
    return *part.owner, *part[1:-1], zlib.compress(part.records, LEVEL) if part.records else b""


def _shorten(connection: sqlite3.Connection, attempt: tuple[int, bytes]) -> None:
    """Drop the oldest parts behind the head of an attempt if they are too long, and count them at the next part."""
    kept = size = lost = 0
    dropped = []
    for id, length, left_out in connection.execute(_TAIL, attempt).fetchall():
        size += length
        if size <= TAIL_BYTES or not kept:
            kept = id
        else:
            dropped.append((id,))
            lost += length + left_out
    if dropped:
        connection.executemany("DELETE FROM logs WHERE id = ?", dropped)
        connection.execute("UPDATE logs SET left_out = left_out + ? WHERE id = ?", (lost, kept))


def _page(connection: sqlite3.Connection, asked: LogQuery, after: int) -> Iterator[KeptPart]:
    wanted = {
        "instance = ?": asked.instance, "node = ?": asked.node, "number = ?": asked.number,
        "function = ?": asked.function, "last >= ?": asked.since, "id > ?": after,
    }  # fmt: skip
    conditions = {text: value for text, value in wanted.items() if value}
    statement = (
        "SELECT id, node, function, number, left_out, records FROM logs"
        f" WHERE {' AND '.join(conditions)} ORDER BY id LIMIT {PAGE_ROWS}"
    )
    size = 0
    for *columns, records in connection.execute(statement, list(conditions.values())):
        id, node, function, number, left_out = columns
        part = KeptPart(id, node, function, number, left_out, zlib.decompress(records) if records else b"")
        yield part
        size += len(part.records)
        if size >= PAGE_BYTES:
            return
