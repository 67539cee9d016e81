"""Long work in the loop, in turns that others do not notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

#: Seconds after which others get a turn.
LONGEST = 0.01


class Turn:
    """To be asked as often as convenient within long work."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.monotonic() + LONGEST

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    async def next(self) -> None:
        """Let others go on, and begin another turn."""
        await asyncio.sleep(0)
        self._until = time.monotonic() + LONGEST

    async def share(self) -> None:
        """Let others go on if this turn is over."""
        if self.is_over:
            await self.next()


class Steps:
    """Pauses by the amount of work, so that the same work is always cut into the same steps."""

    def __init__(self, size: int, pause: Callable[[], Awaitable[None]]) -> None:
        """Await `pause` after each `size` units of work."""
        self._size = self._left = size
        self._pause = pause

    async def spend(self, units: int) -> None:
        """So much work is done."""
        self._left -= units
        if self._left <= 0:
            self._left = self._size
            await self._pause()
