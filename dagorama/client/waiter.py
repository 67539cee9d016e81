"""Listening to the broker until nodes end. It is told of each as it ends; nothing is asked again and again.

The rule: one call for all nodes of one piece of waiting. A broker that restarts meanwhile is waited for and asked
about those that are left.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from time import monotonic, sleep
from typing import Any, NamedTuple

from dagorama.api import broker_pb2
from dagorama.client.connection import connection
from dagorama.client.reconnect import PATIENCE, PAUSE, Loss
from dagorama.client.replies import Replies
from dagorama.client.slow_waits import waits
from dagorama.context import attempt_here, is_held_back
from dagorama.errors import BrokerError, BrokerOverloaded, BrokerUnavailable, PromiseMisuse, WrongInstance
from dagorama.models.promise import DAGPromise, InstanceRef
from dagorama.models.state import State
from dagorama.settings import broker_wait, warn_after

NOTHING_KNOWN = broker_pb2.NodeFailure()


class Heard(NamedTuple):
    """What the broker has said of one node; of one that has completed, the envelopes that its value is made of."""

    node_id: bytes
    owner: bytes  #: the instance that it is of
    state: State
    envelopes: Mapping[bytes, bytes] = {}  #: as they came: nobody has checked them
    failure: broker_pb2.NodeFailure = NOTHING_KNOWN


class Waiting:
    """Nodes to be asked about or waited for; `owners` has the instance of each.

    Any thread may close() it, which ends the waiting.
    """

    def __init__(self, owners: Mapping[bytes, bytes]) -> None:
        self._left = dict(owners)
        self._lock = threading.Lock()
        self._replies: Replies | None = None
        self._closed = False
        self.waits_since: float | None = None  #: by the monotonic clock; None while the caller does something else

    @property
    def unanswered(self) -> Mapping[bytes, bytes]:
        """The nodes of which no end has been heard, and the instance of each."""
        return self._left

    @property
    def left(self) -> Sequence[bytes]:
        """The nodes of which no end has been heard."""
        return list(self._left)

    def ask(self, patience: float | None = None) -> list[Heard]:
        """Return what the broker knows now of the nodes that are left. It may be away for `patience` seconds."""
        return connection().retried(lambda: list(self._hear(now=True, timeout=None)), patience=patience)

    def ended(self, timeout: float | None) -> Iterator[Heard]:
        """Each node once it has ended, in that order; ends with the last of them, or after so many seconds.

        A wait that takes long says in the log what keeps it.
        """
        after = warn_after()
        if timeout is not None and timeout <= after:
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

    def _ended(self, timeout: float | None) -> Iterator[Heard]:
        until = inf if timeout is None else monotonic() + timeout
        loss = Loss()
        while self._left and not self._closed and (seconds := until - monotonic()) > 0:
            # A wait may go unanswered for hours; how things stand is answered at once if the broker is there.
            is_question = loss.is_doubtful
            try:
                for heard in self._hear(now=is_question, timeout=None if timeout is None else seconds):
                    loss.over()
                    if heard.state.has_ended:
                        yield self._noted(heard)
                loss.over()
            except (BrokerUnavailable, BrokerOverloaded) as error:
                sleep(max(0.0, min(_pause(error, loss), until - monotonic())))
            else:
                if self._left and not is_question:
                    sleep(max(0.0, min(PAUSE, until - monotonic())))
        if self._left and not self._closed:
            # They may have ended while nobody listened.
            yield from [self._noted(heard) for heard in self.ask(PATIENCE) if heard.state.has_ended]

    def close(self) -> None:
        """Ends what another thread waits for; that thread then hears no more, or a BrokerError."""
        with self._lock:
            self._closed = True
            replies = self._replies
        if replies is not None:
            replies.cancel()

    def _noted(self, heard: Heard) -> Heard:
        self._left.pop(heard.node_id, None)
        return heard

    def _hear(self, *, now: bool, timeout: float | None) -> Iterator[Heard]:
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
) -> list[Heard]:
    """Adds what came to `envelopes`; `asked` has each node and its instance, in the order of the request.

    Raises BrokerError where the reply makes no sense.
    """
    failures = iter(reply.failure)
    found = []
    try:
        envelopes.update(zip(reply.value_node, reply.value, strict=True))
        for index, number in zip(reply.index, reply.state, strict=True):
            state = State(number)
            if state in (State.FAILED, State.CANCELLED):
                found.append(Heard(*asked[index], state, failure=next(failures, NOTHING_KNOWN)))
            else:
                found.append(Heard(*asked[index], state, envelopes))
    except (ValueError, IndexError):
        raise BrokerError(
            "the broker speaks of nodes that were not asked for, or of states that there are not: see that both are of"
            " the same version",
            "INTERNAL",
        ) from None
    return found


def _pause(error: BrokerUnavailable | BrokerOverloaded, loss: Loss) -> float:
    """Seconds until the wait goes on. Raises the error if the broker has been gone, or without room, for too long."""
    if isinstance(error, BrokerOverloaded):
        if error.retry_after is None or loss.noticed(False) > broker_wait():
            raise error
        return error.retry_after + PAUSE
    if error.status == "UNAVAILABLE" and loss.noticed(error.was_connected) > connection().patience:
        raise error
    return PAUSE


# --- whose nodes these are -------------------------------------------------------------------------


def check_instance(what: str, instance: object) -> None:
    """Raises TypeError when what `what` was given first is no instance, such as the promise in the wrong place."""
    if isinstance(instance, DAGPromise) or not hasattr(type(instance), "instance_id"):
        raise TypeError(
            f"{what} takes an instance first, which calling a definition returns beside the promise, not a "
            f"{type(instance).__qualname__}"
        )


def owner_of(instance: InstanceRef, promise: DAGPromise[Any]) -> bytes:
    """The instance to ask under; raises WrongInstance, or PromiseMisuse for what the broker cannot know yet."""
    owner = instance.instance_id.bytes
    if promise._instance_bytes not in (None, owner):
        raise WrongInstance(f"{promise!r} is of instance {promise.instance_id}, not of {instance!r}")
    if is_held_back(owner):
        raise PromiseMisuse(
            f"{promise!r} was made in a `with together():` block, and nothing is known of it before that ends: "
            "ask for it after the block"
        )
    attempt = attempt_here()
    if attempt is not None and attempt.made(promise.node_id):
        raise PromiseMisuse(
            f"this run made {promise!r}, which may need the place that this run takes; "
            "return the promise, or pass it to another @dagorama method"
        )
    return owner
