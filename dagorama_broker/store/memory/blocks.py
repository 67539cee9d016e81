"""The blocks of a store in memory: contiguous ranges of nodes, found by key, by ID and by instance."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter

from dagorama_broker.errors import StoreError
from dagorama_broker.model.rows import NodeBlockRow
from dagorama_broker.store.memory.retention import delete_places

_FIRST, _FIRST_KEY = attrgetter("first"), attrgetter("first_key")


class Blocks:
    """Blocks in the order of their keys."""

    def __init__(self) -> None:
        self.in_order: list[NodeBlockRow] = []
        self.by_instance: dict[int, list[NodeBlockRow]] = {}
        self.by_origin: dict[bytes, list[NodeBlockRow]] = {}  #: each list in the order of its counters

    def __iter__(self) -> Iterator[NodeBlockRow]:
        return iter(self.in_order)

    def add(self, block: NodeBlockRow) -> None:
        """Add a block at its position."""
        self.in_order.insert(bisect_right(self.in_order, block.first_key, key=_FIRST_KEY), block)
        self.by_instance.setdefault(block.instance, []).append(block)
        of_origin = self.by_origin.setdefault(block.origin, [])
        of_origin.insert(bisect_right(of_origin, block.first, key=_FIRST), block)

    # --- queries ----------------------------------------------------------------------------------

    def of(self, key: int) -> NodeBlockRow:
        """Return the block that contains a node. Raise StoreError if there is none."""
        index = max(bisect_right(self.in_order, key, key=_FIRST_KEY) - 1, 0)
        block = self.in_order[index] if self.in_order else None
        if block is None or not block.first_key <= key < block.first_key + block.size:
            raise StoreError(f"the store has no ID of node {key}")
        return block

    def id_of(self, key: int) -> bytes:
        """Return the ID of a node. Raise StoreError if no run contains it."""
        block = self.of(key)
        return block.origin + (block.first + key - block.first_key).to_bytes(4, "big")

    def with_id(self, id: bytes) -> NodeBlockRow | None:
        """Return the block that contains the node with this ID."""
        counter = int.from_bytes(id[12:], "big")
        block = self.last(id[:12], counter + 1)
        return block if block is not None and counter < block.first + block.size else None

    def last(self, origin: bytes, before: int) -> NodeBlockRow | None:
        """Return the last block of this origin that begins before this counter."""
        blocks = self.by_origin.get(origin, [])
        index = bisect_left(blocks, before, key=_FIRST) - 1
        return blocks[index] if index >= 0 else None

    def contains(self, origin: bytes, first: int) -> bool:
        """Return whether a block of this origin begins with this counter."""
        block = self.last(origin, first + 1)
        return block is not None and block.first == first

    def keys_of(self, instance: int) -> Iterator[int]:
        """Yield the keys of the nodes of an instance, in their order."""
        return (key for block in self.in_order if block.instance == instance for key in node_keys(block))

    def after(self, key: int) -> Iterator[NodeBlockRow]:
        """Yield the block that contains this key, or the one before it, and all that follow."""
        return iter(self.in_order[max(0, bisect_right(self.in_order, key, key=_FIRST_KEY) - 1) :])

    # --- deletion ---------------------------------------------------------------------------------

    def last_of(self, instance: int) -> NodeBlockRow | None:
        """Return the last run of an instance that is not deleted yet."""
        blocks = self.by_instance.get(instance)
        return blocks[-1] if blocks else None

    def shorten(self, block: NodeBlockRow, size: int) -> None:
        """Note that only the first nodes of the last run of an instance are left."""
        self.by_instance[block.instance][-1] = block._replace(size=size)

    def release(self, block: NodeBlockRow) -> None:
        """Delete the last run of an instance, except from `in_order`: call `delete` for that."""
        blocks = self.by_instance[block.instance]
        blocks.pop()
        if not blocks:
            del self.by_instance[block.instance]
        of_origin = self.by_origin[block.origin]
        del of_origin[bisect_left(of_origin, block.first, key=_FIRST)]
        if not of_origin:
            del self.by_origin[block.origin]

    def delete(self, blocks: Iterable[NodeBlockRow]) -> None:
        """Delete released runs from `in_order`, all at once."""
        delete_places(self.in_order, [bisect_left(self.in_order, block.first_key, key=_FIRST_KEY) for block in blocks])


def node_keys(block: NodeBlockRow) -> range:
    """Return the keys of the nodes of a block."""
    return range(block.first_key, block.first_key + block.size)
