"""The network between hosts: streams keep their order, everything else may be late, lost, doubled or cut off.

A link is one peer's way to the broker. While it is blocked, what is sent waits, as TCP has it wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import Context, copy_context
from typing import Any

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama_broker.rpc.handlers import HandedRequests
from dagorama_testing.calls import UNAVAILABLE, Aborted, CallContext, rpc_error

from .loop import HOST, Host, SimulatedLoop

#: Seconds in which each end of a broken connection has noticed.
LATE = 4.0
#: Seconds after an answer in which a copy of the call has arrived, if a middleman has sent it twice.
COPIED = 6.0


class Server:
    """Where a broker serves, as long as it lives."""

    def __init__(self, host: Host, service: Any) -> None:
        self.host, self.service = host, service
        self.calls: dict[_Call, None] = {}


class Link:
    """One peer's way to the broker."""

    def __init__(self, network: Network, host: Host) -> None:
        self.network, self.host = network, host
        self.blocked_until = 0.0
        self.calls: dict[_Call, None] = {}
        self.touched_at = 0.0  #: when something was done to it last
        self.heard_at = 0.0  #: when something of it reached the broker last
        self.given_up: Callable[[], None] = lambda: None  #: called when the broker hangs up for the peer's silence
        self.replaced: Callable[[], None] = lambda: None  #: called when it hangs up for another stream of that worker

    def block(self, seconds: float) -> None:
        loop = self.network.loop
        self.blocked_until = loop.now + seconds
        self.touched_at = max(self.touched_at, self.blocked_until)

    def cut(self) -> None:
        """All its connections break; each end notices in its own time."""
        self.touched_at = max(self.touched_at, self.network.loop.now + LATE)
        for call in list(self.calls):
            call.breaks()


class Network:
    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.server: Server | None = None
        self.faulty = True
        self.messages = 0
        self.broke: Callable[[Exception], None] = lambda error: None

    def delay(self) -> float:
        chance = self.loop.chance
        if self.faulty and chance.random() < 0.03:
            return chance.uniform(0.01, 0.4)
        return chance.uniform(0.0001, 0.001)

    def is_lost(self, share: float) -> bool:
        return self.faulty and self.loop.chance.random() < share

    def serve(self, server: Server) -> None:
        self.server = server

    def server_died(self) -> None:
        server, self.server = self.server, None
        for call in list(server.calls) if server else ():
            call.breaks(server_gone=True)

    async def connected(self, link: Link) -> Server:
        """The broker, once it can be reached."""
        while True:
            await asyncio.sleep(self.delay())
            if self.server is not None and self.loop.now >= link.blocked_until:
                return self.server
            await asyncio.sleep(0.05)


