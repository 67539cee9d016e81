"""One channel per process and address. Every call has a deadline, and every error becomes one of ours here.

grpc is imported when the first connection is made, never before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from random import random
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dagorama.api import broker_pb2
from dagorama.client.certificates import meaning
from dagorama.client.channel import sync_channel, target
from dagorama.client.reconnect import PATIENCE, Loss
from dagorama.client.stream import Asked, Talk
from dagorama.client.transport import is_broken_off, was_reached
from dagorama.errors import (
    AccessDenied,
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    RefusedByBroker,
    UnknownToBroker,
)
from dagorama.models.state import State
from dagorama.settings import Settings, broker_wait

if TYPE_CHECKING:
    import grpc
    from grpc import _CallIterator  # that is how the stubs call it

    from dagorama.api.api_pb2_grpc import DagoramaStub
    from dagorama.api.broker_pb2_grpc import BrokerStub

T = TypeVar("T")

#: bytes of one value; more is refused before anything is sent
VALUE_LIMIT = 1024**3
#: bytes of a large value in one message
CHUNK = 1024 * 1024
DEADLINE = 30.0
#: seconds a transfer may take for each MiB, on top of the deadline
SECONDS_PER_MIB = 1.0
PAUSE = 0.1
#: nodes up to which a wait goes over the open stream, where all answers are kept until they are taken
FEW = 8
#: instances or nodes that one message of a list has at most
PAGE = 1000
#: the longest pause before asking a broker again that has no room; up to as much is added by chance
LONGEST_PAUSE = 4.0
#: the trailing metadata in which it says after how many milliseconds that makes sense
RETRY_AFTER = "retry-after-ms"

ERRORS: dict[str, type[BrokerError]] = {
    "UNAVAILABLE": BrokerUnavailable,
    "DEADLINE_EXCEEDED": BrokerUnavailable,
    "UNAUTHENTICATED": AccessDenied,
    "PERMISSION_DENIED": AccessDenied,
    "NOT_FOUND": UnknownToBroker,
    "INVALID_ARGUMENT": RefusedByBroker,
    "FAILED_PRECONDITION": RefusedByBroker,
    "ALREADY_EXISTS": RefusedByBroker,
    "OUT_OF_RANGE": RefusedByBroker,
    "RESOURCE_EXHAUSTED": BrokerOverloaded,
}


def broker_error(error: grpc.RpcError, address: str) -> BrokerError:
    """The one map from gRPC statuses to our errors, for sync and aio calls alike."""
    status, details = _said(error)
    if is_broken_off(status, details):
        return _broken_off(status, details, address)
    if status == "UNAVAILABLE":
        details = (
            f"no broker answers at {address} ({meaning(details)}); start one with `dagorama-broker serve`, "
            "or set DAGORAMA_HOST and DAGORAMA_PORT to where it is"
        )
    elif status == "DEADLINE_EXCEEDED":
        details = f"the broker at {address} did not answer in time ({details})"
    found = _error(status, details, _retry_after(error))
    if isinstance(found, BrokerUnavailable):
        found.was_connected = was_reached(*_said(error))
    return found


def _broken_off(status: str, details: str, address: str) -> BrokerUnavailable:
    found = BrokerUnavailable(
        f"the connection to the broker at {address} broke off ({status}: {details})", "UNAVAILABLE"
    )
    found.was_connected = True
    return found


def _said(error: grpc.RpcError) -> tuple[str, str]:
    """Its status by name, and its details."""
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: "")()
    return code.name if code is not None else "UNKNOWN", str(details or error)


def _error(status: str, details: str, retry_after: float | None) -> BrokerError:
    found = ERRORS.get(status, BrokerError)(details, status)
    if isinstance(found, BrokerOverloaded):
        found.retry_after = retry_after
    return found


def _refusal(refusal: broker_pb2.Refusal, address: str) -> BrokerError:
    """The same for an answer on an open stream."""
    import grpc

    status = next((code.name for code in grpc.StatusCode if code.value[0] == refusal.status), "UNKNOWN")
    if is_broken_off(status, refusal.message):
        return _broken_off(status, refusal.message, address)
    return _error(status, refusal.message, refusal.retry_after / 1000 or None)


def _retry_after(error: grpc.RpcError) -> float | None:
    """Seconds, where the broker says that its refusal is a matter of time."""
    trailing = getattr(error, "trailing_metadata", lambda: ())() or ()
    return next((int(value) / 1000 for key, value in trailing if key == RETRY_AFTER and value.isdecimal()), None)


def _gave_up(error: BrokerOverloaded, seconds: float) -> BrokerOverloaded:
    found = BrokerOverloaded(
        f"{error}; it has been like that for {seconds:.0f} seconds: add workers, submit less at a time, or give the"
        " broker more room",
        error.status,
    )
    found.retry_after = error.retry_after
    return found


def refuse_excess(size: int) -> None:
    """Raises RefusedByBroker for a large value that nobody would take."""
    if size > VALUE_LIMIT:
        raise RefusedByBroker(
            f"a value of {size:,} bytes is more than dagorama carries ({VALUE_LIMIT:,}); "
            "split it, or pass the name of a file that whoever needs it can read",
            "INVALID_ARGUMENT",
        )


def transfer_deadline(size: int) -> float:
    """Seconds that a call may take which carries `size` bytes."""
    return DEADLINE + SECONDS_PER_MIB * size / 1024**2


class Connection:
    """The broker's calls, each with a deadline and our errors. All of them may be sent twice without harm."""

    def __init__(self, settings: Settings) -> None:
        self.channel: grpc.Channel = sync_channel(settings)
        from dagorama.api.api_pb2_grpc import DagoramaStub
        from dagorama.api.broker_pb2_grpc import BrokerStub

        self.settings = settings
        self.address = target(settings)
        self.pid = os.getpid()
        #: whether a broker has been there, so that one which is not may be restarting
        self.has_answered = _is_expected
        self.stub: BrokerStub = BrokerStub(self.channel)
        self.original: DagoramaStub = DagoramaStub(self.channel)
        _close_streams_before_forks()
        self._talk: Talk | None = None
        self._talk_lock = threading.Lock()

    @property
    def patience(self) -> float:
        """Seconds for which the broker may be gone before a call gives up."""
        return broker_wait() if self.has_answered else PATIENCE

    def error_of(self, error: grpc.RpcError) -> BrokerError:
        """Our error for a failed call; what it says of the broker being there is noted."""
        self.has_answered = self.has_answered or was_reached(*_said(error))
        return broker_error(error, self.address)

    def close_stream(self) -> None:
        """Close the open stream, unless something is being asked on it; the next question opens another."""
        if self._talk is not None:
            self._talk.close()

    def leads_to(self, settings: Settings) -> bool:
        """Whether it is the way that these settings name."""
        return self.settings is settings or self.settings.way == settings.way

    def submit(self, requests: Sequence[broker_pb2.SubmitRequest]) -> None:
        """Hands over instances and nodes in one transaction; returns when they are durable."""
        if len(requests) == 1:
            self._ask(lambda timeout: self._answered(broker_pb2.Ask(submit=requests[0]), timeout))
            return
        size = sum(request.ByteSize() for request in requests)
        self._ask(lambda timeout: self.stub.SubmitStream(_whole(requests), timeout=timeout), transfer_deadline(size))

    def wait(
        self, owners: Mapping[bytes, bytes], *, now: bool = False, timeout: float | None = None
    ) -> Replies:
        """What is known of nodes, whose instances `owners` has; without `now`, each as it ends, until `timeout`.

        It is not tried again.
        """
        request = broker_pb2.WaitRequest(now=now, **_named(owners))
        if now:
            timeout = DEADLINE if timeout is None else min(timeout, DEADLINE)
        if len(owners) <= FEW:
            return TalkReplies(self, self._asked(broker_pb2.Ask(wait=request)), timeout)
        return CallReplies(self, self.stub.Wait(request, timeout=timeout))

    def explain(self, owners: Mapping[bytes, bytes], timeout: float) -> broker_pb2.ExplainReply:
        """Why nodes, whose instances `owners` has, have not ended. It is not tried again."""
        import grpc

        try:
            return self.stub.Explain(broker_pb2.ExplainRequest(**_named(owners)), timeout=timeout)
        except grpc.RpcError as error:
            raise self.error_of(error) from None

    def _answered(self, question: broker_pb2.Ask, timeout: float) -> None:
        for _ in TalkReplies(self, self._asked(question), timeout):
            pass

    def _asked(self, question: broker_pb2.Ask) -> Asked:
        while True:
            talk = self._talk
            if talk is None or talk.is_over:
                with self._talk_lock:
                    if self._talk is talk:
                        self._talk = Talk(self.stub.Talk, self.error_of)
            elif (asked := talk.ask(question)) is not None:
                return asked

    def cancel(self, instance: bytes, nodes: Sequence[bytes]) -> int:
        """Cancels nodes, or without any the whole instance; returns how many had not ended."""
        request = broker_pb2.CancelRequest(instance=instance, node=nodes)
        return self._ask(lambda timeout: self.stub.Cancel(request, timeout=timeout)).cancelled

    def retry(self, request: broker_pb2.RetryRequest) -> broker_pb2.RetryReply:
        """Have failed nodes run again, or without any all that failed in the instance."""
        return self._ask(lambda timeout: self.stub.Retry(request, timeout=timeout))

    def look_at_retry(self, request: broker_pb2.RetryRequest) -> broker_pb2.RetryReply:
        """Return which code a retry with new code would adopt; nothing changes."""
        look = broker_pb2.RetryRequest()
        look.CopyFrom(request)
        look.look = True
        return self.retry(look)

    def adopt(self, request: broker_pb2.AdoptRequest) -> broker_pb2.AdoptReply:
        """Have unfinished nodes of a function run by other code than they were made with."""
        return self._ask(lambda timeout: self.stub.Adopt(request, timeout=timeout))

    def look_at_adoption(self, request: broker_pb2.AdoptRequest) -> broker_pb2.AdoptReply:
        """Return what would be adopted; nothing changes."""
        look = broker_pb2.AdoptRequest()
        look.CopyFrom(request)
        look.look = True
        return self.adopt(look)

    def put_value(self, data: bytes | bytearray | memoryview, digest: bytes | None = None) -> bytes:
        """Stores a large value and returns its SHA-256, which is `digest` where the caller knows it."""
        refuse_excess(len(data))
        digest = digest or sha256(data).digest()
        deadline = transfer_deadline(len(data))
        reply = self._ask(lambda timeout: self.stub.PutValue(_chunks(data), timeout=timeout), deadline)
        if reply.sha256 != digest:
            raise BrokerError("the broker stored other bytes than were sent", "DATA_LOSS")
        return digest

    def values_folder(self) -> broker_pb2.ValuesFolderReply:
        """Where large values are files that a client on the same machine may read."""
        request = broker_pb2.ValuesFolderRequest()
        return self._ask(lambda timeout: self.stub.ValuesFolder(request, timeout=timeout))

    def keep_value(self, digest: bytes, length: int, unfinished: str = "") -> bool:
        """Whether the broker keeps a value now, from what was written under that name in its folder if need be."""
        request = broker_pb2.KeepValueRequest(sha256=digest, length=length, unfinished=unfinished)
        return self._ask(lambda timeout: self.stub.KeepValue(request, timeout=timeout), transfer_deadline(length)).kept

    def get_value(self, digest: bytes) -> bytes:
        """The large value of that SHA-256, which whoever reads it checks; raises UnknownToBroker."""
        request = broker_pb2.GetValueRequest(sha256=digest)
        return self._ask(
            lambda timeout: b"".join(chunk.data for chunk in self.stub.GetValue(request, timeout=timeout)),
            transfer_deadline(VALUE_LIMIT),
        )

    def get_instance(self, instance: bytes) -> broker_pb2.InstanceInfo:
        request = broker_pb2.GetInstanceRequest(instance=instance)
        return self._ask(lambda timeout: self.stub.GetInstance(request, timeout=timeout))

    def find_ids(self, instance: str, nodes: Sequence[str] = ()) -> tuple[bytes, list[bytes]]:
        """The ids of an instance, and of nodes of it, that begin with these hexadecimal digits, 4 to 32 of each.

        Raises UnknownToBroker if none does, RefusedByBroker if several do.
        """
        request = broker_pb2.FindIdsRequest(instance=instance, node=nodes)
        reply = self._ask(lambda timeout: self.stub.FindIds(request, timeout=timeout))
        return reply.instance, list(reply.node)

    def list_instances(
        self, limit: int = 0, *, unfinished: bool = False, failed: bool = False, definition: str = ""
    ) -> list[broker_pb2.InstanceInfo]:
        """The latest instances; 0: all."""
        asked = broker_pb2.ListInstancesRequest(unfinished=unfinished, failed=failed, definition=definition)

        def page(size: int, before: int) -> tuple[Sequence[broker_pb2.InstanceInfo], int]:
            asked.limit, asked.before = size, before
            reply = self._ask(lambda timeout: self.stub.ListInstances(asked, timeout=timeout))
            return reply.instances, reply.more

        return _all_pages(page, limit)

    def list_nodes(
        self, instance: bytes, limit: int = 0, states: Sequence[State] = ()
    ) -> list[broker_pb2.NodeInfo]:
        """Nodes of an instance, or those in these states; 0: all."""
        numbers = [broker_pb2.NodeState.ValueType(state) for state in states]
        asked = broker_pb2.ListNodesRequest(instance=instance, states=numbers)

        def page(size: int, after: int) -> tuple[Sequence[broker_pb2.NodeInfo], int]:
            asked.limit, asked.after = size, after
            reply = self._ask(lambda timeout: self.stub.ListNodes(asked, timeout=timeout))
            return reply.nodes, reply.more

        return _all_pages(page, limit)

    def get_node(self, instance: bytes, node: bytes, *, arguments: bool = False) -> broker_pb2.NodeDetails:
        """All that the broker keeps of one node; the envelope of its `arguments` if it is asked for."""
        request = broker_pb2.GetNodeRequest(instance=instance, node=node, arguments=arguments)
        return self._ask(lambda timeout: self.stub.GetNode(request, timeout=timeout))

    def get_status(self) -> broker_pb2.Status:
        """Return the broker's counts as they are now, and its lists, page by page."""
        request = broker_pb2.GetStatusRequest()
        whole = status = self._ask(lambda timeout: self.stub.GetStatus(request, timeout=timeout))
        while status.more:
            request.after_worker, request.after_function = status.last_worker, status.last_function
            request.after_queue = status.last_queue
            status = self._ask(lambda timeout: self.stub.GetStatus(request, timeout=timeout))
            whole.workers.extend(status.workers)
            whole.unservable.extend(status.unservable)
            whole.queues.extend(status.queues)
        return whole

    def retried(self, call: Callable[[], T], seconds: float = DEADLINE, patience: float | None = None) -> T:
        """Calls until there is an answer.

        A broker that is gone is tried again for `patience` seconds (None: see the property), and one that has no room
        just now, with growing pauses, for `seconds`.
        """
        started, pause, refusals, loss = monotonic(), PAUSE, 0, Loss()
        while True:
            try:
                return call()
            except BrokerUnavailable as error:
                if error.status != "UNAVAILABLE":
                    raise
                if loss.noticed(False) > (self.patience if patience is None else patience):
                    raise
                pause = PAUSE
            except BrokerOverloaded as error:
                if error.retry_after is None:
                    raise
                loss.over()
                pause = min(error.retry_after * 2**refusals, LONGEST_PAUSE) * (1 + random())
                refusals += 1
                if monotonic() - started + pause >= seconds:
                    raise _gave_up(error, monotonic() - started) from None
            sleep(pause)

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


