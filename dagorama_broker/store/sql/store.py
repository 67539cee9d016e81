"""The part that the stores of all databases share: their reads, and large values as files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from dagorama_broker.model.queries import EdgesPage, EndedNode, Failed, FoundNode, Live, StoredInstance
from dagorama_broker.model.rows import NameRow, NodeBlockRow, OutcomeRow, RemovedRow
from dagorama_broker.store.large_values import LargeFiles
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.listing import read_functions_of, read_used_ids
from dagorama_broker.store.sql.marks import read_name
from dagorama_broker.store.sql.restore import read_live
from dagorama_broker.store.sql.retry import read_edges, read_failed
from dagorama_broker.store.sql.view import SharedQueries, Source

T = TypeVar("T")


class SqlStore(SharedQueries, ABC):
    """The part of a `Store` that does not commit."""

    def __init__(self, source: Source, quick: Source, large: LargeFiles) -> None:
        """Read from these sources; `quick` is for quick queries, if the store is near in the broker's loop."""
        super().__init__(source)
        self._quick = quick
        self._large = large

    def functions_of(self, after: int, most: int) -> tuple[set[int], int | None]:
        return self._source.read(lambda reader: read_functions_of(reader, after, most))

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
    def values_folder(self) -> Path:
        """The folder of large values."""
        return self._large.folder

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
        return self._quick.read(lambda reader: self._large.collect(grace, most, is_wanted, reader.names_large))

    def delete_collected(self, grace: float) -> None:
        self._large.empty(grace)
