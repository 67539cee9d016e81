"""Reads functions from messages, and writes them to messages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from dagorama.api import api_pb2 as legacy
from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import LARGEST_HOOK
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.domain import LONGEST_PAUSE, Function, Rate, RetryPolicy, SharedLimit, WireProtocol
from dagorama_broker.model.hooks import Hook
from dagorama_broker.model.schedules import packed_function
from dagorama_broker.rpc.fields import check_key_id, check_name, check_plain
from dagorama_broker.scheduler import HIGHEST, LOWEST

#: Characters of the hashes of a class: about a thousand methods.
LONGEST_CLASS_CODE = 64 << 10
#: Functions whose records are cached by their messages, and bytes of these messages.
FUNCTIONS_KEPT, BYTES_KEPT = 1024, 2 << 20


def functions_of(messages: Iterable[pb.Function]) -> list[Function]:
    """Return the records of functions. Raises InvalidArgument."""
    return list(map(function_of, messages))


def function_of(message: pb.Function) -> Function:
    """Return the record of a function: the same object for the same message. Raises InvalidArgument."""
    data = message.SerializeToString()
    found = _functions.get(data)
    if found is None:
        found = _checked_function(message)
        _keep_function(data, found)
    return found


def _keep_function(data: bytes, function: Function) -> None:
    global _functions_size
    _functions_size += len(data)
    if len(_functions) >= FUNCTIONS_KEPT or _functions_size > BYTES_KEPT:
        _functions.clear()
        _functions_size = len(data)
    _functions[data] = function


# Clients send their functions with each message, and reading one takes as long as all the rest of a small message.
_functions: dict[bytes, Function] = {}
_functions_size = 0  # bytes of these messages


def _checked_function(message: pb.Function) -> Function:
    check_name(message.name, "the name of a function", least=1)
    check_name(message.hash, "the hash of a function")
    check_name(message.queue, "the name of a queue")
    check_name(message.taint, "the name of a taint")
    check_key_id(message.key_id, message.name)
    if len(message.class_code) > LONGEST_CLASS_CODE:
        raise InvalidArgument(f"{message.name}: the code of its class has more than {LONGEST_CLASS_CODE:,} characters")
    for what, seconds in (
        ("timeout", message.timeout),
        ("queue_timeout", message.queue_timeout),
        ("delay", message.delay),
        ("cache_ttl", message.cache_ttl),
    ):
        if not 0.0 <= seconds < float("inf"):
            raise InvalidArgument(f"{message.name}: its {what} must be finite and not negative")
    if not LOWEST <= message.priority <= HIGHEST:
        raise InvalidArgument(f"{message.name}: a priority is from {LOWEST} to {HIGHEST}, not {message.priority}")
    return Function(
        message.name,
        message.hash,
        message.queue or message.name,
        message.taint,
        _retry_of(message.retry, message.name) if message.HasField("retry") else None,
        message.is_async,
        WireProtocol.V1,
        message.timeout,
        message.queue_timeout,
        message.priority,
        message.max_concurrency,
        message.delay,
        message.max_deaths,
        message.stream_children,
        message.timeout_is_final,
        message.key_id.hex(),
        message.class_code,
        rate=_rate_of(message.rate, message.name) if message.HasField("rate") else None,
        rate_by_key=message.HasField("rate") and message.rate_by_key,
        concurrency_of_all=bool(message.max_concurrency) and message.concurrency_of_all,
        limit=_limit_of(message.limit, message.name) if message.HasField("limit") else None,
        cached=message.cached,
        cache_ttl=message.cache_ttl,
    )


def _retry_of(message: pb.Retry, function: str) -> RetryPolicy:
    if message.max_attempts < 1:
        raise InvalidArgument(f"{function}: a retry policy needs at least one attempt")
    pauses = message.interval, message.base, message.max_interval, message.jitter
    if not all(0.0 <= pause < float("inf") for pause in pauses):
        raise InvalidArgument(f"{function}: a retry policy's pauses must be finite and not negative")
    return RetryPolicy(message.max_attempts, *pauses)


def _rate_of(message: pb.Rate, function: str) -> Rate:
    if not message.starts or not 0.0 < message.seconds <= LONGEST_PAUSE:
        raise InvalidArgument(
            f"{function}: a rate has at least one start in more than 0 and up to {LONGEST_PAUSE:,.0f} seconds,"
            f" not {message.starts} in {message.seconds:g}"
        )
    return Rate(message.starts, message.seconds)


def _limit_of(message: pb.SharedLimit, function: str) -> SharedLimit:
    name = check_name(message.name, f"{function}: the name of its limit", least=1)
    rate = _rate_of(message.rate, f"{function}, limit {name!r}") if message.HasField("rate") else None
    if rate is None and not message.max_concurrency:
        raise InvalidArgument(f"{function}: its limit {name!r} has neither a rate nor a number of nodes")
    return SharedLimit(name, rate, message.max_concurrency)


def function_message(function: Function) -> pb.Function:
    """Return a function as a message."""
    message = pb.Function(
        name=function.name,
        hash=function.hash,
        queue=function.queue,
        taint=function.taint,
        is_async=function.is_async,
        timeout=function.timeout,
        queue_timeout=function.queue_timeout,
        priority=function.priority,
        max_concurrency=function.max_concurrency,
        delay=function.delay,
        max_deaths=function.max_deaths,
        stream_children=function.stream_children,
        timeout_is_final=function.timeout_is_final,
        key_id=bytes.fromhex(function.key_id),
        class_code=function.class_code,
        rate_by_key=function.rate_by_key,
        concurrency_of_all=function.concurrency_of_all,
        cached=function.cached,
        cache_ttl=function.cache_ttl,
    )
    if function.rate is not None:
        message.rate.starts, message.rate.seconds = function.rate
    if function.limit is not None:
        limit = message.limit
        limit.name, limit.max_concurrency = function.limit.name, function.limit.max_concurrency
        if function.limit.rate is not None:
            limit.rate.starts, limit.rate.seconds = function.limit.rate
    if function.retry is not None:
        retry = function.retry
        message.retry.max_attempts = retry.max_attempts
        message.retry.interval, message.retry.base = retry.interval, retry.base
        message.retry.max_interval, message.retry.jitter = retry.max_interval, retry.jitter
    return message


# --- calls of dagorama 0.1.10 -----------------------------------------------------------------------


def function_of_call(request: legacy.NodeConfigurationMessage) -> Function:
    """Return the function that a call of dagorama 0.1.10 names. Raise InvalidArgument."""
    name = check_name(request.functionName, "the name of a function", least=1)
    retry = None
    if request.HasField("retry") and request.retry.maxAttempts > 1:
        message = request.retry
        if message.exponentialBase:
            base = float(max(1, message.exponentialBase))
            retry = RetryPolicy(message.maxAttempts, base, base)
        else:
            retry = RetryPolicy(message.maxAttempts, float(max(0, message.staticInterval)))
    return Function(
        name,
        check_name(request.functionHash, "the hash of a function"),
        check_name(request.queueName, "the name of a queue") or name,
        check_name(request.taintName, "the name of a taint"),
        retry,
        False,
        WireProtocol.LEGACY,
    )


# --- failure hooks ------------------------------------------------------------------------------------


def hook_of(message: pb.FailureHook) -> Hook:
    """Return a failure hook. Raises InvalidArgument."""
    arguments = check_plain(message.arguments, "a failure hook", LARGEST_HOOK)
    return Hook(_packed(function_of(message.function)), arguments)


@lru_cache(maxsize=128)
def _packed(function: Function) -> bytes:
    """Return a packed function, the same object for each instance that has this hook."""
    return packed_function(function)