class Replies(Protocol):
    """The answers to one wait, as they come. Any thread may cancel() it, and whoever listens gets a BrokerError."""

    def __iter__(self) -> Iterator[broker_pb2.WaitReply]: ...

    def cancel(self) -> None: ...


class CallReplies:
    """... of a call of its own, which brings them no faster than they are taken."""

    def __init__(self, connection: Connection, call: _CallIterator[broker_pb2.WaitReply]) -> None:
        self._connection = connection
        self._call = call

    def __iter__(self) -> Iterator[broker_pb2.WaitReply]:
        import grpc

        try:
            for reply in self._call:
                self._connection.has_answered = True
                yield reply
        except grpc.RpcError as error:
            raise self._connection.error_of(error) from None
        finally:
            self._call.cancel()

    def cancel(self) -> None:
        self._call.cancel()


class TalkReplies:
    """... on the stream that is open, until `timeout` seconds from now."""

    def __init__(self, connection: Connection, asked: Asked, timeout: float | None) -> None:
        self._connection = connection
        self._asked = asked
        self._until = None if timeout is None else monotonic() + timeout

    def __iter__(self) -> Iterator[broker_pb2.WaitReply]:
        try:
            while True:
                answer = self._hear()
                if answer.HasField("refusal"):
                    raise _refusal(answer.refusal, self._connection.address) from None
                if answer.HasField("wait"):
                    yield answer.wait
                if answer.over:
                    return
        finally:
            self._asked.forget()

    def _hear(self) -> broker_pb2.Answer:
        seconds = None if self._until is None else max(0.0, self._until - monotonic())
        try:
            answer = self._asked.hear(seconds)
        except TimeoutError:
            address = self._connection.address
            raise BrokerUnavailable(f"the broker at {address} did not answer in time", "DEADLINE_EXCEEDED") from None
        self._connection.has_answered = True
        return answer

    def cancel(self) -> None:
        self._asked.forget()


