"""A consistent copy of a store, also while a broker serves it.

The database is copied from one snapshot through a connection that only reads. Large values are files that never change,
named by their content: they are linked or copied before the database and again after it, so that no value that the
copy of the database refers to is missing. The copy gets its name at the end. Values in an object store stay there, and
their rows are copied with the database.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple
from urllib.parse import quote

from dagorama_broker.errors import StoreError
from dagorama_broker.store.folders import make_folder, sync_folder
from dagorama_broker.store.sql.counters import read_number, write_number
from dagorama_broker.store.sqlite.connection import (
    BUSY_SECONDS,
    check_copy,
    connect,
    transaction,
    translate_sqlite_errors,
)
from dagorama_broker.store.value_copies import copy_values
from dagorama_broker.store.value_files import names_below

#: The names of a store's files after the name of the database; and of its folder, the last one. Logs are not copied.
_BESIDE = ("", "-journal", "-wal", "-shm", ".state", ".logs", ".logs-wal", ".logs-shm", ".values")
#: Errors of a write, which never come from the store that is copied.
_OF_WRITING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC}
#: Added to the epoch of a copy that becomes a store: more than the starts of a broker that it may have missed.
LOST_EPOCHS = 10_000


class Backup(NamedTuple):
    """A finished copy."""

    path: Path
    instances: int
    values: int  #: large values
    missing: int  #: large values that nodes refer to and the store itself lacks


def back_up(store: Path, values_folder: Path | None, target: Path) -> Backup:
    """Copy the store in this file and its large values. Raise StoreError, with one sentence; then there is no copy.

    `values_folder`: None if large values are objects.
    """
    if not store.is_file():
        raise StoreError(f"there is no store {store}")
    if existing := [name for name in _BESIDE if os.path.lexists(f"{target}{name}")]:
        raise StoreError(f"{target}{existing[0]} exists: choose another target, or remove it first")
    with translate_sqlite_errors(target, store, values_folder), _unfinished(target) as copy:
        values = Path(f"{copy}.values")
        if values_folder is not None:
            copy_values(values_folder, values)
        _copy_database(store, copy)
        if values_folder is not None:
            copy_values(values_folder, values)
        found = _checked(copy, values)
        _finish(copy, target)
    return found._replace(path=target)


def restore(copy: Path, target: Path, values_folder: Path | None) -> Backup:
    """Make a store out of a copy, which stays as it is. Raise StoreError, with one sentence; then there is no store.

    `values_folder`: None if large values are objects, which are not moved. Workers may still hold attempts of epochs
    that the copy does not know, so the epochs of the store begin far above.
    """
    beside = Path(f"{target}.values")
    if values_folder not in (None, beside) and any(names_below(values_folder)):
        raise StoreError(f"{values_folder} has large values: choose another folder, or remove it first")
    _check_kind(copy, values_folder is None)
    made = back_up(copy, Path(f"{copy}.values"), target)
    with translate_sqlite_errors(target):
        if values_folder not in (None, beside):
            copy_values(beside, values_folder)
            shutil.rmtree(beside, ignore_errors=True)
        with closing(connect(target, BUSY_SECONDS)) as connection, transaction(connection):
            write_number(connection, "epoch", read_number(connection, "epoch") + LOST_EPOCHS)
    return made


def _check_kind(copy: Path, are_objects: bool) -> None:
    """Raise StoreError if the copy has large values of another kind than the store that is made out of it."""
    if are_objects and any(names_below(Path(f"{copy}.values"))):
        raise StoreError(f"the large values of {copy} are files: pass --values file:///FOLDER, or leave it out")
    if not are_objects and copy.is_file() and _objects_in(copy):
        raise StoreError(
            f"the large values of {copy} are in an object store: pass it with --values (DAGORAMA_VALUES), such as"
            " s3://BUCKET/PREFIX"
        )


def _objects_in(copy: Path) -> set[bytes]:
    """Return the large values of a copy that are objects."""
    with translate_sqlite_errors(copy), closing(sqlite3.connect(_read_only(copy), uri=True)) as connection:
        return _objects(connection)


def _objects(connection: sqlite3.Connection) -> set[bytes]:
    has_table = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'larges'").fetchone()
    rows = connection.execute("SELECT sha256 FROM larges") if has_table else ()  # older stores have no such table
    return {digest for (digest,) in rows}


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Yield the name that the copy has until it is complete; remove what is left under that name."""
    # In containers, commands on different machines have the same process ids.
    copy = Path(f"{target}.unfinished-{token_hex(4)}")
    make_folder(target.parent)
    try:
        yield copy
    finally:
        for name in _BESIDE[:-1]:
            Path(f"{copy}{name}").unlink(missing_ok=True)
        shutil.rmtree(f"{copy}.values", ignore_errors=True)


def _finish(copy: Path, target: Path) -> None:
    """Give the copy its name, the database last: with it, the copy is a store."""
    with open(copy, "rb") as file:
        os.fsync(file.fileno())
    if (values := Path(f"{copy}.values")).is_dir():
        values.rename(f"{target}.values")
    copy.rename(target)
    sync_folder(target.parent)


# --- the database -----------------------------------------------------------------------------------------


def _copy_database(store: Path, copy: Path) -> None:
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with translate_sqlite_errors(store), closing(sqlite3.connect(copy)) as target:
            before = _state(store)
            with closing(sqlite3.connect(_read_only(store), uri=True, timeout=BUSY_SECONDS)) as source:
                source.backup(target)  # all pages in one step, so from one snapshot
            if _has_no_log(before) and _state(store) != before:
                raise StoreError("a broker or another program changed it meanwhile: run the command again")
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode in _OF_WRITING:
            raise cause from None  # only the copy is written to, so it is the one that the caller names
        raise


def _read_only(store: Path) -> str:
    """Return a URI for a connection that changes nothing.

    One that may write would checkpoint the log when it is closed, and no broker serves the store. If there is no log,
    `immutable` keeps SQLite from creating one, with an index: they would stay, and a read-only folder cannot have them.
    """
    still = "&immutable=1" if _has_no_log(_state(store)) else ""
    return f"file:{quote(str(store.resolve()))}?mode=ro{still}"


def _state(store: Path) -> list[tuple[int, int] | None]:
    """Return sizes and times of the database and of the files with its newest changes; None for a missing one."""
    return [_size_and_time(Path(f"{store.resolve()}{name}")) for name in _BESIDE[:3]]


def _size_and_time(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _has_no_log(state: list[tuple[int, int] | None]) -> bool:
    return not any(found and found[0] for found in state[1:])


def _checked(copy: Path, values: Path) -> Backup:
    """Check the copy like a broker at its start, and compare its references with the values."""
    with closing(sqlite3.connect(copy)) as connection:
        check_copy(connection, copy)
        named = {digest for (digest,) in connection.execute("SELECT DISTINCT sha256 FROM large_refs")}
        (instances,) = connection.execute("SELECT count(*) FROM instances").fetchone()
        objects = _objects(connection)
    there = set(names_below(values)) | objects
    return Backup(copy, instances, len(there), len(named - there))
