"""Queued nodes, in order: a lane for each function and its rules, oldest instance first. Integers only, no nodes."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import chain

from dagorama_broker.model import Function

KEY_BITS = 48
KEY_MASK = (1 << KEY_BITS) - 1

#: Microseconds that a run costs beside the function's own time, so that free functions are not granted without end.
OVERHEAD_US = 15
#: Microseconds of work that a slot may hold: how far granting ahead may bend the order.
WINDOW_US = 20_000
#: Async nodes that one child process overlaps.
OVERLAP = 100


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
        "__weakref__", "_late", "_line", "_of", "claimed", "delayed", "function", "goes_along", "id", "is_async", "key",
        "nodes", "number", "pace", "ready",
    )

    def __init__(
        self, id: int, function: Function, key: str = "", number: int = 0, pace: Pace | None = None,
        of: Lane | None = None,
    ) -> None:  # fmt: skip
        self._of = of  # the function's own lane, which lasts as long as those of its concurrency keys
        self.id = id  #: the function's
        self.function = function
        self.key = key  #: concurrency key; empty: none
        self.number = number or id  #: the lane's own
        self.nodes = 0  #: that have not ended; counted for a concurrency key only
        self.is_async = function.is_async
        #: whether a node may be claimed beside the source that it waits for: nothing of it is counted, timed or told
        #: before that has ended
        self.goes_along = not (
            function.is_async or function.max_concurrency or function.timeout or function.delay or function.eager
        )
        self.pace = pace or Pace(function.is_async)  #: of the function, whatever the key
        self._line: deque[int] = deque()  # places in their order
        self._late: list[int] = []  # heap of those that came after a younger one
        self.ready = 0  #: nodes of this lane that are QUEUED
        self.claimed = 0  #: nodes of this lane that are CLAIMED
        self.delayed = 0  #: nodes of this lane in BACKOFF

    def __len__(self) -> int:
        """Places, those of nodes that have left included."""
        return len(self._line) + len(self._late)

    @property
    def available(self) -> int:
        """Queued nodes that may be claimed now."""
        most = self.function.max_concurrency
        return min(self.ready, most - self.claimed) if most else self.ready

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
