"""The runs of a store in memory: contiguous ranges of nodes, found by key, by id and by instance."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter

from dagorama_broker.errors import StoreError
from dagorama_broker.model.rows import NodeBlockRow
from dagorama_broker.store.memory.retention import delete_places

_FIRST, _FIRST_KEY = attrgetter("first"), attrgetter("first_key")


class Runs:
    """Runs in the order of their keys."""

    def __init__(self) -> None:
        self.in_order: list[NodeBlockRow] = []
        self.by_instance: dict[int, list[NodeBlockRow]] = {}
        self.by_origin: dict[bytes, list[NodeBlockRow]] = {}  #: each list in the order of its counters

    def __iter__(self) -> Iterator[NodeBlockRow]:
        return iter(self.in_order)

    def add(self, run: NodeBlockRow) -> None:
        """Add a run at its position."""
        self.in_order.insert(bisect_right(self.in_order, run.first_key, key=_FIRST_KEY), run)
        self.by_instance.setdefault(run.instance, []).append(run)
        of_origin = self.by_origin.setdefault(run.origin, [])
        of_origin.insert(bisect_right(of_origin, run.first, key=_FIRST), run)

    # --- queries ----------------------------------------------------------------------------------

    def of(self, key: int) -> NodeBlockRow:
        """Return the run that contains a node. Raise StoreError if there is none."""
        index = max(bisect_right(self.in_order, key, key=_FIRST_KEY) - 1, 0)
        run = self.in_order[index] if self.in_order else None
        if run is None or not run.first_key <= key < run.first_key + run.size:
            raise StoreError(f"the store has no id of node {key}")
        return run

    def id_of(self, key: int) -> bytes:
        """Return the id of a node. Raise StoreError if no run contains it."""
        run = self.of(key)
        return run.origin + (run.first + key - run.first_key).to_bytes(4, "big")

    def with_id(self, id: bytes) -> NodeBlockRow | None:
        """Return the run that contains the node with this id."""
        counter = int.from_bytes(id[12:], "big")
        run = self.last(id[:12], counter + 1)
        return run if run is not None and counter < run.first + run.size else None

    def last(self, origin: bytes, before: int) -> NodeBlockRow | None:
        """Return the last run of this origin that begins before this counter."""
        runs = self.by_origin.get(origin, [])
        index = bisect_left(runs, before, key=_FIRST) - 1
        return runs[index] if index >= 0 else None

    def contains(self, origin: bytes, first: int) -> bool:
        """Return whether a run of this origin begins with this counter."""
        run = self.last(origin, first + 1)
        return run is not None and run.first == first

    def keys_of(self, instance: int) -> Iterator[int]:
        """Yield the keys of the nodes of an instance, in their order."""
        return (key for run in self.in_order if run.instance == instance for key in node_keys(run))

    def after(self, key: int) -> Iterator[NodeBlockRow]:
        """Yield the run that contains this key, or the one before it, and all that follow."""
        return iter(self.in_order[max(0, bisect_right(self.in_order, key, key=_FIRST_KEY) - 1) :])

    # --- deletion ---------------------------------------------------------------------------------

    def last_of(self, instance: int) -> NodeBlockRow | None:
        """Return the last run of an instance that is not deleted yet."""
        runs = self.by_instance.get(instance)
        return runs[-1] if runs else None

    def shorten(self, run: NodeBlockRow, size: int) -> None:
        """Note that only the first nodes of the last run of an instance are left."""
        self.by_instance[run.instance][-1] = run._replace(size=size)

    def release(self, run: NodeBlockRow) -> None:
        """Delete the last run of an instance, except from `in_order`: call `delete` for that."""
        runs = self.by_instance[run.instance]
        runs.pop()
        if not runs:
            del self.by_instance[run.instance]
        of_origin = self.by_origin[run.origin]
        del of_origin[bisect_left(of_origin, run.first, key=_FIRST)]
        if not of_origin:
            del self.by_origin[run.origin]

    def delete(self, runs: Iterable[NodeBlockRow]) -> None:
        """Delete released runs from `in_order`, all at once."""
        delete_places(self.in_order, [bisect_left(self.in_order, run.first_key, key=_FIRST_KEY) for run in runs])


def node_keys(run: NodeBlockRow) -> range:
    """Return the keys of the nodes of a run."""
    return range(run.first_key, run.first_key + run.size)
