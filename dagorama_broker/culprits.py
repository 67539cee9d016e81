"""Whose failure it was, as a message: read back from the store, where it is kept with the culprit alone."""

from __future__ import annotations

from dagorama.api import broker_pb2 as pb
from dagorama_broker.broker import Broker
from dagorama_broker.messages import failure_message
from dagorama_broker.model import Failure
from dagorama_broker.scheduler import Node


async def node_failure(broker: Broker, node: Node) -> pb.NodeFailure:
    """The failure of a node that ended without a value: its own or that of the culprit upstream."""
    culprit = node.culprit or node
    outcome = await broker.outcome(culprit.key)
    id = (await broker.in_store(broker.store.ids, [culprit.key]))[culprit.key]
    if outcome is None or outcome.failure is None:
        return pb.NodeFailure(node=id, function=culprit.lane.function.name)
    return failure_message(Failure.unpacked(outcome.failure), id)
