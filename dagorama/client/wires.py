"""How the requests of an open stream reach the broker, and its answers this process: a call of gRPC, or a Unix socket.

The rule: both end with the same errors, which are errors of gRPC.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from struct import pack
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeAlias

from dagorama.api import broker_pb2 as pb
from dagorama.api.frames import BROKER_SILENCE, END, MESSAGE, PING, PING_EVERY, READ, FrameError, frame
from dagorama.client.local_socket import Accepted, broken, end_of_call, message_of

if TYPE_CHECKING:
    from grpc import _CallIterator  # the stubs of grpc give it this name

#: Bytes of requests that one message holds if several are ready.
GATHERED = 256 * 1024

OpenCall: TypeAlias = "Callable[[Iterator[pb.Requests]], _CallIterator[pb.Responses]]"
#: Whether the stream is over, because it has been idle; it takes no more requests then.
EndsIdle: TypeAlias = Callable[[], bool]


class Wire(Protocol):
    """The way of one stream to the broker and back."""

    def send(self, *requests: pb.Request) -> None:
        """Send requests, in any thread. If that fails, `answers` raises an error."""
        ...

    def answers(self) -> Iterator[pb.Responses]:
        """Yield what the broker sends, until it ends the stream. Raises grpc.RpcError."""
        ...

    def finish(self) -> None:
        """End the stream."""
        ...

    def abandon(self) -> None:
        """Close what a forked child has inherited of the wire."""
        ...


class GrpcWire:
    """A call of gRPC, which takes the requests from a queue in a thread of its own."""

    def __init__(self, open_call: OpenCall, ends_idle: EndsIdle, idle: float) -> None:
        """`idle`: seconds without a request after which `ends_idle` is called."""
        self._ends_idle, self._idle = ends_idle, idle
        self._outgoing: SimpleQueue[pb.Request | None] = SimpleQueue()
        self._call = open_call(self._messages())

    def send(self, *requests: pb.Request) -> None:
        for request in requests:
            self._outgoing.put(request)

    def answers(self) -> Iterator[pb.Responses]:
        yield from self._call

    def finish(self) -> None:
        self._outgoing.put(None)

    def abandon(self) -> None:
        """Do nothing: gRPC has its own support for forks."""

    def _messages(self) -> Iterator[pb.Requests]:
        while True:
            try:
                question = self._outgoing.get(timeout=self._idle)
            except Empty:
                if self._ends_idle():
                    return
                continue
            if question is None:
                return
            yield self._with_others(question)

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


class LocalWire:
    """A Unix socket. Each thread sends its requests itself."""

    def __init__(self, accepted: Accepted, ends_idle: EndsIdle, idle: float) -> None:
        self._socket, self._reader, self._frames = accepted.connection, accepted.reader, accepted.frames
        self._ends_idle, self._idle = ends_idle, idle
        self._sending = threading.Lock()
        self._heard_at = self._sent_at = self._pinged_at = monotonic()
        self._socket.settimeout(None)
        # A time limit of Python's would hold for sending too.
        seconds = min(PING_EVERY, idle)
        limit = pack("ll", int(seconds), int(seconds % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def send(self, *requests: pb.Request) -> None:
        data = frame(pb.Requests(request=requests).SerializeToString())
        self._sent_at = monotonic()
        with self._sending:
            try:
                self._socket.sendall(data)
            except OSError:
                self.finish()
            except BaseException:  # of a signal handler: the rest of the frame will never be sent
                self.finish()
                raise

    def answers(self) -> Iterator[pb.Responses]:
        try:
            frames = self._frames
            while True:
                for kind, body in frames:
                    if kind == MESSAGE:
                        yield message_of(pb.Responses, body)
                    elif kind == END:
                        if (error := end_of_call(body)) is not None:
                            raise error
                        return
                frames = self._received()
        finally:
            self.finish()  # a thread that sends would not notice that the socket is closed
            self._socket.close()

    def finish(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """Close the descriptor of this process; the connection stays open in the parent."""
        self._socket.close()

    # --- in the thread that reads -----------------------------------------------------------------

    def _received(self) -> list[tuple[int, bytes]]:
        """Return the next frames, or none after a while. Raises grpc.RpcError."""
        try:
            data = self._socket.recv(READ)
            frames = self._reader.feed(data)
        except BlockingIOError:
            frames = []
        except (OSError, FrameError) as error:
            raise broken(str(error)) from None
        else:
            if not data:
                raise broken("the broker has closed it")
        self._look(monotonic(), bool(frames))
        return frames

    def _look(self, now: float, has_heard: bool) -> None:
        """Ping the broker from time to time, give it up if it is silent, and end an idle stream."""
        if has_heard or self._reader.is_partial:
            self._heard_at = now
        elif now - self._heard_at > BROKER_SILENCE:
            raise broken(f"the broker was silent for {BROKER_SILENCE:g} seconds")
        if now - self._sent_at >= self._idle and self._ends_idle():
            self.finish()
        elif now - self._pinged_at >= PING_EVERY and self._sending.acquire(blocking=False):
            self._pinged_at = now
            try:
                with suppress(OSError):  # a full buffer holds requests, which say as much
                    self._socket.send(frame(kind=PING), socket.MSG_DONTWAIT)
            finally:
                self._sending.release()