_lock = threading.Lock()
_current: Connection | None = None
_is_expected = False  # a broker has given this process its work
# A forked child must neither use nor close what its parent opened.
_inherited: list[Connection] = []


def expect_broker() -> None:
    """Have even a first call wait for a broker that is gone as long as one that has answered before."""
    global _is_expected
    _is_expected = True


def connection() -> Connection:
    """This process's connection to where the settings point now; made again after a fork or a change of address."""
    global _current
    settings = Settings.from_env()
    found = _current
    if found is None or found.pid != os.getpid() or not found.leads_to(settings):
        with _lock:
            if _current is not None and _current.pid != os.getpid():
                _inherited.append(_current)
                _current = None
            if _current is None or not _current.leads_to(settings):
                _current = Connection(settings)
            found = _current
    return found


def _all_pages(page: Callable[[int, int], tuple[Sequence[T], int]], limit: int) -> list[T]:
    """Page after page, each asked for by its size and by where the one before said to go on; 0: all."""
    found: list[T] = []
    place = 0
    while True:
        rows, place = page(min(limit - len(found), PAGE) if limit else PAGE, place)
        found += rows
        if not place or len(found) == limit:
            return found


def _renew_lock() -> None:
    # Another thread of the parent may have held it at the fork.
    global _lock
    _lock = threading.Lock()


