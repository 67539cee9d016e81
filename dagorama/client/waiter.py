"""Wait until nodes end: the broker reports each one as it ends, without polling.

The rule: one call for all nodes of one wait. If the broker restarts meanwhile, the wait goes on and asks about the
remaining nodes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

from dagorama.api import broker_pb2
from dagorama.client.connection import clock_of_waits, connection, is_inline
from dagorama.client.reconnect import PATIENCE, PAUSE, Loss
from dagorama.client.replies import Replies
from dagorama.client.slow_waits import waits
from dagorama.context import attempt_here, is_held_back
from dagorama.errors import BrokerError, BrokerOverloaded, BrokerUnavailable, PromiseMisuse, WrongInstance
from dagorama.models.promise import DAGPromise, InstanceRef
from dagorama.models.state import State
from dagorama.settings import broker_wait, warn_after

NOTHING_KNOWN = broker_pb2.NodeFailure()


class NodeResult(NamedTuple):
    """A broker's report of one node; if it has completed, with the envelopes of its value."""

    node_id: bytes
    owner: bytes  #: its instance
    state: State
    envelopes: Mapping[bytes, bytes] = {}  #: as received: their signatures have not been checked
    failure: broker_pb2.NodeFailure = NOTHING_KNOWN


class NodeWaiter:
    """Nodes to ask about or to wait for; `owners` maps each to its instance.

    Any thread may call close(), which ends the wait.
    """

    def __init__(self, owners: Mapping[bytes, bytes]) -> None:
        self._left = dict(owners)
        self._lock = threading.Lock()
        self._replies: Replies | None = None
        self._closed = False
        self.waits_since: float | None = None  #: by the monotonic clock; None while the caller does something else

    @property
    def unanswered(self) -> Mapping[bytes, bytes]:
        """The nodes that have not ended, as far as known, with their instances."""
        return self._left

    @property
    def left(self) -> Sequence[bytes]:
        """The nodes that have not ended, as far as known."""
        return list(self._left)

    def ask(self, patience: float | None = None) -> list[NodeResult]:
        """Return the current reports of the remaining nodes. The broker may be unavailable for `patience` seconds."""
        return connection().retried(lambda: list(self._hear(now=True, timeout=None)), patience=patience)

    def ended(self, timeout: float | None) -> Iterator[NodeResult]:
        """Yield the report of each node when it has ended, until all have ended or `timeout` seconds are over.

        The reasons of a long wait are logged.
        """
        after = warn_after()
        if (timeout is not None and timeout <= after) or is_inline():
            yield from self._ended(timeout)
            return
        self.waits_since = monotonic()
        waits.enter(self, after)
        try:
            for heard in self._ended(timeout):
                self.waits_since = None
                yield heard
                self.waits_since = monotonic()
        finally:
            waits.leave(self)

    def _ended(self, timeout: float | None) -> Iterator[NodeResult]:
        clock = clock_of_waits()
        until = inf if timeout is None else clock.monotonic() + timeout
        loss = Loss()
        while self._left and not self._closed and (seconds := until - clock.monotonic()) > 0:
            # A wait may go unanswered for hours; an available broker answers a request for current states at once.
            is_question = loss.is_doubtful
            try:
                for heard in self._hear(now=is_question, timeout=None if timeout is None else seconds):
                    loss.over()
                    if heard.state.has_ended:
                        yield self._noted(heard)
                loss.over()
            except (BrokerUnavailable, BrokerOverloaded) as error:
                clock.sleep(max(0.0, min(_pause(error, loss), until - clock.monotonic())))
            else:
                if self._left and not is_question:
                    clock.sleep(max(0.0, min(PAUSE, until - clock.monotonic())))
        if self._left and not self._closed:
            # They may have ended while no call was open.
            yield from [self._noted(heard) for heard in self.ask(PATIENCE) if heard.state.has_ended]

    def close(self) -> None:
        """End the wait of another thread; its iteration ends, or raises a BrokerError."""
        with self._lock:
            self._closed = True
            replies = self._replies
        if replies is not None:
            replies.cancel()

    def _noted(self, heard: NodeResult) -> NodeResult:
        self._left.pop(heard.node_id, None)
        return heard

    def _hear(self, *, now: bool, timeout: float | None) -> Iterator[NodeResult]:
        owners = dict(self._left)
        replies = connection().wait(owners, now=now, timeout=timeout)
        with self._lock:
            self._replies = replies
            closed = self._closed
        if closed:
            replies.cancel()
        envelopes: dict[bytes, bytes] = {}
        try:
            for reply in replies:
                heard = _heard(list(owners.items()), reply, envelopes)
                yield from heard
                if heard:
                    envelopes = {}
        finally:
            replies.cancel()


