"""What a program does about an instance: look where a node stands, cancel, have what failed run again."""

from __future__ import annotations

from typing import Any

from dagorama.api import broker_pb2
from dagorama.client.connection import connection
from dagorama.client.rebind import retry
from dagorama.client.waiter import Waiting, check_instance, owner_of
from dagorama.errors import PromiseMisuse
from dagorama.inspection import find_promises
from dagorama.logging import get_logger
from dagorama.models.promise import DAGPromise, InstanceRef
from dagorama.models.state import Retried, State, Unservable

#: Seconds that a retry waits for a worker to say that it has other code than the nodes were made with.
PATIENCE = 0.25


def state(instance: InstanceRef, promise: DAGPromise[Any]) -> State:
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


def cancel(instance: InstanceRef, promise: DAGPromise[Any] | None = None) -> int:
    """Cancels the node of a promise and all that depends on it, or all of the instance; returns how many nodes.

    What has not started never does. What runs is told, by `dagorama.cancelled()` or asyncio.CancelledError, and
    stopped after a grace. What had ended stays as it is. Whoever waits gets NodeCancelled.
    """
    return connection().cancel(*_nodes("cancel()", instance, promise))


def retry_failed(
    instance: InstanceRef, promise: DAGPromise[Any] | None = None, *, downstream: bool = False, new_code: bool = False
) -> Retried:
    """Has the node of a promise run again, or all of the instance that failed; returns how many nodes go on.

    A node that failed because of another stands for that one. What failed because of it waits for it again; what has
    completed stays as it is, and nothing that a node has made is made twice. A node that runs again has all its
    attempts. What was cancelled is not run again, nor a node whose failure an unfinished one takes for a value
    (`outcome`): RefusedByBroker says so.

    Nodes that have used one of the failures as a value are counted, and a warning is logged. `downstream`: they run
    again too, with everything that depends on them, also if they have completed; what they have made before is
    kept, but belongs to a dead attempt, and is cancelled as far as it is unfinished. `new_code`: the nodes, and
    unfinished ones that wait for them, are run by the code that is deployed instead of that which made them; so are
    nodes that were retried before and are queued for code that no connected worker has. This is signed, with the first
    signing key of this process, for the instance of the call: nodes of other instances stay with their code.
    """
    id, nodes = _nodes("retry_failed()", instance, promise)
    request = broker_pb2.RetryRequest(
        instance=id, node=nodes, downstream=downstream, new_code=new_code, patience=PATIENCE
    )
    retried = retried_of(retry(connection(), request))
    for warning in retried.warnings:
        get_logger().warning("retry of %s: %s", instance.instance_id, warning)
    return retried


def retried_of(reply: broker_pb2.RetryReply) -> Retried:
    """Return the broker's reply to a retry as a Retried."""
    unservable = [
        Unservable(each.function.name, each.function.hash, tuple(each.deployed), each.reason)
        for each in reply.unservable
    ]
    return Retried(
        reply.queued, reply.waiting, reply.completed, reply.used_failures, reply.adopted, tuple(unservable)
    )


def _nodes(what: str, instance: InstanceRef, promise: Any) -> tuple[bytes, list[bytes]]:
    check_instance(what, instance)
    if promise is None:
        return instance.instance_id.bytes, []
    if not isinstance(promise, DAGPromise):
        raise TypeError(f"a promise of {instance!r} is needed, or None for all of it, not a {type(promise).__name__}")
    return owner_of(instance, promise), [promise.node_id]
