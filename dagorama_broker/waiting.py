"""Answers to Wait: what is known of the nodes, and then each as it ends, with the values it needs, in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from dagorama.api import broker_pb2 as pb
from dagorama_broker.broker import Broker
from dagorama_broker.errors import Malformed, NotKnown
from dagorama_broker.messages import PIECE, failure_message, id_bytes
from dagorama_broker.model import ENDED, Failure, State
from dagorama_broker.scheduler import Node


async def wait_replies(broker: Broker, request: pb.WaitRequest) -> AsyncIterator[pb.WaitReply]:
    """Raises NotKnown where the broker has no such node in that instance."""
    ids = [id_bytes(id, "a node") for id in request.node]
    if not ids:
        raise Malformed("nothing is waited for")
    id_bytes(request.instance, "an instance")
    live: dict[int, list[int]] = {}  # node key -> places in the request
    others = []
    for place, id in enumerate(ids):
        node = broker.scheduler.graph.find(id)
        if node is None:
            others.append(place)
        else:
            _check_instance(node, request.instance, id)
            live.setdefault(node.key, []).append(place)
    # Watched before anything is awaited, so that no end is missed.
    watch = broker.watching.add([] if request.now else live)
    try:
        if others:
            async for reply in _ended_before(broker, request, ids, others):
                yield reply
        if request.now:
            yield _states(broker, live)
            return
        left = set(live)
        while left:
            for node in await watch.next():
                left.discard(node.key)
                async for reply in _end(broker, node, live[node.key], ids):
                    yield reply
    finally:
        broker.watching.remove(watch, live)


def _check_instance(node: Node, instance: bytes, id: bytes) -> None:
    if node.instance.id and node.instance.id != instance:
        raise Malformed(f"node {id.hex()} is of instance {node.instance.id.hex()}, not {instance.hex()}")


def _states(broker: Broker, live: dict[int, list[int]]) -> pb.WaitReply:
    reply = pb.WaitReply()
    for key, places in live.items():
        node = broker.scheduler.graph.nodes.get(key)
        # It may have ended since it was looked up, and is not durable yet: its last state is what is known.
        state = State.CLAIMED if node is None else node.state
        reply.index.extend(places)
        reply.state.extend([pb.NodeState.ValueType(state)] * len(places))
    return reply


async def _ended_before(
    broker: Broker, request: pb.WaitRequest, ids: Sequence[bytes], places: Iterable[int]
) -> AsyncIterator[pb.WaitReply]:
    """Nodes that are not in memory: they have ended, or were never made."""
    await broker.durable()
    by_id: dict[bytes, list[int]] = {}
    for place in places:
        by_id.setdefault(ids[place], []).append(place)
    instance = await broker.in_store(broker.store.instance, request.instance)
    if instance is None:
        raise NotKnown(f"instance {request.instance.hex()} is not known to this broker")
    found = await broker.find_ended(list(by_id))
    for id, its_places in by_id.items():
        node = found.get(id)
        if node is None:
            raise NotKnown(f"node {id.hex()} is not known to this broker")
        if node.instance.key != instance.row.key:
            raise Malformed(f"node {id.hex()} is of another instance than {request.instance.hex()}")
        async for reply in _end(broker, node, its_places, ids):
            yield reply


async def _end(
    broker: Broker, node: Node, places: Sequence[int], ids: Sequence[bytes]
) -> AsyncIterator[pb.WaitReply]:
    reply = pb.WaitReply()
    if node.state is State.COMPLETED:
        size = 0
        for id, envelope in (await broker.values_of(node)).items():
            reply.value_node.append(id)
            reply.value.append(envelope)
            size += len(envelope) + 16
            if size >= PIECE:
                yield reply
                reply, size = pb.WaitReply(), 0
    else:
        failure = await _failure(broker, node)
        reply.failure.extend([failure] * len(places))
    assert node.state in ENDED
    reply.index.extend(places)
    reply.state.extend([pb.NodeState.ValueType(node.state)] * len(places))
    yield reply


async def _failure(broker: Broker, node: Node) -> pb.NodeFailure:
    """The failure of the node itself or of the culprit upstream, as the store has it."""
    culprit = node.culprit or node
    outcome = await broker.outcome(culprit.key)
    ids = await broker.in_store(broker.store.ids, [culprit.key])
    if outcome is None or outcome.failure is None:
        return pb.NodeFailure(node=ids[culprit.key], function=node.lane.function.name)
    return failure_message(Failure.unpacked(outcome.failure), ids[culprit.key])
