"""Reads failures from reports, and writes them to messages; a failure is stored with the node that failed first."""

from __future__ import annotations

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import BrokerRefusal
from dagorama_broker.model.domain import CANCELLATION, Failure, State
from dagorama_broker.rpc.fields import LONGEST_NAME, LONGEST_REASON, bounded
from dagorama_broker.scheduler import Node, Worker

#: Limits of a stored failure. Workers send less; the broker enforces them for every client.
LONGEST_MESSAGE = 64 << 10
LARGEST_EXCEPTION = 1 << 20


def failure_of(message: pb.Failure, longest_traceback: int) -> Failure:
    """Return a failure as it is stored: bounded, even if more was sent."""
    exception = message.exception if len(message.exception) <= LARGEST_EXCEPTION else b""
    return Failure(
        "",
        bounded(message.type, LONGEST_NAME),
        bounded(message.message, LONGEST_MESSAGE),
        bounded(message.traceback, longest_traceback),
        exception,
        0,
    )


def reject(broker: Broker, worker: Worker, key: int, attempt: int, why: BrokerRefusal, now: float) -> None:
    """Fail an attempt because of what it has reported."""
    failure = Failure("", "dagorama.errors.ResultRejected", f"its result could not be taken: {why}", "", b"", 0)
    broker.scheduler.fail(worker, key, attempt, failure, now, 0.0)


def headline(failure: Failure) -> str:
    """Return type and message of a failure in one text of limited length."""
    text = ": ".join(part for part in (failure.type.removeprefix("builtins."), failure.message) if part)
    return bounded(text, LONGEST_REASON)


def failure_message(failure: Failure, id: bytes, instance: bytes = b"") -> pb.NodeFailure:
    """Return a failure as a message; `id` is the ID of the node that failed first, in this instance."""
    return pb.NodeFailure(
        node=id,
        instance=instance,
        function=failure.function,
        type=failure.type,
        message=failure.message,
        traceback=failure.traceback,
        exception=failure.exception,
        attempts=failure.attempts,
        earlier=[
            pb.EarlierFailure(
                type=each.type,
                message=each.message,
                traceback=each.traceback,
                ended=each.ended,
                microseconds=each.microseconds,
                worker=each.worker,
            )
            for each in failure.earlier
        ],
        ended=failure.ended,
        microseconds=failure.microseconds,
        worker=failure.worker,
    )


async def node_failure(broker: Broker, node: Node) -> pb.NodeFailure | None:
    """Return the failure of a node that ended without a value, or of the upstream node that failed first.

    None: it was retried meanwhile, so that nothing can be said of it.
    """
    root_cause = node.root_cause or node
    outcome = await broker.lookups.outcome(root_cause.key)
    if outcome is None or outcome.state not in (State.FAILED, State.CANCELLED):
        return None
    id = (await broker.commits.in_store(broker.store.ids, [root_cause.key]))[root_cause.key]
    if outcome.failure is not None:
        return failure_message(Failure.unpacked(outcome.failure), id, root_cause.instance.id)
    type = CANCELLATION if outcome.state == State.CANCELLED else ""
    function = await _function_of(broker, root_cause)
    return pb.NodeFailure(node=id, instance=root_cause.instance.id, function=function, type=type)


async def _function_of(broker: Broker, root_cause: Node) -> str:
    """Return the name of a node's function, by its key: the rest of a node that has left memory may be unknown."""
    ended = await broker.commits.in_store(broker.store.ended, [root_cause.key])
    (row,) = [row for row in ended if row.key == root_cause.key]
    return broker.scheduler.function_queues[row.function].function.name
