"""Closes connections that never made a call when the number of connections approaches its limit.

gRPC refuses the newest connection when the limit is reached, so idle connections of strangers would keep everyone else
out. An honest client connects in order to call, so near the limit a connection without a call is closed after a second.
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

from dagorama_broker.rpc.handlers import behavior_of, with_behavior

log = logging.getLogger("dagorama_broker")

#: The folder in which a process finds its own open files.
DESCRIPTORS = "/dev/fd"
#: The share of the limit from which connections are closed, and the seconds between two checks.
CROWDED, LOOK = 0.8, 0.5
#: The pause after making room is this many times its CPU time.
SHARE = 20
#: Seconds that a new connection has to make a call near the limit.
PATIENCE = 1.0
#: Seconds between two warnings about it.
SILENCE = 60.0


class Connections(grpc.aio.ServerInterceptor):
    """Notes which connections have made an authenticated call: add it after the interceptor that authenticates."""

    def __init__(self, most: int, ignored: str) -> None:
        """`most`: limit of connections; `ignored`: prefix of the calls that need no authentication."""
        self.most = most
        self._ignored = ignored
        self._callers: set[str] = set()
        self._silent: dict[str, float] = {}  #: peers without a call, and since when they were seen
        self._say_at = 0.0

    # --- callers -----------------------------------------------------------------------------------

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or str(handler_call_details.method).startswith(self._ignored):
            return handler
        return with_behavior(handler, self._noting(behavior_of(handler)))

    def _noting(self, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: Any) -> Any:
            self._callers.add(context.peer())
            return inner(request, context)

        return call

    # --- making room -------------------------------------------------------------------------------

    async def watch(self, port: int) -> None:
        """Make room whenever there are many connections at this port, until cancelled."""
        pause = LOOK
        while os.path.isdir(DESCRIPTORS):
            await asyncio.sleep(pause)
            with suppress(OSError):  # no free descriptor for listing the folder; the next check may have one
                if len(os.listdir(DESCRIPTORS)) > CROWDED * self.most or len(self._callers) > 2 * self.most:
                    # If many honest clients are connected, making room takes longer and is rarely needed.
                    pause = max(LOOK, SHARE * await asyncio.to_thread(self.make_room, port))

    def make_room(self, port: int) -> float:
        """Close connections without a call, forget callers that have disconnected; return the CPU seconds spent."""
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
                "%d of at most %d connections are open: closed %d that made no call for %g s", there, self.most,
                closed, PATIENCE,
            )  # fmt: skip


def _connections(port: int) -> Iterator[tuple[str, socket.socket]]:
    """Yield the accepted connections of this process at the port, each with gRPC's name of the peer."""
    for name in os.listdir(DESCRIPTORS):
        with suppress(OSError), _socket(int(name)) as found:
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.getsockname()[1] == port:
                yield _peer(*found.getpeername()[:2]), found


@contextmanager
def _socket(descriptor: int) -> Iterator[socket.socket]:
    # A duplicate: gRPC may close its descriptor at any time, and the number may then be another file's.
    duplicate = os.dup(descriptor)
    try:
        found = socket.socket(fileno=duplicate)
    except OSError:  # it is not a socket
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
