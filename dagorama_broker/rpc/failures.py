"""Whose failure it was, as a message: read back from the store, where it is kept with the culprit alone."""

from __future__ import annotations

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.domain import CANCELLATION, Failure, State
from dagorama_broker.rpc.messages import failure_message
from dagorama_broker.scheduler import Node


async def node_failure(broker: Broker, node: Node) -> pb.NodeFailure | None:
    """The failure of a node that ended without a value: its own or that of the culprit upstream.

    None: it was retried meanwhile, and nothing is to be said of it any more.
    """
    culprit = node.culprit or node
    outcome = await broker.outcome(culprit.key)
    if outcome is None or outcome.state not in (State.FAILED, State.CANCELLED):
        return None
    id = (await broker.in_store(broker.store.ids, [culprit.key]))[culprit.key]
    if outcome.failure is not None:
        return failure_message(Failure.unpacked(outcome.failure), id)
    type = CANCELLATION if outcome.state == State.CANCELLED else ""
    return pb.NodeFailure(node=id, function=await _function_of(broker, culprit), type=type)


async def _function_of(broker: Broker, culprit: Node) -> str:
    """Its name; what stands for a culprit that has left memory knows no more than its key."""
    (row,) = [row for row in await broker.in_store(broker.store.ended, [culprit.key]) if row.key == culprit.key]
    return broker.scheduler.graph.lane_by_id[row.function].function.name
