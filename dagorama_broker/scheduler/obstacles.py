"""Explains why nodes have not ended: the states of all that they wait for, and what no connected worker may run.

Nothing is changed here, and one call examines a bounded number of nodes and edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from dagorama_broker.model.domain import ENDED
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.effects import Obstacle
from dagorama_broker.scheduler.instances import Instance
from dagorama_broker.scheduler.objects import Node, Worker
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.transitions import BACKOFF, CLAIMED, QUEUED, RESOLVING, WAITING

#: Nodes and edges that one call looks at: a few milliseconds.
MOST = 10_000
#: Nodes and edges that it looks at to find out whether one instance is stuck.
EACH = 2_000


@dataclass(slots=True)
class NodeStatus:
    """Counts unfinished nodes by what they wait for, each once."""

    obstacles: dict[int, Obstacle] = field(default_factory=dict)  #: by the ID of the function
    counts: dict[int, int] = field(default_factory=dict)  #: nodes of each of them
    waiting: int = 0
    queued: int = 0  #: nodes that a connected worker may run
    running: int = 0
    delayed: int = 0
    worker: str = ""  #: the name of one that runs one of them
    retry_at: float = 0.0  #: the scheduler's clock: when the first delayed one is queued again; 0: none is
    more: bool = False  #: there are more than were looked at

    @property
    def can_proceed(self) -> bool:
        return bool(self.queued or self.running or self.delayed)

    @property
    def is_stuck(self) -> bool:
        """Whether nothing happens until another worker connects, as far as was looked at."""
        return bool(self.obstacles) and not self.can_proceed


class Explainer:
    """Explains nodes and instances; all its answers together look at no more than `most` nodes and edges."""

    def __init__(self, claims: Claims, most: int = MOST) -> None:
        self._claims = claims
        self._left = most
        self._reasons: dict[int, str | None] = {}  # by the ID of a function

    def explain(self, nodes: Iterable[Node | None], *, until_one_proceeds: bool = False) -> NodeStatus:
        """Return the states of these nodes and all that they wait for. Ended nodes do not count."""
        standing, seen = NodeStatus(), set[int]()
        for first in self._bounded(nodes, standing):
            for node in self._closure(first, seen, standing):
                self._count(node, standing)
            if until_one_proceeds and standing.can_proceed:
                break
        for id, queued in standing.counts.items():
            standing.obstacles[id] = standing.obstacles[id]._replace(queued=queued)
        return standing

    def ends(self, nodes: Iterable[Node]) -> tuple[list[Node], bool]:
        """Return the unfinished nodes among these and all that they wait for which wait for no other node.

        Also return whether all of them were looked at.
        """
        standing, seen = NodeStatus(), set[int]()
        found = [
            node
            for first in self._bounded(nodes, standing)
            for node in self._closure(first, seen, standing)
            if not awaited(node)
        ]
        return found, not standing.more

    def _closure(self, first: Node, seen: set[int], standing: NodeStatus) -> Iterator[Node]:
        """Yield a node and all that it waits for, without ended nodes and nodes in `seen`, to which they are added."""
        stack = [first]
        while stack:
            node = stack.pop()
            if node.state not in ENDED and node.key not in seen:
                seen.add(node.key)
                yield node
                stack.extend(self._bounded(awaited(node), standing))

    def unschedulable_nodes(self, instance: Instance) -> NodeStatus | None:
        """Return the states of an instance in which nothing can proceed; None: something can, or it is not known."""
        share = min(self._left, EACH)
        rest, self._left = self._left - share, share
        standing = self.explain(self._unfinished(instance), until_one_proceeds=True)
        self._left += rest
        return standing if standing.is_stuck and not (standing.more and self._may_proceed(instance)) else None

    def _may_proceed(self, instance: Instance) -> bool:
        """Return whether a node of an instance that was not looked at to the end can proceed; in doubt, it can."""
        graph, claimed = self._claims.graph, self._claims.claimed
        queues = [queue for queue in graph.active.values() if self._reason(queue) is None]
        keyed = sum(queue.keyed_ready for queue in queues) and len(graph.keyed)
        if len(claimed) + len(graph.pauses) + keyed + sum(queue.queued + len(queue) for queue in queues) > MOST:
            return True
        delayed = (graph.nodes.get(key) for _, key in graph.pauses)
        held = (node for node in chain(claimed.values(), delayed) if node is not None and node.instance is instance)
        if keyed:
            queues += [queue for queue in graph.keyed.values() if queue.ready and self._reason(queue) is None]
        return any(held) or any(queue.holds(instance.rank) for queue in queues)

    def _reason(self, queue: FunctionQueue) -> str | None:
        if queue.id not in self._reasons:
            self._reasons[queue.id] = self._claims.unschedulable_reason(queue)
        return self._reasons[queue.id]

    def _unfinished(self, instance: Instance) -> Iterator[Node | None]:
        """Yield its unfinished nodes, and None for each ended one that was looked at."""
        nodes, left = self._claims.graph.nodes, instance.live
        for block in instance.blocks:
            for key in range(block.first_key, block.first_key + block.count):
                if not left:
                    return
                node = nodes.get(key)
                left -= node is not None
                yield node

    def _bounded(self, nodes: Iterable[Node | None], standing: NodeStatus) -> Iterator[Node]:
        for node in nodes:
            if self._left <= 0:
                standing.more = True
                return
            self._left -= 1
            if node is not None:
                yield node

    def _count(self, node: Node, standing: NodeStatus) -> None:
        state = node.state
        if state is QUEUED:
            self._count_queued(node.queue, standing)
        elif state is CLAIMED:
            standing.running += 1
            if node.slot is not None:
                standing.worker = node.slot.worker.info.name
        elif state is BACKOFF:
            standing.delayed += 1
            retry_at = node.failures.retry_at if node.failures is not None else 0.0
            standing.retry_at = min(standing.retry_at or retry_at, retry_at)
        else:
            standing.waiting += 1

    def _count_queued(self, queue: FunctionQueue, standing: NodeStatus) -> None:
        id, counts = queue.id, standing.counts
        if id in counts:
            counts[id] += 1
            return
        reason = self._reason(queue)
        if reason is None:
            standing.queued += 1
        else:
            standing.obstacles[id] = Obstacle(queue, 1, reason)
            counts[id] = 1


def awaited(node: Node) -> Sequence[Node]:
    """Return the nodes that a node waits for, ended or not."""
    if node.state is WAITING:
        return node.sources if node.twin is None else (*node.sources, node.twin)
    return node.refs if node.state is RESOLVING else ()


def left_behind(claims: Claims, worker: Worker) -> list[Obstacle]:
    """Return queued nodes that no connected worker may run, by function, of the queues that a worker serves.

    Call it while the worker is still granted nodes, because its own reason counts, too.
    """
    own = worker.info
    active = claims.graph.active.values()
    queues = [queue for queue in active if queue.function.protocol is own.protocol and own.takes(queue.function.queue)]
    return [Obstacle(queue, queue.queued, reason) for queue, reason in claims.unschedulable(queues)]
