"""Defines instances in memory, and the blocks and eager attempts that their nodes were made in."""

from __future__ import annotations

from dagorama_broker.model.domain import EagerState
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.scheduler.places import rank
from dagorama_broker.scheduler.turns import Line

#: Of instances that are not in any order: planned ones, and ones that stand for ended ones.
NO_LINE = Line()


class Instance:
    __slots__ = ("blocks", "failed", "fair", "hook", "id", "key", "line", "live", "rank", "turn")

    def __init__(self, key: int, id: bytes, failed: bool = False) -> None:
        self.key = key
        self.line = NO_LINE  #: of its priority
        self.turn = self.rank = 0  #: its place among instances is its rank: smaller goes first
        self.fair: str | None = None  #: the key, or "", under which its line counts it; None: it does not
        self.id = id
        self.live = 0  #: nodes that have not ended
        self.failed = failed
        self.hook: HookRow | None = None
        self.blocks: list[NodeBlock] = []

    def line_up(self, line: Line, turn: int, priority: int) -> None:
        """Give it its place in the order."""
        self.line, self.turn = line, turn
        self.rank = rank(turn, self.key, priority)


class NodeBlock:
    """Nodes that one node or client created with one message; the 16-byte IDs of its nodes are computed, not stored."""

    __slots__ = ("count", "digest", "eager_attempt", "first", "first_key", "instance", "origin")

    def __init__(
        self, origin: bytes, first: int, count: int, first_key: int, instance: Instance, digest: bytes = b""
    ) -> None:
        self.digest = digest  #: of what a client submitted
        self.origin = origin
        self.first = first
        self.count = count
        self.first_key = first_key
        self.instance = instance
        self.eager_attempt: EagerAttempt | None = None  #: set if an attempt of an eager function made it

    def key_of(self, counter: int) -> int:
        """Return the key of the node with this counter."""
        return self.first_key + counter - self.first

    def id_of(self, key: int) -> bytes:
        """Return the 16-byte ID of the node with this key."""
        return self.origin + (self.first + key - self.first_key).to_bytes(4, "big")


class EagerAttempt:
    """The children of one attempt that are cancelled if an attempt fails: this one, or one that made its node."""

    __slots__ = (
        "attempt",
        "blocks",
        "children",
        "cost",
        "eager_state",
        "function",
        "instances",
        "node",
        "nodes",
        "origin",
        "parent",
        "root",
        "size",
    )

    def __init__(self, attempt: int, node: int, function: str, parent: EagerAttempt | None) -> None:
        self.attempt = attempt
        self.node = node  #: key of the node whose attempt it is
        self.function = function  #: name of the function that it runs
        self.parent = parent  #: the attempt that made that node
        self.root = parent  #: the same, or the attempt that it depends on now
        self.eager_state = EagerState.OPEN
        self.blocks: dict[tuple[bytes, int, int], NodeBlock] = {}  #: by origin, first counter and count
        self.children: list[EagerAttempt] = []  #: completed attempts whose children depend on this one
        self.origin = b""  #: of its children in the instance of its node
        self.instances: set[int] = set()  #: keys of the instances of its children
        self.nodes = 0
        self.size = 0  #: bytes of arguments that this broker has received
        self.cost = 0  #: bytes of memory that making them took
