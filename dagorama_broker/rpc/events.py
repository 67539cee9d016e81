"""Replies to Events: what happens in an instance, in batches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.events import NodeEvent, Reader, reason_of
from dagorama_broker.rpc.failures import headline
from dagorama_broker.rpc.fields import LONGEST_REASON, bounded
from dagorama_broker.rpc.following import following, hearing_of_leave, pause, wait_for_news

#: Events in one batch, and seconds from one batch to the next.
MOST_EVENTS, INTERVAL = 1_000, 0.25


async def events(broker: Broker, instance: bytes) -> AsyncGenerator[pb.EventBatch, None]:
    """Yield what happens in an instance from now on, until it has ended. Raise NotFound."""
    async with following(broker, instance, broker.feeds.events) as reader:
        yield pb.EventBatch()  # the reader follows from here on
        async for batch in _batches(broker, reader):
            yield batch


async def _batches(broker: Broker, reader: Reader) -> AsyncGenerator[pb.EventBatch, None]:
    with hearing_of_leave(broker) as leaving:
        while True:
            await wait_for_news(reader.wait(), leaving)
            lost, taken = reader.take(MOST_EVENTS)
            yield _message(lost, taken, reader)
            if reader.is_over:
                return
            if len(taken) < MOST_EVENTS:
                await pause(INTERVAL, leaving)


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
