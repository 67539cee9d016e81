"""Defines the scheduler's objects in memory: nodes, workers, pools. The scheduler owns and changes them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import ENDED, State, WireProtocol, pack_keys
from dagorama_broker.model.signals import WaitRow
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.mismatch import Mismatch, mismatch
from dagorama_broker.scheduler.queues import UNLISTED, FunctionQueue, Head
from dagorama_broker.scheduler.requests import WorkerInfo
from dagorama_broker.scheduler.run_times import FailureCounts


@dataclass(eq=False, slots=True)
class Reservation:
    """Keys that a large call has reserved; it stands for the call while its names are reserved too."""

    first_key: int
    first_instance: int


NONE: frozenset[int] = frozenset()


class RareFacts:
    """Facts about few nodes, as an object of its own, so that a million other nodes do not have fields for them."""

    __slots__ = ("delay", "failures", "root_cause", "tolerates", "twin", "wait")

    def __init__(self) -> None:
        self.tolerates = NONE
        self.root_cause: Node | None = None
        self.failures: FailureCounts | None = None
        self.delay: NodeDelay | None = None
        self.twin: Node | None = None
        self.wait: WaitRow | None = None


#: Value of `Node.pending` for a node that is made and has not begun to wait for its sources.
UNSTARTED = -1


class Node:
    """An unfinished node, or an ended one that an unfinished one references."""

    __slots__ = (
        "attempt",
        "block",
        "consumers",
        "dependents",
        "instance",
        "key",
        "pending",
        "queue",
        "rare",
        "refs",
        "slot",
        "sources",
        "state",
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
        self.refs: tuple[Node, ...] = ()  #: promises in its value
        self.dependents: list[Node] | None = None  #: nodes that wait for it
        self.rare: RareFacts | None = None

    @property
    def tolerates(self) -> frozenset[int]:
        """The keys of sources whose failure it takes as a value."""
        return NONE if self.rare is None else self.rare.tolerates

    @tolerates.setter
    def tolerates(self, keys: frozenset[int]) -> None:
        if keys or self.rare is not None:
            self._with_rare().tolerates = keys

    @property
    def root_cause(self) -> Node | None:
        """The upstream node that failed first; None: the node itself."""
        return None if self.rare is None else self.rare.root_cause

    @root_cause.setter
    def root_cause(self, node: Node | None) -> None:
        if node is not None or self.rare is not None:
            self._with_rare().root_cause = node

    @property
    def failures(self) -> FailureCounts | None:
        """The counts of its failed attempts; None: it had none."""
        return None if self.rare is None else self.rare.failures

    @failures.setter
    def failures(self, counts: FailureCounts | None) -> None:
        if counts is not None or self.rare is not None:
            self._with_rare().failures = counts

    @property
    def delay(self) -> NodeDelay | None:
        """When it starts at the earliest, if its call said so."""
        return None if self.rare is None else self.rare.delay

    @delay.setter
    def delay(self, delay: NodeDelay | None) -> None:
        if delay is not None or self.rare is not None:
            self._with_rare().delay = delay

    @property
    def twin(self) -> Node | None:
        """The node that it waits for, or has waited for, because that one computes the same; see `caching`."""
        return None if self.rare is None else self.rare.twin

    @twin.setter
    def twin(self, node: Node | None) -> None:
        if node is not None or self.rare is not None:
            self._with_rare().twin = node

    @property
    def wait(self) -> WaitRow | None:
        """The signal that it waits for; None: it is run by a worker."""
        return None if self.rare is None else self.rare.wait

    @wait.setter
    def wait(self, wait: WaitRow | None) -> None:
        self._with_rare().wait = wait

    def packed_sources(self) -> bytes:
        """Return the packed keys of its sources; negative if it takes their failure as a value."""
        if not self.sources:
            return b""
        tolerates = self.tolerates
        return pack_keys([-source.key if source.key in tolerates else source.key for source in self.sources])

    def _with_rare(self) -> RareFacts:
        if self.rare is None:
            self.rare = RareFacts()
        return self.rare

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
        self.refuses: dict[int, Mismatch] = {}  #: by the ID of a function: why this worker gave such a node back
        self.deployed: dict[int, str] = {}  #: by the ID of a function: hash of the code that it has instead

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
        #: empty slots: preferred ones first, then the one that waited longest
        self.idle: OrderedDict[Slot, None] = OrderedDict()
        #: slots with nodes that may have room, the one that waited longest first
        self.partially_free: dict[Slot, None] = {}
        self._may: dict[int, bool] = {}  # by the ID of a function, as far as asked
        self.offered: dict[FunctionQueue, int] = {}  #: functions' own queues, and the place at which `_heads` has each
        self._heads: list[tuple[int, int, FunctionQueue]] = []  # heap of (place, ID, the function's own queue)

    @property
    def slots_with_room(self) -> int:
        """Return the number of slots that may have room."""
        return len(self.idle) + len(self.partially_free)

    def any_worker(self) -> Worker:
        """Return one of the workers, as an example of all."""
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
        """Drop what is known of these functions, by their IDs."""
        for queue in queues.intersection(self._may):
            del self._may[queue]

    # --- slots ----------------------------------------------------------------------------------------

    def place(self, slot: Slot) -> None:
        """Enter a slot that may have room, behind the others of its kind."""
        its, other = (self.partially_free, self.idle) if slot.held else (self.idle, self.partially_free)
        other.pop(slot, None)
        its[slot] = None

    def prefer(self, slot: Slot) -> None:
        """Serve a slot first if it is empty: its process has what the next node of a chain needs."""
        if slot in self.idle:
            self.idle.move_to_end(slot, last=False)

    def remove(self, slot: Slot) -> None:
        """Remove a slot: it is granted nothing more."""
        self.idle.pop(slot, None)
        self.partially_free.pop(slot, None)
