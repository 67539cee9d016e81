"""Keeps the event loop responsive: long work is split, and garbage is collected when that takes little time."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sized

#: Seconds after which other calls run.
LONGEST = 0.01


class Turn:
    """Measures how long some work has blocked the loop."""

    __slots__ = ("_until",)

    def __init__(self, longest: float = LONGEST) -> None:
        """`longest`: seconds after which other calls run."""
        self._until = time.monotonic() + longest

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


# --- garbage collection ----------------------------------------------------------------------------
# Nodes are freed by reference counting. A full collection traverses each of them nevertheless and blocks the loop: for
# more than a second with a million nodes. So young objects are collected as usual, and all while there are few nodes.

#: New objects after which the youngest are collected, and such collections after which the survivors are.
YOUNG, SURVIVED = 10_000, 10
#: Collections of survivors after which Python makes a full one by itself: never.
NEVER = 1_000_000_000
#: Seconds between two full collections, and nodes up to which one takes a few milliseconds.
EVERY, FEW = 600.0, 20_000
#: Full collections that are skipped because of many nodes, before one is made nevertheless.
LEFT_OUT = 144


def collect_young_only() -> None:
    """Make Python collect young objects only, and exclude existing ones."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, SURVIVED, NEVER)


async def collect_when_few(nodes: Sized) -> None:
    """Make full collections while there are few nodes, until cancelled."""
    left_out = 0
    while True:
        await asyncio.sleep(EVERY)
        if len(nodes) <= FEW or left_out == LEFT_OUT:
            gc.collect()
            left_out = 0
        else:
            left_out += 1
