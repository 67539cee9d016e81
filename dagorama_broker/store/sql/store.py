"""The part that the stores of all databases share: their reads, and large values as files or as objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from dagorama_broker.errors import StoreError
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.objects import NewObject, ObjectRow
from dagorama_broker.model.queries import EdgesPage, EndedNode, Failed, FoundNode, Live, StoredInstance
from dagorama_broker.model.rows import NameRow, NodeBlockRow, OutcomeRow, RemovedRow
from dagorama_broker.store.folders import usage_below
from dagorama_broker.store.large_values import LargeFiles
from dagorama_broker.store.objects.large_objects import LargeObjects
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.listing import read_functions_of, read_used_ids
from dagorama_broker.store.sql.marks import read_hooks, read_name
from dagorama_broker.store.sql.objects import (
    drop_objects,
    find_object,
    name_objects,
    named_objects,
    unreferenced_objects,
)
from dagorama_broker.store.sql.restore import read_live
from dagorama_broker.store.sql.retry import read_edges, read_failed
from dagorama_broker.store.sql.store_reader import StoreReader
from dagorama_broker.store.sql.view import SharedQueries, Source

T = TypeVar("T")


class SqlStore(SharedQueries, ABC):
    """The part of a `Store` that does not commit."""

    def __init__(self, source: Source, quick: Source, large: LargeFiles | LargeObjects) -> None:
        """Read from these sources; `quick` is for quick queries, if the store is near in the broker's loop."""
        super().__init__(source)
        self._quick = quick
        self._large = large
        self.objects = large if isinstance(large, LargeObjects) else None

    def functions_of(self, after: int, most: int) -> tuple[set[int], int | None]:
        return self._source.read(lambda reader: read_functions_of(reader, after, most))

    def hooks(self, instances: Collection[int]) -> dict[int, HookRow]:
        return self._source.read(lambda reader: read_hooks(reader, instances))

    def used_ids(self, after: bytes, most: int) -> list[bytes]:
        return self._source.read(lambda reader: read_used_ids(reader, after, most))

    def live(self) -> Live:
        return self._source.read(lambda reader: read_live(reader))

    def values(self, keys: Sequence[int]) -> dict[int, bytes]:
        return self._source.read(lambda reader: reader.values(keys))

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        return self._source.read(lambda reader: reader.find(ids))

    def ended(self, keys: Sequence[int]) -> list[EndedNode]:
        found = self._source.read(lambda reader: reader.ended_and_named(keys))
        return [found[key] for key in sorted(found)]

    def outcome(self, key: int) -> OutcomeRow | None:
        return self._source.read(lambda reader: reader.outcome(key))

    def has_instance(self, id: bytes) -> bool:
        return self._quick.read(lambda reader: reader.has_instance(id))

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        return self._quick.read(lambda reader: reader.is_new(instance, origin))

    def named_instance(self, definition: str, name: str) -> NameRow | None:
        return self._quick.read(lambda reader: read_name(reader, definition, name))

    def last_block(self, origin: bytes, before: int) -> NodeBlockRow | None:
        return self._quick.read(lambda reader: reader.last_block(origin, before))

    def expired(self, failed: bool, before: float, most: int) -> list[StoredInstance]:
        return self._quick.read(lambda reader: list(reader.expired(failed, before, most)))

    def named(self, after: int, most: int) -> list[StoredInstance]:
        return self._quick.read(lambda reader: list(reader.named(after, most)))

    def naming(self, key: int) -> list[StoredInstance]:
        return self._quick.read(lambda reader: list(reader.naming(key)))

    def removed(self, id: bytes) -> RemovedRow | None:
        return self._quick.read(lambda reader: reader.removed(id))

    def failed(self, root_causes: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()) -> Failed:
        return self._source.read_one_state(lambda reader: read_failed(reader, root_causes, more, reruns))

    def edges(self, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
        return self._source.read_one_state(lambda reader: read_edges(reader, instance, after, limit, tolerant))

    @property
    def source(self) -> Source:
        """The connection that answers the broker's own queries."""
        return self._source

    @abstractmethod
    def transact(self, work: Callable[[Connection], T]) -> T:
        """Do the work in one transaction, and return what it returns."""

    @abstractmethod
    def continue_after(self, epoch: int) -> None:
        """Make the epoch of the next start larger than this one. Call it last before `close`."""

    @property
    def values_folder(self) -> Path | None:
        """The folder of large values; None: they are objects."""
        return None if self.objects is not None else self._files.folder

    # --- large values -------------------------------------------------------------------------------

    @property
    def _files(self) -> LargeFiles:
        if not isinstance(self._large, LargeFiles):
            raise StoreError("large values are in an object store, and not files")
        return self._large

    def put_large(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        return self._files.put(chunks)

    def get_large(self, sha256: bytes) -> Iterator[bytes] | None:
        return self._files.get(sha256)

    def share_large(self) -> tuple[str, str]:
        return self._files.share() if self.objects is None else ("", "")

    def keep_large(self, sha256: bytes, length: int, unfinished: str = "") -> bool:
        return self._files.keep(sha256, length, unfinished)

    def has_large(self, sha256: bytes) -> bool:
        if self.objects is None:
            return self._files.take(sha256)
        return self._is_value(self._quick.read(lambda reader: find_object(reader.connection, sha256)))

    def _is_value(self, row: ObjectRow | None) -> bool:
        return row is not None and self.objects is not None and not self.objects.is_going(row)

    def find_unnamed_large(self) -> None:
        if self.objects is None:
            self._files.look_around()
        else:
            self.objects.unnamed(self._source.read(lambda reader: unreferenced_objects(reader.connection)))

    def collect_large(self, grace: float, most: int, is_wanted: Callable[[bytes], bool]) -> bool:
        return self._quick.read(lambda reader: self._collect(reader, grace, most, is_wanted))

    def _collect(self, reader: StoreReader, grace: float, most: int, is_wanted: Callable[[bytes], bool]) -> bool:
        if self.objects is None:
            return self._files.collect(grace, most, is_wanted, reader.names_large)
        find = partial(find_object, reader.connection)
        return self.objects.collect(grace, most, is_wanted, reader.names_large, find)

    def delete_collected(self, grace: float) -> None:
        if self.objects is None:
            self._files.empty(grace)
            return
        if gone := self.objects.take_gone():
            self.transact(lambda connection: drop_objects(connection, gone))
            self.objects.rows_deleted(gone)
        self.objects.tidy(lambda names: self._source.read(lambda reader: named_objects(reader.connection, names)))

    # --- large values as objects --------------------------------------------------------------------

    def object_of(self, sha256: bytes) -> ObjectRow | None:
        return self._source.read(lambda reader: find_object(reader.connection, sha256))

    def name_objects(self, new: Sequence[NewObject]) -> list[ObjectRow]:
        return self.transact(lambda connection: name_objects(connection, new))

    # --- for the stores of both databases -----------------------------------------------------------

    def _open_values(self, secret: bytes) -> None:
        """Prepare large values for this broker, the only one of the store."""
        if self.objects is None:
            self._files.sweep()
        else:
            self.objects.claim(secret)

    def _check_values(self) -> None:
        """Raise StoreError if the folder of large values was removed or replaced."""
        if self.objects is None:
            self._files.check_folder()

    def _values_size(self) -> int:
        """Return the bytes of large values on this machine."""
        return 0 if self.objects is not None else usage_below(self._files.folder)
