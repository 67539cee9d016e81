"""Calls of a broker's service without a network: the real handlers, the real messages, as bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from typing import Any

import grpc
import grpc.aio

from dagorama_testing.loop import VirtualLoop

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def rpc_error(code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, str], ...] = ()) -> grpc.aio.AioRpcError:
    """Return the error that a client gets for a call with this status."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)


class Aborted(Exception):
    """The error that `context.abort` raises in a handler."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(details)
        self.error = rpc_error(code, details, trailing)


class CallContext:
    """The context of a call, as its handler needs it."""

    def __init__(self, write: Callable[[Any], None] = lambda reply: None) -> None:
        self._write = write

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        raise Aborted(code, details, trailing_metadata)

    async def write(self, reply: Any) -> None:
        """Send a reply, of a handler that does not yield its replies."""
        self._write(reply)

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "inline"


class Requests:
    """The requests of one call, in the order in which they are added."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._messages: deque[Any] = deque()
        self._is_complete = False
        self._waiting: asyncio.Future[None] | None = None

    def add(self, message: Any) -> None:
        """Send a message."""
        self._messages.append(type(message).FromString(message.SerializeToString()))
        self._wake()

    def close(self) -> None:
        """Send no more messages."""
        self._is_complete = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            if self._messages:
                yield self._messages.popleft()
            elif self._is_complete:
                return
            else:
                self._waiting = self._loop.create_future()
                await self._waiting


class Call:
    """One call of a handler of a service, which runs on the loop of the broker."""

    def __init__(self, loop: VirtualLoop, on_end: Callable[[Call], None]) -> None:
        self.requests = Requests(loop)
        self.replies: deque[bytes] = deque()
        self.error: grpc.aio.AioRpcError | None = None  #: the status with which it ended, if it was not OK
        self.on_reply: Callable[[bytes], None] = self.replies.append
        self.is_over = False
        self._loop = loop
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None

    def start(self, handler: Callable[[Any, CallContext], Any], request: Any) -> None:
        """Call the handler with a message, or with `requests` if there is none."""
        told = self.requests if request is None else type(request).FromString(request.SerializeToString())
        context = CallContext(lambda reply: self.on_reply(reply.SerializeToString()))
        self._task = self._loop.create_task(self._run(handler(told, context)), context=Context())
        self._task.add_done_callback(lambda _: self._end())

    async def _run(self, answer: Any) -> None:
        try:
            if hasattr(answer, "__aiter__"):
                async for reply in answer:
                    self.on_reply(reply.SerializeToString())
            elif (reply := await answer) is not None:
                self.on_reply(reply.SerializeToString())
        except Aborted as aborted:
            self.error = aborted.error
        except Exception as error:
            # grpc.aio answers like this.
            self.error = rpc_error(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
            self._loop.failures.append(error)

    def _end(self) -> None:
        self.is_over = True
        self._on_end(self)

    def cancel(self) -> None:
        """Hang up: the handler is cancelled."""
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def break_off(self) -> None:
        """End the call as a broker that is gone does: the client gets UNAVAILABLE, the handler is cancelled."""
        if not self.is_over:
            self.error = rpc_error(UNAVAILABLE, "the broker is gone")
            self.cancel()
