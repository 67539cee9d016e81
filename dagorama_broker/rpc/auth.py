"""Who may call what: the table, the tokens that are good now, and the broker's one door.

The rule: what is not in the table is for nobody, and who has no token gets health and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from dagorama_broker.errors import BrokerRefusal, Malformed, NotPermitted, NotServing, SettingsError, Unauthenticated
from dagorama_broker.rpc.limits import Kind, Streams
from dagorama_broker.rpc.memory_guard import Memory
from dagorama_broker.rpc.status import refuse
from dagorama_broker.rpc.tokens import Role, Token, matching, read_tokens
from dagorama_broker.rpc.wire import BECOMES, FORMS, LARGE, has_too_many_parts
from dagorama_broker.scheduler import Presence

log = logging.getLogger("dagorama_broker")

OURS, ORIGINAL, HEALTH = "/dagorama.v1.Broker/", "/main.Dagorama/", "/grpc.health.v1.Health/"
#: Seconds between two looks at the file of tokens.
LOOK = 1.0
#: Calls of `grpc.health.v1.Health/Watch` that are open at once.
HEALTH_WATCHERS = 100

_SPAWNER, _WORKER, _READER = Role.SPAWNER, Role.WORKER, Role.READER
#: Who may call what, beside an admin, who may call all of it. Values are not a reader's.
CALLS: dict[str, frozenset[Role]] = {
    OURS + call: frozenset(roles)
    for call, roles in {
        "SubmitStream": {_SPAWNER},
        "Work": {_WORKER},
        "Wait": {_SPAWNER, _WORKER},
        "Talk": {_SPAWNER, _WORKER},
        "PutValue": {_SPAWNER, _WORKER},
        "KeepValue": {_SPAWNER, _WORKER},
        "ValuesFolder": {_SPAWNER, _WORKER},
        "GetValue": {_SPAWNER, _WORKER},
        "GetInstance": {_SPAWNER, _WORKER, _READER},
        "GetStatus": {_SPAWNER, _READER},
        "ListInstances": {_SPAWNER, _READER},
        "ListNodes": {_SPAWNER, _READER},
        "Explain": {_SPAWNER, _WORKER},
        "GetNode": {_SPAWNER, _READER},
        "FindIds": {_SPAWNER, _READER},
        "Cancel": {_SPAWNER},
        "Retry": {_SPAWNER},
        "Adopt": set[Role](),
    }.items()
}

_LOOKING = ("GetInstance", "GetStatus", "ListInstances", "ListNodes", "Explain", "GetNode", "FindIds")
_OF_VALUES = ("PutValue", "KeepValue", "ValuesFolder", "GetValue")
#: The kinds of our calls; others submit, or change what was submitted. The original's calls are its workers'.
KINDS = {
    OURS + "Work": Kind.WORK, OURS + "Wait": Kind.WAIT, OURS + "Talk": Kind.TALK,
    **{OURS + call: Kind.LOOK for call in _LOOKING}, **{OURS + call: Kind.VALUE for call in _OF_VALUES},
}  # fmt: skip

#: The token of the call that is being answered; None: none is asked for.
caller: ContextVar[Token | None] = ContextVar("caller", default=None)
#: Who is given a share of the broker's bounds for that call: the name of a token, else the host of the caller.
sharer: ContextVar[str] = ContextVar("sharer", default="")


def kind_of(method: str) -> Kind:
    return Kind.WORK if method.startswith(ORIGINAL) else KINDS.get(method, Kind.SUBMIT)


@lru_cache(4096)  # a connection's calls all come from the same address
def host_of(peer: str) -> str:
    """The host in an address as gRPC writes it ("ipv4:10.0.0.7:51234"); of IPv6, the network of 64 bits."""
    family, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0]
    if family != "ipv6":
        return f"{family}:{host}"
    try:
        address = IPv6Address(host.strip("[]").partition("%")[0])
    except ValueError:
        return peer
    return f"ipv4:{address.ipv4_mapped}" if address.ipv4_mapped else f"ipv6:{int(address) >> 64:016x}"


def sharer_of(token: Token | None, peer: str) -> str:
    """Who is given a share of the broker's bounds."""
    return host_of(peer) if token is None else f"token:{token.name}"


def check_role(token: Token | None, method: str) -> None:
    """Raises NotPermitted where whoever has that token may not call it."""
    if token is None:
        return
    if token.role is not Role.ADMIN and token.role not in CALLS.get(method, ()):
        raise NotPermitted(f"the token {token.name!r} is a {token.role}'s, which may not call {method[1:]}")
    if method not in CALLS:
        raise NotPermitted(f"nobody may call {method[1:]}")


