"""The interceptor that every call passes: it authenticates the caller, limits open calls, and answers refusals."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from inspect import iscoroutine
from typing import Any, cast

import grpc
import grpc.aio

from dagorama_broker.errors import BrokerRefusal, InvalidArgument
from dagorama_broker.rpc.auth import TokenRegistry
from dagorama_broker.rpc.handlers import HandedRequests, Handing, Read, Unread, behavior_of, unread, with_behavior
from dagorama_broker.rpc.limits import CallLimiter
from dagorama_broker.rpc.memory_guard import MemoryGuard
from dagorama_broker.rpc.permissions import HEALTH, SCALER, caller, kind_of, sharer, sharer_of
from dagorama_broker.rpc.scaler_metadata import metadata_of, token_of
from dagorama_broker.rpc.status import refuse
from dagorama_broker.rpc.tokens import Token

log = logging.getLogger("dagorama_broker")

#: Calls of `grpc.health.v1.Health/Watch` that may be open at once.
HEALTH_WATCHERS = 100
#: Bytes of a request of KEDA, which is read before its caller is known.
LONGEST_TRIGGER = 64 << 10


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler of each call; calls of the health service need no token, and KEDA's have it in the request."""

    def __init__(self, access: TokenRegistry | None, streams: CallLimiter, memory: MemoryGuard | None = None) -> None:
        """`memory`: asked for the memory of large requests before they are parsed."""
        self._access = access
        self._memory = memory
        self._streams = streams
        self._watchers = CallLimiter(HEALTH_WATCHERS)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        details = handler_call_details
        method = str(details.method)
        if method.startswith((HEALTH, SCALER)):
            handler = await continuation(details)
            wrap = self._health if method.startswith(HEALTH) else self._late
            return None if handler is None else wrap(handler, method)
        try:
            token = self.token_of(method, details.invocation_metadata)
        except BrokerRefusal as refusal:
            return _refusing(method, refusal)
        handler = await continuation(details)
        return None if handler is None else self._limited(handler, token, method)

    def token_of(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Token | None:
        """Return the token of a call; None if this broker requires none. Raise Unauthenticated or PermissionDenied."""
        return None if self._access is None else self._access.authenticate(method, metadata)

    def _health(self, handler: Any, method: str) -> Any:
        """Answer health checks without a limit, but limit calls that stay open: their callers are unauthenticated."""
        streams = self._watchers if handler.response_streaming else None
        # Watch is a coroutine that writes its replies, like a handler with a single reply.
        behavior = self._single(behavior_of(handler), method, streams)
        return with_behavior(handler, behavior, unread(handler.request_deserializer))

    def _late(self, handler: Any, method: str) -> Any:
        """Authenticate calls of KEDA by their requests, and then treat them as all others."""

        def admit(request: Unread) -> tuple[Callable[..., Any], Read]:
            if len(request.data) > LONGEST_TRIGGER:
                raise InvalidArgument(f"the metadata of a trigger have more than {LONGEST_TRIGGER:,} bytes")
            message = request.read(None, method, "")
            token = None
            if self._access is not None:
                token = self._access.authenticate_request(method, token_of(metadata_of(message)))
            return behavior_of(self._limited(handler, token, method)), Read(message)

        return with_behavior(handler, _admitting(handler, admit), unread(handler.request_deserializer))

    def _limited(self, handler: Any, token: Token | None, method: str) -> Any:
        """Count the call among the open ones, and end a stream with its token."""
        inner = behavior_of(handler)
        if handler.response_streaming:
            behavior = self.stream(inner, method, token)
        else:
            behavior = self._single(inner, method, self._streams, token)
        return with_behavior(handler, behavior, unread(handler.request_deserializer))

    def _single(
        self, inner: Callable[..., Awaitable[Any]], method: str, streams: CallLimiter | None, token: Token | None = None
    ) -> Callable[..., Any]:
        kind = kind_of(method)

        async def call(request: Any, context: Any) -> Any:
            caller.set(token)
            sharer.set(whose := sharer_of(token, context.peer()))
            try:
                with nullcontext() if streams is None else streams.one(kind, whose):
                    return await inner(self._read(request, method, whose), context)
            except BrokerRefusal as refusal:
                await refuse(context, refusal)

        return call

    def stream(self, inner: Callable[..., AsyncIterator[Any]], method: str, token: Token | None) -> Callable[..., Any]:
        """Return the handler of a stream, which takes `Unread` requests: counted, and ended together with its token."""
        kind = kind_of(method)

        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            caller.set(token)
            sharer.set(whose := sharer_of(token, context.peer()))
            try:
                with self._streams.one(kind, whose):
                    replying = cast(Any, inner(self._read(request, method, whose), context))
                    async with self._stay(token):
                        if iscoroutine(replying):  # it writes its replies itself
                            await replying
                            return
                        async with aclosing(replying) as replies:
                            async for reply in replies:
                                yield reply
            except BrokerRefusal as refusal:
                await refuse(context, refusal)

        return call

    def _read(self, request: Any, method: str, whose: str) -> Any:
        """Return the request, or the stream of requests, as the handler expects it. Raise a BrokerRefusal."""
        if isinstance(request, AsyncIterable):
            if isinstance(request, Handing):
                return HandedRequests(request, lambda one: one.read(self._memory, method, whose))
            return self._each_read(request, method, whose)
        return request.read(self._memory, method, whose)

    async def _each_read(self, requests: AsyncIterable[Unread], method: str, whose: str) -> AsyncIterator[Any]:
        async for request in requests:
            yield request.read(self._memory, method, whose)

    def _stay(self, token: Token | None) -> AbstractAsyncContextManager[None]:
        return nullcontext() if token is None or self._access is None else self._access.until_revoked(token)


def _admitting(handler: Any, admit: Callable[[Unread], tuple[Callable[..., Any], Read]]) -> Callable[..., Any]:
    """Return the behavior of a handler that `admit` chooses when the request is there."""

    async def single(request: Unread, context: Any) -> Any:
        try:
            behavior, read = admit(request)
        except BrokerRefusal as refusal:
            await refuse(context, refusal)
        return await behavior(read, context)

    async def stream(request: Unread, context: Any) -> AsyncIterator[Any]:
        try:
            behavior, read = admit(request)
        except BrokerRefusal as refusal:
            await refuse(context, refusal)
        async with aclosing(behavior(read, context)) as replies:
            async for reply in replies:
                yield reply

    return stream if handler.response_streaming else single


def _refusing(method: str, refusal: BrokerRefusal) -> Any:
    """Return a handler that answers a refusal."""

    async def call(_request: object, context: Any) -> None:
        log.debug("%s from %s: %s", method, context.peer(), refusal)
        await refuse(context, refusal)

    return grpc.stream_stream_rpc_method_handler(call)
