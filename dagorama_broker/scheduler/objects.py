"""What the heart is made of while it lives in memory. Owned, never handed out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple

from dagorama_broker.model import Fate, State, World
from dagorama_broker.scheduler.queues import UNLISTED, Head, Lane


class Instance:
    __slots__ = ("failed", "id", "key", "live", "runs")

    def __init__(self, key: int, id: bytes, failed: bool = False) -> None:
        self.key = key
        self.id = id
        self.live = 0  #: nodes that have not ended
        self.failed = failed
        self.runs: list[Run] = []


class Run:
    """Nodes made by one maker in one message; a node's 16-byte id is reckoned from its run, not kept."""

    __slots__ = ("brood", "count", "digest", "first", "first_key", "instance", "origin")

    def __init__(
        self, origin: bytes, first: int, count: int, first_key: int, instance: Instance, digest: bytes = b""
    ) -> None:
        self.digest = digest  #: of what a spawner submitted
        self.origin = origin
        self.first = first
        self.count = count
        self.first_key = first_key
        self.instance = instance
        self.brood: Brood | None = None  #: what an attempt has made that others see while it runs

    def key_of(self, counter: int) -> int:
        return self.first_key + counter - self.first

    def id_of(self, key: int) -> bytes:
        return self.origin + (self.first + key - self.first_key).to_bytes(4, "big")


class Brood:
    """What one attempt has made, as far as it is to be cancelled where an attempt comes to nothing: this one, or one
    that made the node which this one ran."""

    __slots__ = (
        "attempt", "cost", "fate", "function", "instances", "node", "nodes", "origin", "parts", "runs", "size", "top",
        "within",
    )

    def __init__(self, attempt: int, node: int, function: str, within: Brood | None) -> None:
        self.attempt = attempt
        self.node = node  #: key of the node whose attempt it is
        self.function = function  #: the name of what it runs
        self.within = within  #: what that node is among
        self.top = within  #: the same, or what that goes back to
        self.fate = Fate.OPEN
        self.runs: dict[tuple[bytes, int, int], Run] = {}  #: by origin, first counter and count
        self.parts: list[Brood] = []  #: released ones that go back to this one
        self.origin = b""  #: of the nodes that it has made in its node's own instance
        self.instances: set[int] = set()  #: keys of those that it has made nodes in
        self.nodes = 0
        self.size = 0  #: bytes of arguments, as far as this broker has seen them
        self.cost = 0  #: bytes of memory that it took to make them


class Trouble:
    """What went wrong so far; most nodes never have one."""

    __slots__ = ("deaths", "failure", "lost", "lost_attempt", "pause", "retry_at", "runs")

    def __init__(self, runs: int = 0, deaths: int = 0, lost: int = 0) -> None:
        self.runs = runs
        self.deaths = deaths
        self.lost = lost
        self.lost_attempt = 0  #: the last loss was counted for it; 0: none, or it was taken back
        self.failure: bytes | None = None  #: the last one; `Graph.keep_failure` sets it
        self.retry_at = 0.0  #: the heart's clock; 0: not in BACKOFF
        self.pause = 0.0  #: seconds of that BACKOFF


NONE: frozenset[int] = frozenset()
#: In place of the number of sources that a node waits for: it is made, and has not begun to wait for them.
UNSTARTED = -1


class Node:
    """A node that has not ended, or an ended one that an unfinished one holds on to."""

    __slots__ = (
        "attempt", "culprit", "dependents", "instance", "key", "lane", "pending", "readers", "refs", "run", "slot",
        "sources", "state", "tolerates", "trouble",
    )

    def __init__(
        self, key: int, instance: Instance, lane: Lane, run: Run | None, state: State = State.WAITING
    ) -> None:
        self.key = key
        self.instance = instance
        self.lane = lane
        self.run = run
        self.state = state
        self.attempt = 0  #: the last one; 0: none by this broker
        self.slot: Slot | None = None
        self.pending = 0  #: sources (WAITING) or promises (RESOLVING) that have not ended
        self.readers = 0  #: unfinished nodes that will be given its value
        self.sources: tuple[Node, ...] = ()
        self.tolerates: frozenset[int] = NONE  #: keys of sources whose failure it takes for a value
        self.refs: tuple[Node, ...] = ()  #: promises in its value
        self.dependents: list[Node] | None = None  #: who waits for it
        self.culprit: Node | None = None  #: upstream, whose failure it shares; of its own it is itself, unnamed
        self.trouble: Trouble | None = None


