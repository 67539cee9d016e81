"""One open stream to the broker, on which any thread asks and hears the answers to what it asked.

A call of its own costs both sides twice as much as a message on a stream that is open already. The stream is opened
when something is asked, and closed when nothing has been for a while.
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
    from grpc import _CallIterator  # that is how the stubs call it

#: seconds without a question after which the stream is closed
IDLE = 20.0
#: seconds that a broker has to end a stream that is closed
CLOSING = 0.5
#: bytes of questions that go in one message, where more than one waits to go
GATHERED = 256 * 1024

#: What a thread hears: an answer, or what makes the error that says why none will come.
Heard: TypeAlias = "pb.Answer | Callable[[], BrokerError]"
OpenStream: TypeAlias = "Callable[[Iterator[pb.Asks]], _CallIterator[pb.Answers]]"


class Asked:
    """A question, as whoever asked it holds it."""

    __slots__ = ("_heard", "_number", "_talk")

    def __init__(self, talk: Talk, number: int, heard: SimpleQueue[Heard]) -> None:
        self._talk = talk
        self._number = number
        self._heard = heard

    def hear(self, timeout: float | None) -> pb.Answer:
        """The next answer. Raises TimeoutError where none comes in so many seconds, and BrokerError."""
        try:
            heard = self._heard.get(timeout=timeout)
        except Empty:
            raise TimeoutError from None
        if isinstance(heard, pb.Answer):
            return heard
        raise heard()

    def forget(self) -> None:
        """No answer is wanted any more. Any thread may say so, and whoever listens hears a BrokerError."""
        self._talk.forget(self._number)


class Talk:
    """One stream; when it `is_over`, the next one is another Talk."""

    def __init__(self, open_stream: OpenStream, error_of: Callable[[grpc.RpcError], BrokerError]) -> None:
        self._error_of = error_of
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._listeners: dict[int, SimpleQueue[Heard]] = {}  # of questions that are not answered
        self._outgoing: SimpleQueue[pb.Ask | None] = SimpleQueue()
        self.is_over = False
        self._stream = open_stream(self._messages())
        self._thread = threading.Thread(target=self._listen, name="dagorama-talk", daemon=True)
        self._thread.start()

    def ask(self, question: pb.Ask) -> Asked | None:
        """Send it under a number of its own; None where the stream is over."""
        heard: SimpleQueue[Heard] = SimpleQueue()
        with self._lock:
            if self.is_over:
                return None
            question.number = number = next(self._numbers)
            self._listeners[number] = heard
        self._outgoing.put(question)
        return Asked(self, number, heard)

    def forget(self, number: int) -> None:
        with self._lock:
            heard = self._listeners.pop(number, None)
            if heard is None:
                return
        heard.put(lambda: BrokerError("it was ended here", "CANCELLED"))
        self._outgoing.put(pb.Ask(number=number, never_mind=True))

    def close(self) -> None:
        """Close it now, unless something is being asked; returns when its threads are about to end."""
        if self._has_ended_idle():
            self._outgoing.put(None)
            self._thread.join(CLOSING)

    # --- in grpc's own thread ---------------------------------------------------------------------------

    def _messages(self) -> Iterator[pb.Asks]:
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

    def _with_others(self, question: pb.Ask) -> pb.Asks:
        """A message of it and of what else waits to go."""
        message, size = pb.Asks(ask=[question]), question.ByteSize()
        while size < GATHERED:
            try:
                other = self._outgoing.get_nowait()
            except Empty:
                break
            if other is None:
                self._outgoing.put(None)
                break
            message.ask.append(other)
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
                for answer in message.answer:
                    self._pass_on(answer)
        except grpc.RpcError as error:
            end = partial(self._error_of, error)
        with self._lock:
            self.is_over = True
            left, self._listeners = self._listeners, {}
        for heard in left.values():
            heard.put(end)
        self._outgoing.put(None)

    def _pass_on(self, answer: pb.Answer) -> None:
        with self._lock:
            take = self._listeners.pop if answer.over else self._listeners.get
            heard = take(answer.number, None)
        if heard is not None:
            heard.put(answer)
