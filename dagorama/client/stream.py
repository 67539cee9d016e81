"""One open stream to the broker, on which any thread sends requests and receives the answers to them.

A separate call costs both sides twice as much as a message on an open stream. The stream is opened for the first
request, and closed after a while without requests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from dagorama.api import broker_pb2 as pb
from dagorama.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    import grpc
    from grpc import _CallIterator  # the stubs of grpc give it this name

#: Seconds without a request after which the stream is closed.
IDLE = 20.0
#: Seconds that a broker gets to end a stream that is closed here.
CLOSING = 0.5
#: Bytes of requests that one message holds if several are ready.
GATHERED = 256 * 1024

#: An answer, or a function that returns the error that explains why there will be none.
Heard: TypeAlias = "pb.Response | Callable[[], BrokerError]"
OpenStream: TypeAlias = "Callable[[Iterator[pb.Requests]], _CallIterator[pb.Responses]]"


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
    """One stream. When it is over, `is_over` is true and another Talk must be opened."""

    def __init__(self, open_stream: OpenStream, error_of: Callable[[grpc.RpcError], BrokerError]) -> None:
        self._error_of = error_of
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._listeners: dict[int, SimpleQueue[Heard]] = {}  # of requests without a final answer
        self._outgoing: SimpleQueue[pb.Request | None] = SimpleQueue()
        self.is_over = False
        self._stream = open_stream(self._messages())
        self._thread = threading.Thread(target=self._listen, name="dagorama-talk", daemon=True)
        self._thread.start()

    def ask(self, question: pb.Request) -> PendingRequest | None:
        """Send a request under a new number; return None if the stream is over."""
        heard: SimpleQueue[Heard] = SimpleQueue()
        with self._lock:
            if self.is_over:
                return None
            question.number = number = next(self._numbers)
            self._listeners[number] = heard
        self._outgoing.put(question)
        return PendingRequest(self, number, heard)

    def forget(self, number: int) -> None:
        with self._lock:
            heard = self._listeners.pop(number, None)
            if heard is None:
                return
        heard.put(lambda: BrokerError("the request was cancelled by this process", "CANCELLED"))
        self._outgoing.put(pb.Request(number=number, cancel=True))

    def close(self) -> None:
        """Close the stream unless a request is pending; return when its threads are about to end."""
        if self._has_ended_idle():
            self._outgoing.put(None)
            self._thread.join(CLOSING)

    # --- in grpc's own thread ---------------------------------------------------------------------------

    def _messages(self) -> Iterator[pb.Requests]:
        while True:
            try:
                question = self._outgoing.get(timeout=IDLE)
            except Empty:
                if self._has_ended_idle():
                    return
                continue
            if question is None:
                return
            yield self._with_others(question)

    def _has_ended_idle(self) -> bool:
        with self._lock:
            if not self._listeners and self._outgoing.empty():
                self.is_over = True
            return self.is_over

    def _with_others(self, question: pb.Request) -> pb.Requests:
        """Return a message with this request and others that are ready."""
        message, size = pb.Requests(request=[question]), question.ByteSize()
        while size < GATHERED:
            try:
                other = self._outgoing.get_nowait()
            except Empty:
                break
            if other is None:
                self._outgoing.put(None)
                break
            message.request.append(other)
            size += other.ByteSize()
        return message

    # --- in a thread of its own -------------------------------------------------------------------------

    def _listen(self) -> None:
        import grpc

        def end() -> BrokerError:
            error = BrokerUnavailable("the broker has ended the stream", "UNAVAILABLE")
            error.was_connected = True
            return error

        try:
            for message in self._stream:
                for answer in message.response:
                    self._pass_on(answer)
        except grpc.RpcError as error:
            end = partial(self._error_of, error)
        with self._lock:
            self.is_over = True
            left, self._listeners = self._listeners, {}
        for heard in left.values():
            heard.put(end)
        self._outgoing.put(None)

    def _pass_on(self, answer: pb.Response) -> None:
        with self._lock:
            take = self._listeners.pop if answer.done else self._listeners.get
            heard = take(answer.number, None)
        if heard is not None:
            heard.put(answer)
