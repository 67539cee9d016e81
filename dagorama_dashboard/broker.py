"""The broker as the dashboard sees it: asynchronous calls, each with the token of the viewer.

The rule: the dashboard has no token of its own, so that the broker decides what each viewer may see and do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import grpc
import grpc.aio

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.client.addresses import address
from dagorama.client.channel import aio_channel
from dagorama.client.connection import Connection
from dagorama.client.status import broker_error
from dagorama.errors import AccessDenied, BrokerError
from dagorama.settings import Settings

#: Seconds that the broker has for one answer; lists of an instance of a million nodes take two.
DEADLINE = 10.0
#: Seconds for which the answer to WhoAmI is used again, and the most viewers that it is kept for.
KNOWN_FOR, MOST_KNOWN = 5.0, 1_000


@dataclass(frozen=True, slots=True)
class Identity:
    """A viewer of the dashboard, as the broker knows them."""

    name: str  #: of the token; empty: the broker requires none
    role: str
    needs_token: bool
    calls: frozenset[str]  #: the rpcs that the person may make
    version: str  #: of the broker

    def may(self, call: str) -> bool:
        return call in self.calls


class Broker:
    """A channel to the broker without a token."""

    def __init__(self, settings: Settings) -> None:
        self.settings = replace(settings, auth_token="", auth_token_file="")
        self.address = address(settings)
        self._channel = aio_channel(self.settings)
        self.stub = BrokerStub(self._channel)
        self._known: dict[str, tuple[float, Identity]] = {}

    async def close(self) -> None:
        await self._channel.close()

    async def identity(self, token: str) -> Identity:
        """Return the viewer with this token; empty: a viewer without one. Raises AccessDenied and others."""
        found = self._known.get(token)
        if found is not None and monotonic() - found[0] < KNOWN_FOR:
            return found[1]
        reply = await self.viewer(token).ask("WhoAmI", pb.WhoAmIRequest())
        identity = Identity(reply.name, reply.role, reply.tokens, frozenset(reply.calls), reply.version)
        while len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[token] = monotonic(), identity
        return identity

    def forget(self, token: str) -> None:
        """Ask the broker again whose token this is."""
        self._known.pop(token, None)

    def viewer(self, token: str) -> Viewer:
        return Viewer(self, token)


class Viewer:
    """The calls of one person. Failed ones raise the errors of `dagorama.errors`."""

    def __init__(self, broker: Broker, token: str) -> None:
        self.broker = broker
        self.token = token
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def ask(self, call: str, request: Any, seconds: float = DEADLINE) -> Any:
        """Return the reply to a unary call."""
        method = getattr(self.broker.stub, call)
        try:
            return await method(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._error(error) from None

    async def follow(self, call: str, request: Any, seconds: float | None = None) -> AsyncGenerator[Any, None]:
        """Yield the replies of a stream; it ends with the iterator."""
        stream = getattr(self.broker.stub, call)(request, timeout=seconds, metadata=self._metadata)
        try:
            async for reply in stream:
                yield reply
        except grpc.RpcError as error:
            raise self._error(error) from None
        finally:
            stream.cancel()

    async def in_thread(self, call: Any, *arguments: Any) -> Any:
        """Return the result of `call(connection, ...)`, made in a thread with a connection of its own."""
        return await asyncio.to_thread(self._with_connection, call, *arguments)

    def _with_connection(self, call: Any, *arguments: Any) -> Any:
        connection = Connection(replace(self.broker.settings, auth_token=self.token))
        try:
            return call(connection, *arguments)
        finally:
            connection.close_stream()
            connection.channel.close()

    def _error(self, error: grpc.RpcError) -> BrokerError:
        found = broker_error(error, self.broker.address)
        if isinstance(found, AccessDenied):
            self.broker.forget(self.token)
        return found
