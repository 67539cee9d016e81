"""The client's side of an inline world: a gRPC channel whose calls the calling thread answers itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.client.chunks import DEADLINE, node_fields, refuse_excess, whole_submission
from dagorama.client.connection import Connection
from dagorama.client.explain import why
from dagorama.client.replies import CallReplies
from dagorama.client.timeouts import Clock
from dagorama.settings import Settings
from dagorama_monitoring.documentation import documented
from dagorama_testing.calls import Call, rpc_error
from dagorama_testing.driver import Driver

#: Seconds that a following call lets pass when nothing is due, so that it learns of the last change.
LINGER = 5.0
OWN_WORKERS = "an inline world has its own workers: call world.run() instead of execute_worker()"
LATE = "the clock of the world has reached the deadline"


class NothingHappens(RuntimeError):
    """A call waits without a timeout in a world in which nothing more can happen."""

    __notes__ = documented(__name__)


class InlineChannel(grpc.Channel):
    """A channel that calls the broker of a world."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        return _Answered(self._driver, method, response_deserializer)

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        return _Answered(self._driver, method, response_deserializer, takes_many=True)

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        def call(request: Any, timeout: float | None = None, **_: Any) -> _Replies:
            return _Replies(self._driver, method, response_deserializer, request, timeout)

        return call

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        def refuse(requests: Any, **_: Any) -> Any:
            # Submissions and waits have calls of their own below, so that only a worker opens a stream.
            raise rpc_error(grpc.StatusCode.UNIMPLEMENTED, OWN_WORKERS)

        return refuse

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """Do nothing: the broker of a world is always there."""

    def unsubscribe(self, callback: Any) -> None:
        """Do nothing, as `subscribe`."""

    def close(self) -> None:
        """Do nothing: the world ends its broker."""

    def __enter__(self) -> InlineChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Answered:
    """A method with one reply."""

    def __init__(self, driver: Driver, method: str, read: Callable[[bytes], Any], *, takes_many: bool = False) -> None:
        self._driver, self._method, self._read, self._takes_many = driver, method, read, takes_many

    def __call__(self, request: Any, timeout: float | None = None, **_: Any) -> Any:
        broker = self._driver.broker
        with broker.lock:
            call = broker.call(self._method, None if self._takes_many else request)
            if self._takes_many:
                for message in request:
                    call.requests.add(message)
                call.requests.close()
            if not self._driver.answer(lambda: call.is_over, broker.deadline(timeout)):
                call.cancel()
                raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, LATE)
        if call.error is not None:
            raise call.error
        return self._read(call.replies.popleft())


class _Replies:
    """The replies to a call with many; the thread that reads them does what they wait for."""

    def __init__(
        self, driver: Driver, method: str, read: Callable[[bytes], Any], request: Any, timeout: float | None
    ) -> None:
        self._driver, self._read, self._timeout = driver, read, timeout
        self._until = None if timeout is None else driver.broker.deadline(timeout)
        self._is_question = isinstance(request, pb.WaitRequest) and request.now
        self._linger = 0.0 if isinstance(request, pb.WaitRequest) else LINGER
        self._call: Call = driver.broker.call(method, request)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        call = self._call
        if not call.replies and not call.is_over:
            self._wait(call)
        if call.replies:
            return self._read(call.replies.popleft())
        if call.error is not None:
            raise call.error
        raise StopIteration

    def _wait(self, call: Call) -> None:
        def is_over() -> bool:
            return bool(call.replies) or call.is_over

        if self._until is not None:
            wait = self._driver.answer if self._is_question else self._driver.drive
            if not wait(is_over, self._until):
                self.cancel()
                raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, LATE)
        elif not self._driver.drive(is_over, linger=self._linger):
            self.cancel()
            raise NothingHappens("nothing more can happen in this world, so this wait would never end")

    def cancel(self) -> None:
        with self._driver.broker.lock:
            self._call.cancel()


class InlineConnection(Connection):
    """The connection of a process whose thread is in an inline world."""

    is_inline = True

    def __init__(self, driver: Driver, clock: Clock) -> None:
        super().__init__(Settings(host="inline", port=0), InlineChannel(driver))
        self._driver = driver
        self.clock = clock
        self.has_answered = True

    def is_for(self, settings: Settings) -> bool:
        """Return True: within the world, settings name no other broker."""
        return True

    def submit(self, requests: Sequence[pb.SubmitRequest]) -> None:
        """Submit instances and nodes in one transaction."""
        self._ask(lambda timeout: self.stub.SubmitStream(whole_submission(requests), timeout=timeout))

    def wait(self, owners: Mapping[bytes, bytes], *, now: bool = False, timeout: float | None = None) -> _Explained:
        """Return the states of nodes as they end, until `timeout` by the clock of the world."""
        request = pb.WaitRequest(now=now, **node_fields(owners))
        return _Explained(CallReplies(self, self.stub.Wait(request, timeout=DEADLINE if now else timeout)), owners)

    def put_value(self, data: bytes | bytearray | memoryview, digest: bytes | None = None) -> bytes:
        """Store a large value; return its SHA-256."""
        refuse_excess(len(data))
        return self._driver.broker.keep(data)

    def retry(self, request: pb.RetryRequest) -> pb.RetryReply:
        """Rerun failed nodes; do not wait for workers to refuse them, since none runs before the test lets it."""
        request.patience = 0
        return super().retry(request)


class _Explained:
    """Replies to a wait that, if nothing more can happen, say what it waits for."""

    def __init__(self, replies: CallReplies, owners: Mapping[bytes, bytes]) -> None:
        self._replies = replies
        self._owners = owners

    def __iter__(self) -> Iterator[pb.WaitReply]:
        try:
            yield from self._replies
        except NothingHappens as error:
            reason = why(self._owners)
            raise NothingHappens(f"{error}{f': {reason}' if reason else ''}") from None

    def cancel(self) -> None:
        self._replies.cancel()
