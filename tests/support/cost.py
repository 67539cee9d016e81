"""Measures the scheduler's cost of a node of a wide fan: created, granted, completed, summed. Run it as a script."""

from __future__ import annotations

import sys
from time import perf_counter

from dagorama_broker.model.domain import Function
from dagorama_broker.scheduler import NewNodes, Scheduler, WorkerInfo
from dagorama_broker.scheduler.effects import Granted

PIECE = 2_000
STEP = 0.001


class Clock:
    """Adds up what is spent in each phase."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._since = perf_counter()

    def lap(self, phase: str) -> None:
        now = perf_counter()
        self.spent[phase] = self.spent.get(phase, 0.0) + now - self._since
        self._since = perf_counter()


def children(instance: bytes, nodes: int) -> list[NewNodes]:
    functions = [Function("m:F.leaf", "h", "q"), Function("m:F.sum", "h", "q")]
    runs = []
    for first in range(0, nodes, PIECE):
        size = min(PIECE, nodes - first)
        runs.append(NewNodes(instance, b"c" * 12, first, functions, [0] * size, [b"a"] * size))
    runs.append(NewNodes(instance, b"c" * 12, nodes, functions, [1], [b"a"], [range(nodes)]))
    return runs


def fan(nodes: int) -> dict[str, float]:
    scheduler = Scheduler(1)
    now = 100.0
    for number in range(2):
        scheduler.connect(WorkerInfo(bytes([number]) * 16, f"w{number}"), (), now)
    root = Function("m:F.root", "h", "q")
    instance = b"i" * 16
    scheduler.submit([NewNodes(instance, instance[:12], 0, [root], [0], [b"a"], creates=("m:F", b""))], {})
    scheduler.tick(now)
    granted: list[Granted] = scheduler.drain()[1].granted
    runs = children(instance, nodes)
    clock, done = Clock(), 0
    while granted:
        now += STEP
        scheduler.at(now, 0.0)
        if not done:
            slot, node, attempt = granted.pop()
            for run in runs:
                scheduler.stage(slot.worker, node.key, attempt, run)
            clock.lap("around")
            scheduler.complete(slot.worker, node.key, attempt, b"v", 50, (), (), {}, (), now)
            clock.lap("children")
            done += 1
        for slot, node, attempt in granted:
            scheduler.complete(slot.worker, node.key, attempt, b"v", 50, (), (), {}, (), now)
            done += 1
        clock.lap("complete")
        scheduler.tick(now)
        clock.lap("grant")
        granted = scheduler.drain()[1].granted
        clock.lap("around")
    assert done == nodes + 2, done
    return clock.spent


def main(nodes: int = 20_000, rounds: int = 7) -> None:
    best = min((fan(nodes) for _ in range(rounds)), key=lambda spent: sum(spent.values()))
    for phase, seconds in best.items():
        print(f"{phase:10} {seconds / nodes * 1e6:6.2f} us per node")
    print(f"{'in all':10} {sum(best.values()) / nodes * 1e6:6.2f} us per node ({nodes} nodes)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
