"""Saves what a store holds when its files were removed or replaced while the broker was running.

The open files are complete, even if their names lead to other files. So the log is moved to the database, and if the
database has lost its name, a copy takes its place; files that have taken the name instead are renamed and kept.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from dagorama_broker.errors import StoreError
from dagorama_broker.store.folders import make_folder, sync_folder
from dagorama_broker.store.sqlite.commit_count import CommitCount
from dagorama_broker.store.sqlite.open_files import OpenFiles

log = logging.getLogger("dagorama_broker")

_SUFFIXES = ("", "-wal", "-shm")
_AGAIN = "nothing that was acknowledged is lost: start the broker again"


def check_files(files: OpenFiles, connection: sqlite3.Connection, count: CommitCount) -> None:
    """Raise StoreError if a start would not find what was committed; save that first, if possible."""
    displaced = files.displaced()
    if displaced is not None:
        files.given_up = True
        log.error("%s while the broker was running; it saves what the store holds and stops", displaced)
        raise StoreError(f"{displaced} while the broker was running; {_saved(files, connection)}")
    overwritten = files.overwritten()
    if files.log_restarted:
        count.count_next()
    if overwritten is not None:
        files.given_up = True
        count.note_overwritten()
        raise StoreError(
            f"{overwritten} was overwritten by another program while the broker was running, and its content is lost"
            f" unless there is a copy: replace {files.store.name} by the copy, without -wal"
        )


def _saved(files: OpenFiles, connection: sqlite3.Connection) -> str:
    try:
        return _rescue(files, connection)
    except (sqlite3.Error, OSError, StoreError) as error:
        return f"its content could not be saved ({error}): restore a copy"


def _rescue(files: OpenFiles, connection: sqlite3.Connection) -> str:
    """Save the store's content; return the path of the saved store."""
    store = files.store
    _empty_log(connection)
    if files.is_ours(str(store)):
        moved = _move_others_aside(files, _SUFFIXES[1:])
        return f"its content is in {store}{moved}; {_AGAIN}"
    if not files.is_ours(files.lock) and os.fstat(files.descriptor).st_nlink:
        now = os.readlink(f"/proc/self/fd/{files.descriptor}")
        return f"the store is now {now}, with all of its content: move its folder back, or serve that store"
    return _put_back(files, connection)


def _empty_log(connection: sqlite3.Connection) -> None:
    busy, logged, copied = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy and logged != copied:
        raise StoreError("another program is reading it and prevents its newest changes from reaching the database")


def _put_back(files: OpenFiles, connection: sqlite3.Connection) -> str:
    store = files.store
    make_folder(store.parent)
    copy = Path(f"{store}.rescued-{_stamp()}")
    _copy(connection, copy)
    if not files.is_ours(files.lock) and os.path.lexists(files.lock):
        return f"its content was copied to {copy}: another broker may be using the store that has its name now"
    moved = _move_others_aside(files, _SUFFIXES)
    for suffix in _SUFFIXES[1:]:  # our own files, whose content is in the copy
        Path(f"{store}{suffix}").unlink(missing_ok=True)
    try:
        os.link(copy, store)  # unlike a rename, this replaces nothing
    except OSError as error:
        return f"its content was copied to {copy}, which could not be renamed to {store} ({error.strerror}): rename it"
    copy.unlink()
    sync_folder(store.parent)
    return f"a complete copy was put in its place{moved}; {_AGAIN}"


def _copy(connection: sqlite3.Connection, to: Path) -> None:
    descriptor = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with closing(sqlite3.connect(to)) as target:
            connection.backup(target)
        os.fsync(descriptor)
    except BaseException:
        to.unlink()
        raise
    finally:
        os.close(descriptor)


def _move_others_aside(files: OpenFiles, suffixes: tuple[str, ...]) -> str:
    """Rename files that are not ours: SQLite would read another database's log into this one."""
    moved, stamp = "", _stamp()
    for suffix in suffixes:
        name, aside = f"{files.store}{suffix}", f"{files.store}.replaced-{stamp}{suffix}"
        if os.path.lexists(name) and not files.is_ours(name):
            os.rename(name, aside)
            moved = moved or f" (the file that had its name is now {aside})"
    return moved


def _stamp() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
