"""Translates refusals to gRPC statuses; no other module does."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar, cast

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import RETRY_AFTER, VALUES_AWAY
from dagorama_broker.errors import (
    BrokerRefusal,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    ResourceExhausted,
    StoreError,
    Unauthenticated,
    Unavailable,
    ValuesAway,
)

STATUSES: dict[type[Exception], grpc.StatusCode] = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    ValuesAway: grpc.StatusCode.UNAVAILABLE,
    StoreError: grpc.StatusCode.INTERNAL,
}

_NUMBERS: dict[type[Exception], int] = {kind: status.value[0] for kind, status in STATUSES.items()}

#: Seconds that a client has to read a reply of a `patient` call.
PATIENCE = 30.0

C = TypeVar("C", bound=Callable[..., Any])


async def refuse(context: Any, refusal: BrokerRefusal | StoreError) -> NoReturn:
    """End a call with the status and the message of a refusal."""
    await context.abort(STATUSES[type(refusal)], str(refusal), _trailing(refusal))
    raise AssertionError("abort raises")


def _trailing(refusal: BrokerRefusal | StoreError) -> tuple[tuple[str, str], ...]:
    if isinstance(refusal, Overloaded):
        return ((RETRY_AFTER, f"{refusal.retry_after * 1000:.0f}"),)
    return ((VALUES_AWAY, "1"),) if isinstance(refusal, ValuesAway) else ()


def refusal_message(refusal: BrokerRefusal | StoreError) -> pb.Refusal:
    """Return a refusal as a message, for an answer on a stream that stays open."""
    retry_after = int(refusal.retry_after * 1000) if isinstance(refusal, Overloaded) else 0
    return pb.Refusal(status=_NUMBERS[type(refusal)], message=str(refusal), retry_after=retry_after)


def patient(call: C) -> C:
    """Make a handler that yields replies write them itself, and end the call if a reply is not read in time.

    A handler that yields cannot know that: it is suspended meanwhile, and gRPC sends no status if it is cancelled.
    """

    @functools.wraps(call)
    async def deliver(self: object, request: object, context: Any) -> None:
        try:
            async with aclosing(call(self, request, context)) as replies:
                async for reply in replies:
                    await _write(context, reply)
        except (BrokerRefusal, StoreError) as refusal:
            await refuse(context, refusal)

    return cast(C, deliver)


async def _write(context: Any, reply: object) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await context.write(reply)
    except TimeoutError:
        raise Overloaded(f"no reply was read for {PATIENCE:g} seconds, so that the broker has ended the call") from None


def refusing(call: C) -> C:
    """Make a handler answer a refusal with its status and message."""
    if inspect.isasyncgenfunction(call):

        @functools.wraps(call)
        async def stream(self: object, request: object, context: Any) -> Any:
            try:
                # After a client hangs up, the handler must release its resources at once, not when it is collected.
                async with aclosing(call(self, request, context)) as replies:
                    async for reply in replies:
                        yield reply
            except (BrokerRefusal, StoreError) as refusal:
                await refuse(context, refusal)

        return cast(C, stream)

    @functools.wraps(call)
    async def unary(self: object, request: object, context: Any) -> Any:
        try:
            return await call(self, request, context)
        except (BrokerRefusal, StoreError) as refusal:
            await refuse(context, refusal)

    return cast(C, unary)
