"""Answers to Explain, and the same in one line for people: why nodes have not ended, as the heart says it."""

from __future__ import annotations

from collections.abc import Iterable

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import Malformed
from dagorama_broker.rpc.messages import bounded, function_message, id_bytes
from dagorama_broker.rpc.wait_request import owners_of
from dagorama_broker.scheduler import Explainer, Node, Obstacle, Scheduler, Standing

#: Nodes that one call may ask about.
MOST_ASKED = 10_000
#: Functions that one answer names.
MOST_NAMED = 100
LONGEST_REASON = 1_000


def explain(broker: Broker, request: pb.ExplainRequest) -> pb.ExplainReply:
    """Raises Malformed."""
    if not 0 < len(request.node) <= MOST_ASKED:
        raise Malformed(f"{len(request.node)} nodes are asked about; 1 to {MOST_ASKED:,} are allowed")
    scheduler = broker.scheduler
    standing = Explainer(scheduler.dispatch).explain(_unfinished(broker, request))
    obstacles = list(standing.obstacles.values())[:MOST_NAMED]
    return pb.ExplainReply(
        unservable=[bounded_message(scheduler, obstacle) for obstacle in obstacles],
        waiting=standing.waiting, queued=standing.queued, running=standing.running, delayed=standing.delayed,
        worker=standing.worker, retry_at=standing.retry_at + scheduler.graph.wall if standing.retry_at else 0.0,
        more=standing.more or len(obstacles) < len(standing.obstacles),
    )


def _unfinished(broker: Broker, request: pb.ExplainRequest) -> Iterable[Node]:
    for id, owner in owners_of(request).items():
        node = broker.scheduler.graph.find(id_bytes(id, "a node"))
        if node is not None and node.instance.id == owner:
            yield node


def unservable_message(scheduler: Scheduler, obstacle: Obstacle) -> pb.Unservable:
    """Queued nodes of a function that no connected worker may run."""
    lane, queued, reason = obstacle
    deployed = scheduler.dispatch.deployed(lane)
    return pb.Unservable(function=function_message(lane.function), queued=queued, reason=reason, deployed=deployed)


def bounded_message(scheduler: Scheduler, obstacle: Obstacle) -> pb.Unservable:
    """The same with a reason of bounded length, for those who did not ask for a list of them."""
    return unservable_message(scheduler, obstacle._replace(reason=bounded(obstacle.reason, LONGEST_REASON)))


def in_a_line(standing: Standing) -> str:
    """Which queued nodes hold it up, and why."""
    at_least = "at least " if standing.more else ""
    parts = (
        f"{at_least}{queued} queued {'node' if queued == 1 else 'nodes'} of {lane.function.name}: {reason}"
        for lane, queued, reason in standing.obstacles.values()
    )
    return bounded("; ".join(parts), LONGEST_REASON)
