"""Results that have just been recorded and that no node needs: whoever waits for them mostly asks in a moment.

Within a bound they are answered from here, without a look into the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from dagorama_broker.engine.payload_cache import Shelf
from dagorama_broker.model import State, World
from dagorama_broker.scheduler import Node

#: How many are kept, bytes of them all, and bytes of one.
MOST, SIZE, EACH = 4096, 16 << 20, 16 << 10


def is_final(node: Node) -> bool:
    """Whether it ended with a value of its own that no unfinished node will be given."""
    return (
        node.state is State.COMPLETED and not node.readers and not node.refs
        and node.run is not None and node.lane.function.world is World.OURS
    )  # fmt: skip


class Recent:
    """The latest of them; their values lie on the shelf."""

    def __init__(self, values: Shelf) -> None:
        self._values = values
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()  # by id
        self._sizes: dict[int, int] = {}  # by key
        self._size = 0

    def __contains__(self, key: object) -> bool:
        return key in self._sizes

    def find(self, id: bytes) -> Node | None:
        return self._nodes.get(id)

    def add(self, node: Node) -> list[int]:
        """Take a final node in, if its value is at hand and small; the keys of those that had to go for it."""
        envelope = self._values.kept.get(node.key)
        if envelope is None or len(envelope) > EACH or node.key in self._sizes:
            return []
        assert node.run is not None
        self._nodes[node.run.id_of(node.key)] = node
        self._sizes[node.key] = len(envelope)
        self._size += len(envelope)
        gone = []
        while len(self._nodes) > MOST or self._size > SIZE:
            gone.append(self._drop(next(iter(self._nodes))))
        return gone

    def forget(self, instances: Collection[int]) -> list[int]:
        """Of these instances nothing is known any more; the keys of what was here of them."""
        return [self._drop(id) for id, node in list(self._nodes.items()) if node.instance.key in instances]

    def _drop(self, id: bytes) -> int:
        key = self._nodes.pop(id).key
        self._size -= self._sizes.pop(key)
        return key
