"""A connection to a store's SQLite file: settings, preparation of the file, transactions, and errors for people."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dagorama_broker.errors import StoreError
from dagorama_broker.store.checksums import checked_rows, damaged, outcome_sum
from dagorama_broker.store.descriptors import shortage
from dagorama_broker.store.sqlite.schema import APPLICATION_ID, FIRST_VERSION, LATEST_VERSION, MIGRATIONS

#: Seconds for which another program (a backup, sqlite3 at a prompt) may lock the file before that is an error.
BUSY_SECONDS = 5.0
#: Pages of 4 KiB in the log before a checkpoint moves them to the database.
CHECKPOINT_PAGES = 4000
CACHE_KIB = 32 * 1024
#: Prepared statements that a connection keeps: writes to all tables in all sizes, and the queries.
KEPT = 256
#: Bytes up to which the whole file is checked at every start, about a second for each gigabyte in the page cache. Rows
#: are checked whenever they are read; this check finds rows that can no longer be reached.
LOOKED_OVER = 1 << 30
#: Number of the latest outcomes that a start compares with their checksums: about a third of a second.
ENDS = 250_000
_OUTCOMES = (
    "SELECT chk, key, state, attempt, root_cause, ended, microseconds, worker, refs FROM outcomes"
    " ORDER BY key DESC LIMIT ?"
)
_RESOLVED = "SELECT key, state, root_cause, ended, chk FROM resolved ORDER BY key DESC LIMIT ?"
_WITHOUT_NODE = "SELECT key FROM {table} WHERE key NOT IN (SELECT key FROM nodes) LIMIT 1"


def connect(path: Path, busy: float) -> sqlite3.Connection:
    """Return a connection that commits only explicitly. Use it from one thread at a time, not always the same."""
    connection = sqlite3.connect(
        path, timeout=busy, isolation_level=None, check_same_thread=False, cached_statements=KEPT
    )
    try:
        _set_up(connection)
    except BaseException:  # the file is damaged, or locked by another program
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    # Otherwise a statement with many changes needs a temporary file: a free descriptor, and space in another folder.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


# --- transactions and statements --------------------------------------------------------------------------


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit everything in the block durably, or nothing if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # A transaction is still open only after an error, and SQLite itself may have rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Read one consistent state in the block, without commits that happen meanwhile."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


# --- preparing and checking the file ----------------------------------------------------------------------


def prepare(path: Path, busy: float) -> None:
    """Create the file if it is missing and migrate it to the current version.

    Raise StoreError if it is another program's file, written by a newer version, or damaged.
    """
    # SQLite gives its other files the mode of the first one; arguments and values are private to this user.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(connect(path, busy)) as connection:
        version = _version(connection, path)
        mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(f"{path} is on a file system that does not support SQLite's WAL: use a local disk")
        for number, script in enumerate(MIGRATIONS, FIRST_VERSION):
            if number > version:
                _migrate(connection, script, number)
        _check_schema(connection)
        if path.stat().st_size <= LOOKED_OVER:
            _check_content(connection)


def check_copy(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError if a copied file is not a store, or is damaged. The file is not changed."""
    version = _version(connection, path)
    if version == LATEST_VERSION:
        _check_schema(connection)
        _check_content(connection)
    elif not version:
        raise StoreError("it is empty, and not a dagorama store")
    elif connection.execute("PRAGMA integrity_check (1)").fetchone()[0] != "ok":
        raise StoreError("it is damaged: restore a copy, or choose another store")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path} is not a dagorama store: it is some other program's SQLite file")
    if version > LATEST_VERSION:
        raise StoreError(
            f"{path} was written by a newer dagorama (its version is {version}, this one knows up to"
            f" {LATEST_VERSION}): upgrade this broker, or choose another store"
        )
    if 0 < version < FIRST_VERSION:
        raise StoreError(
            f"{path} was written by dagorama before its release 0.2.0 (the store's version is {version}, this one reads"
            f" {FIRST_VERSION} and later): choose another store, or finish its work with the commit that wrote it"
        )
    return version


