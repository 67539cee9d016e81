"""Watches rates: when nodes of the simulation begin, as far as a broker can know, whichever broker it is."""

from __future__ import annotations

from collections.abc import Iterator

from dagorama.api import broker_pb2 as pb
from dagorama_broker.scheduler import Node, Scheduler

_Limit = tuple[str, str]


def limits_of(function: pb.Function, key: str) -> Iterator[tuple[_Limit, pb.Rate]]:
    """Yield the names and the rates by which a node with this key is limited."""
    if function.HasField("rate"):
        yield (function.name, key if function.rate_by_key else "any key"), function.rate
    if function.HasField("limit") and function.limit.HasField("rate"):
        yield ("limit", function.limit.name), function.limit.rate


def is_limited(function: pb.Function) -> bool:
    return function.HasField("rate") or function.HasField("limit")


class RateWatch:
    """Remembers when attempts of rated functions were first in their process; not of those that have not run."""

    def __init__(self, functions: dict[str, pb.Function]) -> None:
        self._functions = functions
        self._begun: set[int] = set()
        self._received: set[int] = set()
        self._starts: dict[_Limit, dict[int, float]] = {}  # by attempt

    def received(self, attempt: int) -> None:
        """A worker has it."""
        self._received.add(attempt)

    def has_not_run(self, attempt: int) -> None:
        """Its worker returns it, or has only taken over a value."""
        for starts in self._starts.values():
            starts.pop(attempt, None)

    def broker_died(self) -> None:
        """Forget what the broker has granted and not sent."""
        for starts in self._starts.values():
            for attempt in starts.keys() - self._received:
                del starts[attempt]

    def look(self, scheduler: Scheduler, now: float) -> str:
        """Note which attempts have begun by now; return what is wrong with that, or nothing."""
        for attempt, node in _first(scheduler):
            if attempt in self._begun:
                continue
            self._begun.add(attempt)
            for limit, rate in limits_of(self._functions[node.queue.function.name], node.queue.key):
                starts = self._starts.setdefault(limit, {})
                starts[attempt] = now
                within = sum(when + rate.seconds > now + 1e-9 for when in starts.values())
                if within > rate.starts:
                    return f"{within} nodes of {limit} begin within {rate.seconds} s, of {rate.starts}"
        return ""


def _first(scheduler: Scheduler) -> Iterator[tuple[int, Node]]:
    """Yield the attempts that do not wait behind others in their process."""
    for worker in scheduler.workers.values():
        for slot in worker.slots:
            is_free = True
            for attempt, (node, _) in slot.held.items():
                if node.queue.is_async or is_free:
                    yield attempt, node
                is_free = is_free and node.queue.is_async
