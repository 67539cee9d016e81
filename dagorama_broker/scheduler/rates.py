"""Keeps the gates of rates and shared limits: which queues they limit, whose figures apply, and when they open.

A function's own rate is counted by the function's name, so that it holds over a change of code as well. A queue whose
gate is closed costs nothing: it is looked at again when its gate opens, and there is one heap of times for all gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf
from sys import getsizeof
from typing import NamedTuple

from dagorama_broker.model.domain import Function, Rate
from dagorama_broker.scheduler.gates import Gate
from dagorama_broker.scheduler.queues import FunctionQueue, QueueGate

#: Keys that are looked at for a list.
MOST_KEYS = 10_000
#: Bytes for each key, and keys in addition, from which the table of a function's keys is larger than it needs to be.
SPARSE, FEW = 400, 1_000


class Figures(NamedTuple):
    """The figures of a limit."""

    rate: Rate | None
    max_concurrency: int

    def __str__(self) -> str:
        starts = "" if self.rate is None else f"{self.rate.starts:,} start{'s' * (self.rate.starts > 1)}"
        rate = "" if self.rate is None else f"{starts} per {self.rate.seconds:g} s"
        at_once = f"{self.max_concurrency:,} at once" if self.max_concurrency else ""
        return " and ".join(filter(None, (rate, at_once)))


class ChangedLimit(NamedTuple):
    """A shared limit that a function has declared with other figures than before."""

    name: str
    before: Figures
    declared_by: str  #: the function that had declared `before`
    now: Figures
    function: str


class Rates:
    def __init__(self, stir: Callable[[FunctionQueue], None]) -> None:
        """Call `stir` with each queue that may be granted again."""
        self.shared: dict[str, QueueGate] = {}  #: by the name of the limit
        self.of_functions: dict[str, QueueGate] = {}  #: by the name of the function, over all keys
        self.of_keys: dict[str, dict[str, QueueGate]] = {}  #: by the name of the function and the key
        self._stir = stir
        self._timers: list[tuple[float, int, QueueGate]] = []  # heap of (when, tie, gate), outdated unless `gate.due`
        self._watched = 0  # gates that have a timer which is not outdated
        self._ties = 0
        self._unknown: dict[str, float] = {}  # functions with a rate by key -> since when their starts are known

    # --- queues ---------------------------------------------------------------------------------------

    def join(self, queue: FunctionQueue) -> None:
        """Let the gates of a function limit its own queue, which enters."""
        function, gates = queue.function, list[QueueGate]()
        if function.limit is not None:
            gates.append(self.shared.setdefault(function.limit.name, Gate(function.limit.name)))
        if function.concurrency_of_all or (function.rate is not None and not function.rate_by_key):
            gates.append(self.of_functions.setdefault(function.name, Gate(function.name)))
        queue.gates = tuple(gates)
        for gate, figures in _declared(queue):
            if not gate.queues and not gate.spans:
                gate.rate, gate.max_concurrency = figures
                gate.declared_by = function.name
            gate.queues[queue] = None
        if function.rate_by_key:
            self.join_key(queue, 0.0)

    def leave(self, queue: FunctionQueue) -> bool:
        """Release a function's queue; return False if it must stay, because starts are counted for it."""
        name, gates = queue.function.name, queue.gates
        if any(gate.spans or gate.held for gate in gates):
            return False
        by_key = self.of_keys.get(name, {})
        own = by_key.get("")
        if len(by_key) > (own is not None) or (own is not None and own.spans):
            return False
        for gate in gates:
            gate.queues.pop(queue, None)
            self._forget_if_idle(gate)
        self.leave_key(queue)
        return True

    def join_key(self, queue: FunctionQueue, now: float) -> None:
        """Let the rate of a key limit a queue, whose newest node has the figures that hold."""
        name, key, rate = queue.function.name, queue.key, queue.function.rate
        gates = self.of_keys.setdefault(name, {})
        gate = gates.get(key)
        if gate is None:
            gate = gates[key] = Gate(name, key)
            gate.rate = rate
            since = self._unknown.get(name)
            if since is not None and rate is not None and now < since + rate.seconds:
                gate.fill(since)
        queue.gate = gate
        gate.queues[queue] = None
        if gate.rate != rate:
            gate.rate = rate
            self.opened(gate)
        self.watch(gate)

    def leave_key(self, queue: FunctionQueue) -> None:
        """Release a key's queue, which has no nodes left; its starts are remembered as long as they count."""
        gate, queue.gate = queue.gate, None
        if gate is not None:
            gate.queues.pop(queue, None)
            self._forget_if_idle(gate)

    def _forget_if_idle(self, gate: QueueGate) -> None:
        if not gate.is_idle:
            return
        if gate.key is not None:
            of_function = self.of_keys[gate.name]
            del of_function[gate.key]
            if not of_function:
                del self.of_keys[gate.name]
            return
        for gates in (self.shared, self.of_functions):
            if gates.get(gate.name) is gate:
                del gates[gate.name]

    # --- figures --------------------------------------------------------------------------------------

    def declare(self, queue: FunctionQueue) -> ChangedLimit | None:
        """Let the figures of a function hold from now on; return what has changed for others, if anything."""
        changed, function = None, queue.function
        for gate, figures in _declared(queue):
            before = Figures(gate.rate, gate.max_concurrency)
            if before == figures:
                continue
            if gate is self.shared.get(gate.name):
                changed = ChangedLimit(gate.name, before, gate.declared_by, figures, function.name)
            gate.rate, gate.max_concurrency = figures
            gate.declared_by = function.name
            self.opened(gate)
            self.watch(gate)
        return changed

    def fill(self, now: float) -> None:
        """Count all rates as used up, because an earlier broker's starts are not known."""
        for gate in self._all():
            gate.fill(now)
            self.watch(gate)
            self.opened(gate)

    def expect_unknown(self, function: Function, now: float) -> None:
        """Count the rate of each key of a function as used up that is first seen soon: an earlier broker may have."""
        if function.rate_by_key:
            self._unknown[function.name] = now

    def listed(self, most: int) -> list[QueueGate]:
        """Return shared limits, limits of functions, and rates of keys that have nodes, at most `most`."""
        shared, own = ([gates[name] for name in sorted(gates)] for gates in (self.shared, self.of_functions))
        keyed = (gate for gates in self.of_keys.values() for gate in gates.values())
        of_keys = [gate for gate in islice(keyed, MOST_KEYS) if queued_of(gate)]
        return [*shared, *own, *of_keys][:most]

    def _all(self) -> Iterator[QueueGate]:
        yield from self.shared.values()
        yield from self.of_functions.values()
        for gates in self.of_keys.values():
            yield from gates.values()

    # --- time -----------------------------------------------------------------------------------------

    @property
    def next_due(self) -> float | None:
        """The time at which the first gate must be checked."""
        return self._timers[0][0] if self._timers else None

    def watch(self, gate: QueueGate) -> None:
        """Schedule the next check of a gate, after a change of its counts."""
        when = gate.wake_at()
        if when >= gate.due:
            return
        self._watched += gate.due == inf
        gate.due = when
        self._ties += 1
        heappush(self._timers, (when, self._ties, gate))
        if len(self._timers) > 2 * self._watched + 64:  # most were replaced by earlier ones
            self._timers = [entry for entry in self._timers if entry[0] == entry[2].due]
            heapify(self._timers)

    def look(self, now: float, most: int) -> None:
        """Check up to `most` gates that are due: some open, others have nothing left to remember."""
        timers, forgotten = self._timers, set[str]()
        while timers and timers[0][0] <= now and most:
            when, _, gate = heappop(timers)
            most -= 1
            if gate.due != when:
                continue
            self._watched -= 1
            gate.due = inf
            gate.expire(now)
            if not gate.is_used_up:  # since now, or since a start that came when its time was over
                self.opened(gate)
            self.watch(gate)
            timers = self._timers
            self._forget_if_idle(gate)
            if gate.key is not None:
                forgotten.add(gate.name)
        for name in forgotten:
            self._shrink(name)

    def _shrink(self, name: str) -> None:
        """Free the memory of a table that had many more keys: a dict does not become smaller by itself."""
        gates = self.of_keys.get(name)
        if gates is not None and getsizeof(gates) > SPARSE * (len(gates) + FEW):
            self.of_keys[name] = dict(gates)

    def opened(self, gate: QueueGate) -> None:
        """Note that the queues of a gate may have more room than before."""
        for queue in gate.queues:
            if queue.key:
                queue.recount()
            self._stir(queue)


def queued_of(gate: QueueGate) -> int:
    """Return how many queued nodes a gate limits."""
    return sum(queue.queued if gate.key is None else queue.ready for queue in gate.queues)


def _declared(queue: FunctionQueue) -> Iterator[tuple[QueueGate, Figures]]:
    """Yield the gates of a function's own queue with the figures that the function declares."""
    function = queue.function
    for gate in queue.gates:
        limit = function.limit
        if limit is not None and gate is queue.gates[0]:
            yield gate, Figures(limit.rate, limit.max_concurrency)
        else:
            rate = None if function.rate_by_key else function.rate
            yield gate, Figures(rate, function.max_concurrency if function.concurrency_of_all else 0)
