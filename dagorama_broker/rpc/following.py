"""Waits of calls that follow something for a long time, and end when the broker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.commits import CALL_AGAIN
from dagorama_broker.errors import Unavailable


@contextmanager
def hearing_of_leave(broker: Broker) -> Iterator[asyncio.Event]:
    """Yield an event that is set when the broker leaves."""
    leaving = asyncio.Event()
    with broker.until_leaving(leaving.set):
        yield leaving


async def wait_for_news(news: Coroutine[None, None, None], leaving: asyncio.Event) -> None:
    """Wait until `news` is done. Raise Unavailable if the broker leaves before."""
    waits = [asyncio.create_task(news), asyncio.create_task(_left(leaving))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if leaving.is_set():
            raise Unavailable(CALL_AGAIN)
    finally:
        for wait in waits:
            wait.cancel()


async def _left(leaving: asyncio.Event) -> None:
    await leaving.wait()


async def pause(seconds: float, leaving: asyncio.Event) -> None:
    """Wait for some seconds, or until the broker leaves."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await leaving.wait()
