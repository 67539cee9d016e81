"""From a promise to its value: what the broker says of a node, put together from its parts.

The rule: without `timeout` resolve() does not wait. Inside a running node nothing waits, for it would occupy the
slot that the other node may need.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from dagorama.beside import Beside
from dagorama.culprits import error_of, failure_of
from dagorama.errors import PromiseMisuse
from dagorama.large import broker_values
from dagorama.models.outcome import Outcome
from dagorama.models.promise import DAGPromise
from dagorama.models.state import State
from dagorama.putting import plain
from dagorama.reasons import reasons
from dagorama.scope import attempt_here
from dagorama.signing import SignedValues, keyring
from dagorama.values import decode_promised
from dagorama.waiting import Heard, Waiting, owner_of

if TYPE_CHECKING:
    from dagorama.instance import DAGInstance

R = TypeVar("R")

#: nodes that one call can wait for: their ids have to fit into a message
MOST_AT_ONCE = 200_000


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

    Without `timeout` it never waits and returns None as long as there is no value, which `state` tells from a None
    that is one; with it, it waits so many seconds, None meaning for ever, and raises TimeoutError. Raises NodeFailed
    (NodeCancelled) when the node ended without a value, or returns a Failure for `outcome(promise)`; UnknownToBroker
    when there is no such node; UncheckableValue and TamperedValue when the value's signature cannot be relied on.
    """
    if not isinstance(promise, DAGPromise):
        return plain(promise)  # what a plain entry point returned
    waiting = _waiting(instance, promise)
    if timeout is not _Timeout.NOT_GIVEN:
        return _resolved(waiting, promise, timeout, _is_inside())
    heard = _known(promise) or waiting.ask()[0]
    return _value(promise, heard) if heard.state.has_ended else None


async def aresolve(instance: DAGInstance, promise: DAGPromise[R], *, timeout: float | None = None) -> R:
    """resolve() for async code: it waits, for ever unless `timeout` says how long, and leaves the loop free.

    Cancelling it ends the waiting and nothing else; `cancel` cancels the node.
    """
    if not isinstance(promise, DAGPromise):
        return plain(promise)  # what a plain entry point returned
    waiting = _waiting(instance, promise)
    async with Beside(waiting.close) as thread:
        value: R = await thread.run(_resolved, waiting, promise, timeout, _is_inside())
        return value


def resolve_all(
    pairs: Iterable[tuple[DAGInstance, DAGPromise[R]]], *, timeout: float | None = None
) -> list[R]:
    """The values of promises of any number of instances, in the order given, by one call to the broker.

    It waits, for ever unless `timeout` says how many seconds, and raises TimeoutError; or, as soon as one of them is
    known to have failed, what resolve() raises for it. `outcome(promise)` gives a Failure in its place.
    """
    wanted = list(pairs)
    owners: dict[bytes, bytes] = {}
    places: dict[bytes, list[int]] = {}
    for place, (instance, promise) in enumerate(wanted):
        if isinstance(promise, DAGPromise):
            owners[promise.node_id] = owner_of(instance, promise)
            places.setdefault(promise.node_id, []).append(place)
    _check_wait("resolve_all()", [promise for _, promise in wanted])
    values: list[Any] = [plain(promise) for _, promise in wanted]  # what a plain entry point returned is its value
    waiting = Waiting(owners)
    for heard in waiting.ended(timeout):
        for place in places[heard.node_id]:
            values[place] = _value(wanted[place][1], heard)
    if waiting.left:
        raise _not_ended(waiting, len(owners), timeout, wanted[places[waiting.left[0]][0]][1])
    return values


def as_completed(
    instance: DAGInstance, promises: Iterable[DAGPromise[R]], *, timeout: float | None = None
) -> AsCompleted[R]:
    """The promises, each once, in the order in which their nodes end, however they do: for `for` and `async for`.

    `resolve(instance, promise)` of one that has just come has its value at hand. Raises TimeoutError when some have
    not ended `timeout` seconds after this call; None means that there is no such time.
    """
    wanted = dict.fromkeys(promises)
    for promise in wanted:
        if not isinstance(promise, DAGPromise):
            raise TypeError(f"as_completed() takes promises, not a {type(promise).__qualname__}")
        owner_of(instance, promise)
    _check_wait("as_completed()", list(wanted))
    return AsCompleted(instance.instance_id.bytes, list(wanted), timeout)


