"""Queries that people make, on a connection of their own, and queries that the broker makes too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

from dagorama_broker.model.actions import ListedActions
from dagorama_broker.model.domain import EagerState, State
from dagorama_broker.model.maps import LAST_KEY, BlockColumns, NodeColumns
from dagorama_broker.model.queries import (
    FailedEnd,
    FailurePage,
    FunctionCount,
    InstanceMarks,
    InstanceQuery,
    ListedInstances,
    NodePlace,
    StoredInstance,
    StoredNode,
    StructurePage,
)
from dagorama_broker.store.sqlite.actions import read_actions
from dagorama_broker.store.sqlite.aggregates import (
    read_failures,
    read_ids_at,
    read_ordinals,
    read_places,
    read_structure,
)
from dagorama_broker.store.sqlite.connection import snapshot
from dagorama_broker.store.sqlite.eager import eager_states_of
from dagorama_broker.store.sqlite.listing import (
    ids_between,
    read_counts,
    read_described,
    read_node_keys,
)
from dagorama_broker.store.sqlite.maps import count_up_to, read_blocks, read_columns, read_sources
from dagorama_broker.store.sqlite.marks import read_marks
from dagorama_broker.store.sqlite.reader import Reader
from dagorama_broker.store.sqlite.retry import read_bad_ends, read_used_failures
from dagorama_broker.store.sqlite.search import count_instances, read_failed_with, read_instances

#: Opens a context in which this thread alone reads through a connection.
Reading = Callable[[], AbstractContextManager[Reader]]


class SharedQueries:
    """Queries that `Store` and `StoreView` share."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def arguments(self, keys: Sequence[int]) -> dict[int, bytes]:
        with self._reading() as reader:
            return reader.arguments(keys)

    def ids(self, keys: Sequence[int]) -> dict[int, bytes]:
        with self._reading() as reader:
            return reader.ids(keys)

    def eager_states(self, keys: Sequence[int]) -> dict[int, EagerState]:
        with self._reading() as reader:
            return eager_states_of(reader, keys)

    def described(self, keys: Sequence[int]) -> dict[int, StoredNode]:
        with self._reading() as reader, snapshot(reader.connection):
            return read_described(reader, keys)

    def failed_ends(self, instance: int, after: int = 0, limit: int | None = None) -> list[FailedEnd]:
        with self._reading() as reader:
            return read_bad_ends(reader, instance, after, limit)

    def used_failures(self, instance: int) -> list[int]:
        with self._reading() as reader:
            return read_used_failures(reader, instance)

    def instance(self, id: bytes) -> StoredInstance | None:
        with self._reading() as reader:
            return reader.instance(id)

    def marks(self, keys: Collection[int]) -> dict[int, InstanceMarks]:
        with self._reading() as reader:
            return read_marks(reader, keys)


class SqliteView(SharedQueries):
    """A `StoreView` of a file."""

    is_the_store = False

    def counts(self, id: bytes) -> tuple[StoredInstance, list[FunctionCount]] | None:
        with self._reading() as reader, snapshot(reader.connection):
            stored = reader.instance(id)
            return None if stored is None else (stored, read_counts(reader, stored.row.key))

    def ends(self, keys: Collection[int]) -> dict[int, float]:
        with self._reading() as reader:
            return {row.key: row.ended for row in reader.outcome_heads(keys) if row.state != State.RESOLVING}

    def worker_names(self, numbers: Collection[int]) -> dict[int, str]:
        with self._reading() as reader:
            return reader.worker_names(numbers)

    def list_instances(self, asked: InstanceQuery) -> ListedInstances:
        with self._reading() as reader:
            return read_instances(reader, asked)

    def instances_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        with self._reading() as reader:
            found = reader.instances("WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?", low, high, most)
            return [stored.row.id for stored in found]

    def nodes_between(self, instance: int, low: bytes, high: bytes, most: int) -> list[bytes]:
        with self._reading() as reader:
            where = "WHERE origin >= ? AND origin <= ? AND instance = ? ORDER BY origin, first"
            blocks = reader.blocks(f"INDEXED BY node_block_origins {where}", low[:12], high[:12], instance)
            return ids_between(blocks, low, high, most)

    def failed_with(self, instance: int, text: str, after: int, limit: int) -> list[int]:
        with self._reading() as reader:
            return read_failed_with(reader, instance, text, after, limit)

    def count_instances(self, asked: InstanceQuery) -> int:
        with self._reading() as reader:
            return count_instances(reader, asked)

    def size_of(self, instance: int) -> int:
        with self._reading() as reader:
            return count_up_to(reader, instance, LAST_KEY)

    def node_keys(self, instance: int, after: int, limit: int) -> list[int]:
        with self._reading() as reader:
            return read_node_keys(reader, instance, after, limit)

    def ordinals(self, keys: Collection[int]) -> dict[int, int]:
        with self._reading() as reader, snapshot(reader.connection):
            return read_ordinals(reader, keys)

    def ids_at(self, instance: int, ordinals: Collection[int]) -> dict[int, bytes]:
        with self._reading() as reader, snapshot(reader.connection):
            return read_ids_at(reader, instance, ordinals)

    def places(self, keys: Collection[int]) -> dict[int, NodePlace]:
        with self._reading() as reader, snapshot(reader.connection):
            return read_places(reader, keys)

    def places_of(self, ids: Collection[bytes]) -> list[NodePlace]:
        with self._reading() as reader, snapshot(reader.connection):
            return list(read_places(reader, reader.keys(list(ids)).values()).values())

    def failures(self, instance: int, after: int, limit: int) -> FailurePage:
        with self._reading() as reader, snapshot(reader.connection):
            return read_failures(reader, instance, after, limit)

    def structure(self, instance: int, after: int, limit: int) -> StructurePage:
        with self._reading() as reader, snapshot(reader.connection):
            return read_structure(reader, instance, after, limit)

    def list_actions(self, before: int, limit: int) -> ListedActions:
        with self._reading() as reader, snapshot(reader.connection):
            return read_actions(reader, before, limit)

    def map_blocks(self, instance: int, after: int, limit: int) -> BlockColumns:
        with self._reading() as reader:
            return read_blocks(reader, instance, after, limit)

    def count_up_to(self, instance: int, key: int) -> int:
        with self._reading() as reader:
            return count_up_to(reader, instance, key)

    def node_columns(self, instance: int, first: int, last: int) -> NodeColumns:
        with self._reading() as reader:
            return read_columns(reader, instance, first, last)

    def node_sources(self, instance: int, first: int, last: int) -> list[int]:
        with self._reading() as reader:
            return read_sources(reader, instance, first, last)
