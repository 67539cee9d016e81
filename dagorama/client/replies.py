"""The replies to one wait, as they arrive: from a call of its own, or from the open stream."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from dagorama.api import broker_pb2
from dagorama.client.status import refusal_error
from dagorama.client.stream import PendingRequest
from dagorama.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    import grpc
    from grpc import _CallIterator  # the stubs of grpc give it this name


class Replies(Protocol):
    """The replies to one wait. Any thread may cancel it; the thread that iterates then gets a BrokerError."""

    def __iter__(self) -> Iterator[broker_pb2.WaitReply]: ...

    def cancel(self) -> None: ...


class Peer(Protocol):
    """The broker that replies: a Connection."""

    address: str
    has_answered: bool

    def error_of(self, error: grpc.RpcError) -> BrokerError: ...


class CallReplies:
    """Replies of a call of its own, which delivers them only as fast as they are read."""

    def __init__(self, peer: Peer, call: _CallIterator[broker_pb2.WaitReply]) -> None:
        self._peer = peer
        self._call = call

    def __iter__(self) -> Iterator[broker_pb2.WaitReply]:
        import grpc

        try:
            for reply in self._call:
                self._peer.has_answered = True
                yield reply
        except grpc.RpcError as error:
            raise self._peer.error_of(error) from None
        finally:
            self._call.cancel()

    def cancel(self) -> None:
        self._call.cancel()


class StreamReplies:
    """Replies on the open stream, until `timeout` seconds from now."""

    def __init__(self, peer: Peer, asked: PendingRequest, timeout: float | None) -> None:
        self._peer = peer
        self._asked = asked
        self._until = None if timeout is None else monotonic() + timeout

    def __iter__(self) -> Iterator[broker_pb2.WaitReply]:
        try:
            while True:
                answer = self._hear()
                if answer.HasField("refusal"):
                    raise refusal_error(answer.refusal, self._peer.address) from None
                if answer.HasField("wait"):
                    yield answer.wait
                if answer.done:
                    return
        finally:
            self._asked.forget()

    def _hear(self) -> broker_pb2.Response:
        seconds = None if self._until is None else max(0.0, self._until - monotonic())
        try:
            answer = self._asked.hear(seconds)
        except TimeoutError:
            address = self._peer.address
            raise BrokerUnavailable(f"the broker at {address} did not answer in time", "DEADLINE_EXCEEDED") from None
        self._peer.has_answered = True
        return answer

    def cancel(self) -> None:
        self._asked.forget()
