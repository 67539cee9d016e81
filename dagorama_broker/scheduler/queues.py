"""Queues nodes by function, oldest instance first. Knows places, which are integers, and no nodes."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush, heapreplace

from dagorama_broker.model.domain import Function
from dagorama_broker.scheduler.gates import ANY, Gate
from dagorama_broker.scheduler.places import KEY_BITS, Places
from dagorama_broker.scheduler.run_times import UNCOUNTED, CachedRunTime, FunctionFigures, RunTimeEstimate

#: Larger than each place: the queue is not among the heads.
UNLISTED = 1 << 191

#: Priorities of instances, and of nodes within an instance; higher goes first.
LOWEST, HIGHEST = -128, 127


def order(instance: int, key: int, priority: int = 0) -> int:
    """Return a node's place in the order of nodes: by instance, priority and creation; smaller goes first."""
    return (instance << 8 | HIGHEST - priority) << KEY_BITS | key


class FunctionQueue(Places):
    """The queued nodes of one function, or of one concurrency key of it.

    A node that leaves before its turn keeps its place until its turn comes: while there are more places than queued
    nodes, the caller that pops a place checks whether its node is still queued.
    """

    __slots__ = (
        "__weakref__",
        "_of",
        "caches",
        "can_fuse",
        "claimed",
        "counted",
        "delayed",
        "emptied",
        "figures",
        "function",
        "gate",
        "gates",
        "heads",
        "id",
        "is_async",
        "is_bounded",
        "is_counted",
        "is_held",
        "is_limited",
        "is_paused",
        "key",
        "keyed_available",
        "keyed_claimed",
        "keyed_delayed",
        "keyed_ready",
        "limit",
        "listed",
        "nodes",
        "number",
        "ready",
        "run_time",
    )

    def __init__(
        self, id: int, function: Function, key: str = "", number: int = 0, base: FunctionQueue | None = None
    ) -> None:
        super().__init__()
        self.id = id  #: the function's
        self.function = function
        self.key = key  #: concurrency key; empty: none
        self.number = number or id  #: the queue's own
        self._of = base  # the function's own queue; no queue references itself, so that an unused one is freed at once
        self.limit = 0 if function.concurrency_of_all else function.max_concurrency  #: nodes claimed at once; 0: any
        #: of a function's own queue: what limits it together with others, or its nodes with any key together
        self.gates: tuple[QueueGate, ...] = ()
        self.gate: QueueGate | None = None  #: the rate of its key
        self.is_limited = function.is_limited  #: whether it has a gate
        self.is_bounded = bool(self.limit or function.rate_by_key)  #: whether its key has a limit or a rate
        self.is_counted = bool(self.limit or self.is_limited)  #: whether the end of a claim may open anything
        self.nodes = 0  #: unfinished nodes; counted for a concurrency key only
        self.is_async = function.is_async
        self.is_paused = False  #: of a function's own queue: its nodes are not granted
        self.is_held = False  #: the nodes of its key are not granted, because a node has asked for that
        #: whether a node may be claimed together with the source that it waits for: nothing of it is counted, timed or
        #: visible before the source has ended
        self.can_fuse = not (
            function.is_async
            or function.max_concurrency
            or function.timeout
            or function.delay
            or function.stream_children
            or self.is_limited
            or function.cached
        )
        self.caches = function.cached
        self.run_time: RunTimeEstimate = (
            base.run_time if base is not None else _new_run_time(function)
        )  #: the function's
        self.figures: FunctionFigures = base.figures if base is not None else UNCOUNTED  #: the function's
        self.emptied = 0  #: how many times all places were removed
        self.ready = 0  #: nodes in state QUEUED
        self.claimed = 0  #: nodes in state CLAIMED
        self.delayed = 0  #: nodes in state BACKOFF
        # Of a function's own queue: sums over the queues of its concurrency keys, and the heads of these queues.
        self.keyed_ready = self.keyed_claimed = self.keyed_delayed = self.keyed_available = 0
        self.heads: list[Head] = []
        # Of a concurrency key's queue: its part of `keyed_available`, and the place at which `heads` has it.
        self.counted = 0
        self.listed = UNLISTED

    @property
    def base(self) -> FunctionQueue:
        """The function's own queue, which counts what the queues of its concurrency keys have."""
        return self if self._of is None else self._of

    @property
    def available(self) -> int:
        """Queued nodes that may be claimed now, as far as its key alone decides."""
        return min(self.ready, self.own_room) if self.is_bounded else self.ready

    @property
    def own_room(self) -> int:
        """Nodes that may be claimed now, as far as its key alone decides."""
        if self.is_held:
            return 0
        room = self.limit - self.claimed if self.limit else ANY
        return room if self.gate is None else min(room, self.gate.room)

    @property
    def shared_room(self) -> int:
        """Nodes that may be claimed now, as far as all gates of a function's own queue decide."""
        return min([gate.room for gate in self.gates], default=ANY)

    @property
    def is_closed(self) -> bool:
        """Whether nothing of a function's own queue is granted, with any key, however many nodes are queued."""
        if self.is_paused:
            return True
        for gate in self.gates:  # without calls, because it is asked for each node that is granted
            rate, most = gate.rate, gate.max_concurrency
            if rate is not None and gate.used + gate.held >= rate.starts:
                return True
            if (most and gate.claimed >= most) or gate.is_paused:
                return True
        return False

    def room_for(self, nodes: int) -> int:
        """Return how many of these nodes could be claimed in addition if they were queued too."""
        return max(0, min(nodes, self.own_room - max(0, self.available))) if self.is_bounded else nodes

    @property
    def queued(self) -> int:
        """Queued nodes of a function, with any key."""
        return self.ready + self.keyed_ready

    @property
    def schedulable(self) -> int:
        """Queued nodes of a function that may be claimed now, with any key."""
        nodes = self.available + self.keyed_available
        return min(nodes, self.shared_room) if self.gates else nodes

    def hold(self, is_held: bool) -> None:
        """Grant no nodes of its key, or go on with it. Call `recount` and stir the queue afterwards."""
        self.is_held = is_held
        self.is_bounded = bool(is_held or self.limit or self.function.rate_by_key)

    def recount(self) -> None:
        """Update `keyed_available` of the function from this queue of a concurrency key."""
        now = self.available
        self.base.keyed_available += now - self.counted
        self.counted = now

    def forget_heads(self) -> None:
        """Drop the heads if no concurrency key has a claimable node."""
        if not self.keyed_available:
            for _, _, keyed in self.heads:
                keyed.listed = UNLISTED
            self.heads.clear()

    def list_head(self, place: int) -> None:
        """Enter the oldest place of this queue of a concurrency key among the heads of its function."""
        if place < self.listed:
            self.listed = place
            heappush(self.base.heads, (place, self.number, self))

    def clear(self) -> None:
        """Remove all places."""
        self.emptied += 1
        super().clear()


#: A limit of queues.
QueueGate = Gate[FunctionQueue]


def _new_run_time(function: Function) -> RunTimeEstimate:
    return CachedRunTime(function.is_async) if function.cached else RunTimeEstimate(function.is_async)


#: The oldest place of a queue, the queue's number (so that ties do not compare queues), and the queue.
Head = tuple[int, int, FunctionQueue]


def oldest(queue: FunctionQueue, first: Callable[[FunctionQueue], int]) -> Head | None:
    """Return the head of a function's queues with the oldest claimable node; None: there is none.

    `first` returns the oldest place of a queue. Outdated heads are corrected when they come up, so that a call costs
    what has changed since the last one.
    """
    heads = queue.heads
    while heads:
        place, number, keyed = heads[0]
        if place != keyed.listed:
            heappop(heads)  # an older place of the queue was entered since
        elif keyed.available <= 0:
            heappop(heads)
            keyed.listed = UNLISTED
        elif (now := first(keyed)) != place:
            keyed.listed = now
            heapreplace(heads, (now, number, keyed))
        else:
            break
    if queue.available <= 0:
        return heads[0] if heads else None
    own = first(queue), queue.number, queue
    return min(own, heads[0]) if heads else own
