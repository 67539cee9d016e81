"""gRPC's method handlers: how to replace what one calls, and how to parse its requests late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import grpc
from google.protobuf.message import DecodeError, Message

from dagorama_broker.errors import InvalidArgument
from dagorama_broker.rpc.memory_guard import MemoryGuard
from dagorama_broker.rpc.wire import BECOMES, FORMS, LARGE, has_too_many_parts

T = TypeVar("T")

#: Makers of handlers, by whether its requests and its replies are streams.
_CREATORS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behavior_of(handler: Any) -> Callable[..., Any]:
    """Return the function that a handler calls."""
    found: Callable[..., Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return found


def with_behavior(handler: Any, behavior: Callable[..., Any], parse: Callable[[bytes], object] | None = None) -> Any:
    """Return a handler for the same method that calls `behavior`, with requests parsed by `parse` if it is given."""
    make = _CREATORS[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(behavior, parse or handler.request_deserializer, handler.response_serializer)


class Unread:
    """The bytes of a request. The handler parses them, so that a refusal is a status; gRPC would log a traceback."""

    __slots__ = ("data", "parse")

    def __init__(self, data: bytes, parse: Callable[[bytes], object]) -> None:
        self.data, self.parse = data, parse

    def read(self, memory: MemoryGuard | None, method: str, whose: str) -> Any:
        """Parse the request. Raise InvalidArgument, or without memory for it Overloaded or ResourceExhausted."""
        data, self.data = self.data, b""
        if len(data) > LARGE:
            form = FORMS.get(method)
            if form is not None and has_too_many_parts(data, form):
                raise InvalidArgument("the message has too many tiny parts; no dagorama client sends such a message")
            if memory is not None and method in BECOMES:
                memory.check(BECOMES[method] * len(data), whose)
        try:
            return self.parse(data)
        except DecodeError:
            raise InvalidArgument("the request cannot be read as a message of this call") from None


class Read:
    """A request that is parsed already."""

    __slots__ = ("message",)

    def __init__(self, message: object) -> None:
        self.message = message

    def read(self, memory: MemoryGuard | None, method: str, whose: str) -> Any:
        """Return the request."""
        return self.message


@runtime_checkable
class Handing(Protocol):
    """The unread requests of a stream whose transport can hand them over as soon as they are read."""

    def hand_to(self, take: Callable[[Unread], bool]) -> None:
        """Hand requests to `take`, which returns whether it has taken one; the others come from the iterator."""
        ...

    def __aiter__(self) -> AsyncIterator[Unread]: ...


class HandedRequests:
    """The requests of such a stream, each parsed when it is taken."""

    def __init__(self, requests: Handing, read: Callable[[Unread], Any]) -> None:
        self._requests = requests
        self._iterator = aiter(requests)
        self._read = read
        self._left: Any = None  # a request that was parsed, and not taken

    def hand_to(self, take: Callable[[Any], bool]) -> None:
        """Hand requests to `take`, as `hand_over` does."""

        def read_and_take(request: Unread) -> bool:
            message = self._read(request)
            is_taken = take(message)
            self._left = None if is_taken else message
            return is_taken

        self._requests.hand_to(read_and_take)

    def __aiter__(self) -> HandedRequests:
        return self

    async def __anext__(self) -> Any:
        request = await anext(self._iterator)
        message, self._left = self._left, None
        return self._read(request) if message is None else message


def hand_over(requests: AsyncIterator[T], take: Callable[[T], bool]) -> None:
    """Hand the requests of a stream to `take` as soon as they are read, if its transport can do that.

    `take` returns whether it has taken the request; otherwise the handler gets it from the iterator. It is called while
    the handler waits for the next request.
    """
    if isinstance(requests, HandedRequests):
        requests.hand_to(take)


@runtime_checkable
class Writer(Protocol):
    """The context of a call whose transport sends a reply at once."""

    @property
    def is_writable(self) -> bool:
        """Whether the client reads what it is sent: only then may `write_now` be called."""
        ...

    def write_now(self, reply: Message) -> None:
        """Send a reply in this turn of the loop. A handler that does so must not hold back an earlier one."""
        ...


def writer_of(context: object) -> Writer | None:
    """Return the context of a call if its transport sends replies at once."""
    return context if isinstance(context, Writer) else None


def without_waiting(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine to its end in this turn of the loop. Raises RuntimeError if it awaits something."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    work.close()
    raise RuntimeError("a coroutine that must not wait has waited")


def unread(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return a parser for gRPC that leaves the parsing to `Unread.read`."""
    return lambda data: Unread(data, parse)
