"""Caches envelopes between the commit and their use, and results for a moment after it.

Each cache is bounded; an envelope that it does not hold is read back from the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from dagorama_broker.model.domain import State, WireProtocol
from dagorama_broker.scheduler import Node

#: Reads one batch of keys: `store.arguments` or `store.values`, called in the broker's store thread.
Read = Callable[[Sequence[int]], Awaitable[dict[int, bytes]]]
#: Keys read at a time, which bounds what one read brings into memory.
READ_BATCH = 256
#: Recent results that are kept, bytes of all their values, and bytes of the largest one.
MOST_RECENT, RECENT_BYTES, LARGEST_RECENT = 4096, 16 << 20, 16 << 10


class PayloadCache:
    """Caches envelopes by node key. An envelope that does not fit is not kept: the store has it."""

    def __init__(self, most: int, read: Read) -> None:
        self.most = most  #: bytes
        self.size = 0
        self.kept: dict[int, bytes] = {}
        self._read = read

    def keep(self, key: int, envelope: bytes) -> None:
        """Add an envelope if there is room for it."""
        size = self.size + len(envelope)
        if size <= self.most:
            self.kept[key] = envelope
            self.size = size

    def find(self, key: int) -> bytes | None:
        """Return an envelope if it is here."""
        return self.kept.get(key)

    def drop(self, key: int) -> None:
        """Remove an envelope if it is here."""
        envelope = self.kept.pop(key, None)
        if envelope is not None:
            self.size -= len(envelope)

    async def get(self, keys: Iterable[int]) -> dict[int, bytes]:
        """Return the envelopes of these keys. Raises StoreError if the store lacks one."""
        found: dict[int, bytes] = {}
        missing = []
        for key in keys:
            envelope = self.find(key)
            if envelope is None:
                missing.append(key)
            else:
                found[key] = envelope
        for start in range(0, len(missing), READ_BATCH):
            found.update(await self._read(missing[start : start + READ_BATCH]))
        return found


def is_final(node: Node) -> bool:
    """Return whether a node completed with a value of its own that no unfinished node will be given."""
    return (
        node.state is State.COMPLETED and not node.consumers and not node.refs
        and node.block is not None and node.queue.function.protocol is WireProtocol.V1
    )  # fmt: skip


class RecentResults:
    """Keeps the latest results that no node needs, because a client often asks for them in a moment.

    The values are in the cache of values; they are answered from here without a look into the store.
    """

    def __init__(self, values: PayloadCache) -> None:
        self._values = values
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()  # by ID
        self._sizes: dict[int, int] = {}  # by key
        self._size = 0

    def __contains__(self, key: object) -> bool:
        return key in self._sizes

    def find(self, id: bytes) -> Node | None:
        """Return the node with this ID if its result is kept."""
        return self._nodes.get(id)

    def add(self, node: Node) -> list[int]:
        """Add a final node if its value is in memory and small. Return the keys of nodes dropped for it."""
        envelope = self._values.kept.get(node.key)
        if envelope is None or (size := len(envelope)) > LARGEST_RECENT or node.key in self._sizes:
            return []
        assert node.block is not None
        self._nodes[node.block.id_of(node.key)] = node
        self._sizes[node.key] = size
        self._size += size
        gone = []
        while len(self._nodes) > MOST_RECENT or self._size > RECENT_BYTES:
            gone.append(self._drop(next(iter(self._nodes))))
        return gone

    def forget(self, instances: Collection[int]) -> list[int]:
        """Drop the results of these instances, by their keys. Return the keys of the dropped nodes."""
        return [self._drop(id) for id, node in list(self._nodes.items()) if node.instance.key in instances]

    def _drop(self, id: bytes) -> int:
        key = self._nodes.pop(id).key
        self._size -= self._sizes.pop(key)
        return key
