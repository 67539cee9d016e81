"""Makes room when connections are nearly as many as there may be: those that never made a call are closed.

gRPC refuses the newest connection when it is full, so that strangers who connect and say nothing keep everybody else
out. An honest client connects in order to call, so a connection without a call is closed after a second then.
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
from urllib.parse import quote

import grpc
import grpc.aio

log = logging.getLogger("dagorama_broker")

#: Where a process finds its own open files.
DESCRIPTORS = "/dev/fd"
#: The share of the bound from which on there is a crowd, and how often that is looked at.
CROWDED, LOOK = 0.8, 0.5
#: How many times as long as the processor's time for a look the pause after it is.
SHARE = 20
#: Seconds that a new connection has to make a call while there is a crowd.
PATIENCE = 1.0
#: Seconds between two words in the log about it.
SILENCE = 60.0


class Connections(grpc.aio.ServerInterceptor):
    """Knows which connections have made a call that was admitted: put it behind the interceptor that admits."""

    def __init__(self, most: int, ignored: str) -> None:
        """`ignored` begins the names of calls that anyone may make."""
        self.most = most
        self._ignored = ignored
        self._callers: set[str] = set()
        self._silent: dict[str, float] = {}  #: since when they were seen
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
        while os.path.isdir(DESCRIPTORS):
            await asyncio.sleep(pause)
            with suppress(OSError):  # no descriptor is left to look with: the next look may have one
                if len(os.listdir(DESCRIPTORS)) > CROWDED * self.most or len(self._callers) > 2 * self.most:
                    # Where many honest ones are connected it takes longer to look, and is seldom needed.
                    pause = max(LOOK, SHARE * await asyncio.to_thread(self.make_room, port))

    def make_room(self, port: int) -> float:
        """Close connections that made no call for a while, forget callers that have left; return seconds of work."""
        began = time.thread_time()
        before, now = self._callers.copy(), time.monotonic()
        there: set[str] = set()
        seen, self._silent = self._silent, {}
        closed = 0
        for peer, connection in _connections(port):
            there.add(peer)
            if peer in self._callers:
                continue
            since = self._silent[peer] = seen.get(peer, now)
            if now - since >= PATIENCE:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                    closed += 1
        self._callers -= before - there
        self._tell(len(there), closed)
        return time.thread_time() - began

    def _tell(self, there: int, closed: int) -> None:
        if closed and time.monotonic() >= self._say_at:
            self._say_at = time.monotonic() + SILENCE
            log.warning(
                "%d connections of at most %d are open: %d that made no call for %g s were closed", there, self.most,
                closed, PATIENCE,
            )  # fmt: skip


def _connections(port: int) -> Iterator[tuple[str, socket.socket]]:
    """Yield each accepted connection of this process at the port, after what gRPC calls the other end."""
    for name in os.listdir(DESCRIPTORS):
        with suppress(OSError), _socket(int(name)) as found:
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.getsockname()[1] == port:
                yield _peer(*found.getpeername()[:2]), found


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


def _peer(host: str, port: int) -> str:
    address = ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    if address.version == 4 or mapped is not None:
        return f"ipv4:{mapped or address}:{port}"
    return f"ipv6:{quote(f'[{host}]')}:{port}".replace("%3A", ":")
