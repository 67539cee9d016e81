"""What the broker says of a node that failed, as its callers get it: an error to raise, or a Failure to hold.

The rule: its texts are the broker's word, as is that the node failed; an exception is rebuilt only where it was signed
as that of the node whose failure it is.
"""

from __future__ import annotations

from uuid import UUID

from dagorama.api.broker_pb2 import NodeFailure
from dagorama.errors import FailedRun, NodeFailed, TamperedValue, UncheckableValue
from dagorama.models.failure import Failure
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import FailedSource, decode
from dagorama.values.signing import FAILURE, keyring

#: the type of a failure that is a cancellation
CANCELLED = "dagorama.errors.NodeCancelled"


def failure_of(message: NodeFailure, cancelled: bool = False, instance: bytes = b"") -> Failure:
    """The failure of a node of this instance, or of its culprit; `cancelled` if the broker says so separately."""
    is_cancelled = cancelled or message.type == CANCELLED
    return Failure(
        function=message.function,
        type="" if message.type == CANCELLED else message.type,
        message=message.message,
        traceback=message.traceback,
        attempts=message.attempts,
        earlier=tuple(FailedRun(run.type, run.message, run.traceback) for run in message.earlier),
        node_id=UUID(bytes=message.node) if len(message.node) == 16 else None,
        cancelled=is_cancelled,
        instance_id=UUID(bytes=instance) if instance else None,
    )


def failed_source(serialized: bytes, instance: bytes = b"") -> FailedSource:
    """What fills the place of a source, of this instance, whose `value` is a serialized NodeFailure."""
    return FailedSource(failure_of(NodeFailure.FromString(serialized), instance=instance))


def error_of(
    message: NodeFailure, promise: DAGPromise[object], cancelled: bool = False, instance: bytes = b""
) -> NodeFailed:
    """The error to raise for the promise of a node of this instance.

    Its cause is the original exception if that can be rebuilt.
    """
    error = failure_of(message, cancelled, instance).error()
    if message.node not in (b"", promise.node_id):
        error.dependent = promise.function_name or f"node {promise.identifier}"
    error.__cause__ = _cause(message)
    return error


def _cause(message: NodeFailure) -> BaseException | None:
    """The exception itself where its class is known here and lets itself be rebuilt; where its signature cannot be
    relied on, the error that says so."""
    if not message.exception:
        # Nobody signs for a run that was stopped at its timeout: its supervisor describes it.
        return TimeoutError(message.message) if message.type == "builtins.TimeoutError" else None
    try:
        envelope = keyring().open(message.exception, FAILURE, message.node, "exception").envelope
        cause = decode(envelope, what="exception")
    except (TamperedValue, UncheckableValue) as error:
        return error
    except Exception:
        return None
    return cause if isinstance(cause, BaseException) else None