class Slot:
    """A child process of a worker: one sync node at a time, and beside it async ones that overlap."""

    __slots__ = ("asked", "async_us", "closed", "held", "index", "progress_at", "sync_us", "worker")

    def __init__(self, worker: Worker, index: int) -> None:
        self.worker = worker
        self.index = index
        self.held: dict[int, tuple[Node, int]] = {}  #: attempt -> node and its cost, in the order granted
        self.sync_us = 0  #: reckoned work of the sync nodes that it holds; 0: none
        self.async_us = 0
        self.progress_at = 0.0  #: when what runs began, as far as is known
        self.closed = False  #: gone for good
        self.asked = False  #: a take-back is under way and nothing has changed since


@dataclass(frozen=True, slots=True)
class Presence:
    """How a worker presents itself."""

    id: bytes
    name: str
    slots: int = 1
    world: World = World.OURS
    include_queues: frozenset[str] = frozenset()  #: empty: all
    exclude_queues: frozenset[str] = frozenset()
    tolerations: frozenset[str] = frozenset()
    leave_when_drained: bool = False
    leave_when_idle: bool = False
    key_ids: frozenset[str] = frozenset()  #: signing keys that it holds, in hexadecimal
    is_proven: bool = True  #: its id is its own: no other worker can present itself under it

    def takes(self, queue: str) -> bool:
        """Whether it serves this queue."""
        return queue not in self.exclude_queues and (not self.include_queues or queue in self.include_queues)


class Worker:
    __slots__ = ("deployed", "heard_at", "lease", "pool", "presence", "refuses", "slots")

    def __init__(self, presence: Presence, now: float, lease: float) -> None:
        self.presence = presence
        self.heard_at = now
        self.lease = lease
        self.slots = [Slot(self, index) for index in range(presence.slots)]
        self.pool: Pool | None = None  #: None: it takes nothing more
        self.refuses: dict[int, str] = {}  #: lane -> why this worker gave such a node back
        self.deployed: dict[int, str] = {}  #: lane -> hash of the code that it has instead

    def why_not(self, lane: Lane) -> str | None:
        """Why nodes of this lane are not for this worker; None: they are."""
        function, own = lane.function, self.presence
        if function.world is not own.world:
            return "it was made by the other protocol's calls"
        if own.include_queues and function.queue not in own.include_queues:
            return f"it does not include queue {function.queue!r} (start one with --include-queue {function.queue})"
        if function.queue in own.exclude_queues:
            return f"it excludes queue {function.queue!r} (start one that does not)"
        if function.taint and function.taint not in own.tolerations:
            return f"it does not tolerate {function.taint!r} (start one with --toleration {function.taint})"
        if function.key_id and function.key_id not in own.key_ids:
            return f"it does not hold the signing key {function.key_id}: set DAGORAMA_SIGNING_KEYS there"
        if function.adopted_under and function.adopted_under not in own.key_ids:
            return (
                f"it does not hold the signing key {function.adopted_under} under which its adoption was signed: adopt "
                "it again, by `dagorama rebind` or `dagorama retry --new-code`, with a key that the worker holds"
            )
        return self.refuses.get(lane.id)


