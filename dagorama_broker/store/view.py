"""The interface of what people read from a store: lists, counts, search. It may be slow without delaying the broker."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from dagorama_broker.model.actions import ListedActions
from dagorama_broker.model.domain import EagerState
from dagorama_broker.model.maps import BlockColumns, NodeColumns
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
from dagorama_broker.model.signals import WaitRow


class Queries(Protocol):
    """Queries that the broker and people make. They raise StoreError, with one sentence, if it cannot be read."""

    def arguments(self, keys: Sequence[int]) -> dict[int, bytes]:
        """Return argument envelopes by node key. Raise StoreError if a key is missing."""
        ...

    def ids(self, keys: Sequence[int]) -> dict[int, bytes]:
        """Return 16-byte IDs by node key. Raise StoreError if a key is missing."""
        ...

    def described(self, keys: Sequence[int]) -> dict[int, StoredNode]:
        """Return nodes by key. Raise StoreError if a key is missing."""
        ...

    def eager_states(self, keys: Sequence[int]) -> dict[int, EagerState]:
        """Return the states of the eager attempts that created these nodes; nodes that none created are left out."""
        ...

    def failed_ends(self, instance: int, after: int = 0, limit: int | None = None) -> list[FailedEnd]:
        """Return nodes of an instance, by its key, that failed or were cancelled, in the order of their keys."""
        ...

    def used_failures(self, instance: int) -> list[int]:
        """Return nodes of an instance, by its key, that received a failure as a value which has been retried since."""
        ...

    def instance(self, id: bytes) -> StoredInstance | None:
        """Return an instance by its 16-byte ID, with its signals."""
        ...

    def waits(self, keys: Collection[int]) -> dict[int, WaitRow]:
        """Return how nodes wait, or waited, for signals, by their keys; other nodes are left out."""
        ...

    def marks(self, keys: Collection[int]) -> dict[int, InstanceMarks]:
        """Return what users have said of instances, by their keys; instances without any are left out."""
        ...


class StoreView(Queries, Protocol):
    """Reads the last commit of an open store.

    Calls block, and are made by one thread at a time, which need not be the one that calls the store. Every method
    raises StoreError, with one sentence, if the store cannot be read.
    """

    @property
    def is_the_store(self) -> bool:
        """Whether the store itself answers: then the thread that calls the store has to make these calls."""
        ...

    def ends(self, keys: Collection[int]) -> dict[int, float]:
        """Return when these nodes ended, in seconds since 1970, by key; nodes that have not are left out."""
        ...

    def counts(self, id: bytes) -> tuple[StoredInstance, list[FunctionCount]] | None:
        """Return an instance by its 16-byte ID, and count its nodes by function and state, all at one moment.

        Checksums of nodes are not compared.
        """
        ...

    def worker_names(self, numbers: Collection[int]) -> dict[int, str]:
        """Return the names of workers by the numbers that outcomes refer to them by; the latest `REMEMBERED` are kept.

        Numbers without a name are left out.
        """
        ...

    def instances_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        """Return up to `most` IDs of instances from `low` to `high`, both included, in their order."""
        ...

    def nodes_between(self, instance: int, low: bytes, high: bytes, most: int) -> list[bytes]:
        """Return up to `most` node IDs of an instance, by its key, from `low` to `high` inclusive, in their order."""
        ...

    def list_instances(self, asked: InstanceQuery) -> ListedInstances:
        """Return a page of instances. It may be shorter than requested: a page reads a limited number of instances."""
        ...

    def failed_with(self, instance: int, text: str, after: int, limit: int) -> list[int]:
        """Return up to `limit` keys of nodes of an instance after this key, in their order, that failed themselves.

        Their type or message contains the text; ASCII letters are compared in any case. Checksums are not compared.
        """
        ...

    def count_instances(self, asked: InstanceQuery) -> int:
        """Return how many instances match, on all pages. `asked` must not look into nodes."""
        ...

    def size_of(self, instance: int) -> int:
        """Return how many nodes an instance has, by its key."""
        ...

    def node_keys(self, instance: int, after: int, limit: int) -> list[int]:
        """Return up to `limit` keys of nodes of an instance after this one, in their order."""
        ...

    def ordinals(self, keys: Collection[int]) -> dict[int, int]:
        """Return the ordinals of nodes in their instances, by key; the node that was created first has ordinal 1."""
        ...

    def ids_at(self, instance: int, ordinals: Collection[int]) -> dict[int, bytes]:
        """Return the IDs of the nodes with these ordinals in an instance, by its key; others are left out."""
        ...

    def places(self, keys: Collection[int]) -> dict[int, NodePlace]:
        """Return the places of these nodes of any instances, by key; nodes that were removed are left out."""
        ...

    def places_of(self, ids: Collection[bytes]) -> list[NodePlace]:
        """Return the places of these nodes of any instances, in no particular order; unknown ones are left out."""
        ...

    def failures(self, instance: int, after: int, limit: int) -> FailurePage:
        """Return up to `limit` nodes of an instance, by its key, that failed by themselves, after this key.

        Checksums are not compared.
        """
        ...

    def structure(self, instance: int, after: int, limit: int) -> StructurePage:
        """Return up to `limit` nodes of an instance, by its key, after this one. Checksums are not compared."""
        ...

    def list_actions(self, before: int, limit: int) -> ListedActions:
        """Return up to `limit` actions with a smaller number than `before`, the latest first."""
        ...

    # Checksums of what the next four return are not compared.

    def map_blocks(self, instance: int, after: int, limit: int) -> BlockColumns:
        """Return the blocks of up to `limit` nodes of an instance, by its key, after this node."""
        ...

    def count_up_to(self, instance: int, key: int) -> int:
        """Return how many nodes of an instance, by its key, have this key or a smaller one."""
        ...

    def node_columns(self, instance: int, first: int, last: int) -> NodeColumns:
        """Return the nodes of an instance, by its key, from this one to that one, both included."""
        ...

    def node_sources(self, instance: int, first: int, last: int) -> list[int]:
        """Return the keys of the sources of these nodes, one node after the other."""
        ...
