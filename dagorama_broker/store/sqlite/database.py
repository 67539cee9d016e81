"""The open database of a SQLite store: its lock, its connections, the count of its commits, and the watch on its files.

One connection writes, one reads, and one is for the quick queries of the broker's loop: none waits for another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from struct import error as StructError
from threading import Lock
from typing import TypeVar

from dagorama_broker.errors import StoreError
from dagorama_broker.model.rows import Changes
from dagorama_broker.store.folders import make_folder, sync_folder
from dagorama_broker.store.lock import StoreLock
from dagorama_broker.store.sql import drafts
from dagorama_broker.store.sql.copying import refuse_unfinished
from dagorama_broker.store.sql.counters import kept_secret
from dagorama_broker.store.sql.retention import drop_unused_functions, is_left_over, sweep
from dagorama_broker.store.sqlite.commit_count import CommitCount
from dagorama_broker.store.sqlite.connection import connect, prepare, snapshot, transaction, translate_sqlite_errors
from dagorama_broker.store.sqlite.open_files import OpenFiles
from dagorama_broker.store.sqlite.reader import SqliteReader
from dagorama_broker.store.sqlite.rescue import check_files
from dagorama_broker.store.sqlite.writer import write

_Done = TypeVar("_Done")
T = TypeVar("T")


class Database:
    """Opens, reads and writes the file of a store. Every error is a StoreError that names the file."""

    def __init__(self, path: Path, busy: float, count_together: float) -> None:
        """`busy`: seconds for which another program may lock the file; `count_together`: see `CommitCount`."""
        self.path = path
        self.secret = b""  #: see `Store`
        self._busy = busy
        self._lock = StoreLock(path)
        self._count = CommitCount(path, count_together)
        self._files: OpenFiles | None = None
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._looker: sqlite3.Connection | None = None
        self._viewer: sqlite3.Connection | None = None
        self.source = _Source(self, lambda: self._reader)
        #: For people, whether or not another thread reads from `source`.
        self.viewed = _Source(self, lambda: self._viewer)
        self.quick = _Source(self, lambda: self._looker)  #: for the broker's loop

    # --- opening and closing ----------------------------------------------------------------------

    def reach(self) -> None:
        """Make the folder of the file. Raise StoreError if that is impossible, or if the file has disappeared."""
        with translate_sqlite_errors(self.path):
            self._count.refuse_lost()
            make_folder(self.path.parent)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Lock the store for this process; close it again if the block fails."""
        with translate_sqlite_errors(self.path):
            self._lock.take()
            try:
                self._count.refuse_lost()  # again: it may have been open for long
                yield
            except BaseException:
                self.close()
                raise

    def prepare(self) -> None:
        """Create or migrate the file. The store must be locked."""
        prepare(self.path, self._busy)
        sync_folder(self.path.parent)

    def begin(self) -> int:
        """Open the connections, commit a new epoch and return it. The file must be prepared."""
        self._writer = connect(self.path, self._busy)  # one by one, so that `close` finds the opened ones
        self._reader = connect(self.path, self._busy)
        self._looker = connect(self.path, self._busy)
        self._viewer = connect(self.path, self._busy)
        for connection in (self._reader, self._looker, self._viewer):
            connection.execute("PRAGMA query_only = ON")
        with transaction(self._writer):
            refuse_unfinished(self._writer)
            drafts.clear(self._writer)
            drop_unused_functions(self._writer)
            self.secret = kept_secret(self._writer)
            epoch = self._count.begin(self._writer)
            self._count.count(self._writer)
        self._count.begun(epoch)
        self._files = OpenFiles(self.path, self._lock.descriptor)
        return epoch

    def close(self) -> None:
        """Close the store in any case. Raise StoreError if a start would not find it; save it first if possible."""
        with translate_sqlite_errors(self.path):
            try:
                if self._files is not None and self._writer is not None and not self._files.given_up:
                    check_files(self._files, self._writer, self._count)
            finally:
                self._close()

    def _close(self) -> None:
        with self.viewed.alone:
            viewer, self._viewer = self._viewer, None
            if viewer is not None:
                viewer.close()
        for connection in (self._looker, self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._looker = self._reader = self._writer = None
        if self._files is not None:
            self._files.close()
            self._files = None
        self._count.close()
        self._lock.release()

    def accept_loss(self) -> str:
        """Make the next start accept the database as it is; return what is lost, or an empty text."""
        if not self.path.exists() and not self._count.is_kept:
            raise StoreError(f"there is no store {self.path}")
        with translate_sqlite_errors(self.path):
            self._lock.take()
            try:
                with closing(connect(self.path, self._busy)) as connection:
                    return self._count.accept(connection)
            finally:
                self.close()

    @property
    def last_used(self) -> float:
        """Return when a broker last noted the time before this start; 0: never."""
        return self._count.last_used

    # --- writing ----------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> bool:
        """Commit the changes durably; return whether the store's folder has not changed for some seconds."""
        with translate_sqlite_errors(self.path):
            writer = self.opened(self._writer)
            self._transact(lambda: write(writer, changes), writer)
            assert self._files is not None
            check_files(self._files, writer, self._count)
            return self._files.is_settled

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work in one transaction."""
        with translate_sqlite_errors(self.path):
            writer = self.opened(self._writer)
            return self._transact(lambda: work(writer), writer)

    def sweep(self, most: int) -> tuple[bool, list[bytes]]:
        """Delete up to `most` nodes of removed instances; return what `retention.sweep` returns."""
        with self.checked(self._writer) as reader:
            if not is_left_over(reader.connection):
                return False, []
            return self._transact(lambda: sweep(reader, most), self.opened(self._writer))

    def _transact(self, work: Callable[[], _Done], writer: sqlite3.Connection) -> _Done:
        """Do the work completely or not at all, and count it; it is durable when this returns."""
        with transaction(writer):
            done = work()
            self._count.count(writer)
        self._count.counted()
        return done

    # --- reading ----------------------------------------------------------------------------------

    @contextmanager
    def checked(self, connection: sqlite3.Connection | None) -> Iterator[SqliteReader]:
        with translate_sqlite_errors(self.path):
            reader = SqliteReader(self.opened(connection))
            try:
                yield reader
            except (TypeError, ValueError, StructError) as error:
                # Damage may turn a number into text, or truncate packed keys.
                raise StoreError(f"a row is damaged: {error}") from error

    def opened(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            raise StoreError("the store is closed")
        return connection


class _Source:
    """A connection for reading, which one thread uses at a time."""

    def __init__(self, database: Database, connection: Callable[[], sqlite3.Connection | None]) -> None:
        self._database = database
        self._connection = connection
        self.alone = Lock()

    def read(self, work: Callable[[SqliteReader], T]) -> T:
        with self.alone, self._database.checked(self._connection()) as reader:
            return work(reader)

    def read_one_state(self, work: Callable[[SqliteReader], T]) -> T:
        with self.alone:
            connection = self._connection()
            with self._database.checked(connection) as reader, snapshot(self._database.opened(connection)):
                return work(reader)
