"""What a program does about an instance: look where a node stands, cancel, have what failed run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagorama.connection import connection
from dagorama.errors import PromiseMisuse
from dagorama.inspection import find_promises
from dagorama.models.promise import DAGPromise
from dagorama.models.state import State
from dagorama.waiting import Waiting, check_instance, owner_of

if TYPE_CHECKING:
    from dagorama.instance import DAGInstance


def state(instance: DAGInstance, promise: DAGPromise[Any]) -> State:
    """Where the node of a promise stands; it never waits. Tells "not yet" from a value that is None.

    Raises UnknownToBroker when there is no such node.
    """
    check_instance("state()", instance)
    if not isinstance(promise, DAGPromise):
        if find_promises(promise):
            raise PromiseMisuse(f"state() is of one promise, not of a {type(promise).__qualname__} that holds promises")
        return State.COMPLETED  # what a plain entry point returned
    (heard,) = Waiting({promise.node_id: owner_of(instance, promise)}).ask()
    return heard.state


def cancel(instance: DAGInstance, promise: DAGPromise[Any] | None = None) -> int:
    """Cancels the node of a promise and all that depends on it, or all of the instance; returns how many nodes.

    What has not started never does. What runs is told, by `dagorama.cancelled()` or asyncio.CancelledError, and
    stopped after a grace. What had ended stays as it is. Whoever waits gets NodeCancelled.
    """
    return connection().cancel(*_nodes("cancel()", instance, promise))


def retry_failed(instance: DAGInstance, promise: DAGPromise[Any] | None = None) -> int:
    """Has the node of a promise run again, or all of the instance that failed; returns how many nodes go on.

    A node that failed because of another stands for that one. What failed because of it waits for it again; what has
    completed stays as it is, and nothing that a node has made is made twice. A node that runs again has all its
    attempts. What was cancelled is not run again, nor a node whose failure an unfinished one takes for a value
    (`outcome`): RefusedByBroker says so.
    """
    reply = connection().retry(*_nodes("retry_failed()", instance, promise))
    return reply.queued + reply.waiting


def _nodes(what: str, instance: DAGInstance, promise: Any) -> tuple[bytes, list[bytes]]:
    check_instance(what, instance)
    if promise is None:
        return instance.instance_id.bytes, []
    if not isinstance(promise, DAGPromise):
        raise TypeError(f"a promise of {instance!r} is needed, or None for all of it, not a {type(promise).__name__}")
    return owner_of(instance, promise), [promise.node_id]
