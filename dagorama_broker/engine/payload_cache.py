"""Caches envelopes between the commit and their use, and results for a moment after it.

Each cache is bounded; an envelope that it does not hold is read back from the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Sequence

from dagorama_broker.model.domain import State, WireProtocol
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler import Effects, Node

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
        if self.size + len(envelope) <= self.most:
            self.kept[key] = envelope
            self.size += len(envelope)

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
            envelope = self.kept.get(key)
            if envelope is None:
                missing.append(key)
            else:
                found[key] = envelope
        for start in range(0, len(missing), READ_BATCH):
            found.update(await self._read(missing[start : start + READ_BATCH]))
        return found


class Payloads:
    """Caches arguments of unfinished nodes, and values that unfinished nodes or waiting clients will be given."""

    def __init__(self, most: int, arguments: Read, values: Read) -> None:
        self.arguments = PayloadCache(most, arguments)
        self.values = PayloadCache(most, values)

    def take_in(self, changes: Changes, nodes: Container[int], is_wanted: Callable[[int], bool]) -> None:
        """Add the envelopes of a commit that will be read soon."""
        for revived in changes.retried:
            if revived.state != State.RESOLVING:
                self.values.drop(revived.key)
        for row in changes.nodes:
            if row.key in nodes:
                self.arguments.keep(row.key, row.arguments)
        for given_up in changes.given_up:
            for key in range(given_up.first_key, given_up.last_key + 1):
                self.arguments.drop(key)
        for outcome in changes.outcomes:
            if outcome.value is not None and (outcome.state == State.RESOLVING or is_wanted(outcome.key)):
                self.values.keep(outcome.key, outcome.value)

    def let_go(self, effects: Effects, is_wanted: Callable[[int], bool]) -> None:
        """Drop the envelopes that no unfinished node will be given."""
        for node in effects.ended:
            self.arguments.drop(node.key)
            if not node.consumers and not is_wanted(node.key):
                self.values.drop(node.key)
        for key in effects.unread:
            if not is_wanted(key):
                self.values.drop(key)


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
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()  # by id
        self._sizes: dict[int, int] = {}  # by key
        self._size = 0

    def __contains__(self, key: object) -> bool:
        return key in self._sizes

    def find(self, id: bytes) -> Node | None:
        """Return the node with this id if its result is kept."""
        return self._nodes.get(id)

    def add(self, node: Node) -> list[int]:
        """Add a final node if its value is in memory and small. Return the keys of nodes dropped for it."""
        envelope = self._values.kept.get(node.key)
        if envelope is None or len(envelope) > LARGEST_RECENT or node.key in self._sizes:
            return []
        assert node.block is not None
        self._nodes[node.block.id_of(node.key)] = node
        self._sizes[node.key] = len(envelope)
        self._size += len(envelope)
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
