"""Queries that people make, on a connection of their own, and queries that the broker makes too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from dagorama_broker.model.actions import ListedActions
from dagorama_broker.model.domain import EagerState, State
from dagorama_broker.model.maps import LAST_KEY
from dagorama_broker.model.queries import (
    FailedEnd,
    FunctionCount,
    InstanceMarks,
    InstanceQuery,
    ListedInstances,
    NodePlace,
    StoredInstance,
    StoredNode,
)
from dagorama_broker.model.signals import WaitRow
from dagorama_broker.store.sql.actions import read_actions
from dagorama_broker.store.sql.eager import eager_states_of
from dagorama_broker.store.sql.listing import (
    ids_between,
    read_counts,
    read_described,
    read_node_keys,
)
from dagorama_broker.store.sql.marks import read_marks
from dagorama_broker.store.sql.places import count_up_to, read_ids_at, read_ordinals, read_places
from dagorama_broker.store.sql.retry import read_bad_ends, read_used_failures
from dagorama_broker.store.sql.search import count_instances, read_instances
from dagorama_broker.store.sql.signals import read_waits, read_with_mail
from dagorama_broker.store.sql.store_reader import StoreReader

T = TypeVar("T")


class Source(Protocol):
    """A connection for reading, which one thread uses at a time."""

    def read(self, work: Callable[[StoreReader], T]) -> T:
        """Return what `work` reads. It may be called again if the database went away meanwhile."""
        ...

    def read_one_state(self, work: Callable[[StoreReader], T]) -> T:
        """Do the same from one consistent state, without commits that happen meanwhile."""
        ...


class SharedQueries:
    """Queries that `Store` and `StoreView` share."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def arguments(self, keys: Sequence[int]) -> dict[int, bytes]:
        return self._source.read(lambda reader: reader.arguments(keys))

    def ids(self, keys: Sequence[int]) -> dict[int, bytes]:
        return self._source.read(lambda reader: reader.ids(keys))

    def eager_states(self, keys: Sequence[int]) -> dict[int, EagerState]:
        return self._source.read(lambda reader: eager_states_of(reader, keys))

    def described(self, keys: Sequence[int]) -> dict[int, StoredNode]:
        return self._source.read_one_state(lambda reader: read_described(reader, keys))

    def failed_ends(self, instance: int, after: int = 0, limit: int | None = None) -> list[FailedEnd]:
        return self._source.read(lambda reader: read_bad_ends(reader, instance, after, limit))

    def used_failures(self, instance: int) -> list[int]:
        return self._source.read(lambda reader: read_used_failures(reader, instance))

    def instance(self, id: bytes) -> StoredInstance | None:
        return self._source.read(lambda reader: read_with_mail(reader, id))

    def waits(self, keys: Collection[int]) -> dict[int, WaitRow]:
        return self._source.read(lambda reader: read_waits(reader, keys))

    def marks(self, keys: Collection[int]) -> dict[int, InstanceMarks]:
        return self._source.read(lambda reader: read_marks(reader, keys))


class SqlView(SharedQueries):
    """The part of a `StoreView` that is the same for all databases."""

    is_the_store = False

    def counts(self, id: bytes) -> tuple[StoredInstance, list[FunctionCount]] | None:
        return self._source.read_one_state(lambda reader: _counts(reader, id))

    def ends(self, keys: Collection[int]) -> dict[int, float]:
        return self._source.read(
            lambda reader: {row.key: row.ended for row in reader.outcome_heads(keys) if row.state != State.RESOLVING}
        )

    def worker_names(self, numbers: Collection[int]) -> dict[int, str]:
        return self._source.read(lambda reader: reader.worker_names(numbers))

    def list_instances(self, asked: InstanceQuery) -> ListedInstances:
        return self._source.read(lambda reader: read_instances(reader, asked))

    def instances_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        where = "WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?"
        found = self._source.read(lambda reader: list(reader.instances(where, low, high, most)))
        return [stored.row.id for stored in found]

    def nodes_between(self, instance: int, low: bytes, high: bytes, most: int) -> list[bytes]:
        where = (
            "INDEXED BY node_block_origins WHERE origin >= ? AND origin <= ? AND instance = ? ORDER BY origin, first"
        )
        return self._source.read(
            lambda reader: ids_between(reader.blocks(where, low[:12], high[:12], instance), low, high, most)
        )

    def failed_with(self, instance: int, text: str, after: int, limit: int) -> list[int]:
        return self._source.read(lambda reader: reader.failed_with(instance, text, after, limit))

    def count_instances(self, asked: InstanceQuery) -> int:
        return self._source.read(lambda reader: count_instances(reader, asked))

    def size_of(self, instance: int) -> int:
        return self._source.read(lambda reader: count_up_to(reader, instance, LAST_KEY))

    def node_keys(self, instance: int, after: int, limit: int) -> list[int]:
        return self._source.read(lambda reader: read_node_keys(reader, instance, after, limit))

    def ordinals(self, keys: Collection[int]) -> dict[int, int]:
        return self._source.read_one_state(lambda reader: read_ordinals(reader, keys))

    def ids_at(self, instance: int, ordinals: Collection[int]) -> dict[int, bytes]:
        return self._source.read_one_state(lambda reader: read_ids_at(reader, instance, ordinals))

    def places(self, keys: Collection[int]) -> dict[int, NodePlace]:
        return self._source.read_one_state(lambda reader: read_places(reader, keys))

    def places_of(self, ids: Collection[bytes]) -> list[NodePlace]:
        return self._source.read_one_state(
            lambda reader: list(read_places(reader, reader.keys(list(ids)).values()).values())
        )

    def list_actions(self, before: int, limit: int) -> ListedActions:
        return self._source.read_one_state(lambda reader: read_actions(reader, before, limit))

    def count_up_to(self, instance: int, key: int) -> int:
        return self._source.read(lambda reader: count_up_to(reader, instance, key))


def _counts(reader: StoreReader, id: bytes) -> tuple[StoredInstance, list[FunctionCount]] | None:
    stored = reader.instance(id)
    return None if stored is None else (stored, read_counts(reader, stored.row.key))
