"""The store that lasts: one SQLite file and a folder of large values beside it. Records in, records out, no rules.

One connection writes, one reads, and one is for the quick looks of the broker's loop: none waits for another.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from struct import error as StructError
from threading import Lock
from typing import TypeVar

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import Fate
from dagorama_broker.model.queries import (
    AskedInstances,
    BadEnd,
    EdgesPage,
    EndedNode,
    Failed,
    FoundNode,
    ListedInstances,
    Live,
    StoredInstance,
    StoredNode,
)
from dagorama_broker.model.rows import Changes, OutcomeRow, RemovedRow, RunRow
from dagorama_broker.store.commit_count import COUNT_TIME, CommitCount
from dagorama_broker.store.large_values import LargeFiles, make_folder, sync_folder
from dagorama_broker.store.lock import StoreLock
from dagorama_broker.store.open_files import OpenFiles
from dagorama_broker.store.rescue import check_files
from dagorama_broker.store.sqlite import drafts
from dagorama_broker.store.sqlite.connection import (
    BUSY_SECONDS,
    connect,
    prepare,
    saying_what_failed,
    snapshot,
    transaction,
)
from dagorama_broker.store.sqlite.downstream import read_edges, read_used_failures
from dagorama_broker.store.sqlite.eager import fates_of
from dagorama_broker.store.sqlite.listing import (
    ids_between,
    read_described,
    read_functions_of,
    read_instances,
    read_node_keys,
)
from dagorama_broker.store.sqlite.reader import Reader
from dagorama_broker.store.sqlite.restore import read_live
from dagorama_broker.store.sqlite.retention import drop_unused_functions, is_left_over, sweep
from dagorama_broker.store.sqlite.retry import read_bad_ends, read_failed
from dagorama_broker.store.sqlite.secret import kept_secret
from dagorama_broker.store.sqlite.writer import write

log = logging.getLogger("dagorama_broker")

_Done = TypeVar("_Done")

#: From so many functions on, a start looks for those that no node names any more.
MANY_FUNCTIONS = 10_000
ANY_LARGE = "SELECT 1 FROM large_refs LIMIT 1"


class SqliteStore:
    """`path` is the file; `busy` is how many seconds another program may keep it locked before that is an error."""

    def __init__(self, path: Path, busy: float = BUSY_SECONDS, count_together: float = COUNT_TIME) -> None:
        # SQLite follows links too: what lies beside the file has to lie beside the same one.
        self.path = Path(os.path.realpath(path))
        self._busy = busy
        self._lock = StoreLock(self.path)
        self._large = LargeFiles(self.path.with_name(self.path.name + ".values"))
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._looker: sqlite3.Connection | None = None
        self._one_reads = Lock()
        self.secret = b""  #: see `Store`
        self._count = CommitCount(self.path, count_together)
        self._files: OpenFiles | None = None

    def __repr__(self) -> str:
        return f"sqlite:///{self.path}"

    # --- opening and closing ------------------------------------------------------------------------

    def open(self) -> int:
        with self._taken():
            return self._open_locked()

    @contextmanager
    def _taken(self) -> Iterator[None]:
        """The store is this process's own, and stays so unless the block fails."""
        with saying_what_failed(self.path):
            self._count.refuse_lost()
            make_folder(self.path.parent)
            self._lock.take()
            try:
                yield
            except BaseException:
                self.close()
                raise

    def _open_locked(self) -> int:
        prepare(self.path, self._busy)
        sync_folder(self.path.parent)
        self._large.sweep()
        self._writer, self._reader, self._looker = (connect(self.path, self._busy) for _ in range(3))
        for connection in (self._reader, self._looker):
            connection.execute("PRAGMA query_only = ON")
        with transaction(self._writer):
            drafts.clear(self._writer)
            drop_unused_functions(self._writer, MANY_FUNCTIONS)
            self.secret = kept_secret(self._writer)
            epoch = self._count.begin(self._writer)
            self._count.count(self._writer)
        self._count.begun(epoch)
        self._files = OpenFiles(self.path, self._lock.descriptor)
        self._warn_of_lost_values()
        return epoch

    def _warn_of_lost_values(self) -> None:
        if not self._large.folder.is_dir() and self._opened(self._looker).execute(ANY_LARGE).fetchone():
            log.error(
                "%s is gone, with the large values that nodes name: put it back, or those nodes fail when a worker asks"
                " for them", self._large.folder,
            )  # fmt: skip

    def close(self) -> None:
        """Raises StoreError if a start would not find the store, which was saved if possible; it is closed then too."""
        with saying_what_failed(self.path):
            try:
                if self._files is not None and self._writer is not None and not self._files.given_up:
                    check_files(self._files, self._writer, self._count)
            finally:
                self._close()

    def _close(self) -> None:
        for connection in (self._looker, self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._looker = self._reader = self._writer = None
        if self._files is not None:
            self._files.close()
            self._files = None
        self._count.close()
        self._large.close()
        self._lock.release()

    def accept_loss(self) -> str:
        """Have the next start take the database as it is, without what it lacks; return what that was, or nothing."""
        with saying_what_failed(self.path):
            make_folder(self.path.parent)
            self._lock.take()
            try:
                with closing(connect(self.path, self._busy)) as connection:
                    return self._count.accept(connection)
            finally:
                self.close()

    @property
    def last_used(self) -> float:
        return self._count.last_used

    # --- writing ------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        with saying_what_failed(self.path):
            writer = self._opened(self._writer)
            self._transact(lambda: write(writer, changes), writer)
            assert self._files is not None
            check_files(self._files, writer, self._count)
            if changes.large or not self._files.is_settled:
                self._large.check_folder()

    def functions_of(self, after: int, most: int) -> tuple[set[int], int | None]:
        with self._reading() as reader:
            return read_functions_of(reader, after, most)

    def sweep(self, most: int) -> bool:
        with self._checked(self._writer) as reader:
            if not is_left_over(reader.connection):
                return False
            writer = reader.connection
            is_more, unnamed = self._transact(lambda: sweep(writer, most), writer)
        self._large.unnamed(unnamed)
        return is_more

    def _transact(self, work: Callable[[], _Done], writer: sqlite3.Connection) -> _Done:
        """Do it as a whole or not at all, and count it; it is durable when this returns."""
        with transaction(writer):
            done = work()
            self._count.count(writer)
        self._count.counted()
        return done

    # --- reading ------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Reader]:
        with self._one_reads, self._checked(self._reader) as reader:
            yield reader

    @contextmanager
    def _checked(self, connection: sqlite3.Connection | None) -> Iterator[Reader]:
        with saying_what_failed(self.path):
            reader = Reader(self._opened(connection))
            try:
                yield reader
            except (TypeError, ValueError, StructError) as error:
                # Damage may turn a number into text, or cut packed keys short.
                raise StoreError(f"a row is damaged: {error}") from error

    def _opened(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            raise StoreError("the store is closed")
        return connection

    def live(self) -> Live:
        with self._reading() as reader:
            return read_live(reader)

    def arguments(self, keys: Sequence[int]) -> dict[int, bytes]:
        with self._reading() as reader:
            return reader.arguments(keys)

    def values(self, keys: Sequence[int]) -> dict[int, bytes]:
        with self._reading() as reader:
            return reader.values(keys)

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        with self._reading() as reader:
            return reader.find(ids)

    def ended(self, keys: Sequence[int]) -> list[EndedNode]:
        with self._reading() as reader:
            found = reader.ended_and_named(keys)
        return [found[key] for key in sorted(found)]

    def ids(self, keys: Sequence[int]) -> dict[int, bytes]:
        with self._reading() as reader:
            return reader.ids(keys)

    def outcome(self, key: int) -> OutcomeRow | None:
        with self._reading() as reader:
            return reader.outcome(key)

    def fates_of(self, keys: Sequence[int]) -> dict[int, Fate]:
        with self._reading() as reader:
            return fates_of(reader, keys)

    def has_instance(self, id: bytes) -> bool:
        with self._checked(self._looker) as reader:
            return reader.has_instance(id)

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        with self._checked(self._looker) as reader:
            return reader.is_new(instance, origin)

    def last_run(self, origin: bytes, before: int) -> RunRow | None:
        with self._checked(self._looker) as reader:
            return reader.last_run(origin, before)

    def expired(self, failed: bool, before: float, most: int) -> list[StoredInstance]:
        with self._checked(self._looker) as reader:
            return list(reader.expired(failed, before, most))

    def named(self, after: int, most: int) -> list[StoredInstance]:
        with self._checked(self._looker) as reader:
            return list(reader.named(after, most))

    def naming(self, key: int) -> list[StoredInstance]:
        with self._checked(self._looker) as reader:
            return list(reader.naming(key))

    def removed(self, id: bytes) -> RemovedRow | None:
        with self._checked(self._looker) as reader:
            return reader.removed(id)

    def instance(self, id: bytes) -> StoredInstance | None:
        with self._reading() as reader:
            return reader.instance(id)

    def list_instances(self, asked: AskedInstances) -> ListedInstances:
        with self._reading() as reader:
            return read_instances(reader, asked)

    def instances_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        with self._reading() as reader:
            found = reader.instances("WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?", low, high, most)
            return [stored.row.id for stored in found]

    def nodes_between(self, instance: int, low: bytes, high: bytes, most: int) -> list[bytes]:
        with self._reading() as reader:
            where = "INDEXED BY run_origins WHERE origin >= ? AND origin <= ? AND instance = ? ORDER BY origin, first"
            return ids_between(reader.runs(where, low[:12], high[:12], instance), low, high, most)

    def size_of(self, instance: int) -> int:
        with self._reading() as reader:
            return sum(run.size for run in reader.runs("WHERE instance = ?", instance))

    def node_keys(self, instance: int, after: int, limit: int) -> list[int]:
        with self._reading() as reader:
            return read_node_keys(reader, instance, after, limit)

    def described(self, keys: Sequence[int]) -> dict[int, StoredNode]:
        with self._reading() as reader, snapshot(reader.connection):
            return read_described(reader, keys)

    def bad_ends(self, instance: int, after: int = 0, limit: int | None = None) -> list[BadEnd]:
        with self._reading() as reader:
            return read_bad_ends(reader, instance, after, limit)

    def failed(self, culprits: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()) -> Failed:
        with self._reading() as reader, snapshot(reader.connection):
            return read_failed(reader, culprits, more, reruns)

    def edges(self, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
        with self._reading() as reader, snapshot(reader.connection):
            return read_edges(reader, instance, after, limit, tolerant)

    def used_failures(self, instance: int) -> list[int]:
        with self._reading() as reader:
            return read_used_failures(reader, instance)

    # --- large values -------------------------------------------------------------------------------

    def put_large(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        return self._large.put(chunks)

    def get_large(self, sha256: bytes) -> Iterator[bytes] | None:
        return self._large.get(sha256)

    def has_large(self, sha256: bytes) -> bool:
        return self._large.has(sha256)

    def share_large(self) -> tuple[str, str]:
        return self._large.share()

    def keep_large(self, sha256: bytes, length: int, unfinished: str = "") -> bool:
        return self._large.keep(sha256, length, unfinished)

    def find_unnamed_large(self) -> None:
        self._large.look_around()

    def collect_large(self, grace: float, most: int, is_wanted: Callable[[bytes], bool]) -> bool:
        with self._checked(self._looker) as reader:
            return self._large.collect(grace, most, is_wanted, reader.names_large)

    def delete_collected(self, grace: float) -> None:
        self._large.empty(grace)
