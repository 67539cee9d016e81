"""The durable store: one SQLite file and a folder of large values next to it. Records in, records out, no rules."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from dagorama_broker.model.looks import Seen, Wanted, look_into
from dagorama_broker.model.queries import (
    EdgesPage,
    EndedNode,
    Failed,
    FoundNode,
    Live,
    StoredInstance,
    Usage,
)
from dagorama_broker.model.rows import Changes, NameRow, NodeBlockRow, OutcomeRow, RemovedRow
from dagorama_broker.store.folders import size_of, usage_of
from dagorama_broker.store.large_values import LargeFiles
from dagorama_broker.store.sqlite.commit_count import COUNT_TIME
from dagorama_broker.store.sqlite.connection import BUSY_SECONDS, snapshot
from dagorama_broker.store.sqlite.database import Database
from dagorama_broker.store.sqlite.listing import (
    read_functions_of,
)
from dagorama_broker.store.sqlite.marks import read_name
from dagorama_broker.store.sqlite.restore import read_live
from dagorama_broker.store.sqlite.retry import read_edges, read_failed
from dagorama_broker.store.sqlite.view import SharedQueries, SqliteView

log = logging.getLogger("dagorama_broker")

_ANY_LARGE = "SELECT 1 FROM large_refs LIMIT 1"


class SqliteStore(SharedQueries):
    """A `Store` in a file."""

    near = True

    def __init__(self, path: Path, busy: float = BUSY_SECONDS, count_together: float = COUNT_TIME) -> None:
        """`busy`: seconds for which another program may lock the file; `count_together`: see `CommitCount`."""
        # SQLite follows links too, so the folder of large values must be next to the link's target.
        self.path = Path(os.path.realpath(path))
        self._database = Database(self.path, busy, count_together)
        super().__init__(self._database.reading)
        self.view = SqliteView(self._database.viewing)
        self._large = LargeFiles(self.path.with_name(self.path.name + ".values"))

    def __repr__(self) -> str:
        return f"sqlite:///{self.path}"

    # --- opening and closing ------------------------------------------------------------------------

    def open(self) -> None:
        self._database.reach()

    def take(self) -> int:
        try:
            with self._database.taken():
                self._database.prepare()
                self._large.sweep()
                epoch = self._database.begin()
                self._warn_of_lost_values()
                return epoch
        except BaseException:
            self._large.close()
            raise

    def _warn_of_lost_values(self) -> None:
        with self._database.looking() as reader:
            refers_to_values = reader.connection.execute(_ANY_LARGE).fetchone()
        if refers_to_values and not self._large.folder.is_dir():
            log.error(
                "%s is missing, with the large values that nodes refer to: restore it, or those nodes fail when a"
                " worker needs the values", self._large.folder,
            )  # fmt: skip

    def close(self) -> None:
        """Raise StoreError if a start would not find the store, which was saved if possible; close it in any case."""
        try:
            self._database.close()
        finally:
            self._large.close()

    def accept_loss(self) -> str:
        """Make the next start accept the database as it is; return what is lost, or an empty text."""
        return self._database.accept_loss()

    @property
    def logs_path(self) -> Path | None:
        return self.path.with_name(self.path.name + ".logs")

    @property
    def secret(self) -> bytes:
        return self._database.secret

    @property
    def last_used(self) -> float:
        return self._database.last_used

    def usage(self) -> Usage:
        return usage_of(self.path, self._large.folder)

    def size(self) -> int:
        return size_of(self.path)

    # --- writing ------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        is_settled = self._database.commit(changes)
        if changes.large or not is_settled:
            self._large.check_folder()

    def sweep(self, most: int) -> bool:
        is_more, unnamed = self._database.sweep(most)
        self._large.unnamed(unnamed)
        return is_more

    # --- reading ------------------------------------------------------------------------------------

    def functions_of(self, after: int, most: int) -> tuple[set[int], int | None]:
        with self._database.reading() as reader:
            return read_functions_of(reader, after, most)

    def live(self) -> Live:
        with self._database.reading() as reader:
            return read_live(reader)

    def values(self, keys: Sequence[int]) -> dict[int, bytes]:
        with self._database.reading() as reader:
            return reader.values(keys)

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        with self._database.reading() as reader:
            return reader.find(ids)

    def ended(self, keys: Sequence[int]) -> list[EndedNode]:
        with self._database.reading() as reader:
            found = reader.ended_and_named(keys)
        return [found[key] for key in sorted(found)]

    def outcome(self, key: int) -> OutcomeRow | None:
        with self._database.reading() as reader:
            return reader.outcome(key)

    def has_instance(self, id: bytes) -> bool:
        with self._database.looking() as reader:
            return reader.has_instance(id)

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        with self._database.looking() as reader:
            return reader.is_new(instance, origin)

    def named_instance(self, definition: str, name: str) -> NameRow | None:
        with self._database.looking() as reader:
            return read_name(reader, definition, name)

    def last_block(self, origin: bytes, before: int) -> NodeBlockRow | None:
        with self._database.looking() as reader:
            return reader.last_block(origin, before)

    def look(self, wanted: Wanted) -> Seen:
        return look_into(self, wanted)

    def expired(self, failed: bool, before: float, most: int) -> list[StoredInstance]:
        with self._database.looking() as reader:
            return list(reader.expired(failed, before, most))

    def named(self, after: int, most: int) -> list[StoredInstance]:
        with self._database.looking() as reader:
            return list(reader.named(after, most))

    def naming(self, key: int) -> list[StoredInstance]:
        with self._database.looking() as reader:
            return list(reader.naming(key))

    def removed(self, id: bytes) -> RemovedRow | None:
        with self._database.looking() as reader:
            return reader.removed(id)

    def failed(self, root_causes: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()) -> Failed:
        with self._database.reading() as reader, snapshot(reader.connection):
            return read_failed(reader, root_causes, more, reruns)

    def edges(self, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
        with self._database.reading() as reader, snapshot(reader.connection):
            return read_edges(reader, instance, after, limit, tolerant)

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
        with self._database.looking() as reader:
            return self._large.collect(grace, most, is_wanted, reader.names_large)

    def delete_collected(self, grace: float) -> None:
        self._large.empty(grace)
