"""What a connected worker is to be told next: gathered here between two messages, so that one message tells it all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from dagorama_broker.errors import BrokerRefusal
from dagorama_broker.scheduler import Obstacle, Worker
from dagorama_broker.scheduler.objects import Granted, TakenBack

log = logging.getLogger("dagorama_broker")


@dataclass(slots=True)
class News:
    """The content of the next message or messages to one worker."""

    granted: list[Granted] = field(default_factory=list)
    take_back: list[TakenBack] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    acknowledged: int = 0
    done: bool = False
    left: list[Obstacle] = field(default_factory=list)  #: with `done`: what no connected worker may run
    draining: bool = False  #: the broker leaves


#: Seconds that an acknowledgement waits for something to go along with: nobody is held up by it, and a message less is
#: a good part of what a small graph costs.
PATIENCE = 0.02
#: Seconds between two messages to one worker: what gathers meanwhile goes in one. The first is never held up.
BREATH = 0.001
#: Seconds in which a worker that is hung up on may take what it is told.
FAREWELL = 1.0


class Session:
    """One worker's connection, as the broker sees it; made in the task that answers it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._task = asyncio.current_task()
        self.news = News()
        self.heard_last = 0  #: sequence of the last report
        self.staged_since: dict[int, int] = {}  #: attempt -> first report that holds children of it
        self.leaving = False  #: it waits for nothing but its acknowledgements
        self._event = asyncio.Event()
        self._refusal: BrokerRefusal | None = None
        self._acknowledging: asyncio.TimerHandle | None = None
        self._breath_until = 0.0

    def log_arrival(self) -> None:
        own = self.worker.presence
        queues = ", ".join(sorted(own.include_queues)) or "all"
        if own.exclude_queues:
            queues += f" but {', '.join(sorted(own.exclude_queues))}"
        tolerations = ", ".join(sorted(own.tolerations)) or "none"
        # The names are the worker's own words: %r keeps them on one line.
        log.info("worker %r joined: %d slots, queues %r, tolerations %r", own.name, own.slots, queues, tolerations)

    def log_end(self, workers: Mapping[bytes, Worker]) -> None:
        """Say how the worker has gone; `workers` are those that the heart knows, before this one is taken out."""
        own, held = self.worker.presence, sum(len(slot.held) for slot in self.worker.slots)
        if workers.get(own.id) is not self.worker:
            log.info("worker %r has connected again, or was given up", own.name)
        elif self.leaving or self.worker.pool is None:
            log.info("worker %r left", own.name)
        else:
            log.info("worker %r was lost with %d nodes: its connection has ended", own.name, held)

    def wake(self) -> None:
        self._event.set()

    def end(self, why: BrokerRefusal) -> None:
        """Hang up; the worker is told why, unless it reads nothing any more."""
        self._refusal = why
        self.wake()
        if self._task is not None:
            asyncio.get_running_loop().call_later(FAREWELL, self._task.cancel)

    @property
    def over(self) -> bool:
        """It was ended."""
        return self._refusal is not None

    def settled(self, staged: Container[int]) -> int:
        """The last report before the first that holds children of an attempt which still runs.

        What is only staged is in memory alone, so a worker keeps it until the attempt has an outcome. To be asked
        when a report has been taken in, not when it is durable: by then the outcome may be in, and not durable.
        """
        self.staged_since = {attempt: first for attempt, first in self.staged_since.items() if attempt in staged}
        return min([self.heard_last, *(first - 1 for first in self.staged_since.values())])

    def acknowledge(self, sequence: int) -> None:
        """Reports up to here are durable."""
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

    async def next(self) -> News:
        """All that has gathered; waits for something to gather. Raises what `end` was given."""
        await self._event.wait()
        now = asyncio.get_running_loop().time()
        if now < self._breath_until:
            await asyncio.sleep(self._breath_until - now)
        self._breath_until = asyncio.get_running_loop().time() + BREATH
        self._event.clear()
        if self._refusal is not None:
            raise self._refusal
        news, self.news = self.news, News()
        return news
