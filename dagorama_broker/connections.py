"""Makes room when connections are nearly as many as there may be: those that never made a call are closed.

gRPC refuses the newest connection when it is full, so that strangers who connect and say nothing keep everybody else
out. An honest client connects in order to call, so a connection without a call is closed after two seconds then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

log = logging.getLogger("dagorama_broker")

#: The share of the bound from which on there is a crowd, and how often that is looked at.
CROWDED, LOOK = 0.8, 0.5
#: How many times as long as a look the pause after it is.
SHARE = 30
#: Seconds that a new connection has to make a call while there is a crowd.
PATIENCE = 2.0
#: Seconds between two words in the log about it.
SILENCE = 60.0

Peer = tuple[str, int]


class Connections(grpc.aio.ServerInterceptor):
    """Knows which connections have made a call that was admitted: put it behind the interceptor that admits."""

    def __init__(self, most: int, ignored: str) -> None:
        """`ignored` begins the names of calls that anyone may make."""
        self.most = most
        self._ignored = ignored
        self._callers: set[str] = set()
        self._silent: dict[Peer, float] = {}  #: since when they were seen
        self._say_at = 0.0

    # --- who calls ---------------------------------------------------------------------------------

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or str(handler_call_details.method).startswith(self._ignored):
            return handler
        read, write = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._noting(handler.stream_stream), read, write)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._noting(handler.unary_stream), read, write)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._noting(handler.stream_unary), read, write)
        return grpc.unary_unary_rpc_method_handler(self._noting(handler.unary_unary), read, write)

    def _noting(self, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: Any) -> Any:
            self._callers.add(context.peer())
            return inner(request, context)

        return call

    # --- making room -------------------------------------------------------------------------------

    async def watch(self, port: int) -> None:
        """Make room whenever there is a crowd at this port; until cancelled."""
        pause = LOOK
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            if len(os.listdir("/dev/fd")) > CROWDED * self.most or len(self._callers) > 2 * self.most:
                await asyncio.to_thread(self.make_room, port)
            # Where many honest ones are connected it takes longer to look, and is seldom needed.
            pause = max(LOOK, SHARE * (time.monotonic() - began))

    def make_room(self, port: int) -> None:
        """Close connections without a call, the crowd permitting; forget callers that have left."""
        callers, now = {_peer(text) for text in self._callers.copy()}, time.monotonic()
        there: set[Peer] = set()
        seen, self._silent = self._silent, {}
        closed = 0
        for peer, connection in _connections(port):
            there.add(peer)
            if peer in callers:
                continue
            since = self._silent[peer] = seen.get(peer, now)
            if now - since >= PATIENCE:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                    closed += 1
        self._callers -= {text for text in self._callers.copy() if _peer(text) not in there}
        self._tell(len(there), closed)

    def _tell(self, there: int, closed: int) -> None:
        if closed and time.monotonic() >= self._say_at:
            self._say_at = time.monotonic() + SILENCE
            log.warning(
                "%d connections of at most %d are open: %d that made no call for %g s were closed", there, self.most,
                closed, PATIENCE,
            )  # fmt: skip


def _connections(port: int) -> Iterator[tuple[Peer, socket.socket]]:
    """Yield each accepted connection of this process at the port."""
    for name in os.listdir("/dev/fd"):
        with suppress(OSError), _socket(int(name)) as found:
            if found.family not in (socket.AF_INET, socket.AF_INET6) or found.getsockname()[1] != port:
                continue
            host, its_port = found.getpeername()[:2]
            yield (_host(host), its_port), found


@contextmanager
def _socket(descriptor: int) -> Iterator[socket.socket]:
    # A duplicate: gRPC may close its own at any time, and the number may then be another file's.
    duplicate = os.dup(descriptor)
    try:
        found = socket.socket(fileno=duplicate)
    except OSError:  # it is no socket
        os.close(duplicate)
        raise
    with found:
        yield found


def _peer(text: str) -> Peer:
    """What gRPC calls ipv4:127.0.0.1:50000 or ipv6:%5B::1%5D:50000."""
    host, _, port = unquote(text).partition(":")[2].rpartition(":")
    return _host(host.strip("[]")), int(port) if port.isdecimal() else 0


def _host(text: str) -> str:
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    return str(getattr(found, "ipv4_mapped", None) or found)
