"""Remembers what the broker did in the last seconds, minutes and hours, for people who look later.

The rule: once a second, counts that exist are copied into rings of fixed length; no step of the loop counts anything
for them. Looking at all queues is not free with thousands of functions, so that takes a small share of the time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from heapq import nlargest
from typing import NamedTuple

from dagorama_broker.engine.clock import SYSTEM, Clock, advance_clock
from dagorama_broker.model.domain import State
from dagorama_broker.scheduler import Scheduler

#: The length of a second; tests shorten it.
SECOND = 1.0
#: Points that are kept, by their length in seconds.
LENGTHS = {1: 300, 10: 360, 60: 1_440}
#: Queues that are kept, those with most nodes, and seconds for which they are.
MOST_QUEUES, QUEUE_SECONDS = 100, 300
#: After a look at all queues, seconds without one, as multiples of what it took.
RESPITE = 500
#: Queues that are looked at together before others run.
TOGETHER = 500


class Point(NamedTuple):
    """One interval of time."""

    created: int  #: nodes in the interval, as are the next three
    completed: int
    failed: int
    cancelled: int
    waiting: int  #: nodes at its end, as are the next two
    queued: int
    running: int


class Ring:
    """The latest points of one length."""

    def __init__(self, seconds: int, scheduler: Scheduler) -> None:
        self.points: deque[Point] = deque(maxlen=LENGTHS[seconds])
        self.end = 0.0  #: seconds since 1970: of the last point
        self._seconds = seconds
        self._scheduler = scheduler
        self._count = 0  # intervals since the start
        self._totals = self._read()

    def take(self, second: int) -> None:
        """Add the points of intervals that are over, this many seconds after the start."""
        missed = second // self._seconds - self._count - 1
        if missed < 0:
            return
        # The loop stood still meanwhile: what has happened since counts in the last of these intervals.
        last = self.points[-1]._replace(created=0, completed=0, failed=0, cancelled=0) if self.points else _EMPTY
        self.points.extend([last] * min(missed, LENGTHS[self._seconds]))
        totals, before = self._read(), self._totals
        self.points.append(
            totals._replace(
                created=totals.created - before.created,
                completed=totals.completed - before.completed,
                failed=totals.failed - before.failed,
                cancelled=totals.cancelled - before.cancelled,
            )
        )
        self._totals = totals
        self._count = second // self._seconds
        self.end = self._scheduler.now + self._scheduler.wall

    def _read(self) -> Point:
        """Return the totals since the start of the broker, and the counts of now."""
        counts = self._scheduler.counts
        return Point(
            created=self._scheduler.nodes_made,
            completed=counts[State.COMPLETED],
            failed=counts[State.FAILED],
            cancelled=counts[State.CANCELLED],
            waiting=counts[State.WAITING],
            queued=counts[State.QUEUED],
            running=counts[State.CLAIMED],
        )


_EMPTY = Point(0, 0, 0, 0, 0, 0, 0)


class QueueRing:
    """The nodes of one queue at the end of each of the last seconds."""

    def __init__(self) -> None:
        self.queued: deque[int] = deque(maxlen=QUEUE_SECONDS)
        self.running: deque[int] = deque(maxlen=QUEUE_SECONDS)
        self.idle = 0  #: seconds since it had a node

    def take(self, queued: int, running: int, seconds: int) -> None:
        """Add the same counts for each of some seconds."""
        self.queued.extend([queued] * seconds)
        self.running.extend([running] * seconds)
        self.idle = 0 if queued or running else self.idle + seconds

    @property
    def nodes(self) -> int:
        """The number of nodes at the end."""
        return self.queued[-1] + self.running[-1]


class Series:
    """The latest points of a broker, and the ages of queued nodes."""

    def __init__(self, scheduler: Scheduler, clock: Clock = SYSTEM) -> None:
        self.second = 0  #: since the start
        self.ages = scheduler.ready_ages()  #: accurate to a second, unless there are thousands of queues
        self.rings = {seconds: Ring(seconds, scheduler) for seconds in LENGTHS}
        self.queues: dict[str, QueueRing] = {}
        #: seconds for which the oldest queued node of each queue has been queued, at the latest look
        self.oldest: Mapping[str, float] = {}
        self.left_out = 0  #: queues with nodes that are not kept
        self._scheduler = scheduler
        self._clock = clock
        self._latest: Mapping[str, tuple[int, int]] = {}

    async def run(self) -> None:
        """Add points until cancelled."""
        loop = asyncio.get_running_loop()
        start, look_at = loop.time(), 0.0
        while True:
            await asyncio.sleep(start + (self.second + 1) * SECOND - loop.time())
            began = loop.time()
            if began >= look_at:
                await self.look()
                look_at = loop.time() + RESPITE * (loop.time() - began)
            self.take(int((loop.time() - start) / SECOND))

    def take(self, second: int) -> None:
        """Add the points of the seconds that are over, this many seconds after the start."""
        passed = second - self.second
        if passed <= 0:
            return
        self.second = second
        advance_clock(self._scheduler, self._clock)
        for ring in self.rings.values():
            ring.take(second)
        self._take_queues(min(passed, QUEUE_SECONDS))

    async def look(self) -> None:
        """Count the nodes of all queues, and note their ages; let others run from time to time."""
        advance_clock(self._scheduler, self._clock)
        now, oldest, counts = self._scheduler.now, dict[str, float](), dict[str, tuple[int, int]]()
        for number, queue in enumerate(self.ages.begin(), 1):
            name = queue.function.queue
            oldest[name] = max(oldest.get(name, 0.0), self.ages.note_queue(queue, now))
            if not number % TOGETHER:
                await asyncio.sleep(0)
        self.ages.end()
        for number, queue in enumerate(list(self._scheduler.function_queues.values()), 1):
            running = queue.claimed + queue.keyed_claimed
            if queue.queued or running:
                before = counts.get(queue.function.queue, (0, 0))
                counts[queue.function.queue] = before[0] + queue.queued, before[1] + running
            if not number % TOGETHER:
                await asyncio.sleep(0)
        self.oldest, self._latest = oldest, counts

    def _take_queues(self, passed: int) -> None:
        for name in self._latest.keys() - self.queues.keys():
            self.queues[name] = QueueRing()
        for name, ring in list(self.queues.items()):
            ring.take(*self._latest.get(name, (0, 0)), passed)
            if ring.idle >= QUEUE_SECONDS:
                del self.queues[name]
        if len(self.queues) > MOST_QUEUES:
            self.queues = dict(nlargest(MOST_QUEUES, self.queues.items(), key=_importance))
        self.left_out = len(self._latest.keys() - self.queues.keys())


def _importance(item: tuple[str, QueueRing]) -> tuple[int, int]:
    ring = item[1]
    return ring.nodes, -ring.idle
