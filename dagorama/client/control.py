"""Control of an instance: read the state of a node, cancel nodes, retry failed ones."""

from __future__ import annotations

from typing import Any

from dagorama.api import broker_pb2
from dagorama.client.connection import connection
from dagorama.client.rebind import retry
from dagorama.client.waiter import NodeWaiter, check_instance, owner_of, refuse_held_back
from dagorama.errors import PromiseMisuse
from dagorama.inspection import find_promises
from dagorama.logging import get_logger
from dagorama.models.promise import DAGPromise, InstanceRef
from dagorama.models.state import Retried, State, Unschedulable

#: Seconds that a retry waits for a worker to report other code than the code that the nodes were created with.
PATIENCE = 0.25


def state(instance: InstanceRef, promise: DAGPromise[Any]) -> State:
    """Return the state of the node of a promise, without waiting.

    It tells a node that has not ended from a node whose value is None. Raises NotFound if there is no such node.
    """
    check_instance("state()", instance)
    if not isinstance(promise, DAGPromise):
        if find_promises(promise):
            raise PromiseMisuse(f"state() takes one promise, not a {type(promise).__qualname__} that contains promises")
        return State.COMPLETED  # the result of an entry point that is not decorated
    (heard,) = NodeWaiter({promise.node_id: owner_of(instance, promise)}).ask()
    return heard.state


def cancel(instance: InstanceRef, promise: DAGPromise[Any] | None = None) -> int:
    """Cancel the node of a promise and all nodes downstream, or the whole instance; return the number of nodes.

    Nodes that have not started are dropped. Running nodes are signalled by `dagorama.cancelled()` or
    asyncio.CancelledError, and stopped after a grace period. Nodes that have ended stay as they are. A wait for a
    cancelled node raises NodeCancelled.
    """
    return connection().cancel(*_nodes("cancel()", instance, promise))


def delete(instance: InstanceRef) -> int:
    """Delete an ended instance with its values before its retention is over; return how many nodes it had.

    Afterwards it is unknown, and the ID that `start()` has given to it may be used again. Raises NotFound, or
    RequestRejected if it has unfinished nodes, or if another instance needs its values.
    """
    return connection().delete(_nodes("delete()", instance, None)[0])


def retry_failed(
    instance: InstanceRef, promise: DAGPromise[Any] | None = None, *, downstream: bool = False, new_code: bool = False
) -> Retried:
    """Retry the failed node of a promise, or all failed nodes of the instance; return the number of retried nodes.

    If the node failed because of another one, that one is retried. Nodes downstream that failed because of it wait for
    it again, completed nodes are kept, and no child node is created twice. A retried node gets all its attempts again.
    Raises RequestRejected for cancelled nodes, and for a node whose failure an unfinished node takes as a value
    (`outcome`).

    If nodes have used one of the failures as a value, they are counted and a warning is logged. With `downstream` these
    nodes run again too, and so do all nodes downstream of them, even completed ones; their earlier child nodes are kept
    as children of an aborted attempt, and cancelled if they are unfinished. If the promise is of a `wait_for` that has
    got its signal, or has taken its default, the node waits for another one. With `new_code` the nodes, unfinished
    nodes that wait for them, and retried nodes that are queued for code that no connected worker has, are run with the
    deployed code. This process signs the permission for this instance alone, with its first signing key, so that nodes
    of other instances keep their code.
    """
    owner, nodes = _nodes("retry_failed()", instance, promise)
    request = broker_pb2.RetryRequest(
        instance=owner, node=nodes, downstream=downstream, new_code=new_code, patience=PATIENCE
    )
    retried = retried_of(retry(connection(), request))
    for warning in retried.warnings:
        get_logger().warning("retry of %s: %s", instance.instance_id, warning)
    return retried


def retried_of(reply: broker_pb2.RetryReply) -> Retried:
    """Return the broker's reply to a retry as a Retried."""
    unservable = [
        Unschedulable(each.function.name, each.function.hash, tuple(each.deployed), each.reason)
        for each in reply.unschedulable
    ]
    return Retried(reply.queued, reply.waiting, reply.completed, reply.used_failures, reply.rebound, tuple(unservable))


def _nodes(what: str, instance: InstanceRef, promise: Any) -> tuple[bytes, list[bytes]]:
    check_instance(what, instance)
    refuse_held_back(what, instance.instance_id.bytes)
    if promise is None:
        return instance.instance_id.bytes, []
    if not isinstance(promise, DAGPromise):
        kind = type(promise).__name__
        raise TypeError(f"a promise of {instance!r} is needed, or None for the whole instance, not a {kind}")
    return owner_of(instance, promise), [promise.node_id]
