"""A connection to a store's SQLite file: settings, identity, version, and what SQLite's errors mean to a person."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dagorama_broker.errors import StoreError
from dagorama_broker.store.descriptors import shortage
from dagorama_broker.store.sqlite.check import look_over
from dagorama_broker.store.sqlite.schema import APPLICATION_ID, MIGRATIONS
from dagorama_broker.store.sqlite.statements import KEPT

#: How long another program (a backup, sqlite3 at a prompt) may hold the file before that is an error.
BUSY_SECONDS = 5.0
#: Pages of 4 KiB in the log before they go to their places in the file.
CHECKPOINT_PAGES = 4000
CACHE_KIB = 32 * 1024
#: Up to this size the whole file is looked over at every start, about a second for each gigabyte that is in the page
#: cache. Rows are checked whenever they are read; this finds rows that cannot be reached any more.
LOOKED_OVER = 1 << 30


def connect(path: Path, busy: float) -> sqlite3.Connection:
    """A connection that commits only when told to. Used from one thread at a time, not always the same."""
    connection = sqlite3.connect(
        path, timeout=busy, isolation_level=None, check_same_thread=False, cached_statements=KEPT
    )
    connection.execute("PRAGMA synchronous = FULL")
    # Else a statement that changes much needs a file of its own: a free descriptor, and room in another folder.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    return connection


def prepare(path: Path, busy: float) -> None:
    """Make the file where it is missing, refuse it where it is not ours or too new, bring it to today's version."""
    # SQLite gives its files the mode of the first one; arguments and values are nobody else's to read.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(connect(path, busy)) as connection:
        version = _version(connection, path)
        mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(f"{path} is on a file system that cannot hold it (no WAL): use a local disk")
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            _migrate(connection, script, number)
        _check_schema(connection)
        if path.stat().st_size <= LOOKED_OVER:
            look_over(connection)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path} is not a dagorama store: it is some other program's SQLite file")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer dagorama (its version is {version}, this one knows up to"
            f" {len(MIGRATIONS)}): upgrade this broker, or choose another store"
        )
    return version


def _check_schema(connection: sqlite3.Connection) -> None:
    """No row's checksum covers what says how rows are read: changed, it may hide them all."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as right:
        for number, script in enumerate(MIGRATIONS, 1):
            _migrate(right, script, number)
        missing = _schema(right) - _schema(connection)
    if missing:
        names = ", ".join(sorted(name for name, _, _ in missing))
        raise StoreError(f"it is damaged, in the definition of {names}: put back a copy, or choose another store")


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    return set(connection.execute("SELECT name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))


def _migrate(connection: sqlite3.Connection, script: str, number: int) -> None:
    with transaction(connection):
        for statement in script.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, durable when the block has ended."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # Left open only by an error, which SQLite itself may have answered with a rollback.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read inside is of one moment, whatever is committed meanwhile."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


_NO_MEMORY = "there is not enough memory: give the machine or container more, or lower DAGORAMA_CACHE"
_MEANINGS = {
    sqlite3.SQLITE_NOMEM: _NO_MEMORY,
    sqlite3.SQLITE_FULL: "the disk is full: make room and start the broker again",
    sqlite3.SQLITE_READONLY: "it is read-only: give this user the right to write the file and its folder",
    sqlite3.SQLITE_PERM: "this user has no right to it",
    sqlite3.SQLITE_BUSY: "it is locked by another program: end that one and start the broker again",
    sqlite3.SQLITE_LOCKED: "it is locked by another program: end that one and start the broker again",
    sqlite3.SQLITE_CORRUPT: "it is damaged: put back a copy, or choose another store",
    sqlite3.SQLITE_NOTADB: "it is damaged or not a dagorama store: put back a copy, or choose another store",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: see that its folder exists and that this user may write there",
    sqlite3.SQLITE_IOERR: "the disk refuses to write or read it",
}


def _meaning(error: Exception) -> str | None:
    # The lower byte of an extended code is the plain one.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # SQLite does not say why the system did not open a file, or refused to work with it.
    lacking = shortage() if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) else None
    return lacking or _MEANINGS.get(code)


@contextmanager
def saying_what_failed(path: Path) -> Iterator[None]:
    """Turns whatever SQLite or the file system raises into a StoreError of one sentence that names the file."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        meaning = _meaning(error)
        raise StoreError(f"{path}: {meaning} ({error})" if meaning else f"{path}: {error}") from error
    except MemoryError as error:
        raise StoreError(f"{path}: {_NO_MEMORY}") from error
    except OSError as error:
        raise StoreError(f"{path}: {shortage(error) or error.strerror or error}") from error
    except StoreError as error:
        if str(path) in str(error):
            raise
        raise StoreError(f"{path}: {error}") from error
