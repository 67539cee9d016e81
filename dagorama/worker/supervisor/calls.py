"""Open the `Work` call of a worker: on the Unix socket of a broker on this machine, or over gRPC.

The rule: both ways end with the same errors, which are errors of gRPC.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MESSAGE_LIMIT
from dagorama.api.frames import BROKER_SILENCE, END, MESSAGE, PING, PING_EVERY, FrameError, FrameReader, frame
from dagorama.client.local_socket import (
    PATIENCE,
    broken,
    end_of_call,
    first_frame,
    is_own,
    is_private,
    is_worth_asking,
    message_of,
)
from dagorama.errors import SettingsError
from dagorama.logging import get_logger

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub
    from dagorama.settings import Settings

#: Shortest time in seconds between two messages over gRPC. Reports of this time share a message; the first message is
#: never delayed. On a Unix socket a message costs so little that gathering gains nothing.
MIN_SEND_INTERVAL_S = 0.001


class WorkCall(Protocol):
    """An open call: what `_converse` needs of a call of gRPC."""

    def __aiter__(self) -> AsyncIterator[pb.BrokerMessage]: ...

    async def write(self, message: pb.WorkerMessage, /) -> None: ...

    async def done_writing(self) -> None: ...

    def cancel(self) -> bool: ...


class OpenedCall(NamedTuple):
    """A call, and the shortest time in seconds between two messages on it."""

    call: WorkCall
    interval: float


class WorkCalls:
    """Opens one call after the other."""

    def __init__(self, stub: BrokerAsyncStub, settings: Settings | None) -> None:
        """Open none yet. `settings`: of the stub's channel; None: use no local socket."""
        self._stub = stub
        self._settings = settings

    async def open(self) -> OpenedCall:
        """Return a call, over gRPC as soon as there is a broker. Raises AioRpcError if it has just gone away."""
        if self._settings is not None and is_worth_asking(self._settings):
            call = await self._local_call(self._settings)
            if call is not None:
                return OpenedCall(call, 0.0)
        return OpenedCall(cast(WorkCall, self._stub.Work(wait_for_ready=True)), MIN_SEND_INTERVAL_S)

    async def _local_call(self, settings: Settings) -> LocalCall | None:
        try:
            # The broker may start at any time, perhaps with a socket.
            reply = await self._stub.GetSharedFolder(pb.GetSharedFolderRequest(), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise
            return None
        return await opened(reply.socket, settings)


async def opened(found: pb.LocalSocket, settings: Settings) -> LocalCall | None:
    """Begin a call on the socket that a broker has named; return None if it must go over gRPC."""
    if not is_private(found):
        return None
    call, why = LocalCall(), "it has closed the connection"
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().create_unix_connection(lambda: call, found.path)
            if call.begins(first_frame(found, "Work", settings)) and await call.accepted():
                return call
    except (OSError, TimeoutError, SettingsError) as error:
        why = str(error) or "it does not answer"
    finally:
        if not call.was_accepted:
            call.cancel()
    get_logger().debug("the local socket of the broker cannot be used (%s): Work goes over gRPC", why)
    return None


class LocalCall(asyncio.Protocol):
    """A call on a Unix socket."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._frames = FrameReader(MESSAGE_LIMIT)
        self._received: deque[pb.BrokerMessage] = deque()
        self._error: grpc.aio.AioRpcError | None = None
        self._is_over = self.was_accepted = False
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._heard_at = self._loop.time()
        self._looking: asyncio.TimerHandle | None = None

    # --- what a driver calls ------------------------------------------------------------------------

    def begins(self, hello: bytes) -> bool:
        """Send the first frame, unless the socket is another user's."""
        if self._transport is None or not is_own(self._transport.get_extra_info("socket")):
            return False
        self._transport.write(hello)
        return True

    async def accepted(self) -> bool:
        """Wait for the answer to the hello; return whether there is one, which may be a refusal."""
        while not self.was_accepted and not self._is_over:
            self._news.clear()
            await self._news.wait()
        self._look()
        return self.was_accepted

    def __aiter__(self) -> AsyncIterator[pb.BrokerMessage]:
        return self

    async def __anext__(self) -> pb.BrokerMessage:
        while not self._received:
            if self._is_over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._received.popleft()

    async def write(self, message: pb.WorkerMessage, /) -> None:
        """Send a message. Raises AioRpcError if the call has ended."""
        if self._is_over or self._transport is None:
            raise self._error or broken("the call is over")
        self._transport.write(frame(message.SerializeToString()))
        if not self._writable.is_set():
            await self._writable.wait()

    async def done_writing(self) -> None:
        """Tell the broker that no more messages follow."""
        if self._transport is not None and not self._is_over:
            self._transport.write(frame(kind=END))

    def cancel(self) -> bool:
        """End the call here."""
        if self._transport is not None:
            self._transport.abort()
        return True

    # --- what asyncio calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            for kind, body in self._frames.feed(data):
                self.was_accepted = True
                if kind == MESSAGE:
                    self._received.append(message_of(pb.BrokerMessage, body))
                elif kind == END:
                    self._end(end_of_call(body))
        except FrameError as error:
            self._end(broken(str(error)))
        except grpc.aio.AioRpcError as error:
            self._end(error)
        self._news.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(broken(str(exc or "the broker has closed it")))

    def _end(self, error: grpc.aio.AioRpcError | None) -> None:
        if self._is_over:
            return
        self._is_over, self._error = True, error
        self._news.set()
        self._writable.set()
        if self._looking is not None:
            self._looking.cancel()
        self.cancel()

    def _look(self) -> None:
        """Ping the broker, and give it up if it is silent."""
        if self._is_over:
            return
        if self._loop.time() - self._heard_at > BROKER_SILENCE:
            self._end(broken(f"the broker was silent for {BROKER_SILENCE:g} seconds"))
        elif self._transport is not None:
            if self._writable.is_set():
                self._transport.write(frame(kind=PING))
            self._looking = self._loop.call_later(PING_EVERY, self._look)
