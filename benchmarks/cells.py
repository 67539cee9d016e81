"""Shows how fair independent brokers ("cells") are to instances: a simulation on the scheduler of the product.

Each broker schedules its own instances, first in first out. Nothing orders instances of different brokers but the
workers: a slot is connected to a few brokers, spread by chance, and takes its next node from the one whose oldest
instance with a queued node is the oldest. The question is how much longer instances take than with one broker, and how
many connections a slot needs.

    python benchmarks/cells.py [--brokers 32] [--slots 1024] [--instances 3000] [--load 0.95] [--connections 1,2,3,4,8]

Time is simulated: the figures do not depend on the machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from dagorama_broker.model.domain import Function, WireProtocol
from dagorama_broker.scheduler import NewNodes, Scheduler, Timing, Worker, WorkerInfo

#: Nodes of an instance, all of which may run at once, and seconds that one runs on average.
NODES, SECONDS = 50, 1.0
#: Workers of the legacy protocol ask for one node at a time, which is what a free slot does here.
WORK = Function("cells:Work.node", "h", "work", protocol=WireProtocol.LEGACY)
#: No worker is lost in a simulation.
_TIMING = Timing(1e12, 1e12, 0.0)
_WALL = 1_700_000_000.0


class Figures(NamedTuple):
    """The times of instances from their creation to their end, and how often older instances were overtaken."""

    mean: float  #: seconds
    p99: float
    overtaken: float  #: mean number of older instances with a queued node when a node is started


class Cell:
    """A broker: its scheduler, and the instances with queued nodes in the order of their creation."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.scheduler = Scheduler(1, timing=_TIMING)
        self.waiting: deque[list[int]] = deque()  #: number of an instance, and how many of its nodes are queued
        self.numbers: dict[bytes, int] = {}

    def connect(self, slot: int) -> Worker:
        info = WorkerInfo(slot.to_bytes(16, "big"), f"slot {slot}", protocol=WireProtocol.LEGACY)
        return self.scheduler.connect_original(info, 0.0)

    def submit(self, number: int, now: float) -> None:
        id, origin = number.to_bytes(16, "big"), number.to_bytes(12, "big")
        entry = origin + bytes(4)
        nodes = NewNodes(id, origin, 0, (WORK,), (0,) * NODES, [b""] * NODES, creates=("cells:Work", entry))
        self.scheduler.at(now, _WALL)
        self.scheduler.submit([nodes], {})
        self.scheduler.finish()
        self._settle(now)
        self.numbers[id] = number
        self.waiting.append([number, NODES])

    def take(self, worker: Worker, now: float) -> tuple[int, int, int]:
        """Grant a node; return the number of its instance, its key and its attempt. There must be a queued one."""
        granted = self.scheduler.claim(worker, now)
        assert granted is not None
        self._settle(now)
        number = self.numbers[granted.node.instance.id]
        head = self.waiting[0]
        assert head[0] == number, "a broker starts the nodes of its oldest instance first"
        head[1] -= 1
        if not head[1]:
            self.waiting.popleft()
        return number, granted.node.key, granted.attempt

    def complete(self, worker: Worker, key: int, attempt: int, now: float) -> None:
        assert self.scheduler.complete(worker, key, attempt, b"", 1_000_000, (), (), {}, (), now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        self.scheduler.tick(now)
        self.scheduler.drain()

    @property
    def head(self) -> int | None:
        """The number of the oldest instance with a queued node."""
        return self.waiting[0][0] if self.waiting else None


class Simulation:
    """All brokers, slots and instances of one run."""

    def __init__(self, brokers: int, slots: int, connections: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self._cells = [Cell(number) for number in range(brokers)]
        self._of_slot = [self._chance.sample(self._cells, connections) for _ in range(slots)]
        self._workers = [
            {cell.number: cell.connect(slot) for cell in cells} for slot, cells in enumerate(self._of_slot)
        ]
        self._idle: list[dict[int, None]] = [dict.fromkeys(()) for _ in self._cells]
        for slot in range(slots):
            self._rest(slot)
        self._queued: list[int] = []  # numbers of instances with queued nodes, in order
        self._overtaken = self._started = 0
        self._left: dict[int, int] = {}
        self._created: list[float] = []
        self._times: list[float] = []
        self._events: list[tuple[float, int, int, tuple[int, int, int, int]]] = []
        self._order = count()

    def run(self, instances: int, load: float) -> Figures:
        rate = load * len(self._of_slot) / (NODES * SECONDS)
        arrival = 0.0
        for number in range(instances):
            arrival += self._chance.expovariate(rate)
            self._created.append(arrival)
            heappush(self._events, (arrival, next(self._order), number, (-1, 0, 0, 0)))
        while self._events:
            now, _, number, (slot, cell, key, attempt) = heappop(self._events)
            if slot < 0:
                self._arrive(number, now)
            else:
                self._cells[cell].complete(self._workers[slot][cell], key, attempt, now)
                self._end(number, now)
                self._go_on(slot, now)
        times = sorted(self._times)
        return Figures(statistics.fmean(times), times[int(len(times) * 0.99)], self._overtaken / max(1, self._started))

    def _arrive(self, number: int, now: float) -> None:
        cell = self._chance.choice(self._cells)
        cell.submit(number, now)
        insort(self._queued, number)
        self._left[number] = NODES
        while self._idle[cell.number] and cell.head is not None:
            self._go_on(next(iter(self._idle[cell.number])), now)

    def _go_on(self, slot: int, now: float) -> None:
        """Give the slot its next node, from the broker whose oldest waiting instance is the oldest."""
        ages = [(cell.head, cell) for cell in self._of_slot[slot] if cell.head is not None]
        if not ages:
            self._rest(slot)
            return
        for cell in self._of_slot[slot]:
            self._idle[cell.number].pop(slot, None)
        _, cell = min(ages, key=lambda pair: pair[0])
        number, key, attempt = cell.take(self._workers[slot][cell.number], now)
        self._started += 1
        self._overtaken += bisect_left(self._queued, number)
        if cell.head != number:
            self._queued.remove(number)
        end = now + self._chance.expovariate(1 / SECONDS)
        heappush(self._events, (end, next(self._order), number, (slot, cell.number, key, attempt)))

    def _rest(self, slot: int) -> None:
        for cell in self._of_slot[slot]:
            self._idle[cell.number][slot] = None

    def _end(self, number: int, now: float) -> None:
        self._left[number] -= 1
        if not self._left[number]:
            del self._left[number]
            self._times.append(now - self._created[number])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", type=int, default=32)
    parser.add_argument("--slots", type=int, default=1024)
    parser.add_argument("--instances", type=int, default=3000)
    parser.add_argument("--load", type=float, default=0.95)
    parser.add_argument("--connections", default="1,2,3,4,8")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    one = Simulation(1, asked.slots, 1, asked.seed).run(asked.instances, asked.load)
    print(f"one broker: mean {one.mean:.2f} s, p99 {one.p99:.2f} s")
    print(f"| connections of a slot, of {asked.brokers} brokers | mean | p99 | older instances overtaken at a start |")
    print("| ---: | ---: | ---: | ---: |")
    for connections in map(int, asked.connections.split(",")):
        found = Simulation(asked.brokers, asked.slots, connections, asked.seed).run(asked.instances, asked.load)
        mean, p99 = found.mean / one.mean, found.p99 / one.p99
        print(f"| {connections} | {mean:.2f} | {p99:.2f} | {found.overtaken:.1f} |", flush=True)


if __name__ == "__main__":
    main()
