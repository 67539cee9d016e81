"""gRPC's method handlers: how to replace what one calls, and how to parse its requests late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from dagorama_broker.errors import InvalidArgument
from dagorama_broker.rpc.memory_guard import MemoryGuard
from dagorama_broker.rpc.wire import BECOMES, FORMS, LARGE, has_too_many_parts

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


def unread(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return a parser for gRPC that leaves the parsing to `Unread.read`."""
    return lambda data: Unread(data, parse)
