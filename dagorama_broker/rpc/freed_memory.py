"""The memory that a burst of large messages leaves behind: kept for the next ones, and returned when there are none.

This is about glibc's allocator. With other C libraries, nothing is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dagorama_broker.rpc.memory_guard import MemoryGuard

#: Seconds between two checks whether to return freed memory to the system, and the pause after that was done.
TRIM, AFTER_TRIM = 0.5, 5.0
#: Names of parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


async def trim(memory: MemoryGuard) -> None:
    """Return freed memory to the system after a burst, if the process has become large."""
    malloc_trim = _function("malloc_trim")
    while malloc_trim is not None:
        await asyncio.sleep(TRIM)
        if memory.is_idle:
            await asyncio.to_thread(malloc_trim, 0)
            await asyncio.sleep(AFTER_TRIM)


def keep_freed_memory() -> None:
    """Make glibc keep the memory of large messages for the next ones; do nothing with other C libraries.

    Returning a megabyte to the system and requesting it again costs twice as much as sending it.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 8 << 20)
        mallopt(_M_TRIM_THRESHOLD, 16 << 20)


def _function(name: str) -> Callable[..., Any] | None:
    """Return a function of the C library; None: it has none of this name."""
    import ctypes

    found: Callable[..., Any] | None = getattr(ctypes.CDLL(None), name, None)
    return found
