"""Defines the nodes of an instance as columns, as they are read for drawings of many nodes."""

from __future__ import annotations

from typing import NamedTuple

#: The largest key that a row may have.
LAST_KEY = (1 << 63) - 1
#: The state in `NodeColumns` of a node that has no outcome.
NO_OUTCOME = 255


class BlockColumns(NamedTuple):
    """Blocks of consecutive nodes in the order of their keys, as columns; the first and the last may be cut."""

    first_keys: list[int]
    sizes: list[int]
    creators: list[int]  #: keys of the nodes whose attempts created them; 0: a client did
    created: list[int]  #: microseconds since 1970

    @property
    def keys(self) -> list[int]:
        """The keys of all nodes."""
        blocks = zip(self.first_keys, self.sizes, strict=True)
        return [key for first, size in blocks for key in range(first, first + size)]


class NodeColumns(NamedTuple):
    """Nodes in the order of their keys, as columns.

    A store knows nothing of nodes that run or are queued; the engine overlays what it knows of them.
    """

    functions: list[int]  #: IDs of the functions that they were created with
    states: bytearray  #: of their outcomes, RESOLVING included; `NO_OUTCOME`: there is none
    ended: list[int]  #: microseconds since 1970; 0: the node has not ended
    microseconds: list[int]  #: how long the recorded attempt ran; 0: unknown
    workers: list[int]  #: numbers of the workers that ran it; 0: none
    failed_attempts: list[int]
    #: microseconds since 1970: when the recorded attempt of a node returned promises; 0: it did not
    returned: list[int]
    source_counts: list[int]


def cut_blocks(blocks: BlockColumns, after: int, limit: int) -> BlockColumns:
    """Return the parts of blocks that hold the first `limit` nodes after this key; the first block has some of them."""
    first_keys, sizes, creators, created = blocks
    begun = max(0, after + 1 - first_keys[0])
    first_keys[0], sizes[0] = first_keys[0] + begun, sizes[0] - begun
    left, count = limit, 0
    while count < len(sizes) and left > 0:
        sizes[count] = min(sizes[count], left)
        left -= sizes[count]
        count += 1
    return BlockColumns(first_keys[:count], sizes[:count], creators[:count], created[:count])
