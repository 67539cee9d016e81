"""Answers to Explain: why nodes have not ended, according to the scheduler, as messages and as one line for people."""

from __future__ import annotations

from collections.abc import Iterable

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.rpc.fields import LONGEST_REASON, bounded, id_bytes
from dagorama_broker.rpc.functions import function_message
from dagorama_broker.rpc.wait_request import owners_of
from dagorama_broker.scheduler import Node, NodeStatus, Obstacle, Scheduler

#: Nodes that one request may name.
MOST_ASKED = 10_000
#: Functions in one answer.
MOST_NAMED = 100


def explain(broker: Broker, request: pb.ExplainRequest) -> pb.ExplainReply:
    """Return why the nodes of a request have not ended. Raise InvalidArgument."""
    if not 0 < len(request.node) <= MOST_ASKED:
        raise InvalidArgument(f"the request names {len(request.node)} nodes; 1 to {MOST_ASKED:,} are allowed")
    scheduler = broker.scheduler
    standing = scheduler.explainer().explain(_unfinished(broker, request))
    obstacles = list(standing.obstacles.values())[:MOST_NAMED]
    return pb.ExplainReply(
        unschedulable=[bounded_message(scheduler, obstacle) for obstacle in obstacles],
        waiting=standing.waiting,
        queued=standing.queued,
        running=standing.running,
        delayed=standing.delayed,
        worker=standing.worker,
        retry_at=standing.retry_at + scheduler.wall if standing.retry_at else 0.0,
        more=standing.more or len(obstacles) < len(standing.obstacles),
    )


def _unfinished(broker: Broker, request: pb.ExplainRequest) -> Iterable[Node]:
    for id, owner in owners_of(request).items():
        node = broker.scheduler.node(id_bytes(id, "a node"))
        if node is not None and node.instance.id == owner:
            yield node


def unschedulable_message(scheduler: Scheduler, obstacle: Obstacle) -> pb.Unschedulable:
    """Describe queued nodes of a function that no connected worker may run."""
    queue, queued, reason = obstacle
    deployed = scheduler.deployed(queue)
    return pb.Unschedulable(function=function_message(queue.function), queued=queued, reason=reason, deployed=deployed)


def bounded_message(scheduler: Scheduler, obstacle: Obstacle) -> pb.Unschedulable:
    """Describe queued nodes that no worker may run, with a reason of limited length, as a part of other replies."""
    return unschedulable_message(scheduler, obstacle._replace(reason=bounded(obstacle.reason, LONGEST_REASON)))


def in_a_line(standing: NodeStatus) -> str:
    """Return in one line which queued nodes cannot run, and why."""
    at_least = "at least " if standing.more else ""
    parts = (
        f"{at_least}{queued} queued {'node' if queued == 1 else 'nodes'} of {queue.function.name}: {reason}"
        for queue, queued, reason in standing.obstacles.values()
    )
    return bounded("; ".join(parts), LONGEST_REASON)
