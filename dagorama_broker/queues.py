"""Queued nodes, in order: a lane for each function and its rules, oldest instance first. Integers only, no nodes."""

from __future__ import annotations

from heapq import heappop, heappush

from dagorama_broker.model import Function

KEY_BITS = 48
KEY_MASK = (1 << KEY_BITS) - 1

#: Microseconds that a run costs beside the function's own time, so that free functions are not granted without end.
OVERHEAD_US = 15
#: Microseconds of work that a slot may hold: how far granting ahead may bend the order.
WINDOW_US = 20_000
#: Async nodes that one child process overlaps.
OVERLAP = 100


def order(instance: int, key: int) -> int:
    """A node's place among all queued nodes: by instance, then by creation; smaller goes first."""
    return instance << KEY_BITS | key


class Lane:
    """The queued nodes of one function. A node leaves the heap lazily: whoever pops checks that it is still queued."""

    __slots__ = ("delayed", "function", "heap", "id", "mean_us", "ready")

    def __init__(self, id: int, function: Function) -> None:
        self.id = id
        self.function = function
        self.heap: list[int] = []
        self.ready = 0  #: nodes of this lane that are QUEUED
        self.delayed = 0  #: nodes of this lane in BACKOFF
        self.mean_us: float | None = None  #: measured run time; None: it has never run

    def push(self, instance: int, key: int) -> None:
        heappush(self.heap, order(instance, key))

    def first_key(self) -> int:
        return self.heap[0] & KEY_MASK

    def pop(self) -> int:
        return heappop(self.heap) & KEY_MASK

    def measured(self, microseconds: int) -> None:
        """Take a run time into the mean. It rises at once and falls slowly: holding too little is the smaller fault."""
        mean = self.mean_us
        if mean is None or microseconds > mean:
            self.mean_us = float(microseconds) if mean is None else mean + (microseconds - mean) * 0.25
        else:
            self.mean_us = mean + (microseconds - mean) * 0.05

    @property
    def cost_us(self) -> float:
        """What a node of this lane adds to a slot's load; an unknown function fills the window."""
        cost = WINDOW_US if self.mean_us is None else self.mean_us + OVERHEAD_US
        return cost / OVERLAP if self.function.is_async else cost
