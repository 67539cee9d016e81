"""From a promise to its value: what the broker says of a node, put together from its parts.

The rule: without `timeout` nothing waits. Inside a running node nothing waits either, for it would occupy the
slot that the other node may need.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dagorama.api import broker_pb2
from dagorama.connection import PATIENCE, PATIENCE_WHILE_WAITING, PAUSE, connection
from dagorama.errors import BrokerUnavailable, NodeCancelled, NodeFailed, PromiseMisuse, WrongInstance
from dagorama.models.promise import DAGPromise
from dagorama.scope import current_attempt
from dagorama.values import decode_promised

if TYPE_CHECKING:
    from dagorama.instance import DAGInstance

R = TypeVar("R")


class _Timeout(Enum):
    NOT_GIVEN = "not given"


@overload
def resolve(instance: DAGInstance, promise: DAGPromise[R]) -> R | None: ...
@overload
def resolve(instance: DAGInstance, promise: DAGPromise[R], *, timeout: float | None) -> R: ...
def resolve(
    instance: DAGInstance, promise: Any, *, timeout: float | _Timeout | None = _Timeout.NOT_GIVEN
) -> Any:
    """The value of a promise, with the promises in it resolved.

    Without `timeout` it never waits and returns None as long as there is no value; with it, it waits so many
    seconds, None meaning for ever, and raises TimeoutError. Raises NodeFailed (NodeCancelled) when the node
    ended without a value, UnknownToBroker when there is no such node.
    """
    if not isinstance(promise, DAGPromise):
        return promise  # what a plain entry point returned
    node = _Node(_owner(instance, promise), promise)
    if timeout is _Timeout.NOT_GIVEN:
        heard = node.ask()
        return heard.value() if heard.has_ended else None
    return node.wait(timeout).value()


@dataclass
class _Heard:
    """What the broker has said of one node."""

    node_id: bytes
    state: int = broker_pb2.WAITING
    envelopes: dict[bytes, bytes] = field(default_factory=dict)
    failure: broker_pb2.NodeFailure | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in (broker_pb2.COMPLETED, broker_pb2.FAILED, broker_pb2.CANCELLED)

    def listen(self, replies: Iterable[broker_pb2.WaitReply]) -> None:
        """Until the node has ended, or there is no more to hear."""
        for reply in replies:
            self.envelopes.update(zip(reply.value_node, reply.value, strict=True))
            if reply.index:
                self.state = reply.state[0]
                self.failure = reply.failure[0] if reply.failure else None
                return

    def value(self) -> Any:
        if self.state != broker_pb2.COMPLETED:
            raise self._error() from self._cause()
        return decode_promised(self.node_id, self.envelopes, get_large=connection().get_value)

    def _error(self) -> NodeFailed:
        kind = NodeCancelled if self.state == broker_pb2.CANCELLED else NodeFailed
        failure = self.failure or broker_pb2.NodeFailure()
        return kind(failure.function, failure.attempts, failure.type, failure.message, failure.traceback)

    def _cause(self) -> BaseException | None:
        """The original exception where its class is known here and lets itself be rebuilt."""
        if self.failure is None or not self.failure.exception:
            return None
        try:
            cause = pickle.loads(self.failure.exception)
        except Exception:
            return None
        return cause if isinstance(cause, BaseException) else None


@dataclass
class _Node:
    """A node to be asked about."""

    owner: bytes
    promise: DAGPromise[Any]

    def ask(self) -> _Heard:
        """What is known now."""
        return connection().retried(lambda: self._hear(now=True, timeout=None))

    def wait(self, timeout: float | None) -> _Heard:
        """Until the node has ended; a broker that restarts meanwhile is waited for."""
        is_inside = current_attempt.get() is not None
        if not is_inside and (timeout is None or timeout > 0):
            return self._stay(timeout)
        heard = self.ask()
        if not heard.has_ended:
            raise self._would_wait() if is_inside and timeout != 0 else self._timed_out(timeout)
        return heard

    def _stay(self, timeout: float | None) -> _Heard:
        until = inf if timeout is None else monotonic() + timeout
        answered = monotonic()
        while (left := until - monotonic()) > 0:
            try:
                heard = self._hear(now=False, timeout=None if timeout is None else left)
                if heard.has_ended:
                    return heard
                answered = monotonic()
            except BrokerUnavailable as error:
                if error.status == "UNAVAILABLE" and monotonic() - answered > _patience():
                    raise
            sleep(max(0.0, min(PAUSE, until - monotonic())))
        # It may have ended while nobody listened.
        heard = self.ask()
        if not heard.has_ended:
            raise self._timed_out(timeout)
        return heard

    def _hear(self, *, now: bool, timeout: float | None) -> _Heard:
        node_id = self.promise.node_id
        heard = _Heard(node_id)
        heard.listen(connection().wait(self.owner, [node_id], now=now, timeout=timeout))
        return heard

    def _timed_out(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"there is no value after {timeout} seconds: {self.promise!r}")

    def _would_wait(self) -> PromiseMisuse:
        return PromiseMisuse(
            f"resolve() would wait inside a running node, in the slot that the other node may need: {self.promise!r}; "
            "return the promise, or pass it to another @dagorama method"
        )


def _patience() -> float:
    return PATIENCE_WHILE_WAITING if connection().has_answered else PATIENCE


def _owner(instance: DAGInstance, promise: DAGPromise[Any]) -> bytes:
    """The instance to ask under; raises WrongInstance, or PromiseMisuse for what the broker cannot know yet."""
    owner = instance.instance_id.bytes
    if promise._instance_bytes not in (None, owner):
        raise WrongInstance(f"{promise!r} is of instance {promise.instance_id}, not of {instance!r}")
    attempt = current_attempt.get()
    if attempt is not None and attempt.made(promise.node_id):
        raise PromiseMisuse(
            f"this run made {promise!r} and the node starts when the run has ended; "
            "return the promise, or pass it to another @dagorama method"
        )
    return owner