def is_reader(token: Token | None) -> bool:
    return token is not None and token.role is _READER


def refuse_reader(token: Token | None) -> None:
    """Raises NotPermitted if the caller's token is a reader's, who may not have the arguments of nodes."""
    if token is not None and is_reader(token):
        raise NotPermitted(f"the token {token.name!r} is a reader's, who may not have the arguments of nodes")


def kept_to(presence: Presence, token: Token | None) -> Presence:
    """A worker as its token lets it be. Raises NotPermitted where it asks for more."""
    if token is None:
        return presence
    _refuse_more(token, "tolerations", presence.tolerations, token.tolerations)
    _refuse_more(token, "queues", presence.include_queues, token.queues)
    if token.queues is not None and not presence.include_queues:
        return replace(presence, include_queues=token.queues)
    return presence


def _refuse_more(token: Token, what: str, asked: frozenset[str], allowed: frozenset[str] | None) -> None:
    if allowed is not None and (more := asked - allowed):
        limits = f"the {what} {', '.join(sorted(allowed))}" if allowed else f"no {what}"
        raise NotPermitted(
            f"the token {token.name!r} allows {limits}, and this worker asks for {', '.join(sorted(more))}"
        )


class Access:
    """The tokens that are good now, and the streams that were opened with them."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError where the file cannot be used."""
        self._path = path
        self._read_at = self._state()
        self._tokens = read_tokens(path)
        self._open: dict[Token, set[asyncio.Timeout]] = {}

    def __str__(self) -> str:
        return f"{len(self._tokens)} tokens from {self._path}"

    # --- calls ----------------------------------------------------------------------------------------

    def admit(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Token:
        """Whose call it is. Raises Unauthenticated or NotPermitted."""
        if method.startswith(ORIGINAL):
            raise Unauthenticated("the calls of dagorama 0.1.10 carry no token, and this broker wants one from all")
        token = self._token(metadata)
        check_role(token, method)
        return token

    def _token(self, metadata: Iterable[tuple[str, str | bytes]]) -> Token:
        given = next((value for key, value in metadata if key == "authorization"), None)
        if given is None:
            raise Unauthenticated("this broker wants a token of each caller: set DAGORAMA_AUTH_TOKEN")
        scheme, _, text = (given if isinstance(given, bytes) else given.encode()).partition(b" ")
        token = matching(self._tokens, text.strip()) if scheme.lower() == b"bearer" else None
        if token is None:
            raise Unauthenticated("this broker does not know the token: it may be another one's, or have been replaced")
        if token.expires is not None and token.expires <= time.time():
            raise Unauthenticated(f"the token {token.name!r} has expired")
        return token

    @asynccontextmanager
    async def stay(self, token: Token) -> AsyncIterator[None]:
        """Around a stream, for as long as its token is good; then raises NotServing: it may be opened with another."""
        left = None if token.expires is None else token.expires - time.time()
        streams = self._open.setdefault(token, set())
        timeout = asyncio.timeout(left)
        try:
            async with timeout:
                streams.add(timeout)
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise NotServing(f"the token {token.name!r} has expired or was changed: call again") from None
        finally:
            streams.discard(timeout)
            if not streams and self._open.get(token) is streams:
                del self._open[token]

    # --- the file -------------------------------------------------------------------------------------

    async def watch(self) -> NoReturn:
        """Read the file again whenever it has changed."""
        while True:
            await asyncio.sleep(LOOK)
            if self._state() != self._read_at:
                self.read_again()

    def read_again(self) -> None:
        """Take the file as it is now, and end the streams of tokens that are not in it as they were.

        A file that cannot be used changes nothing, and the log says so.
        """
        self._read_at = self._state()
        try:
            tokens = read_tokens(self._path)
        except SettingsError as error:
            log.error("%s; the tokens that it had before stay good", error)
            return
        self._tokens = tokens
        now = asyncio.get_running_loop().time()
        for gone in self._open.keys() - set(tokens):
            for timeout in self._open.pop(gone):
                if not timeout.expired():
                    timeout.reschedule(now)
        log.info("%s", self)

    def _state(self) -> object:
        try:
            status = self._path.stat()
        except OSError as error:
            return error.errno
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


class Door(grpc.aio.ServerInterceptor):
    """Everything that is called passes here: it knows who calls, how many are inside, and turns away the rest."""

    def __init__(self, access: Access | None, streams: Streams, memory: Memory | None = None) -> None:
        """`memory`: asked for what large requests become, before they are parsed."""
        self._access = access
        self._memory = memory
        self._streams = streams
        self._watchers = Streams(HEALTH_WATCHERS)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        details = handler_call_details
        method = str(details.method)
        if method.startswith(HEALTH):
            return self._bounded_health(await continuation(details), method)
        token = None
        if self._access is not None:
            try:
                token = self._access.admit(method, details.invocation_metadata)
            except BrokerRefusal as refusal:
                return _turned_away(method, refusal)
        handler = await continuation(details)
        return None if handler is None else self._within(handler, token, method)

    def _bounded_health(self, handler: Any, method: str) -> Any:
        """Whoever asks how the broker is is told; few may stay to be told more, for nobody knows who they are."""
        if handler is None:
            return None
        read, write = _unread(handler.request_deserializer), handler.response_serializer
        if not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(self._single(handler.unary_unary, method, None), read, write)
        return grpc.unary_stream_rpc_method_handler(
            self._single(handler.unary_stream, method, self._watchers), read, write
        )

    def _within(self, handler: Any, token: Token | None, method: str) -> Any:
        """The handler, as one of a bounded number, ended with its token."""
        read, write = _unread(handler.request_deserializer), handler.response_serializer
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
            inner = handler.stream_stream
            if not handler.request_streaming:
                make, inner = grpc.unary_stream_rpc_method_handler, handler.unary_stream
            return make(self._stream(inner, method, token), read, write)
        make, inner = grpc.unary_unary_rpc_method_handler, handler.unary_unary
        if handler.request_streaming:
            make, inner = grpc.stream_unary_rpc_method_handler, handler.stream_unary
        return make(self._single(inner, method, self._streams, token), read, write)

    def _single(
        self, inner: Callable[..., Awaitable[Any]], method: str, streams: Streams | None, token: Token | None = None
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

    def _stream(
        self, inner: Callable[..., AsyncIterator[Any]], method: str, token: Token | None
    ) -> Callable[..., Any]:
        kind = kind_of(method)

        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            caller.set(token)
            sharer.set(whose := sharer_of(token, context.peer()))
            try:
                with self._streams.one(kind, whose):
                    replying = cast(Any, inner(self._read(request, method, whose), context))
                    async with self._stay(token), aclosing(replying) as replies:
                        async for reply in replies:
                            yield reply
            except BrokerRefusal as refusal:
                await refuse(context, refusal)

        return call

    def _read(self, request: Any, method: str, whose: str) -> Any:
        """The request, or the stream of them, as the handler takes it. Raises a BrokerRefusal."""
        if isinstance(request, AsyncIterable):
            return self._each_read(request, method, whose)
        return request.read(self._memory, method, whose)

    async def _each_read(self, requests: AsyncIterable[_Unread], method: str, whose: str) -> AsyncIterator[Any]:
        async for request in requests:
            yield request.read(self._memory, method, whose)

    def _stay(self, token: Token | None) -> Any:
        return _nothing() if token is None or self._access is None else self._access.stay(token)


class _Unread:
    """A request as its bytes. It is parsed where a refusal can be answered: gRPC would log a traceback."""

    __slots__ = ("data", "parse")

    def __init__(self, data: bytes, parse: Callable[[bytes], object]) -> None:
        self.data, self.parse = data, parse

    def read(self, memory: Memory | None, method: str, whose: str) -> Any:
        """Raises Malformed if it cannot be read, Full or TooMuch if there is no memory for what it becomes."""
        data, self.data = self.data, b""
        if len(data) > LARGE:
            form = FORMS.get(method)
            if form is not None and has_too_many_parts(data, form):
                raise Malformed("the message has very many parts with next to nothing in them, which no client sends")
            if memory is not None and method in BECOMES:
                memory.check(BECOMES[method] * len(data), whose)
        try:
            return self.parse(data)
        except DecodeError:
            raise Malformed("what came cannot be read as a message of this call") from None


def _unread(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """What gRPC calls to parse a request."""
    return lambda data: _Unread(data, parse)


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def _turned_away(method: str, refusal: BrokerRefusal) -> Any:
    async def call(_request: object, context: Any) -> None:
        log.debug("%s from %s: %s", method, context.peer(), refusal)
        await refuse(context, refusal)

    return grpc.stream_stream_rpc_method_handler(call)
