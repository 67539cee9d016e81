"""What a connected worker is to be told next: gathered here between two messages, so that one message tells it all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dagorama_broker.scheduler import Worker
from dagorama_broker.scheduler.parts import Granted, TakenBack


@dataclass(slots=True)
class News:
    """The content of the next message or messages to one worker."""

    granted: list[Granted] = field(default_factory=list)
    take_back: list[TakenBack] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    acknowledged: int = 0
    done: bool = False
    draining: bool = False  #: the broker leaves


class Session:
    """One worker's connection, as the broker sees it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.news = News()
        self.staged_since: dict[int, int] = {}  #: attempt -> first report that holds children of it
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    def acknowledge(self, sequence: int) -> None:
        """Reports up to here are durable, but those whose children are only staged."""
        open_since = min(self.staged_since.values(), default=sequence + 1)
        sequence = min(sequence, open_since - 1)
        if sequence > self.news.acknowledged:
            self.news.acknowledged = sequence
            self.wake()

    async def next(self) -> News:
        """All that has gathered; waits for something to gather."""
        await self._event.wait()
        self._event.clear()
        news, self.news = self.news, News()
        return news
