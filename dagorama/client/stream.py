"""One open stream to the broker, on which any thread sends requests and receives the answers to them.

A separate call costs both sides twice as much as a message on an open stream. The stream is opened for the first
request, and closed after a while without requests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from dagorama.api import broker_pb2 as pb
from dagorama.client.local_socket import PATIENCE, connected, is_worth_asking
from dagorama.client.wires import EndsIdle, GrpcWire, LocalWire, Wire
from dagorama.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    import grpc

    from dagorama.api.broker_pb2_grpc import BrokerStub
    from dagorama.settings import Settings

#: Seconds without a request after which the stream is closed.
IDLE = 20.0
#: Seconds that a broker gets to end a stream that is closed here.
CLOSING = 0.5
#: An answer, or a function that returns the error that explains why there will be none.
Heard: TypeAlias = "pb.Response | Callable[[], BrokerError]"
OpenWire: TypeAlias = Callable[[EndsIdle], Wire]


class PendingRequest:
    """A request whose answers its sender waits for."""

    __slots__ = ("_heard", "_number", "_talk")

    def __init__(self, talk: RequestStream, number: int, heard: SimpleQueue[Heard]) -> None:
        self._talk = talk
        self._number = number
        self._heard = heard

    def hear(self, timeout: float | None) -> pb.Response:
        """Return the next answer; raise TimeoutError if there is none within `timeout` seconds, or a BrokerError."""
        try:
            heard = self._heard.get(timeout=timeout)
        except Empty:
            raise TimeoutError from None
        if isinstance(heard, pb.Response):
            return heard
        raise heard()

    def forget(self) -> None:
        """Drop all further answers. Any thread may call this; a thread that waits for an answer gets a BrokerError."""
        self._talk.forget(self._number)


class RequestStream:
    """One stream. When it is over, `is_over` is true and another one must be opened."""

    def __init__(self, open_wire: OpenWire, error_of: Callable[[grpc.RpcError], BrokerError]) -> None:
        self._error_of = error_of
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._listeners: dict[int, SimpleQueue[Heard]] = {}  # of requests without a final answer
        self.is_over = False
        self.wire = open_wire(self._has_ended_idle)
        self._thread = threading.Thread(target=self._listen, name="dagorama-talk", daemon=True)
        self._thread.start()

    def ask(self, *questions: pb.Request) -> list[PendingRequest] | None:
        """Send requests under new numbers, in one message if possible; return None if the stream is over."""
        pending = []
        with self._lock:
            if self.is_over:
                return None
            for question in questions:
                heard: SimpleQueue[Heard] = SimpleQueue()
                question.number = number = next(self._numbers)
                self._listeners[number] = heard
                pending.append(PendingRequest(self, number, heard))
        self.wire.send(*questions)
        return pending

    def forget(self, number: int) -> None:
        with self._lock:
            heard = self._listeners.pop(number, None)
            if heard is None:
                return
        heard.put(lambda: BrokerError("the request was cancelled by this process", "CANCELLED"))
        self.wire.send(pb.Request(number=number, cancel=True))

    def close(self) -> None:
        """Close the stream unless a request is pending; return when its threads are about to end."""
        if self._has_ended_idle():
            self.wire.finish()
            self._thread.join(CLOSING)

    def _has_ended_idle(self) -> bool:
        with self._lock:
            if not self._listeners:
                self.is_over = True
            return self.is_over

    # --- in a thread of its own -------------------------------------------------------------------------

    def _listen(self) -> None:
        import grpc

        def end() -> BrokerError:
            error = BrokerUnavailable("the broker has ended the stream", "UNAVAILABLE")
            error.was_connected = True
            return error

        try:
            for message in self.wire.answers():
                for answer in message.response:
                    self._pass_on(answer)
        except grpc.RpcError as error:
            end = partial(self._error_of, error)
        with self._lock:
            self.is_over = True
            left, self._listeners = self._listeners, {}
        for heard in left.values():
            heard.put(end)
        self.wire.finish()

    def _pass_on(self, answer: pb.Response) -> None:
        with self._lock:
            take = self._listeners.pop if answer.done else self._listeners.get
            heard = take(answer.number, None)
        if heard is not None:
            heard.put(answer)


class Exchange:
    """The stream of a connection, which is opened for the first request, and again for the next one after its end."""

    def __init__(
        self, settings: Settings, stub: BrokerStub, error_of: Callable[[grpc.RpcError], BrokerError], is_own: bool
    ) -> None:
        """`is_own`: the stub's channel leads to the broker of the settings, whose local socket may be used."""
        self._settings, self._stub, self._error_of, self._is_own = settings, stub, error_of, is_own
        self._lock = threading.Lock()
        self._stream: RequestStream | None = None

    def ask(self, *questions: pb.Request) -> list[PendingRequest]:
        """Send requests. Raises BrokerUnavailable if no broker answers."""
        while True:
            stream = self._stream
            if stream is None or stream.is_over:
                with self._lock:
                    if self._stream is stream:
                        self._stream = RequestStream(self._open_wire, self._error_of)
            elif (asked := stream.ask(*questions)) is not None:
                return asked

    def close(self) -> None:
        """Close the stream unless a request is pending on it."""
        if self._stream is not None:
            self._stream.close()

    def abandon(self) -> None:
        """Close what a forked child has inherited of its parent's stream."""
        if self._stream is not None:
            self._stream.wire.abandon()

    def _open_wire(self, ends_idle: EndsIdle) -> Wire:
        import grpc

        if self._is_own and is_worth_asking(self._settings):
            try:
                found = self._stub.GetSharedFolder(pb.GetSharedFolderRequest(), timeout=PATIENCE).socket
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    raise self._error_of(error) from None
            else:
                if (accepted := connected(found, "Exchange", self._settings)) is not None:
                    return LocalWire(accepted, ends_idle, IDLE)
        return GrpcWire(self._stub.Exchange, ends_idle, IDLE)
