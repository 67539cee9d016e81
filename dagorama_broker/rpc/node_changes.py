"""Replies to WatchNodes: which nodes of an instance have changed, in batches."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.node_changes import ChangeReader
from dagorama_broker.rpc.following import following, hearing_of_leave, pause, wait_for_news

#: Nodes in one message, and seconds from one message to the next.
MOST_NODES, INTERVAL = 10_000, 0.25


async def watch_nodes(broker: Broker, instance: bytes) -> AsyncGenerator[pb.NodeChanges, None]:
    """Yield which nodes of an instance have changed from now on, until it has ended. Raise NotFound."""
    async with following(broker, instance, broker.feeds.nodes) as reader:
        yield pb.NodeChanges(nodes=await reader.nodes())  # the reader follows from here on
        async for message in _messages(broker, reader):
            yield message


async def _messages(broker: Broker, reader: ChangeReader) -> AsyncGenerator[pb.NodeChanges, None]:
    with hearing_of_leave(broker) as leaving:
        while True:
            await wait_for_news(reader.wait(), leaving)
            nodes = await reader.nodes()
            keys, states, is_incomplete = reader.take(MOST_NODES)
            message = pb.NodeChanges(key=keys, state=states, nodes=nodes, incomplete=is_incomplete)
            if reader.is_over and reader.end is not None:
                message.ended, message.failed, message.ended_at = True, reader.end.failed, reader.end.time
                yield message
                return
            yield message
            if len(keys) < MOST_NODES:
                await pause(INTERVAL, leaving)