class Pipe:
    """One direction of a stream: bytes that arrive in their order, until it breaks."""

    def __init__(self, network: Network, link: Link) -> None:
        self._network, self._link = network, link
        self._items: deque[bytes | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._last = 0.0
        self._error: BaseException | None = None
        self._take: Callable[[bytes], bool] | None = None
        self._context = Context()

    def hand_to(self, take: Callable[[bytes], bool]) -> None:
        """Hand what arrives to the reader at once while it waits, as the local transport does."""
        self._take, self._context = take, copy_context()

    def put(self, item: bytes | None) -> None:
        if not HOST.get().alive:
            return
        network = self._network
        network.messages += 1
        when = max(self._last, network.loop.now, self._link.blocked_until) + network.delay()
        self._last = when
        network.loop.world_at(when, self._arrive, item)

    def _arrive(self, item: bytes | None) -> None:
        is_awaited = not self._items and self._waiter is not None and not self._waiter.done() and self._error is None
        if item is not None and is_awaited and self._take is not None and self._context[HOST].alive:
            try:
                if self._context.run(self._take, item):
                    return
            except Exception as error:
                self.fail(error)
                return
        self._items.append(item)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """What has not been read is lost."""
        if self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> bytes | None:
        """The next bytes; None: the other end has said all. Raises what it failed with."""
        while True:
            if self._error is not None:
                raise self._error
            if self._items:
                return self._items.popleft()
            self._waiter = self._network.loop.create_future()
            await self._waiter


class _Call:
    """A stream between a peer and the broker."""

    def __init__(self, link: Link) -> None:
        self.link, self.network = link, link.network
        self.up, self.down = Pipe(self.network, link), Pipe(self.network, link)
        self._handler: asyncio.Task[Any] | None = None
        self._error: BaseException | None = None
        self._server: Server | None = None
        link.calls[self] = None

    async def _open(self, handle: Callable[[Any, AsyncIterator[Any]], AsyncIterator[Any]], read: Any) -> None:
        server = await self.network.connected(self.link)
        if self._error is None and server.host.alive:
            self._server = server
            server.calls[self] = None
            self._handler = self.network.loop.on(server.host, self._serve(handle(server.service, self._requests(read))))

    def _requests(self, read: Any) -> AsyncIterator[Any]:
        return self._read(read)

    async def _read(self, read: Any) -> AsyncIterator[Any]:
        while (data := await self.up.get()) is not None:
            self.link.heard_at = self.network.loop.now
            yield read(data)

    async def _serve(self, replies: AsyncIterator[Any]) -> None:
        try:
            async for reply in replies:
                self.down.put(reply.SerializeToString())
            self.down.put(None)
        except Aborted as aborted:
            self._end_down(aborted.error)
            if aborted.error.code() is grpc.StatusCode.INTERNAL:
                self.network.broke(aborted.error)
            if "silent" in str(aborted):
                self.link.given_up()
            if "another stream" in str(aborted):
                self.link.replaced()
        except Exception as error:
            self.network.broke(error)

    def _end_down(self, error: BaseException) -> None:
        """The status comes behind what was sent before it."""
        if HOST.get().alive:
            when = max(self.down._last, self.network.loop.now, self.link.blocked_until) + self.network.delay()
            self.network.loop.world_at(when, self.down.fail, error)

    def breaks(self, server_gone: bool = False) -> None:
        loop, chance = self.network.loop, self.network.loop.chance
        late = LATE if chance.random() < 0.2 else 0.05
        loop.world_at(loop.now + chance.uniform(0.0, late), self._break_here)
        if not server_gone:
            late = LATE if chance.random() < 0.2 else 0.05
            loop.world_at(loop.now + chance.uniform(0.0, late), self._break_there)

    def _break_here(self) -> None:
        self._error = self._error or rpc_error(UNAVAILABLE, "the connection broke")
        self.link.calls.pop(self, None)
        self.down.fail(self._error)

    def _break_there(self) -> None:
        if self._server is not None:
            self._server.calls.pop(self, None)
        if self._handler is not None:
            self.up.fail(asyncio.CancelledError())
            self._handler.cancel()

    def cancel(self) -> None:
        """The peer hangs up; the broker notices."""
        if self._error is None:
            self._error = rpc_error(grpc.StatusCode.CANCELLED, "cancelled")
            self.link.calls.pop(self, None)
            self.down.fail(asyncio.CancelledError())
            # Not HOST: the task of a peer that was killed may be cleared away by any other.
            if self.link.host.alive:
                when = max(self.network.loop.now, self.link.blocked_until) + self.network.delay()
                self.network.loop.world_at(when, self._break_there)


class _LocalContext(CallContext):
    """The context of a call over the local transport."""

    is_writable = True

    def __init__(self, down: Pipe) -> None:
        self._down = down

    def write_now(self, reply: pb.BrokerMessage) -> None:
        self._down.put(reply.SerializeToString())


class _Unread:
    """The requests of a call over the local transport, before they are parsed."""

    def __init__(self, call: _Call) -> None:
        self._call = call

    def hand_to(self, take: Callable[[Any], bool]) -> None:
        def heard(data: bytes) -> bool:
            self._call.link.heard_at = self._call.network.loop.now
            return take(data)

        self._call.up.hand_to(heard)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._call._read(lambda data: data)


class WorkCall(_Call):
    """The peer's end of `Work`, as grpc.aio has it, or as the local transport has it."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        network = self.network
        self._is_local = network.loop.chance.random() < 0.5
        network.loop.create_task(
            self._open(lambda service, requests: service.Work(requests, self._context()), pb.WorkerMessage.FromString)
        )

    def _context(self) -> CallContext:
        return _LocalContext(self.down) if self._is_local else CallContext()

    def _requests(self, read: Any) -> AsyncIterator[Any]:
        return HandedRequests(_Unread(self), read) if self._is_local else super()._requests(read)

    async def write(self, message: pb.WorkerMessage) -> None:
        if self._error is not None:
            raise self._error
        self.up.put(message.SerializeToString())

    async def done_writing(self) -> None:
        self.up.put(None)

    def __aiter__(self) -> WorkCall:
        return self

    async def __anext__(self) -> pb.BrokerMessage:
        data = await self.down.get()
        if data is None:
            self.link.calls.pop(self, None)
            raise StopAsyncIteration
        return pb.BrokerMessage.FromString(data)


class Stub:
    """What a worker's stream asks of a stub."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def Work(self, wait_for_ready: bool = True) -> WorkCall:
        return WorkCall(self._link)


class WaitCall(_Call):
    """`Wait`: one request, many answers."""

    def __init__(self, link: Link, request: pb.WaitRequest) -> None:
        super().__init__(link)
        self.network.loop.create_task(
            self._open(lambda service, _: service.Wait(request, CallContext()), pb.WorkerMessage.FromString)
        )

    async def replies(self) -> AsyncIterator[pb.WaitReply]:
        while (data := await self.down.get()) is not None:
            yield pb.WaitReply.FromString(data)


async def unary(link: Link, method: str, request: Any, reply_type: Any, seconds: float) -> Any:
    """A call with one answer. It, or the answer, may be lost; a middleman may send it twice. Raises AioRpcError."""
    network = link.network
    answer: asyncio.Future[Any] = network.loop.create_future()
    data, request_type = request.SerializeToString(), type(request)
    try:
        async with asyncio.timeout(seconds):
            server = await network.connected(link)

            async def handle(answer: asyncio.Future[Any] | None) -> None:
                try:
                    message = request_type.FromString(data)
                    said = submission(message) if method == "SubmitStream" else message
                    reply = await getattr(server.service, method)(said, CallContext())
                    outcome: Any = reply.SerializeToString()
                except Aborted as aborted:
                    outcome = aborted.error
                    if aborted.error.code() is grpc.StatusCode.INTERNAL:
                        network.broke(aborted.error)
                except Exception as error:
                    network.broke(error)
                    return
                if answer is None or not server.host.alive or network.is_lost(0.1):
                    return
                network.messages += 1
                when = max(network.loop.now, link.blocked_until) + network.delay()
                network.loop.world_at(when, _answer, answer, outcome)

            def arrive(answer: asyncio.Future[Any] | None) -> None:
                if server.host.alive:
                    network.loop.on(server.host, handle(answer))

            if not network.is_lost(0.05):
                network.loop.world_at(network.loop.now + network.delay(), arrive, answer)
            if network.is_lost(0.1):
                again = network.loop.now + network.delay() + network.loop.chance.choice([0.0, 0.5, 5.0])
                network.loop.world_at(again, arrive, None)
            outcome = await answer
    except TimeoutError:
        raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer") from None
    if isinstance(outcome, BaseException):
        raise outcome
    return reply_type.FromString(outcome)


async def submission(message: pb.SubmitRequest) -> AsyncIterator[pb.SubmitRequest]:
    """The messages of a submission that fits into one."""
    yield message
    yield pb.SubmitRequest()


def _answer(answer: asyncio.Future[Any], outcome: Any) -> None:
    if not answer.done():
        answer.set_result(outcome)


__all__ = ["Aborted", "Link", "Network", "Server", "Stub", "WaitCall", "rpc_error", "unary"]
