"""Writes messages to workers: grants with the envelopes that they need, each message well under the limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MESSAGE_TARGET
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.worker_session import PendingMessage
from dagorama_broker.model.domain import ENDED, State
from dagorama_broker.rpc.explain import MOST_NAMED, bounded_message
from dagorama_broker.rpc.failures import node_failure
from dagorama_broker.rpc.grants import GrantBuilder
from dagorama_broker.scheduler import Granted, Node

#: Nodes of a wide fan-in whose values are read and sent at a time.
VALUES_AT_A_TIME = 512
#: Bytes of grants from which a message is sent before more are gathered; one grant may add as much as two pieces.
MESSAGE = MESSAGE_TARGET
#: Grants of a message that is written at once, and sources of each of its nodes.
AT_HAND = 64
#: No sources.
NONE: Sequence[int] = ()


def are_at_hand(broker: Broker, news: PendingMessage) -> bool:
    """Return whether the news hold few grants, and `messages` awaits nothing: all envelopes are in memory."""
    if len(news.granted) > AT_HAND:
        return False
    arguments, values = broker.payloads.arguments, broker.payloads.values.kept
    return all(
        grant.node.key in arguments
        and len(grant.node.sources) <= AT_HAND
        and all(
            source.state not in ENDED
            or (source.state is State.COMPLETED and not source.refs and source.key in values and source.block)
            for source in grant.node.sources
        )
        for grant in news.granted
    )


async def messages(broker: Broker, news: PendingMessage) -> AsyncIterator[pb.BrokerMessage]:
    """Yield the messages that tell a worker its news; the grants of a slot stay in their order."""
    message = pb.BrokerMessage(acknowledged=news.acknowledged, refused=news.refused, cancel=news.cancelled)
    size = 0
    async for grant in _grants(broker, news.granted):
        message.grants.append(grant)
        size += len(grant.body)
        if size >= MESSAGE:
            yield message
            message, size = pb.BrokerMessage(), 0
    # After the grants, which may hold the nodes to return, or the last ones.
    message.take_back.extend(pb.TakeBack(slot=taken.slot.index, attempt=taken.attempts) for taken in news.take_back)
    message.done, message.draining, message.drain = news.done, news.draining, news.drain
    message.left.extend(bounded_message(broker.scheduler, obstacle) for obstacle in news.left[:MOST_NAMED])
    if news.stacks:
        message.stacks.extend(pb.StackRequest(number=number, attempt=attempt) for number, attempt in news.stacks)
    if message.ByteSize():
        yield message


async def _grants(broker: Broker, granted: Iterable[Granted]) -> AsyncIterator[pb.Grant]:
    still = [grant for grant in granted if _stands(grant)]
    arguments = await broker.payloads.arguments.get([grant.node.key for grant in still])
    builders: dict[int, GrantBuilder] = {}
    scheduler = broker.scheduler
    for grant in still:
        node = grant.node
        if node.attempt != grant.attempt or node.state is not State.CLAIMED:
            continue  # it was returned, or its worker is gone, since envelopes were read
        index, beside = grant.slot.index, NONE
        builder = builders.get(index)
        if builder is None:
            prove = partial(broker.proofs.of, grant.slot.worker.info.id)
            builder = builders[index] = GrantBuilder(index, prove)
        if node.sources:
            needed = [other for other in _needed(node) if builder.lacks(other.key)]
            beside = _beside(node)
            for start in range(0, len(needed), VALUES_AT_A_TIME):
                batch = needed[start : start + VALUES_AT_A_TIME]
                builder.add_values(batch, await _values(broker, batch), await broker.lookups.ids_of(batch))
                for piece in builder.take():
                    yield piece
            if not _stands(grant):
                continue  # it has ended meanwhile, and its rebinding is gone with it
        if scheduler.has_traced and (trace := scheduler.trace_of(node)):
            builder.add_trace(trace, broker.attempt_traces.of(node.sources))
        if node.queue.caches:
            builder.add_cached(scheduler.found_for(node), scheduler.announced_key(node))
        if scheduler.has_rebound:
            builder.add(grant, arguments[node.key], beside, *scheduler.rebound(node.key))
        else:
            builder.add(grant, arguments[node.key], beside)
        if builder.finished:
            for piece in builder.take():
                yield piece
    for builder in builders.values():
        builder.finish()
        for piece in builder.take():
            yield piece


async def _values(broker: Broker, nodes: Sequence[Node]) -> dict[int, bytes]:
    """Return the envelopes of nodes; for a failed one, whose reader takes that as a value, its failure, serialized."""
    completed = [node.key for node in nodes if node.state is State.COMPLETED]
    if not all(key in broker.payloads.values.kept for key in completed):
        # A source that was granted together with its dependent may have ended since, in a commit that is still to come.
        await broker.commits.wait_durable()
    values = dict(await broker.payloads.values.get(completed))
    for node in nodes:
        if node.state is not State.COMPLETED:
            # If the failure is gone, it was retried, and its reader has ended.
            values[node.key] = (await node_failure(broker, node) or pb.NodeFailure()).SerializeToString()
    return values


def _stands(granted: Granted) -> bool:
    node = granted.node
    return node.attempt == granted.attempt and node.state is State.CLAIMED


def _beside(node: Node) -> Sequence[int]:
    """Return the keys of the unfinished sources that a node was claimed together with."""
    return [source.key for source in node.unfinished_sources] if node.pending else NONE


def _needed(node: Node) -> list[Node]:
    """Return the ended sources of a node, and all nodes that their values name, each once."""
    found: dict[int, Node] = {}
    stack = [source for source in reversed(node.sources) if source.state in ENDED]
    while stack:
        other = stack.pop()
        if other.key not in found:
            found[other.key] = other
            stack.extend(other.refs if other.state is State.COMPLETED else ())
    return list(found.values())
