"""Queued nodes, in order: a lane for each function and its rules, oldest instance first. Integers only, no nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from itertools import chain

from dagorama_broker.model.domain import Function

KEY_BITS = 48
KEY_MASK = (1 << KEY_BITS) - 1

#: Microseconds that a run costs beside the function's own time, so that free functions are not granted without end.
OVERHEAD_US = 15
#: Microseconds of work that a slot may hold: how far granting ahead may bend the order.
WINDOW_US = 20_000
#: Async nodes that one child process overlaps.
OVERLAP = 100


#: Above each place: the lane is not among the heads.
UNLISTED = 1 << 127

#: Priorities within an instance; higher goes first.
LOWEST, HIGHEST = -128, 127


def order(instance: int, key: int, priority: int = 0) -> int:
    """A node's place among all queued nodes: by instance, by priority, then by creation; smaller goes first."""
    return (instance << 8 | HIGHEST - priority) << KEY_BITS | key


class Pace:
    """How long runs of a function take, as far as is known."""

    __slots__ = ("_is_async", "cost_us", "mean_us")

    def __init__(self, is_async: bool) -> None:
        self._is_async = is_async
        self.mean_us: float | None = None  #: measured run time; None: it has never run
        self.cost_us = self._cost()  #: what a node adds to a slot's work

    def measured(self, microseconds: int) -> None:
        """Take a run time into the mean. It rises fast and falls slowly: holding too little is the smaller fault."""
        mean = self.mean_us
        if mean is None:
            self.mean_us = float(microseconds)
        else:
            self.mean_us = mean + (microseconds - mean) * (0.25 if microseconds > mean else 0.05)
        self.cost_us = self._cost()

    def _cost(self) -> int:
        """An unknown function fills the window. Async nodes that a slot overlaps do not wait for one another."""
        cost = WINDOW_US if self.mean_us is None else int(self.mean_us) + OVERHEAD_US
        return min(cost, WINDOW_US // OVERLAP) if self._is_async else cost


class Lane:
    """The queued nodes of one function, or of one concurrency key of it.

    A node that leaves other than by its turn stays in here until its turn comes: while there are more places than
    queued nodes, whoever pops looks whether the node is still queued.
    """

    __slots__ = (
        "__weakref__", "_late", "_line", "_of", "claimed", "counted", "delayed", "function", "goes_along", "heads",
        "id", "is_async", "key", "keyed_available", "keyed_claimed", "keyed_delayed", "keyed_ready", "limit", "listed",
        "nodes", "number", "pace", "ready",
    )

    def __init__(self, id: int, function: Function, key: str = "", number: int = 0, base: Lane | None = None) -> None:
        self.id = id  #: the function's
        self.function = function
        self.key = key  #: concurrency key; empty: none
        self.number = number or id  #: the lane's own
        self._of = base  # the function's own lane; no lane names itself, so that one that is not used is gone at once
        self.limit = function.max_concurrency  #: nodes claimed at once; 0: any number
        self.nodes = 0  #: that have not ended; counted for a concurrency key only
        self.is_async = function.is_async
        #: whether a node may be claimed beside the source that it waits for: nothing of it is counted, timed or told
        #: before that has ended
        self.goes_along = not (
            function.is_async or function.max_concurrency or function.timeout or function.delay or function.eager
        )
        self.pace: Pace = base.pace if base is not None else Pace(function.is_async)  #: the function's
        self._line: deque[int] = deque()  # places in their order
        self._late: list[int] = []  # heap of those that came after a younger one
        self.ready = 0  #: nodes of this lane that are QUEUED
        self.claimed = 0  #: nodes of this lane that are CLAIMED
        self.delayed = 0  #: nodes of this lane in BACKOFF
        # Of a function's own lane: the sums over the lanes of its concurrency keys, and the heads of those lanes.
        self.keyed_ready = self.keyed_claimed = self.keyed_delayed = self.keyed_available = 0
        self.heads: list[Head] = []
        # Of a concurrency key's lane: what `keyed_available` has of it, and the place at which `heads` has it.
        self.counted = 0
        self.listed = UNLISTED

    def __len__(self) -> int:
        """Places, those of nodes that have left included."""
        return len(self._line) + len(self._late)

    @property
    def base(self) -> Lane:
        """The function's own lane, which counts what the lanes of its concurrency keys have."""
        return self if self._of is None else self._of

    @property
    def available(self) -> int:
        """Queued nodes that may be claimed now."""
        return min(self.ready, self.limit - self.claimed) if self.limit else self.ready

    @property
    def queued(self) -> int:
        """Queued nodes of a function, whatever their keys."""
        return self.ready + self.keyed_ready

    @property
    def servable(self) -> int:
        """Queued nodes of a function that may be claimed now, whatever their keys."""
        return self.available + self.keyed_available

    def recount(self) -> None:
        """Bring `keyed_available` of the function's lane up to date with this lane, which is a concurrency key's."""
        now = self.available
        self.base.keyed_available += now - self.counted
        self.counted = now

    def forget_heads(self) -> None:
        """Let go of lanes of concurrency keys that have nothing which may be claimed."""
        if not self.keyed_available:
            for _, _, keyed in self.heads:
                keyed.listed = UNLISTED
            self.heads.clear()

    def list_head(self, place: int) -> None:
        """Enter the oldest place of this lane, which is a concurrency key's, among the heads of its function."""
        if place < self.listed:
            self.listed = place
            heappush(self.base.heads, (place, self.number, self))

    def push(self, place: int) -> None:
        line = self._line
        if line and place < line[-1]:
            heappush(self._late, place)
        else:
            line.append(place)

    def first(self) -> int:
        """The oldest place; the lane has one."""
        line, late = self._line, self._late
        return late[0] if late and (not line or late[0] < line[0]) else line[0]

    def pop(self) -> int:
        """Take the oldest place out; its node's key."""
        line, late = self._line, self._late
        place = heappop(late) if late and (not line or late[0] < line[0]) else line.popleft()
        return place & KEY_MASK

    def holds(self, instance: int) -> bool:
        """Whether a place is that of a node of this instance, by its key; it looks at all of them."""
        return any(place >> KEY_BITS + 8 == instance for place in chain(self._line, self._late))

    def clear(self) -> None:
        self._line.clear()
        self._late.clear()


#: The oldest place of a lane, the lane's number (so that ties do not compare lanes), and the lane.
Head = tuple[int, int, Lane]


def oldest(lane: Lane, first: Callable[[Lane], int]) -> Head | None:
    """Return the head of a function's lanes that has the oldest node which may be claimed now; None: there is none.

    `first` returns the oldest place of a lane. Heads that are out of date are corrected as they come up, so that a call
    costs what has changed since the last one.
    """
    heads = lane.heads
    while heads:
        place, number, keyed = heads[0]
        if place != keyed.listed:
            heappop(heads)  # an older place of the lane was entered since
        elif keyed.available <= 0:
            heappop(heads)
            keyed.listed = UNLISTED
        elif (now := first(keyed)) != place:
            keyed.listed = now
            heapreplace(heads, (now, number, keyed))
        else:
            break
    if lane.available <= 0:
        return heads[0] if heads else None
    own = first(lane), lane.number, lane
    return min(own, heads[0]) if heads else own
