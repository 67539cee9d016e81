"""Gathers what a connected worker is sent next, so that one message holds all of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from dagorama_broker.errors import BrokerRefusal
from dagorama_broker.scheduler import Granted, Obstacle, TakenBack, Worker

log = logging.getLogger("dagorama_broker")


@dataclass(slots=True)
class PendingMessage:
    """The content of the next message or messages to one worker."""

    granted: list[Granted] = field(default_factory=list)
    take_back: list[TakenBack] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    acknowledged: int = 0
    done: bool = False
    left: list[Obstacle] = field(default_factory=list)  #: with `done`: unschedulable nodes
    draining: bool = False  #: the broker leaves
    drain: bool = False  #: the worker shall leave
    stacks: list[tuple[int, int]] = field(default_factory=list)  #: numbers of questions, and attempts


#: Seconds that an acknowledgement waits for another message: it delays nothing, and saves much of what a small graph
#: costs.
PATIENCE = 0.02
#: Seconds between two messages to one worker, so that what gathers meanwhile goes in one. The first is not delayed.
BREATH = 0.001
#: Seconds that a worker has to read the reason after its session was ended.
FAREWELL = 1.0


class Session:
    """One worker's connection; made in the task that answers it."""

    def __init__(self, worker: Worker, breath: float = BREATH) -> None:
        """`breath`: seconds between two messages; 0 if a message costs so little that gathering gains nothing."""
        self.worker = worker
        self._breath = breath
        self._task = asyncio.current_task()
        self.news = PendingMessage()
        self.heard_last = 0  #: sequence of the last report
        self.staged_since: dict[int, int] = {}  #: attempt -> first report that holds children of it
        self.shows_stacks = False
        self.leaving = False  #: it only waits for its acknowledgements
        #: Sends the news in this turn of the loop, and returns whether it could; otherwise the session is woken.
        self.send_now: Callable[[], bool] | None = None
        self._event = asyncio.Event()
        self._is_waiting = False  # the task has sent all earlier news, and waits for more
        self._refusal: BrokerRefusal | None = None
        self._acknowledging: asyncio.TimerHandle | None = None
        self._breath_until = 0.0

    def log_arrival(self) -> None:
        own = self.worker.info
        queues = ", ".join(sorted(own.include_queues)) or "all"
        if own.exclude_queues:
            queues += f" but {', '.join(sorted(own.exclude_queues))}"
        tolerations = ", ".join(sorted(own.tolerations)) or "none"
        # The names are the worker's own words: %r keeps them on one line.
        log.info("worker %r joined: %d slots, queues %r, tolerations %r", own.name, own.slots, queues, tolerations)

    def log_end(self, *, is_connected: bool) -> None:
        """Log how the worker has gone; `is_connected`: the scheduler still has this session."""
        own, held = self.worker.info, sum(len(slot.held) for slot in self.worker.slots)
        if not is_connected:
            log.info("worker %r has connected again, or was given up", own.name)
        elif self.leaving or self.worker.pool is None:
            log.info("worker %r left", own.name)
        else:
            log.info("worker %r was lost with %d nodes: its connection has ended", own.name, held)

    def wake(self) -> None:
        """Send what has gathered."""
        self._event.set()

    def send(self) -> bool:
        """Send what has gathered; return whether it is sent already."""
        if self.send_now is not None and self._is_waiting and not self._event.is_set() and self.send_now():
            return True
        self.wake()
        return False

    def end(self, why: BrokerRefusal) -> None:
        """End the session, and send the worker the reason."""
        self._refusal = why
        self.wake()
        if self._task is not None:
            asyncio.get_running_loop().call_later(FAREWELL, self._task.cancel)

    @property
    def over(self) -> bool:
        """Whether the session was ended."""
        return self._refusal is not None

    def settled(self, staged: Container[int]) -> int:
        """Return the sequence of the last report before the first with children of an attempt that still runs.

        Staged children are in memory only, so a worker keeps such reports until the attempt has an outcome. Call this
        when a report was taken in, not when it is durable: by then the outcome may be in, and not durable.
        """
        self.staged_since = {attempt: first for attempt, first in self.staged_since.items() if attempt in staged}
        return min([self.heard_last, *(first - 1 for first in self.staged_since.values())])

    def acknowledge(self, sequence: int) -> None:
        """Record that reports up to this one are durable."""
        if sequence <= self.news.acknowledged:
            return
        self.news.acknowledged = sequence
        if self.leaving:
            self.wake()
        elif self._acknowledging is None:
            self._acknowledging = asyncio.get_running_loop().call_later(PATIENCE, self._acknowledge_now)

    def _acknowledge_now(self) -> None:
        self._acknowledging = None
        if self.news.acknowledged:
            self.wake()

    async def next(self) -> PendingMessage:
        """Wait for news, and return all that has gathered. Raises what `end` was given."""
        self._is_waiting = True
        try:
            await self._event.wait()
        finally:
            self._is_waiting = False
        now = asyncio.get_running_loop().time()
        if now < self._breath_until:
            await asyncio.sleep(self._breath_until - now)
        self._breath_until = asyncio.get_running_loop().time() + self._breath
        self._event.clear()
        if self._refusal is not None:
            raise self._refusal
        return self.take()

    def take(self) -> PendingMessage:
        """Return all news that have gathered, and begin again."""
        news, self.news = self.news, PendingMessage()
        return news
