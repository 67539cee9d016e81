"""Yield promises in the order in which their nodes end: `as_completed()`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Generic, TypeVar

from dagorama.client.connection import clock_of_waits
from dagorama.client.results import check_number, is_inside, not_ended, would_wait
from dagorama.client.timeouts import checked_timeout
from dagorama.client.waiter import NodeResult, NodeWaiter, at_hand, check_instance, owner_of
from dagorama.client.worker_thread import WaiterThread
from dagorama.models.promise import DAGPromise, InstanceRef

R = TypeVar("R")


def as_completed(
    instance: InstanceRef, promises: Iterable[DAGPromise[R]], *, timeout: float | None = None
) -> AsCompleted[R]:
    """Yield each promise once, in the order in which their nodes end or fail: for `for` and `async for`.

    `resolve(instance, promise)` of the promise just yielded does not ask the broker again. Raises TimeoutError if some
    nodes have not ended `timeout` seconds after this call; None means no limit.
    """
    check_instance("as_completed()", instance)
    seconds = checked_timeout(timeout)
    given = list(promises)
    for promise in given:
        if not isinstance(promise, DAGPromise):
            raise TypeError(f"as_completed() takes promises, not a {type(promise).__qualname__}")
        owner_of(instance, promise)
    if is_inside():
        raise would_wait("as_completed()", next(iter(given), None))
    check_number(len(given))
    return AsCompleted(instance.instance_id.bytes, list(dict.fromkeys(given)), seconds)


class AsCompleted(Generic[R]):
    """The result of as_completed(); each `for` loop starts again with the nodes that have ended."""

    def __init__(self, owner: bytes, promises: list[DAGPromise[R]], timeout: float | None) -> None:
        self._owner = owner
        self._promises = {promise.node_id: promise for promise in promises}
        self._timeout = timeout
        self._until = None if timeout is None else clock_of_waits().monotonic() + timeout

    def __iter__(self) -> Iterator[DAGPromise[R]]:
        waiting = self._waiting()
        for heard in waiting.ended(self._seconds()):
            with at_hand(heard):
                yield self._promises[heard.node_id]
        self._check(waiting)

    async def __aiter__(self) -> AsyncIterator[DAGPromise[R]]:
        waiting = self._waiting()
        ended = waiting.ended(self._seconds())
        async with WaiterThread(waiting.close) as thread:
            while (heard := await thread.run(_next, ended)) is not None:
                with at_hand(heard):
                    yield self._promises[heard.node_id]
        self._check(waiting)

    def _waiting(self) -> NodeWaiter:
        return NodeWaiter(dict.fromkeys(self._promises, self._owner))

    def _seconds(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - clock_of_waits().monotonic())

    def _check(self, waiting: NodeWaiter) -> None:
        if waiting.left:
            one = self._promises[waiting.left[0]]
            raise not_ended(waiting, len(self._promises), self._timeout, one)


def _next(ended: Iterator[NodeResult]) -> NodeResult | None:
    return next(ended, None)
