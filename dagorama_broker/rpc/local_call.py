"""One connection of the local transport: its frames become the requests of a handler, whose replies become frames.

The rule: a call passes the same interceptor, is parsed by the same code and answers the same statuses as over gRPC.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple, NoReturn, Protocol, cast

import grpc
from google.protobuf.message import DecodeError, Message

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import RETRY_AFTER
from dagorama.api.frames import END, MESSAGE, PING, PROTOCOL, FrameError, FrameReader, frame, peer_user
from dagorama_broker.errors import BrokerRefusal, ResourceExhausted, Unavailable
from dagorama_broker.rpc.interceptor import AuthInterceptor
from dagorama_broker.rpc.local_requests import LocalRequests
from dagorama_broker.rpc.permissions import OURS
from dagorama_broker.rpc.status import refusal_message
from dagorama_broker.rpc.tokens import Token

log = logging.getLogger("dagorama_broker")

#: The peer of a local call: it shares the limits of callers at the loopback address.
PEER = "ipv4:127.0.0.1:0"
#: Seconds that a client has to complete a message that it has begun.
PARTIAL = 10.0
#: Seconds of silence after which a client is given up: as long as over gRPC. Clients send something more often.
SILENCE = 30.0


class Method(NamedTuple):
    """A call that is served here."""

    handler: Callable[..., Any]
    parse: Callable[[bytes], object]


class Host(Protocol):
    """The part of a server that its connections use."""

    door: AuthInterceptor
    methods: Mapping[str, Method]
    word: str
    max_message: int

    def enters(self, connection: LocalConnection, descriptor: int) -> bool: ...

    def leaves(self, connection: LocalConnection) -> None: ...


class Aborted(Exception):
    """A handler has ended its call with a status."""

    def __init__(self, refusal: pb.Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class LocalContext:
    """The context of a handler, in place of gRPC's. It is a `Writer`."""

    def __init__(self, connection: LocalConnection) -> None:
        self._connection = connection

    @property
    def is_writable(self) -> bool:
        return self._connection.is_writable

    def write_now(self, reply: Message) -> None:
        self._connection.write(reply)

    def peer(self) -> str:
        return PEER

    async def abort(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, str], ...] = ()) -> NoReturn:
        retry_after = int(dict(trailing).get(RETRY_AFTER, 0))
        raise Aborted(pb.Refusal(status=code.value[0], message=details, retry_after=retry_after))


class LocalConnection(asyncio.Protocol):
    """One connection, which carries one call."""

    _transport: asyncio.Transport

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader(host.max_message)
        self._requests: LocalRequests | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.task: asyncio.Task[None] | None = None
        self.heard_at = self.opened_at = self._loop.time()
        self._partial_since: float | None = None

    # --- what asyncio calls -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        found = transport.get_extra_info("socket")
        # Nothing has been read yet, and asyncio reads nothing from a transport that is closing.
        if peer_user(found) != os.geteuid() or not self._host.enters(self, found.fileno()):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        try:
            frames = self._frames.feed(data)
        except FrameError as error:
            self._end(refusal_message(ResourceExhausted(str(error))))
            return
        for kind, body in frames:
            if kind == MESSAGE and self._requests is None:
                self._begin(body)
            elif kind == MESSAGE and self._requests is not None:
                self._requests.put(body)
            elif kind == END and self._requests is not None:
                self._requests.end()
        if not self._frames.is_partial:
            self._partial_since = None
        elif frames or self._partial_since is None:
            self._partial_since = self.heard_at

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.leaves(self)
        if self.task is not None:
            self.task.cancel()

    # --- the call ---------------------------------------------------------------------------------

    def _begin(self, body: bytes) -> None:
        """Accept the hello and start its call, or end the connection."""
        method = self._method(body)
        if method is None:
            log.debug("a local connection was closed: its first frame is no hello to this broker")
            self._transport.abort()
            return
        name, hello = method
        try:
            metadata = [("authorization", hello.authorization)] if hello.authorization else []
            token = self._host.door.token_of(name, metadata)
        except BrokerRefusal as refusal:
            log.debug("%s on the local socket: %s", name, refusal)
            self._end(refusal_message(refusal))
            return
        handler, parse = self._host.methods[hello.call]
        self._requests = LocalRequests(parse, self._transport)
        self._transport.write(frame(kind=PING))
        self.task = self._loop.create_task(self._answer(handler, name, token))

    def _method(self, body: bytes) -> tuple[str, pb.LocalHello] | None:
        try:
            hello = pb.LocalHello.FromString(body)
        except DecodeError:
            return None
        is_for_us = hmac.compare_digest(hello.nonce.encode(), self._host.word.encode())
        if not is_for_us or hello.protocol != PROTOCOL or hello.call not in self._host.methods:
            return None
        return OURS + hello.call, hello

    async def _answer(self, handler: Callable[..., Any], method: str, token: Token | None) -> None:
        refusal = pb.Refusal()
        try:
            call = self._host.door.stream(handler, method, token)
            async with aclosing(call(self._requests, LocalContext(self))) as replies:
                async for reply in replies:
                    self.write(reply)
                    if not self._writable.is_set():
                        await self._writable.wait()
        except Aborted as aborted:
            refusal = aborted.refusal
        except asyncio.CancelledError:
            if not self._transport.is_closing():  # the last frame may be on its way
                self._transport.abort()
            raise
        except Exception as error:
            log.exception("%s on the local socket could not be answered", method)
            refusal = pb.Refusal(status=grpc.StatusCode.UNKNOWN.value[0], message=f"Unexpected {error!r}")
        self._end(refusal)

    @property
    def is_writable(self) -> bool:
        """Whether the client is there, and reads what it is sent."""
        return self._writable.is_set() and not self._transport.is_closing()

    def write(self, reply: Message) -> None:
        """Send a reply."""
        self._transport.write(frame(reply.SerializeToString()))

    def _end(self, refusal: pb.Refusal) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(frame(refusal.SerializeToString(), END))
        self._transport.close()

    # --- liveness ---------------------------------------------------------------------------------

    def look(self, now: float, handshake: float) -> None:
        """End the connection of a client that is silent, slow to say hello, or in the middle of a message; or ping."""
        if self._requests is None:
            if now - self.opened_at > handshake:
                self._transport.abort()
        elif not self._requests.is_paused and now - self.heard_at > SILENCE:
            self._transport.abort()
        elif not self._requests.is_paused and self._partial_since is not None and now - self._partial_since > PARTIAL:
            self._end(refusal_message(Unavailable(f"a message was not complete within {PARTIAL:g} seconds")))
        elif self._writable.is_set():
            self._transport.write(frame(kind=PING))

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()
