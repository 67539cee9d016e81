"""The local transport as a client of the broker sees it, with the methods that calls of gRPC have.

It is written from docs/reference/protocol.md, and uses nothing of the product but its messages.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from tests.support import raw

MESSAGE, END, PING = 0, 1, 2
ANSWERS: dict[str, Any] = {"Exchange": pb.Responses, "Work": pb.BrokerMessage}


def frame(body: bytes = b"", kind: int = MESSAGE) -> bytes:
    return struct.pack(">BI", kind, len(body)) + body


async def socket_of(stub: Any, **options: Any) -> pb.LocalSocket:
    """The socket that the broker announces."""
    found: pb.LocalSocket = (await stub.GetSharedFolder(pb.GetSharedFolderRequest(), **options)).socket
    return found


class Frames:
    """A connection to the socket of a broker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, path: str) -> Frames:
        return cls(*await asyncio.open_unix_connection(path))

    async def read(self, pings: bool = False) -> tuple[int, bytes]:
        """Kind and body of the next frame, leaving out pings unless they are wanted; raises EOFError at the end."""
        while True:
            async with asyncio.timeout(raw.PATIENCE):
                kind, length = struct.unpack(">BI", await self.reader.readexactly(5))
                body = await self.reader.readexactly(length)
            if kind != PING or pings:
                return kind, body


class LocalCall:
    """`Exchange` or `Work`, which begins when it is first used."""

    def __init__(self, stub: Any, call: str, authorization: str = "", requests: Any = None) -> None:
        self._stub, self._call, self._authorization, self._requests = stub, call, authorization, requests
        self._opened: asyncio.Task[Frames] | None = None
        self._error: grpc.aio.AioRpcError | None = None
        self._cancelled = self._is_over = False

    async def _begun(self) -> Frames:
        if self._opened is None:
            self._opened = asyncio.create_task(self._open())
        return await asyncio.shield(self._opened)

    async def _open(self) -> Frames:
        announced = await socket_of(BrokerStub(self._stub.channel))
        frames = await Frames.of(announced.path)
        hello = pb.LocalHello(protocol=1, call=self._call, nonce=announced.nonce, authorization=self._authorization)
        frames.writer.write(frame(hello.SerializeToString()))
        if self._requests is not None:
            async for request in self._requests:
                frames.writer.write(frame(request.SerializeToString()))
            frames.writer.write(frame(kind=END))
        return frames

    async def write(self, message: Any) -> None:
        frames = await self._begun()
        frames.writer.write(frame(message.SerializeToString()))
        await frames.writer.drain()

    async def done_writing(self) -> None:
        (await self._begun()).writer.write(frame(kind=END))

    async def read(self) -> Any:
        if self._is_over:
            return self._over()
        frames = await self._begun()
        try:
            kind, body = await frames.read()
        except (EOFError, OSError) as error:
            kind, body = END, pb.Refusal(status=14, message=f"the connection was closed: {error}").SerializeToString()
        if kind == MESSAGE:
            return ANSWERS[self._call].FromString(body)
        assert kind == END
        refusal = pb.Refusal.FromString(body)
        self._is_over = True
        frames.writer.transport.abort()
        if refusal.status:
            code = next(code for code in grpc.StatusCode if code.value[0] == refusal.status)
            self._error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), refusal.message)
        return self._over()

    def _over(self) -> Any:
        if self._error is not None:
            raise self._error
        return grpc.aio.EOF

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if (message := await self.read()) is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    def cancel(self) -> None:
        if self._opened is not None and self._opened.done() and not self._opened.cancelled():
            self._opened.result().writer.transport.abort()
        elif self._opened is not None:
            self._opened.cancel()


class LocalStub:
    """The calls of a broker, of which two go over its socket."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._stub = BrokerStub(channel)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)

    def Exchange(self, requests: Any = None) -> LocalCall:
        return LocalCall(self, "Exchange", requests=requests)

    def Work(self, requests: Any = None) -> LocalCall:
        return LocalCall(self, "Work", requests=requests)


@pytest.fixture(params=["grpc", "local"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test of a module that imports this over both transports."""
    if request.param == "local":
        monkeypatch.setattr(raw, "BrokerStub", LocalStub)
    return str(request.param)
