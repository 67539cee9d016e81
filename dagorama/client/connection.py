"""The broker's calls: one connection per process and address, one method per rpc.

The rule: every call has a deadline, and every failure becomes an error of `dagorama.errors`. grpc is imported with the
first connection, never before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from dagorama.api import broker_pb2
from dagorama.client.addresses import address
from dagorama.client.channel import sync_channel
from dagorama.client.chunks import DEADLINE, node_fields, transfer_deadline, whole_submission
from dagorama.client.early_wait import EarlyReplies, EarlyWaits
from dagorama.client.inspection_calls import InspectionCalls
from dagorama.client.reachability import trouble_at_addresses
from dagorama.client.reconnect import PATIENCE, repeated
from dagorama.client.replies import CallReplies, Replies, StreamReplies
from dagorama.client.status import broker_error, has_reached, unreachable_text
from dagorama.client.stream import Exchange
from dagorama.client.timeouts import Clock
from dagorama.client.value_calls import ValueCalls
from dagorama.errors import BrokerError, BrokerUnavailable
from dagorama.settings import Settings, broker_wait

if TYPE_CHECKING:
    import grpc

    from dagorama.api.api_pb2_grpc import DagoramaStub
    from dagorama.api.broker_pb2_grpc import BrokerStub

T = TypeVar("T")

#: The largest number of nodes of a wait over the open stream, which keeps all answers until they are read.
FEW = 8


class Connection(InspectionCalls, ValueCalls):
    """The calls of one broker. Each has a deadline, raises our errors, and may be sent twice without harm."""

    #: The clock and the sleep of waits for this broker.
    clock: Clock = time
    #: Whether calls themselves do the work that they wait for, in the calling thread.
    is_inline = False

    def __init__(self, settings: Settings, channel: grpc.Channel | None = None) -> None:
        self.channel: grpc.Channel = channel or sync_channel(settings)
        from dagorama.api.api_pb2_grpc import DagoramaStub
        from dagorama.api.broker_pb2_grpc import BrokerStub

        self.settings = settings
        self.address = address(settings)
        self.pid = os.getpid()
        #: Whether a broker has answered, so that one that does not answer may be restarting.
        self.has_answered = _is_expected
        self.stub: BrokerStub = BrokerStub(self.channel)
        self.original: DagoramaStub = DagoramaStub(self.channel)
        _close_streams_before_forks()
        self._exchange = Exchange(settings, self.stub, self.error_of, is_own=channel is None)
        self._early = EarlyWaits()

    @property
    def patience(self) -> float:
        """The seconds for which the broker may be unavailable before a call fails."""
        # Several addresses are named because one broker takes over from another, which may happen just now.
        return broker_wait() if self.has_answered or len(self.settings.hosts) > 1 else PATIENCE

    def error_of(self, error: grpc.RpcError) -> BrokerError:
        """Return our error for a failed call; note whether a broker was reached."""
        self.has_answered = self.has_answered or has_reached(error)
        return broker_error(error, self.address)

    def close_stream(self) -> None:
        """Close the open stream unless a request is pending on it; the next request opens another one."""
        self._early.drop()
        self._exchange.close()

    def abandon_stream(self) -> None:
        """Close what this process, a fork, has inherited of its parent's stream."""
        self._early = EarlyWaits()
        self._exchange.abandon()

    def is_for(self, settings: Settings) -> bool:
        """Return whether the connection is the one that these settings describe."""
        return self.settings is settings or self.settings.endpoint == settings.endpoint

    def submit(self, requests: Sequence[broker_pb2.SubmitRequest]) -> None:
        """Submit instances and nodes in one transaction; return when they are durable."""
        if len(requests) == 1:
            wait = self._early.for_submission(requests[0])
            self._ask(lambda timeout: self._submitted(requests[0], wait, timeout))
            return
        deadline = transfer_deadline(sum(request.ByteSize() for request in requests))
        self._ask(lambda timeout: self.stub.SubmitStream(whole_submission(requests), timeout=timeout), deadline)

    def wait(self, owners: Mapping[bytes, bytes], *, now: bool = False, timeout: float | None = None) -> Replies:
        """Return the states of nodes as they end, until `timeout`; with `now`, their states at this moment.

        `owners` maps each node to its instance. The call is not repeated.
        """
        request = broker_pb2.WaitRequest(now=now, **node_fields(owners))
        if now:
            timeout = DEADLINE if timeout is None else min(timeout, DEADLINE)
        if len(owners) == 1 and not now and (pending := self._early.take(next(iter(owners)))) is not None:
            return EarlyReplies(self, pending, timeout, lambda: self._waited(request, timeout))
        if len(owners) <= FEW:
            return self._waited(request, timeout)
        return CallReplies(self, self.stub.Wait(request, timeout=timeout))

    def explain(self, owners: Mapping[bytes, bytes], timeout: float) -> broker_pb2.ExplainReply:
        """Return why nodes have not ended; `owners` maps each to its instance. The call is not repeated."""
        import grpc

        try:
            return self.stub.Explain(broker_pb2.ExplainRequest(**node_fields(owners)), timeout=timeout)
        except grpc.RpcError as error:
            raise self.error_of(error) from None

    def explain_node_once(self, instance: bytes, node: bytes, timeout: float) -> broker_pb2.Explanation:
        """Return why a node is not running. The call is not repeated."""
        import grpc

        try:
            request = broker_pb2.ExplainNodeRequest(instance=instance, node=node)
            return self.stub.ExplainNode(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self.error_of(error) from None

    def _waited(self, request: broker_pb2.WaitRequest, timeout: float | None) -> Replies:
        (pending,) = self._exchange.ask(broker_pb2.Request(wait=request))
        return StreamReplies(self, pending, timeout)

    def _submitted(
        self, request: broker_pb2.SubmitRequest, wait: broker_pb2.WaitRequest | None, timeout: float
    ) -> None:
        """Submit, and send a wait along."""
        along = [] if wait is None else [broker_pb2.Request(wait=wait)]
        submitted, *waiting = self._exchange.ask(broker_pb2.Request(submit=request), *along)
        try:
            for _ in StreamReplies(self, submitted, timeout):
                pass
        except BaseException:
            for each in waiting:
                each.forget()
            raise
        for each in waiting:
            self._early.put(each)

    def cancel(self, instance: bytes, nodes: Sequence[bytes]) -> int:
        """Cancel nodes, or the whole instance if none are given; return how many had not ended."""
        request = broker_pb2.CancelRequest(instance=instance, node=nodes)
        return self._ask(lambda timeout: self.stub.Cancel(request, timeout=timeout)).cancelled

    def retry(self, request: broker_pb2.RetryRequest) -> broker_pb2.RetryReply:
        """Rerun failed nodes, or all failed nodes of the instance if none are given."""
        return self._ask(lambda timeout: self.stub.Retry(request, timeout=timeout))

    def delete(self, instance: bytes) -> int:
        """Remove an ended instance with all that is kept of it; return how many nodes it had."""
        request = broker_pb2.DeleteRequest(instance=instance)
        return self._ask(lambda timeout: self.stub.Delete(request, timeout=timeout)).nodes

    def send_signal(self, request: broker_pb2.SendSignalRequest) -> broker_pb2.SendSignalReply:
        """Send a value to a node that waits for it, or to be kept until one does."""
        return self._ask(lambda timeout: self.stub.SendSignal(request, timeout=timeout))

    def rebind(self, request: broker_pb2.RebindRequest) -> broker_pb2.RebindReply:
        """Run unfinished nodes of a function with other code than they were created with."""
        return self._ask(lambda timeout: self.stub.Rebind(request, timeout=timeout))

    def retried(self, call: Callable[[], T], seconds: float = DEADLINE, patience: float | None = None) -> T:
        """Call until there is an answer, as `reconnect.repeated` does; a `patience` of None means the property."""
        try:
            return repeated(call, lambda: self.patience if patience is None else patience, seconds)
        except BrokerUnavailable as error:
            if self.is_inline or error.was_connected or error.status != "UNAVAILABLE":
                raise
            if not (trouble := trouble_at_addresses(self.settings)):
                raise
            raise BrokerUnavailable(unreachable_text(self.address, trouble), error.status) from None

    def _ask(self, call: Callable[[float], T], seconds: float = DEADLINE) -> T:
        import grpc

        until = monotonic() + seconds

        def once() -> T:
            try:
                answer = call(max(0.001, until - monotonic()))
            except grpc.RpcError as error:
                raise self.error_of(error) from None
            self.has_answered = True
            return answer

        return self.retried(once, seconds)


_lock = threading.Lock()
_current: Connection | None = None
_is_expected = False  # a broker has granted this process its work
# A forked child must neither use nor close its parent's connections.
_inherited: list[Connection] = []


def expect_broker() -> None:
    """Let the first call wait as long for an unavailable broker as a call to one that has answered before."""
    global _is_expected
    _is_expected = True


def connection() -> Connection:
    """Return this process's connection to the broker of the settings; a fork or another address makes a new one."""
    global _current
    settings = Settings.from_env()
    found = _current
    if found is None or found.pid != os.getpid() or not found.is_for(settings):
        with _lock:
            if _current is not None and _current.pid != os.getpid():
                _inherited.append(_current)
                _current = None
            if _current is None or not _current.is_for(settings):
                _current = Connection(settings)
            found = _current
    return found


def is_inline() -> bool:
    """Return whether calls are answered in the calling thread, without connecting; a fork of the process connects."""
    return _current is not None and _current.is_inline and _current.pid == os.getpid()


def clock_of_waits() -> Clock:
    """Return the clock and the sleep of waits. This connects to nothing, and reads no settings."""
    return _current.clock if _current is not None and is_inline() else time


@contextmanager
def using(link: Connection) -> Iterator[None]:
    """Make `connection()` return this connection for the block, for as long as it says that it `is_for` the settings.

    All threads of the process get it; a fork does not.
    """
    global _current
    with _lock:
        before, _current = _current, link
    try:
        yield
    finally:
        with _lock:
            _current = before


@contextmanager
def dagorama_context() -> Iterator[DagoramaStub]:
    """Yield the stub of dagorama 0.1.10, on the channel of this process: programs written for it use this."""
    yield connection().original


def _forget_parent() -> None:
    # Another thread of the parent may have held it at the fork.
    global _lock
    _lock = threading.Lock()
    if _current is not None:
        _current.abandon_stream()


def _close_stream() -> None:
    if _current is not None and _current.pid == os.getpid():
        _current.close_stream()


@cache
def _close_streams_before_forks() -> None:
    """Close open streams before each fork: with gRPC's support for forks, the two would wait for each other.

    The last registered function is called first, so gRPC must have registered its own before.
    """
    os.register_at_fork(before=_close_stream)


os.register_at_fork(after_in_child=_forget_parent)