def _heard(
    asked: Sequence[tuple[bytes, bytes]], reply: broker_pb2.WaitReply, envelopes: dict[bytes, bytes]
) -> list[NodeResult]:
    """Return the reports in a reply and add its values to `envelopes`.

    `asked` has each node and its instance, in the order of the request. Raises BrokerError if the reply is malformed.
    """
    failures = iter(reply.failure)
    found = []
    try:
        envelopes.update(zip(reply.value_node, reply.value, strict=True))
        for index, number in zip(reply.index, reply.state, strict=True):
            state = State(number)
            if state in (State.FAILED, State.CANCELLED):
                found.append(NodeResult(*asked[index], state, failure=next(failures, NOTHING_KNOWN)))
            else:
                found.append(NodeResult(*asked[index], state, envelopes))
    except (ValueError, IndexError):
        raise BrokerError(
            "unexpected reply from the broker (unknown node or state); check that the versions of client and broker"
            " match",
            "INTERNAL",
        ) from None
    return found


def _pause(error: BrokerUnavailable | BrokerOverloaded, loss: Loss) -> float:
    """Return the seconds until the next call; raise the error if the broker has failed for too long."""
    if isinstance(error, BrokerOverloaded):
        if error.retry_after is None or loss.note_failure(False) > broker_wait():
            raise error
        return error.retry_after + PAUSE
    if error.status == "UNAVAILABLE" and loss.note_failure(error.was_connected) > connection().patience:
        raise error
    return PAUSE


# --- the instance of a promise ---------------------------------------------------------------------


def check_instance(what: str, instance: object) -> None:
    """Raise TypeError if the first argument of `what` is not an instance, for example the promise."""
    if isinstance(instance, DAGPromise) or not hasattr(type(instance), "instance_id"):
        raise TypeError(
            f"the first argument of {what} must be the instance that the call of a definition returns, not a "
            f"{type(instance).__qualname__}"
        )


def refuse_held_back(what: str, instance: bytes) -> None:
    """Raise PromiseMisuse for an instance that the broker cannot know yet."""
    if is_held_back(instance):
        raise PromiseMisuse(
            f"{what} was called with the instance {UUID(bytes=instance)}, which was made in a `with batch():` block, "
            "and the broker does not know it before the block ends: call it after the block"
        )


def owner_of(instance: InstanceRef, promise: DAGPromise[Any]) -> bytes:
    """Return the instance of a promise; raise WrongInstance, or PromiseMisuse if the broker cannot know it yet."""
    owner = instance.instance_id.bytes
    if promise._instance_bytes not in (None, owner):
        raise WrongInstance(f"{promise!r} is of instance {promise.instance_id}, not of {instance!r}")
    if is_held_back(owner):
        raise PromiseMisuse(
            f"{promise!r} was made in a `with batch():` block, and the broker does not know it before the "
            "block ends: ask for it after the block"
        )
    attempt = attempt_here()
    if attempt is not None and attempt.made(promise.node_id):
        raise PromiseMisuse(
            f"the running node made {promise!r}, which may need the slot that this node occupies; "
            "return the promise, or pass it to another @dagorama method"
        )
    return owner


# --- the promise that as_completed() has just yielded -------------------------------------------------

_answers: dict[bytes, NodeResult] = {}


@contextmanager
def at_hand(heard: NodeResult) -> Iterator[None]:
    """Keep a value for resolve() while the caller handles its promise; not a failure, which a retry may undo."""
    if heard.state is not State.COMPLETED:
        yield
        return
    _answers[heard.node_id] = heard
    try:
        yield
    finally:
        _answers.pop(heard.node_id, None)


def known(promise: DAGPromise[Any]) -> NodeResult | None:
    """Return the report of the node of a promise, if it is at hand."""
    return _answers.get(promise.node_id)
