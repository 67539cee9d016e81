"""Says when something has changed on the broker, so that pages are rendered again only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dagorama.api import broker_pb2 as pb
from dagorama.errors import BrokerError
from dagorama_dashboard.broker import Viewer

#: Seconds after which a broken stream is opened again.
AGAIN = 1.0


class Pulse:
    """Beats whenever the counts of the broker's queues have changed."""

    def __init__(self) -> None:
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None
        self.beats = 0
        self._beat = asyncio.Event()

    async def run(self, viewer: Viewer) -> None:
        """Follow the broker until cancelled, also across its restarts."""
        while True:
            try:
                async for _ in viewer.follow("WatchQueues", pb.WatchQueuesRequest()):
                    self.ring()
            except BrokerError:  # the page that is rendered next says so
                self.ring()
            await asyncio.sleep(AGAIN)

    def ring(self) -> None:
        """Wake the listeners."""
        self.beats += 1
        beat, self._beat = self._beat, asyncio.Event()
        beat.set()

    async def wait(self, beats: int, seconds: float) -> None:
        """Wait until there are more than `beats`, or until these seconds are over."""
        if self.beats != beats:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._beat.wait()
        except TimeoutError:
            pass


class Pulses:
    """One pulse for each token, as long as it has listeners."""

    def __init__(self) -> None:
        self._pulses: dict[str, Pulse] = {}

    def ring(self) -> None:
        """Wake all listeners."""
        for pulse in self._pulses.values():
            pulse.ring()

    @asynccontextmanager
    async def listening(self, viewer: Viewer) -> AsyncIterator[Pulse]:
        pulse = self._pulses.setdefault(viewer.token, Pulse())
        pulse.listeners += 1
        if pulse.task is None:
            pulse.task = asyncio.create_task(pulse.run(viewer))
        try:
            yield pulse
        finally:
            pulse.listeners -= 1
            if not pulse.listeners:
                pulse.task.cancel()
                del self._pulses[viewer.token]
