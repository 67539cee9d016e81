"""Workers that take time, on a simulated clock: messages and commits take as long as real ones, nodes as long as told.

A slot runs its nodes one after another and reports a millisecond after the first result, or when it has nothing left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush

from dagorama_broker.model.domain import Function
from dagorama_broker.scheduler import NewNodes, Node, Scheduler, Slot, Worker, WorkerInfo
from dagorama_broker.scheduler.assignment import STALE
from dagorama_broker.scheduler.effects import Granted, TakenBack

COMMIT = 0.001
TRIP = 0.0005  #: a message, one way
GATHER = 0.001
#: Seconds that it takes at most until the broker learns of something and what it says about it has arrived.
EXCHANGE = GATHER + TRIP + COMMIT + TRIP

Seconds = Callable[[Node], float]


class Runner:
    """The worker's side of a slot."""

    def __init__(self, simulation: Simulation, worker: Worker, slot: Slot) -> None:
        self.simulation, self.worker, self.slot = simulation, worker, slot
        self.waiting: dict[int, Node] = {}
        self.running: Node | None = None
        self.results: list[tuple[Node, int, int]] = []  #: node, attempt, microseconds
        self.most = 0  #: nodes held at once

    def take(self, granted: Sequence[Granted]) -> None:
        self.waiting.update((attempt, node) for _, node, attempt in granted)
        self.most = max(self.most, len(self.waiting) + (self.running is not None))
        self._start_next()

    def _start_next(self) -> None:
        if self.running is not None or not self.waiting:
            return
        attempt = next(iter(self.waiting))
        node = self.running = self.waiting.pop(attempt)
        seconds = self.simulation.seconds(node)
        self.simulation.started[node.key] = self.simulation.now
        self.simulation.ran_on[node.key] = self.slot
        self.simulation.after(seconds, lambda: self._finish(node, attempt, seconds))

    def _finish(self, node: Node, attempt: int, seconds: float) -> None:
        self.running = None
        self.results.append((node, attempt, int(seconds * 1e6)))
        self._start_next()
        if self.running is None:
            self._report()
        elif len(self.results) == 1:
            self.simulation.after(GATHER, self._report)

    def _report(self) -> None:
        results, self.results = self.results, []
        if results:
            self.simulation.after(TRIP, lambda: self.simulation.on_report(self, results))

    def return_unstarted(self, taken: TakenBack) -> None:
        returned = [(self.waiting.pop(attempt), attempt) for attempt in taken.attempts if attempt in self.waiting]
        self.simulation.after(TRIP, lambda: self.simulation.on_return(self, returned))


class Simulation:
    def __init__(self, seconds: Seconds) -> None:
        self.seconds = seconds
        self.scheduler = Scheduler(1)
        self.now = 100.0
        self.runners: dict[Slot, Runner] = {}
        self.started: dict[int, float] = {}  #: by key: when it ran last
        self.ran_on: dict[int, Slot] = {}
        self.queued: dict[int, float] = {}  #: by key: when it was last seen to become ready
        self.steps = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._tick_at: float | None = None

    # --- the clock ------------------------------------------------------------------------------------

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (self.now + seconds, self._count, then))

    def run(self, until: Callable[[], bool] | None = None) -> float:
        """Until all nodes have ended, or something has come true; seconds since the start."""
        self.step()
        while self.scheduler.graph.nodes and not (until and until()):
            self.now, _, then = heappop(self._events)
            then()
        return self.now - 100.0

    # --- the broker -----------------------------------------------------------------------------------

    def step(self) -> None:
        self.steps += 1
        self.scheduler.at(self.now, 0.0)
        tick_at = self.scheduler.tick(self.now)
        _, effects = self.scheduler.drain()
        if tick_at is not None and (self._tick_at is None or tick_at < self._tick_at or self._tick_at <= self.now):
            self._tick_at = tick_at
            self.after(tick_at - self.now, self.step)
        by_slot: dict[Slot, list[Granted]] = {}
        for granted in effects.granted:
            by_slot.setdefault(granted.slot, []).append(granted)
        for slot, grants in by_slot.items():
            self._send(partial(self.runners[slot].take, grants))
        for taken in effects.take_back:
            self._send(partial(self.runners[taken.slot].return_unstarted, taken))

    def _send(self, message: Callable[[], None]) -> None:
        self.after(COMMIT + TRIP, message)

    def on_report(self, runner: Runner, results: Sequence[tuple[Node, int, int]]) -> None:
        self.scheduler.record_contact(runner.worker, self.now)
        for node, attempt, microseconds in results:
            waiting = [other.key for other in node.dependents or () if other.pending == 1]
            self.scheduler.complete(runner.worker, node.key, attempt, b"v", microseconds, (), (), {}, (), self.now)
            self.queued.update((key, self.now) for key in waiting)
        self.step()

    def on_return(self, runner: Runner, returned: Sequence[tuple[Node, int]]) -> None:
        for node, attempt in returned:
            self.scheduler.give_back(runner.worker, node.key, attempt, "", self.now)
        self.step()

    # --- the world ------------------------------------------------------------------------------------

    def worker(self, name: str, slots: int = 1, **rules: frozenset[str]) -> Worker:
        presence = WorkerInfo(name.encode().ljust(16, b"."), name, slots, **rules)  # type: ignore[arg-type]  # its fields
        worker = self.scheduler.connect(presence, (), self.now)
        self.runners.update((slot, Runner(self, worker, slot)) for slot in worker.slots)
        return worker

    def spawn(self, *functions: Function, sources: Sequence[Sequence[int]] | None = None) -> list[int]:
        """An instance with a node for each function; their keys."""
        first = self.scheduler.graph.next_node
        instance = first.to_bytes(16, "big")
        arguments = [b"a"] * len(functions)
        references = list(sources) if sources else None
        run = NewNodes(
            instance, instance[4:], 0, functions, range(len(functions)), arguments, references,
            creates=("work:Work", b""),
        )  # fmt: skip
        self.scheduler.submit([run], {})
        keys = range(first, first + len(functions))
        self.queued.update((key, self.now) for key in keys if not (references and references[key - first]))
        return list(keys)

    def delay(self, key: int) -> float:
        """Seconds between a node's being ready and its start."""
        return self.started[key] - self.queued[key]


__all__ = ["COMMIT", "EXCHANGE", "GATHER", "STALE", "TRIP", "Simulation"]
