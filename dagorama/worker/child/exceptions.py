"""Report a node that raised an exception: as a failed attempt, or returned if this process cannot run it."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable

from dagorama.api import broker_pb2 as pb
from dagorama.context import RunningNode
from dagorama.errors import (
    CodeMismatchException,
    DefinitionDiffers,
    ResourceNotOpened,
    TamperedValue,
    TypeMismatch,
    UncacheableArgument,
    ValuesUnavailable,
)
from dagorama.logging import get_logger
from dagorama.retry import has_runs_left, retry_decision
from dagorama.user_code.modules import may_hold_local
from dagorama.values import by_value
from dagorama.values.envelope import PLAIN
from dagorama.values.signing import FAILURE, Keyring
from dagorama.worker.child.call import UNUSABLE_REASONS, Call, Unusable
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.failures import attempted, describe, timeout_error, truncate

MAX_EXCEPTION_BYTES = 256 << 10
MAX_LOG_MESSAGE_BYTES = 500
#: Errors that another attempt would raise too.
_FINAL = (TamperedValue, DefinitionDiffers, TypeMismatch, UncacheableArgument)


class Unchecked(Exception):
    """The signature of something that the node needs cannot be checked here. Nothing of it was unpickled."""


def report_exception(outbox: Outbox, ring: Keyring, call: Call, error: BaseException, microseconds: int) -> None:
    """Put a failure into the outbox, or give the node back if this process cannot run it. Never raises."""
    try:
        _report(outbox, ring, call, error, microseconds)
    except Exception as raised:  # even the class of an exception of user code may be a property that raises
        outbox.failed(describe(raised, call.node, call.attempt, microseconds))


def _report(outbox: Outbox, ring: Keyring, call: Call, error: BaseException, microseconds: int) -> None:
    name = call.work.name
    if error is call.work.unusable:
        deployed = error.deployed if isinstance(error, CodeMismatchException) else ""
        reason = UNUSABLE_REASONS[type(error)]
        # Without a hash the broker only asks for the hash of the deployed code, so there is nothing to warn about.
        function = name if call.work.hash else ""
        outbox.returned(call.node, call.attempt, reason, str(error), deployed, function)
    elif isinstance(error, Unusable):
        outbox.returned(call.node, call.attempt, pb.UNREGISTERED, str(error.__cause__), function=name)
    elif isinstance(error, Unchecked):
        outbox.returned(call.node, call.attempt, pb.UNCHECKABLE, str(error), function=name)
    elif isinstance(error, ResourceNotOpened):
        outbox.returned(call.node, call.attempt, pb.RESOURCE, str(error), function=name)
    elif isinstance(error, ValuesUnavailable):
        outbox.returned(call.node, call.attempt, pb.VALUES, str(error), function=name)
    else:
        outbox.failed(_failure(ring, call, error, microseconds))


def _failure(ring: Keyring, call: Call, error: BaseException, microseconds: int) -> pb.Failure:
    exception = signed_exception(error, lambda pickled: ring.sign(PLAIN + pickled, FAILURE, call.instance, call.id))
    failure = describe(error, call.node, call.attempt, microseconds, exception)
    target = call.work.target
    final, later = retry_decision(target and target.retry, error)
    failure.final = final or isinstance(error, _FINAL)
    if later is not None:
        failure.retry_after = later
        failure.pause_key = bool(getattr(error, "pause_key", False))  # an earlier version has pickled it without
        if target is not None and target.retry is None:
            failure.message += (
                f" (it is not run again, because {call.work.name} has no retry policy: give it one, such"
                " as retry=StaticRetry(5, interval=10))"
            )
    _log(call, failure, later)
    return failure


def _log(call: Call, failure: pb.Failure, later: float | None) -> None:
    """Log a failed attempt. An attempt that raised RetryLater has not failed, unless it was the node's last one."""
    message, which = truncate(failure.message, MAX_LOG_MESSAGE_BYTES), RunningNode(call.runs + 1, call=call).described()
    if later is not None and has_runs_left(call.work.target and call.work.target.retry, call.runs + 1):
        get_logger().info("%s asked to be retried in %g s%s", which, later, f": {message}" if message else "")
    else:
        get_logger().warning("%s failed: %s: %s", which, failure.type, message)


def signed_exception(error: BaseException, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the signed envelope of an exception; empty if it cannot be pickled or is too large. Never raises."""
    return attempted(lambda: _signed(error, sign), b"")


def _signed(error: BaseException, sign: Callable[[bytes], bytes]) -> bytes:
    data = _pickled(error)
    return sign(data) if data else b""


def _pickled(error: BaseException) -> bytes:
    try:
        data = pickle.dumps(error, 5)
    except Exception:  # its class cannot be found by name
        data = by_value.dumps(error)
    else:
        if may_hold_local(data):
            data = by_value.dumps(error)
    return data if len(data) <= MAX_EXCEPTION_BYTES else b""


async def within(seconds: float, running: Awaitable[object]) -> object:
    """Return the result. Raises TimeoutError, with the traceback of the interrupted code, if it takes longer."""
    import asyncio

    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            result = await running
    except BaseException as error:
        if not deadline.expired():
            raise
        raise timeout_error(seconds).with_traceback((error.__cause__ or error).__traceback__) from None
    if deadline.expired():  # it has suppressed the CancelledError
        raise timeout_error(seconds)
    return result
