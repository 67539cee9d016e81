"""Long work in the loop, in turns that others do not notice."""

from __future__ import annotations

import asyncio
import time

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
