"""Replies to Events: what happens in an instance, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.commits import CALL_AGAIN
from dagorama_broker.engine.events import InstanceEnded, NodeEvent, Reader, reason_of
from dagorama_broker.errors import Unavailable
from dagorama_broker.rpc.failures import headline
from dagorama_broker.rpc.fields import LONGEST_REASON, bounded

#: Events in one batch, and seconds from one batch to the next.
MOST_EVENTS, INTERVAL = 1_000, 0.25


async def events(broker: Broker, instance: bytes) -> AsyncGenerator[pb.EventBatch, None]:
    """Yield what happens in an instance from now on, until it has ended. Raise NotFound."""
    with broker.lookups.holds.on(instance):
        while True:
            stored = await broker.lookups.stored_instance(instance)
            with broker.events.follow(stored.row.key) as reader:
                if stored.ended is not None and broker.scheduler.instance(instance) is None:
                    reader.finish(InstanceEnded(stored.ended, stored.failed))
                elif broker.scheduler.instance(instance) is None:
                    continue  # it has ended since it was read
                yield pb.EventBatch()  # the reader follows from here on
                async for batch in _batches(broker, reader):
                    yield batch
                return


async def _batches(broker: Broker, reader: Reader) -> AsyncGenerator[pb.EventBatch, None]:
    leaving = asyncio.Event()
    with broker.until_leaving(leaving.set):
        while True:
            if not await _is_news(reader, leaving):
                raise Unavailable(CALL_AGAIN)
            lost, taken = reader.take(MOST_EVENTS)
            yield _message(lost, taken, reader)
            if reader.is_over:
                return
            if len(taken) < MOST_EVENTS:
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL):
                        await leaving.wait()


async def _is_news(reader: Reader, leaving: asyncio.Event) -> bool:
    """Wait until there is something to take; return False if the broker leaves before."""
    waits = [asyncio.create_task(reader.wait()), asyncio.create_task(leaving.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return not leaving.is_set()
    finally:
        for wait in waits:
            wait.cancel()


def _message(lost: int, taken: Sequence[NodeEvent], reader: Reader) -> pb.EventBatch:
    batch = pb.EventBatch(lost=lost)
    functions: dict[str, int] = {}
    for event in taken:
        failure = reason_of(event)
        batch.events.add(
            kind=pb.EventKind.ValueType(event.kind),
            node=event.node,
            function=functions.setdefault(event.function, len(functions)),
            time=event.time,
            attempt=event.attempt,
            reason=bounded(headline(failure), LONGEST_REASON) if failure is not None else "",
            retry_at=event.retry_at,
        )
    batch.functions.extend(functions)
    if reader.is_over and reader.end is not None:
        batch.ended, batch.failed, batch.ended_at = True, reader.end.failed, reader.end.time
    return batch
