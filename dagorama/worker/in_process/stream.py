"""Run a session over the synchronous gRPC stub with threads, for a worker in the process of a user's program.

That program may use gevent, fork, or run event loops of its own, which rules out grpc.aio.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import Connection
from dagorama.errors import BrokerError
from dagorama.logging import get_logger
from dagorama.worker.supervisor.session import FINAL, MAX_RECONNECT_PAUSE_S, Backoff, Held, Session

if TYPE_CHECKING:
    import grpc

CLOSE_TIMEOUT_S = 2.0  #: time for the stream to end


class ThreadedStream:
    """Opens one stream after the other until `close`. Its thread calls `on_message`, with the session locked."""

    def __init__(
        self,
        connection: Connection,
        session: Session,
        held: Callable[[], list[Held]],
        on_message: Callable[[pb.BrokerMessage], None],
    ) -> None:
        self._connection = connection
        self._session = session
        self._held = held
        self._on_message = on_message
        self._changed = threading.Condition()  # guards the session
        self.closing = False  #: `close` was called
        self._number = 0  # counts started and ended streams
        self._beat_at = 0.0
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._live, name="dagorama-session", daemon=True)
        self.refusal: BrokerError | None = None  #: the broker has refused the worker for good
        self.lost: BrokerError | None = None  #: why there is no stream at the moment
        self.lost_since = monotonic()

    def start(self) -> None:
        """Start to connect."""
        self._thread.start()

    def say(self, action: Callable[[Session], None]) -> None:
        """Change the session, from any thread, and send its new messages."""
        with self._changed:
            action(self._session)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[Session], bool], seconds: float | None = None) -> bool:
        """Wait until a condition on the session holds. Return False if it does not hold in time."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._session), seconds)

    def close(self) -> None:
        """Send the remaining messages and end the stream."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._call is not None:
            self._call.cancel()
        self._thread.join(CLOSE_TIMEOUT_S)

    # --- in its thread --------------------------------------------------------------------------------

    def _live(self) -> None:
        import grpc  # after the connection, which sets what grpc prints

        backoff = Backoff(cap=MAX_RECONNECT_PAUSE_S)
        while not self.closing:
            try:
                self._converse(backoff)
            except grpc.RpcError as error:
                self._note(self._connection.error_of(error))
            with self._changed:
                if self.refusal is not None:
                    return
                self._changed.wait_for(lambda: self.closing, backoff.pause(random.random()))

    def _note(self, error: BrokerError) -> None:
        with self._changed:
            if self.lost is None and not self.closing:
                self.lost_since = monotonic()
                get_logger().warning("%s; retrying", error)
            self.lost = error
            self.refusal = error if error.status in FINAL else None
            self._changed.notify_all()

    def _converse(self, backoff: Backoff) -> None:
        with self._changed:
            self._session.open(self._held())
            self._number += 1
        call = self._call = self._connection.stub.Work(self._messages(self._number))
        try:
            for message in call:
                backoff.reset()
                self._receive(message)
                if message.draining:
                    call.cancel()
        finally:
            with self._changed:
                self._number += 1  # ends `_messages`
                self._changed.notify_all()

    def _receive(self, message: pb.BrokerMessage) -> None:
        with self._changed:
            if self.lost is not None:
                get_logger().info("reconnected to the broker at %s", self._connection.address)
            self.lost = None
            self._connection.has_answered = True
            self._session.receive(message)
            if message.HasField("welcome"):
                self._beat_at = monotonic() + message.welcome.heartbeat
            self._on_message(message)
            if self._session.keeps_too_much:
                self._session.tidy(self._held())
            self._changed.notify_all()

    def _messages(self, number: int) -> Iterator[pb.WorkerMessage]:
        """Yield messages and heartbeats, in gRPC's thread, while the stream with this number is the current one."""
        while (message := self._next_message(number)) is not None:
            yield message

    def _next_message(self, number: int) -> pb.WorkerMessage | None:
        with self._changed:
            while self._number == number:
                self._beat()
                message = self._session.next_message()
                if message is not None or self.closing:
                    self._changed.notify_all()  # `wait_for` may wait until everything was sent
                    return message
                self._changed.wait(self._until_beat())
        return None

    def _beat(self) -> None:
        welcome = self._session.welcome
        if welcome is not None and monotonic() >= self._beat_at:
            self._session.beat()
            self._beat_at = monotonic() + welcome.heartbeat

    def _until_beat(self) -> float | None:
        return None if self._session.welcome is None else max(0.0, self._beat_at - monotonic())
