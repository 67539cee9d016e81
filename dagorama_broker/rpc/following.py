"""Waits of calls that follow something for a long time, and end when the broker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Protocol, TypeVar

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.commits import CALL_AGAIN
from dagorama_broker.engine.events import InstanceEnded
from dagorama_broker.errors import Unavailable


class _Reader(Protocol):
    def finish(self, end: InstanceEnded) -> None: ...


R_co = TypeVar("R_co", bound=_Reader, covariant=True)


class Feed(Protocol[R_co]):
    """Notes what happens to instances, for readers that follow them."""

    def follow(self, instance: int) -> AbstractContextManager[R_co]:
        """Note what happens to an instance, by its key, within the context."""
        ...


@asynccontextmanager
async def following(broker: Broker, instance: bytes, feed: Feed[R_co]) -> AsyncIterator[R_co]:
    """Follow an instance, by its ID, within the context; one that has ended is finished already. Raises NotFound."""
    with broker.lookups.holds.on(instance):
        while True:
            stored = await broker.lookups.stored_instance(instance)
            with feed.follow(stored.row.key) as reader:
                if broker.scheduler.instance(instance) is None:
                    if stored.ended is None:
                        continue  # it has ended since it was read
                    reader.finish(InstanceEnded(stored.ended, stored.failed))
                yield reader
                return


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