def _migrate(connection: sqlite3.Connection, script: str, number: int) -> None:
    with transaction(connection):
        for statement in script.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number}")


def _check_schema(connection: sqlite3.Connection) -> None:
    """Raise StoreError if the schema is damaged: no row's checksum covers it, and a wrong one may hide all rows."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as right:
        for number, script in enumerate(MIGRATIONS, FIRST_VERSION):
            _migrate(right, script, number)
        missing = _schema(right) - _schema(connection)
    if missing:
        names = ", ".join(sorted(name for name, _, _ in missing))
        raise StoreError(f"it is damaged, in the definition of {names}: restore a copy, or choose another store")


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    return set(connection.execute("SELECT name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))


def _check_content(connection: sqlite3.Connection) -> None:
    """Raise StoreError if the content is damaged in a way that no later read would find.

    Rows are checked whenever they are read, but damage to a row's key hides it from queries for that key. A node that
    has ended would then seem not to have ended, and would run again.
    """
    found: str = connection.execute("PRAGMA integrity_check (1)").fetchone()[0]
    if found != "ok":
        raise StoreError(f"it is damaged: restore a copy, or choose another store ({' '.join(found.split())})")
    for chk, *row in connection.execute(_OUTCOMES, (ENDS,)):
        if outcome_sum(*row) != chk >> 32:
            raise damaged("outcomes", row[0])
    for _ in checked_rows("resolved", connection.execute(_RESOLVED, (ENDS,))):
        pass  # each is compared with its checksum
    for table in ("outcomes", "resolved"):
        for (key,) in connection.execute(_WITHOUT_NODE.format(table=table)):
            raise damaged(table, key)


# --- errors -----------------------------------------------------------------------------------------------

_NO_MEMORY = "there is not enough memory: give the machine or container more, or lower DAGORAMA_CACHE_BYTES"
_MEANINGS = {
    sqlite3.SQLITE_NOMEM: _NO_MEMORY,
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "it is read-only: give this user write permission for the file and its folder",
    sqlite3.SQLITE_PERM: "this user has no permission to use it",
    sqlite3.SQLITE_BUSY: "it is locked by another program: stop that program",
    sqlite3.SQLITE_LOCKED: "it is locked by another program: stop that program",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore a copy, or choose another store",
    sqlite3.SQLITE_NOTADB: "it is damaged or not a dagorama store: restore a copy, or choose another store",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that its folder exists and that this user may write there",
    sqlite3.SQLITE_IOERR: "the disk reported an error while reading or writing it",
}


def _meaning(error: Exception) -> str | None:
    # The lower byte of an extended code is the plain one.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # SQLite does not say why the operating system did not open a file, or refused to work with it.
    lacking = shortage() if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) else None
    return lacking or _MEANINGS.get(code)


def _trouble(error: OSError, path: Path) -> str:
    """Return what the system has refused, with the file if it is another one than `path`, and what to do."""
    trouble = shortage(error) or error.strerror or f"{error}"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        trouble += ": give this user write permission for the file and its folder"
    is_other = error.filename is not None and os.fspath(error.filename) != f"{path}"
    return f"{trouble} ({error.filename})" if is_other else trouble


@contextmanager
def translate_sqlite_errors(path: Path, *others: Path | None) -> Iterator[None]:
    """Translate errors of SQLite and of the file system to a StoreError of one sentence that names the file.

    A StoreError that names the file already, or one of `others`, stays as it is.
    """
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        meaning = _meaning(error)
        raise StoreError(f"{path}: {meaning} ({error})" if meaning else f"{path}: {error}") from error
    except MemoryError as error:
        raise StoreError(f"{path}: {_NO_MEMORY}") from error
    except OSError as error:
        raise StoreError(f"{path}: {_trouble(error, path)}") from error
    except StoreError as error:
        if any(str(named) in str(error) for named in (path, *others) if named is not None):
            raise
        raise StoreError(f"{path}: {error}") from error