class Pool:
    """Workers that may run the same nodes; granting looks at these and never at every worker.

    It has the heads of all functions that its workers may run, as far as they have been offered to it.
    """

    __slots__ = ("_heads", "_may", "idle", "offered", "roomy", "workers", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self.workers: dict[bytes, Worker] = {}
        self.idle: dict[Slot, None] = {}  #: slots that hold nothing, who waited longest first
        self.roomy: dict[Slot, None] = {}  #: slots that hold something and may have room, who waited longest first
        self._may: dict[int, bool] = {}  # by lane, as far as asked
        self.offered: dict[Lane, int] = {}  #: functions' own lanes, and the place at which `_heads` has each of them
        self._heads: list[tuple[int, int, Lane]] = []  # heap of (place, id, function's own lane)

    @property
    def hungry(self) -> int:
        """Slots that may have room."""
        return len(self.idle) + len(self.roomy)

    def any_worker(self) -> Worker:
        return next(iter(self.workers.values()))

    def may_run(self, lane: Lane) -> bool:
        known = self._may.get(lane.id)
        if known is None:
            known = self._may[lane.id] = self.any_worker().why_not(lane) is None
        return known

    # --- what there is to run -------------------------------------------------------------------------

    def offer(self, lane: Lane, head: Head | None) -> None:
        """Enter the head of a function that these workers may run; None: nothing of it can be claimed now."""
        if head is not None and head[0] < self.offered.get(lane, UNLISTED):
            self.offered[lane] = head[0]
            heappush(self._heads, (head[0], lane.id, lane))

    def oldest(self, head: Callable[[Lane], Head | None]) -> Head | None:
        """Return the oldest node that these workers may run now, as its place and its lane; None: there is none.

        `head` returns that of a function. Heads that are out of date are corrected as they come up.
        """
        heads, offered = self._heads, self.offered
        while heads:
            place, id, lane = heads[0]
            if offered.get(lane) != place:
                heappop(heads)  # an older one of the function was entered since
                continue
            now = head(lane)
            if now is None:
                heappop(heads)
                del offered[lane]
            elif now[0] != place:
                offered[lane] = now[0]
                heapreplace(heads, (now[0], id, lane))
            else:
                return now
        return None

    def withdraw(self, lanes: set[Lane]) -> None:
        """Let go of functions of which nothing can be claimed now."""
        if lanes.isdisjoint(self.offered):
            return
        for lane in lanes:
            self.offered.pop(lane, None)
        self._heads = [entry for entry in self._heads if entry[2] in self.offered]
        heapify(self._heads)

    def next_best(self) -> int:
        """Return a place that is no younger than the oldest node of any function but that of `oldest`."""
        heads = self._heads
        if len(heads) < 3:
            return heads[1][0] if len(heads) == 2 else UNLISTED
        return min(heads[1][0], heads[2][0])

    # --- slots ----------------------------------------------------------------------------------------
    def forget(self, lanes: set[int]) -> None:
        """Nobody will ask about these lanes again."""
        for lane in lanes.intersection(self._may):
            del self._may[lane]

    def place(self, slot: Slot) -> None:
        """Put a slot that may have room where it belongs, behind the others."""
        its, other = (self.roomy, self.idle) if slot.held else (self.idle, self.roomy)
        other.pop(slot, None)
        its[slot] = None

    def remove(self, slot: Slot) -> None:
        """It is given nothing more."""
        self.idle.pop(slot, None)
        self.roomy.pop(slot, None)


class Granted(NamedTuple):
    slot: Slot
    node: Node
    attempt: int


class Obstacle(NamedTuple):
    """Queued nodes of one function that no connected worker may run."""

    lane: Lane  #: the function's, or one of its concurrency keys
    queued: int
    reason: str


class TakenBack(NamedTuple):
    slot: Slot
    attempts: list[int]


@dataclass(slots=True)
class Effects:
    """What is to be told once the changes of the same drain are durable."""

    granted: list[Granted] = field(default_factory=list)
    take_back: list[TakenBack] = field(default_factory=list)
    ended: list[Node] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)  #: keys whose value no unfinished node will be given any more
    refused: list[tuple[Worker, int]] = field(default_factory=list)  #: attempts that are not the worker's
    cancelled: list[tuple[Worker, int]] = field(default_factory=list)  #: attempts that the worker is to stop
    done: list[Worker] = field(default_factory=list)
    left: dict[Worker, list[Obstacle]] = field(default_factory=dict)  #: by those of `done`: what nobody may run

    def __bool__(self) -> bool:
        told = self.granted or self.ended or self.take_back or self.refused or self.cancelled
        return bool(told or self.done)
