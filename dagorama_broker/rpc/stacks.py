"""Answers GetStack: where a running node stands now, as the worker that runs it says."""

from __future__ import annotations

from collections.abc import Iterable

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.stacks import StackAnswer
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.domain import State
from dagorama_broker.rpc.fields import LONGEST_REASON, bounded, id_bytes
from dagorama_broker.scheduler import Node, Worker

#: Characters of a stack.
LONGEST_STACK = 512 << 10


async def get_stack(broker: Broker, request: pb.GetStackRequest) -> pb.NodeStack:
    """Return the stack of a running node. Raises NotFound, FailedPrecondition or Unavailable."""
    instance, id = id_bytes(request.instance, "an instance"), id_bytes(request.node, "a node")
    with broker.lookups.holds.on(instance):
        await broker.lookups.find_node(instance, id)
        node, session = _running(broker, id)
        name, attempt = session.worker.info.name, node.attempt
        number = 1 + (node.failures.failed_attempts if node.failures is not None else 0)
        answer = await broker.stacks.ask(session, attempt)
    return pb.NodeStack(
        stack=answer.stack, note=answer.note, worker=name, function=node.queue.function.name, attempt=number
    )


def _running(broker: Broker, id: bytes) -> tuple[Node, Session]:
    """Return a node that a worker holds, and the worker's session. Raises FailedPrecondition."""
    node = broker.scheduler.node(id)
    if node is None:
        raise FailedPrecondition(f"node {id.hex()} has ended: only a running node has a stack")
    if node.state is not State.CLAIMED or node.slot is None:
        raise FailedPrecondition(
            f"node {id.hex()} is {node.state.name}: only a running node has a stack; `dagorama explain` says what it"
            " waits for"
        )
    worker = node.slot.worker
    session = broker.sessions.get(worker)
    if session is None or not session.shows_stacks:
        raise FailedPrecondition(
            f"the worker {worker.info.name!r} cannot show stacks: it runs an older version of dagorama"
        )
    return node, session


def take_stacks(broker: Broker, worker: Worker, replies: Iterable[pb.StackReply]) -> None:
    """Take the answers of a worker."""
    for reply in replies:
        answer = StackAnswer(
            bounded(reply.stack, LONGEST_STACK),
            bounded(reply.note, LONGEST_REASON),
            bounded(reply.problem, LONGEST_REASON),
        )
        broker.stacks.answer(worker, reply.number, answer)
