"""The values of promises: ask the broker, or wait, and put the values together.

The rule: without `timeout` resolve() does not wait. Nothing waits inside a running node, because it would occupy the
slot that the other node may need.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dagorama.client.explain import why
from dagorama.client.large_values import broker_values, dereference
from dagorama.client.timeouts import checked_timeout
from dagorama.client.waiter import NodeResult, NodeWaiter, check_instance, known, owner_of
from dagorama.client.worker_thread import WaiterThread
from dagorama.context import attempt_here
from dagorama.errors import PromiseMisuse
from dagorama.inspection import find_promises, map_promises
from dagorama.models.outcome import Outcome
from dagorama.models.promise import DAGPromise, InstanceRef
from dagorama.models.state import State
from dagorama.values.assembly import decode_promised
from dagorama.values.failures import error_of, failure_of
from dagorama.values.pickling import promises_in
from dagorama.values.signing import SignedValues, keyring

if TYPE_CHECKING:
    from dagorama.client.shown_progress import ShownProgress

R = TypeVar("R")

#: The largest number of nodes that one call can wait for: their IDs must fit into a message.
MOST_AT_ONCE = 200_000


class _Timeout(Enum):
    NOT_GIVEN = "not given"


@overload
def resolve(instance: InstanceRef, promise: DAGPromise[R]) -> R | None: ...
@overload
def resolve(instance: InstanceRef, promise: DAGPromise[R], *, timeout: float | None, progress: bool = False) -> R: ...
def resolve(
    instance: InstanceRef,
    promise: Any,
    *,
    timeout: float | _Timeout | None = _Timeout.NOT_GIVEN,
    progress: bool = False,
) -> Any:
    """Return the value of a promise, with the promises in it resolved.

    Without `timeout` it never waits, and returns None if there is no value; use `state` to tell this from a value that
    is None. With `timeout` it waits for that number of seconds (None: forever) and then raises TimeoutError. With
    `progress` it shows the progress of the instance while it waits: as a table on a terminal, as lines if stderr is not
    a terminal, or as HTML in a notebook.

    If the node ended without a value it raises NodeFailed or a subclass (NodeCancelled, QueueTimeout, WorkerLost,
    ProcessDied, ResultRejected), or returns a Failure for `outcome(promise)`. Raises NotFound if there is no
    such node, UnverifiedValue and TamperedValue if the signature of the value is missing or wrong.

    The result of an entry point that is not decorated is returned as it is; if it is a container or a dataclass with
    promises in it, a copy with their values is returned. Raises PromiseMisuse if another object holds a promise.
    """
    check_instance("resolve()", instance)
    waits = timeout is not _Timeout.NOT_GIVEN
    if progress and not waits:
        raise TypeError("resolve() shows progress while it waits: pass timeout too; timeout=None waits forever")
    seconds = checked_timeout(timeout) if waits else None
    if not isinstance(promise, DAGPromise):
        with _shown(instance, progress):
            return _Wanted("resolve()", [(instance, promise)]).resolved(waits, seconds, is_inside())
    waiting = _waiting(instance, promise)
    if waits:
        with _shown(instance, progress):
            return _resolved(waiting, promise, seconds, is_inside())
    heard = known(promise) or waiting.ask()[0]
    return _value(promise, heard) if heard.state.has_ended else None


async def aresolve(
    instance: InstanceRef, promise: DAGPromise[R], *, timeout: float | None = None, progress: bool = False
) -> R:
    """Wait for the value of a promise in async code, forever or for `timeout` seconds; see resolve().

    Other tasks run meanwhile. Cancelling this coroutine ends the wait only; `cancel` cancels the node.
    """
    check_instance("aresolve()", instance)
    seconds = checked_timeout(timeout)
    async with _shown(instance, progress):
        if not isinstance(promise, DAGPromise):
            wanted = _Wanted("aresolve()", [(instance, promise)])
            async with WaiterThread(wanted.waiting.close) as thread:
                filled: R = await thread.run(wanted.resolved, True, seconds, is_inside())
                return filled
        waiting = _waiting(instance, promise)
        async with WaiterThread(waiting.close) as thread:
            value: R = await thread.run(_resolved, waiting, promise, seconds, is_inside())
            return value


def resolve_all(pairs: Iterable[tuple[InstanceRef, DAGPromise[R]]], *, timeout: float | None = None) -> list[R]:
    """Return the values of promises of any number of instances, in the given order, with one call to the broker.

    It waits, forever or for `timeout` seconds, and then raises TimeoutError. As soon as one of the nodes has failed, it
    raises the error that resolve() raises for that node; `outcome(promise)` gives a Failure instead.
    """
    seconds = checked_timeout(timeout)
    wanted = _Wanted("resolve_all()", pairs)
    if is_inside():
        raise would_wait("resolve_all()", next((value for _, value in wanted.pairs), None))
    return wanted.all_within(seconds)


class _Wanted:
    """Promises, and plain values that may contain some, with their instances: wait for all of them and fill them in."""

    def __init__(self, what: str, pairs: Iterable[tuple[InstanceRef, Any]]) -> None:
        self._what = what
        self.pairs = list(pairs)
        self._owners: dict[bytes, bytes] = {}
        self._places: dict[bytes, list[tuple[int, DAGPromise[Any]]]] = {}
        for place, pair in enumerate(self.pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"{what} takes pairs (instance, promise), not a {type(pair).__name__}")
            instance, value = pair
            check_instance(what, instance)
            for promise in (value,) if isinstance(value, DAGPromise) else _promises_to_fill(what, value):
                self._owners[promise.node_id] = owner_of(instance, promise)
                self._places.setdefault(promise.node_id, []).append((place, promise))
        check_number(len(self._owners))
        self.waiting = NodeWaiter(self._owners)

    def resolved(self, waits: bool, timeout: float | None, is_inside: bool) -> Any:
        """Return the single value; without `waits`, None if a promise in it has no value."""
        if waits and not is_inside:
            return self.all_within(timeout)[0]
        heard = self.waiting.ask() if self._owners else []
        if all(each.state.has_ended for each in heard):
            return _filled(*self._known(heard))[0]
        if not waits:
            return None
        if is_inside and timeout != 0:
            raise would_wait(self._what, self.pairs[0][1])
        raise _no_value(self.waiting, timeout, self.pairs[0][1])

    def all_within(self, timeout: float | None) -> list[Any]:
        """Return all values, in order; raise as soon as one of the nodes has failed."""
        known = self._known(self.waiting.ended(timeout))
        if left := self.waiting.left:
            raise not_ended(self.waiting, len(self._owners), timeout, self._places[left[0]][0][1])
        return _filled(*known)

    def _known(self, all_heard: Iterable[NodeResult]) -> tuple[list[Any], dict[int, dict[DAGPromise[Any], object]]]:
        """Return all values in order, and for values that contain promises, by index, the values of these promises."""
        values = [dereference(value) for _, value in self.pairs]
        inner: dict[int, dict[DAGPromise[Any], object]] = {}
        for heard in all_heard:
            for place, promise in self._places[heard.node_id]:
                value = _value(promise, heard)
                if promise is self.pairs[place][1]:
                    values[place] = value
                else:
                    inner.setdefault(place, {})[promise] = value
        return values, inner


def _promises_to_fill(what: str, value: object) -> list[DAGPromise[Any]]:
    """Return the promises in a value; raise PromiseMisuse if one is in an object that no copy is made of."""
    found = find_promises(value)
    known = set(found)
    hidden = next((promise for promise in promises_in(value) if promise not in known), None)
    if hidden is not None:
        raise PromiseMisuse(
            f"{what} cannot fill in the value of {hidden!r}, which is inside of another object than a container or a "
            f"dataclass, in a value of type {type(value).__name__}: decorate the entry point, or return containers"
        )
    return found


def _filled(values: list[Any], inner: dict[int, dict[DAGPromise[Any], object]]) -> list[Any]:
    for place, found in inner.items():
        values[place] = map_promises(values[place], found.__getitem__)
    return values


def check_number(promises: int) -> None:
    """Raise ValueError if one call cannot wait for this number of promises."""
    if promises > MOST_AT_ONCE:
        raise ValueError(f"{promises:,} promises are more than one call can wait for ({MOST_AT_ONCE:,})")


def not_ended(waiting: NodeWaiter, of: int, timeout: float | None, one: object) -> TimeoutError:
    """Return the error for promises that have not ended in time; `one` is one of them."""
    left = f"{len(waiting.left)} of {of} promises have not ended after {timeout} seconds"
    return TimeoutError(f"{left}, one of them {one!r}{_because(waiting)}")


def _because(waiting: NodeWaiter) -> str:
    """Return the reasons why nodes have not ended, as the end of a sentence."""
    text = why(waiting.unanswered)
    return f": {text}" if text else ""


# --- one promise -----------------------------------------------------------------------------------


def _waiting(instance: InstanceRef, promise: DAGPromise[Any]) -> NodeWaiter:
    return NodeWaiter({promise.node_id: owner_of(instance, promise)})


def _shown(instance: InstanceRef, progress: bool) -> ShownProgress | nullcontext[None]:
    """Return a context that shows the progress of an instance, if it is wanted here."""
    if not progress or is_inside():
        return nullcontext()
    from dagorama.client.shown_progress import ShownProgress

    return ShownProgress(instance.instance_id.bytes)


def is_inside() -> bool:
    """Return whether a node runs here."""
    return attempt_here() is not None


def _resolved(waiting: NodeWaiter, promise: DAGPromise[Any], timeout: float | None, is_inside: bool) -> Any:
    """Return the value when the node has ended; inside a running node, do not wait for it."""
    heard = known(promise) or next(waiting.ended(0 if is_inside else timeout), None)
    if heard is not None:
        return _value(promise, heard)
    if is_inside and timeout != 0:
        raise would_wait("resolve()", promise)
    raise _no_value(waiting, timeout, promise)


def _no_value(waiting: NodeWaiter, timeout: float | None, wanted: object) -> TimeoutError:
    return TimeoutError(f"there is no value after {timeout} seconds: {wanted!r}{_because(waiting)}")


def would_wait(what: str, promise: object) -> PromiseMisuse:
    """Return the error for a wait inside a running node."""
    return PromiseMisuse(
        f"{what} would wait inside a running node and occupy the slot that the other node may need: {promise!r}; "
        "return the promise, or pass it to another @dagorama method"
    )


def _value(promise: DAGPromise[Any], heard: NodeResult) -> Any:
    if heard.state is State.COMPLETED:
        values = SignedValues(keyring(), heard.envelopes)
        values.get_of(heard.node_id, heard.owner)
        return decode_promised(heard.node_id, values, get_large=broker_values().get)
    is_cancelled = heard.state is State.CANCELLED
    if isinstance(promise, Outcome):
        return failure_of(heard.failure, is_cancelled, heard.owner)
    raise error_of(heard.failure, promise, is_cancelled, heard.owner)
