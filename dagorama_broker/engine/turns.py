"""Splits long work in the event loop, so that other calls run in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

#: Seconds after which other calls run.
LONGEST = 0.01


class Turn:
    """Measures how long some work has blocked the loop."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.monotonic() + LONGEST

    @property
    def is_over(self) -> bool:
        """Whether other calls should run now."""
        return time.monotonic() >= self._until

    async def next(self) -> None:
        """Let other calls run, and begin another turn."""
        await asyncio.sleep(0)
        self._until = time.monotonic() + LONGEST

    async def share(self) -> None:
        """Let other calls run if this turn is over."""
        if self.is_over:
            await self.next()


class Steps:
    """Pauses by the amount of work, so that the same work is always cut into the same steps."""

    def __init__(self, size: int, pause: Callable[[], Awaitable[None]]) -> None:
        """Await `pause` after each `size` units of work."""
        self._size = self._left = size
        self._pause = pause

    async def spend(self, units: int) -> None:
        """Count `units` of work, and pause if a step is complete."""
        self._left -= units
        if self._left <= 0:
            self._left = self._size
            await self._pause()