def _close_stream() -> None:
    if _current is not None and _current.pid == os.getpid():
        _current.close_stream()


@cache
def _close_streams_before_forks() -> None:
    """Where gRPC's support for forks is on, a fork waits for the threads of open streams, and they for the fork.

    What is registered last is called first: gRPC has to have registered before.
    """
    os.register_at_fork(before=_close_stream)


os.register_at_fork(after_in_child=_renew_lock)


def _named(owners: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Nodes of one instance or of several, as the fields of a request."""
    instances = {instance: place for place, instance in enumerate(dict.fromkeys(owners.values()))}
    if len(instances) == 1:
        return {"instance": next(iter(instances)), "node": owners}
    return {"node": owners, "instances": instances, "instance_of": [instances[owner] for owner in owners.values()]}


def _whole(requests: Sequence[broker_pb2.SubmitRequest]) -> Iterator[broker_pb2.SubmitRequest]:
    """The requests and an empty one, by which the broker knows that none is missing."""
    yield from requests
    yield broker_pb2.SubmitRequest()


def _chunks(data: bytes | bytearray | memoryview) -> Iterator[broker_pb2.ValueChunk]:
    view = memoryview(data)
    for start in range(0, len(data), CHUNK):
        yield broker_pb2.ValueChunk(data=bytes(view[start : start + CHUNK]))