class AsCompleted(Generic[R]):
    """What as_completed() returns; each `for` begins anew with those that have ended."""

    def __init__(self, owner: bytes, promises: list[DAGPromise[R]], timeout: float | None) -> None:
        self._owner = owner
        self._promises = {promise.node_id: promise for promise in promises}
        self._timeout = timeout
        self._until = None if timeout is None else monotonic() + timeout

    def __iter__(self) -> Iterator[DAGPromise[R]]:
        waiting = self._waiting()
        for heard in waiting.ended(self._seconds()):
            with _at_hand(heard):
                yield self._promises[heard.node_id]
        self._check(waiting)

    async def __aiter__(self) -> AsyncIterator[DAGPromise[R]]:
        waiting = self._waiting()
        ended = waiting.ended(self._seconds())
        async with Beside(waiting.close) as thread:
            while (heard := await thread.run(_next, ended)) is not None:
                with _at_hand(heard):
                    yield self._promises[heard.node_id]
        self._check(waiting)

    def _waiting(self) -> Waiting:
        return Waiting(dict.fromkeys(self._promises, self._owner))

    def _seconds(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - monotonic())

    def _check(self, waiting: Waiting) -> None:
        if waiting.left:
            one = self._promises[waiting.left[0]]
            raise _not_ended(waiting, len(self._promises), self._timeout, one)


def _check_wait(what: str, promises: Sequence[object]) -> None:
    """Raises PromiseMisuse inside a node, and ValueError where there are too many."""
    if _is_inside():
        raise _would_wait(what, next(iter(promises), None))
    if len(promises) > MOST_AT_ONCE:
        raise ValueError(f"{len(promises):,} promises are more than one call can wait for ({MOST_AT_ONCE:,})")


def _not_ended(waiting: Waiting, of: int, timeout: float | None, one: object) -> TimeoutError:
    left = f"{len(waiting.left)} of {of} promises have not ended after {timeout} seconds"
    return TimeoutError(f"{left}, one of them {one!r}{_because(waiting)}")


def _because(waiting: Waiting) -> str:
    """What the broker says of the nodes that are left, to be added to a sentence."""
    text = reasons(waiting.unanswered).text
    return f": {text}" if text else ""


def _next(ended: Iterator[Heard]) -> Heard | None:
    return next(ended, None)


# --- one promise -----------------------------------------------------------------------------------


def _waiting(instance: DAGInstance, promise: DAGPromise[Any]) -> Waiting:
    return Waiting({promise.node_id: owner_of(instance, promise)})


def _is_inside() -> bool:
    return attempt_here() is not None


def _resolved(waiting: Waiting, promise: DAGPromise[Any], timeout: float | None, is_inside: bool) -> Any:
    """The value once the node has ended; inside a node, only if it has."""
    heard = _known(promise) or next(waiting.ended(0 if is_inside else timeout), None)
    if heard is not None:
        return _value(promise, heard)
    if is_inside and timeout != 0:
        raise _would_wait("resolve()", promise)
    raise TimeoutError(f"there is no value after {timeout} seconds: {promise!r}{_because(waiting)}")


def _would_wait(what: str, promise: object) -> PromiseMisuse:
    return PromiseMisuse(
        f"{what} would wait inside a running node, in the slot that the other node may need: {promise!r}; "
        "return the promise, or pass it to another @dagorama method"
    )


def _value(promise: DAGPromise[Any], heard: Heard) -> Any:
    if heard.state is State.COMPLETED:
        values = SignedValues(keyring(), heard.envelopes)
        values.get_of(heard.node_id, heard.owner)
        return decode_promised(heard.node_id, values, get_large=broker_values().get)
    is_cancelled = heard.state is State.CANCELLED
    if isinstance(promise, Outcome):
        return failure_of(heard.failure, is_cancelled, heard.owner)
    raise error_of(heard.failure, promise, is_cancelled, heard.owner)


# --- what as_completed() has just said ---------------------------------------------------------------

_answers: dict[bytes, Heard] = {}


@contextmanager
def _at_hand(heard: Heard) -> Iterator[None]:
    """Spares resolve() the asking as long as the caller looks at this one. A failure may be undone meanwhile."""
    if heard.state is not State.COMPLETED:
        yield
        return
    _answers[heard.node_id] = heard
    try:
        yield
    finally:
        _answers.pop(heard.node_id, None)


def _known(promise: DAGPromise[Any]) -> Heard | None:
    return _answers.get(promise.node_id)
