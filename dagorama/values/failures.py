"""The broker's report of a failed node as an error to raise, or as a Failure.

The rule: the texts, and the fact that the node failed, come unsigned from the broker. An exception is rebuilt only if
it was signed as the exception of that node.
"""

from __future__ import annotations

import json
from uuid import UUID

from dagorama.api.broker_pb2 import NodeFailure
from dagorama.api.contract import CANCELLED, INSTANCE_BYTES, NODE_ID_BYTES, hooked_arguments
from dagorama.errors import FailedAttempt, NodeFailed, TamperedValue, UnverifiedValue
from dagorama.models.failure import Failure
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import FailedSource, decode
from dagorama.values.signing import FAILURE, keyring


def failure_of(message: NodeFailure, cancelled: bool = False, instance: bytes = b"") -> Failure:
    """Return the failure in a message about a node of this instance; `cancelled` if its state says so."""
    is_cancelled = cancelled or message.type == CANCELLED
    return Failure(
        function=message.function,
        type="" if message.type == CANCELLED else message.type,
        message=message.message,
        traceback=message.traceback,
        attempts=message.attempts,
        earlier=tuple(FailedAttempt(run.type, run.message, run.traceback) for run in message.earlier),
        node_id=UUID(bytes=message.node) if len(message.node) == NODE_ID_BYTES else None,
        cancelled=is_cancelled,
        instance_id=UUID(bytes=instance) if instance else None,
        node_instance_id=UUID(bytes=message.instance) if len(message.instance) == INSTANCE_BYTES else None,
    )


def failed_source(serialized: bytes, instance: bytes = b"") -> FailedSource:
    """Return the item of `fill` for a failed source of this instance, whose `value` is a serialized NodeFailure."""
    return FailedSource(failure_of(NodeFailure.FromString(serialized), instance=instance))


def told_failure(arguments: bytes, instance: bytes) -> Failure:
    """Return the failure that the broker has added to the arguments of the failure hook of this instance."""
    told = json.loads(hooked_arguments(arguments)[1])
    return Failure(
        function=told["function"],
        type=told["type"],
        message=told["message"],
        traceback=told["traceback"],
        attempts=told["attempts"],
        node_id=UUID(told["node"]) if told["node"] else None,
        instance_id=UUID(bytes=instance),
    )


def error_of(
    message: NodeFailure, promise: DAGPromise[object], cancelled: bool = False, instance: bytes = b""
) -> NodeFailed:
    """Return the error to raise for the promise of a node of this instance.

    Its cause is the original exception if that can be rebuilt.
    """
    error = failure_of(message, cancelled, instance).error()
    if message.node not in (b"", promise.node_id):
        error.dependent = promise.function_name or f"node {promise.identifier}"
    error.__cause__ = _cause(message)
    return error


def _cause(message: NodeFailure) -> BaseException | None:
    """Return the exception itself if it can be rebuilt here, or the error that says that its signature is wrong."""
    if not message.exception:
        # An attempt that was stopped at its timeout has no signed exception: the supervisor, without a key, reports it.
        return TimeoutError(message.message) if message.type == "builtins.TimeoutError" else None
    try:
        envelope = keyring().open(message.exception, FAILURE, message.node, "exception").envelope
        cause = decode(envelope, what="exception")
    except (TamperedValue, UnverifiedValue) as error:
        return error
    except Exception:
        return None
    return cause if isinstance(cause, BaseException) else None
