"""Defines the scheduler's objects in memory: instances, nodes, workers. The scheduler owns and changes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

from dagorama_broker.model.domain import ENDED, EagerState, State, WireProtocol
from dagorama_broker.scheduler.mismatch import Mismatch, mismatch
from dagorama_broker.scheduler.queues import UNLISTED, FunctionQueue, Head, rank
from dagorama_broker.scheduler.requests import WorkerInfo


class Instance:
    __slots__ = ("blocks", "failed", "id", "key", "live", "rank")

    def __init__(self, key: int, id: bytes, failed: bool = False, priority: int = 0) -> None:
        self.key = key
        self.rank = rank(key, priority)  #: its place among instances: smaller goes first
        self.id = id
        self.live = 0  #: nodes that have not ended
        self.failed = failed
        self.blocks: list[NodeBlock] = []


class NodeBlock:
    """Nodes that one node or client created with one message; the 16-byte ids of its nodes are computed, not stored."""

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
        """Return the 16-byte id of the node with this key."""
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


class FailureCounts:
    """Counts the failed attempts of a node; most nodes never have one."""

    __slots__ = ("crashes", "failed_attempts", "failure", "lost_attempt", "note", "pause", "retry_at", "worker_losses")

    def __init__(self, failed_attempts: int = 0, crashes: int = 0, worker_losses: int = 0) -> None:
        self.failed_attempts = failed_attempts
        self.crashes = crashes
        self.worker_losses = worker_losses
        self.lost_attempt = 0  #: attempt of the last counted loss; 0: none, or it was uncounted
        self.failure: bytes | None = None  #: the last one; `Graph.keep_failure` sets it
        self.retry_at = 0.0  #: the scheduler's clock; 0: not in BACKOFF
        self.pause = 0.0  #: seconds of that BACKOFF
        self.note = ""  #: the reason of that BACKOFF, if it is neither a failure nor a delay; not stored


@dataclass(eq=False, slots=True)
class Reservation:
    """Keys that a large call has reserved; it stands for the call while its names are reserved too."""

    first_key: int
    first_instance: int


NONE: frozenset[int] = frozenset()
#: Value of `Node.pending` for a node that is made and has not begun to wait for its sources.
UNSTARTED = -1


class Node:
    """An unfinished node, or an ended one that an unfinished one references."""

    __slots__ = (
        "attempt",
        "block",
        "consumers",
        "dependents",
        "failures",
        "instance",
        "key",
        "pending",
        "queue",
        "refs",
        "root_cause",
        "slot",
        "sources",
        "state",
        "tolerates",
    )

    def __init__(
        self, key: int, instance: Instance, queue: FunctionQueue, block: NodeBlock | None, state: State = State.WAITING
    ) -> None:
        self.key = key
        self.instance = instance
        self.queue = queue
        self.block = block
        self.state = state
        self.attempt = 0  #: the last one; 0: none by this broker
        self.slot: Slot | None = None
        self.pending = 0  #: sources (WAITING) or promises (RESOLVING) that have not ended
        self.consumers = 0  #: unfinished nodes that will be given its value
        self.sources: tuple[Node, ...] = ()
        self.tolerates: frozenset[int] = NONE  #: keys of sources whose failure it takes as a value
        self.refs: tuple[Node, ...] = ()  #: promises in its value
        self.dependents: list[Node] | None = None  #: nodes that wait for it
        self.root_cause: Node | None = None  #: the upstream node that failed first; None: the node itself
        self.failures: FailureCounts | None = None

    @property
    def unfinished_sources(self) -> list[Node]:
        """Its sources that have not ended."""
        return [source for source in self.sources if source.state not in ENDED]


class Slot:
    """A child process of a worker: it runs one sync node at a time, and async ones at the same time."""

    __slots__ = ("asked", "async_us", "closed", "held", "index", "progress_at", "sync_us", "worker")

    def __init__(self, worker: Worker, index: int) -> None:
        self.worker = worker
        self.index = index
        self.held: dict[int, tuple[Node, int]] = {}  #: attempt -> node and its cost, in the order granted
        self.sync_us = self.async_us = 0  #: estimated work of the sync, and async, nodes that it holds; 0: none
        self.progress_at = 0.0  #: when the running node began, as far as is known
        self.closed = False  #: gone for good
        self.asked = False  #: a take-back was requested and nothing has changed since


class Worker:
    __slots__ = ("deployed", "heard_at", "info", "lease", "number", "pool", "refuses", "slots")

    def __init__(self, presence: WorkerInfo, number: int, now: float, lease: float) -> None:
        self.info = presence
        self.number = number  #: by which outcomes refer to its name
        self.heard_at = now
        self.lease = lease
        self.slots = [Slot(self, index) for index in range(presence.slots)]
        self.pool: Pool | None = None  #: None: it is granted nothing more
        self.refuses: dict[int, Mismatch] = {}  #: by the id of a function: why this worker gave such a node back
        self.deployed: dict[int, str] = {}  #: by the id of a function: hash of the code that it has instead

    def mismatch(self, queue: FunctionQueue) -> Mismatch | None:
        """Return why this worker may not run nodes of this function; None: it may."""
        return mismatch(self.info, queue.function) or self.refuses.get(queue.id)


class Pool:
    """Workers that may run the same nodes; assignment looks at pools and never at every worker.

    It has the oldest nodes of all functions that its workers may run, as far as they have been offered to it.
    """

    __slots__ = ("_heads", "_may", "idle", "offered", "partially_free", "protocol", "workers")

    def __init__(self, protocol: WireProtocol) -> None:
        self.protocol = protocol
        self.workers: dict[bytes, Worker] = {}
        self.idle: dict[Slot, None] = {}  #: empty slots, the one that waited longest first
        self.partially_free: dict[
            Slot, None
        ] = {}  #: slots with nodes that may have room, the one that waited longest first
        self._may: dict[int, bool] = {}  # by the id of a function, as far as asked
        self.offered: dict[FunctionQueue, int] = {}  #: functions' own queues, and the place at which `_heads` has each
        self._heads: list[tuple[int, int, FunctionQueue]] = []  # heap of (place, id, the function's own queue)

    @property
    def slots_with_room(self) -> int:
        """Return the number of slots that may have room."""
        return len(self.idle) + len(self.partially_free)

    def any_worker(self) -> Worker:
        """Return one of the workers, which stands for all."""
        return next(iter(self.workers.values()))

    def may_run(self, queue: FunctionQueue) -> bool:
        """Return whether these workers may run nodes of this function."""
        known = self._may.get(queue.id)
        if known is None:
            known = self._may[queue.id] = self.any_worker().mismatch(queue) is None
        return known

    # --- nodes to run ---------------------------------------------------------------------------------

    def offer(self, queue: FunctionQueue, head: Head | None) -> None:
        """Enter the oldest node of a function that these workers may run; None: none can be claimed now."""
        if head is not None and head[0] < self.offered.get(queue, UNLISTED):
            self.offered[queue] = head[0]
            heappush(self._heads, (head[0], queue.id, queue))

    def oldest(self, head: Callable[[FunctionQueue], Head | None]) -> Head | None:
        """Return the oldest node that these workers may run now, as its place and its queue; None: there is none.

        `head` returns the oldest node of a function. Outdated entries are corrected when they come up.
        """
        heads, offered = self._heads, self.offered
        while heads:
            place, id, queue = heads[0]
            if offered.get(queue) != place:
                heappop(heads)  # an older one of the function was entered since
                continue
            now = head(queue)
            if now is None:
                heappop(heads)
                del offered[queue]
            elif now[0] != place:
                offered[queue] = now[0]
                heapreplace(heads, (now[0], id, queue))
            else:
                return now
        return None

    def withdraw(self, queues: set[FunctionQueue]) -> None:
        """Remove functions without a claimable node."""
        if queues.isdisjoint(self.offered):
            return
        for queue in queues:
            self.offered.pop(queue, None)
        self._heads = [entry for entry in self._heads if entry[2] in self.offered]
        heapify(self._heads)

    def next_best(self) -> int:
        """Return a place that is no younger than the oldest node of any function except the first one."""
        heads = self._heads
        if len(heads) < 3:
            return heads[1][0] if len(heads) == 2 else UNLISTED
        return min(heads[1][0], heads[2][0])

    def forget(self, queues: set[int]) -> None:
        """Drop what is known of these functions, by their ids."""
        for queue in queues.intersection(self._may):
            del self._may[queue]

    # --- slots ----------------------------------------------------------------------------------------

    def place(self, slot: Slot) -> None:
        """Enter a slot that may have room, behind the others of its kind."""
        its, other = (self.partially_free, self.idle) if slot.held else (self.idle, self.partially_free)
        other.pop(slot, None)
        its[slot] = None

    def remove(self, slot: Slot) -> None:
        """Remove a slot: it is granted nothing more."""
        self.idle.pop(slot, None)
        self.partially_free.pop(slot, None)
