"""Why nodes have not ended: how all that they wait for stands, and which of it no connected worker may run.

The rule: nothing is changed here, and one call looks at a bounded number of nodes and of edges between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from dagorama_broker.model.domain import ENDED
from dagorama_broker.scheduler.claims import Dispatch
from dagorama_broker.scheduler.effects import Obstacle
from dagorama_broker.scheduler.objects import Instance, Node, Worker
from dagorama_broker.scheduler.queues import Lane
from dagorama_broker.scheduler.transitions import BACKOFF, CLAIMED, QUEUED, RESOLVING, WAITING

#: Nodes and edges that one call looks at: a few milliseconds.
MOST = 10_000
#: Those that it looks at to tell whether one instance is stuck.
EACH = 2_000


@dataclass(slots=True)
class Standing:
    """How unfinished nodes stand, each counted once."""

    obstacles: dict[int, Obstacle] = field(default_factory=dict)  #: by the id of their function's lane
    counts: dict[int, int] = field(default_factory=dict)  #: nodes of each of them
    waiting: int = 0
    queued: int = 0  #: those that a connected worker may run
    running: int = 0
    delayed: int = 0
    worker: str = ""  #: the name of one that runs one of them
    retry_at: float = 0.0  #: the heart's clock: when the first delayed one is queued again; 0: none is
    more: bool = False  #: there are more than were looked at

    @property
    def can_proceed(self) -> bool:
        return bool(self.queued or self.running or self.delayed)

    @property
    def is_stuck(self) -> bool:
        """Whether nothing will happen unless another worker comes, as far as it was looked at."""
        return bool(self.obstacles) and not self.can_proceed


class Explainer:
    """Looks at no more than `most` nodes and edges, for all that it is asked."""

    def __init__(self, dispatch: Dispatch, most: int = MOST) -> None:
        self._dispatch = dispatch
        self._left = most
        self._reasons: dict[int, str | None] = {}  # by the id of a function's lane

    def explain(self, nodes: Iterable[Node | None], *, until_one_proceeds: bool = False) -> Standing:
        """How these nodes, and all that they wait for, stand. What has ended does not count."""
        standing, seen = Standing(), set[int]()
        for first in self._bounded(nodes, standing):
            stack = [first]
            while stack:
                node = stack.pop()
                if node.state not in ENDED and node.key not in seen:
                    seen.add(node.key)
                    self._count(node, standing)
                    stack.extend(self._bounded(_awaited(node), standing))
            if until_one_proceeds and standing.can_proceed:
                break
        for id, queued in standing.counts.items():
            standing.obstacles[id] = standing.obstacles[id]._replace(queued=queued)
        return standing

    def stuck(self, instance: Instance) -> Standing | None:
        """How an instance stands in which nothing can proceed; None if something can, or if that is not known."""
        share = min(self._left, EACH)
        rest, self._left = self._left - share, share
        standing = self.explain(self._unfinished(instance), until_one_proceeds=True)
        self._left += rest
        return standing if standing.is_stuck and not (standing.more and self._may_proceed(instance)) else None

    def _may_proceed(self, instance: Instance) -> bool:
        """Whether something of an instance that was not looked at to the end can proceed; in doubt, it can."""
        graph, claimed = self._dispatch.graph, self._dispatch.claimed
        lanes = [lane for lane in graph.active.values() if self._reason(lane) is None]
        keyed = sum(lane.keyed_ready for lane in lanes) and len(graph.keyed)
        if len(claimed) + len(graph.pauses) + keyed + sum(lane.queued + len(lane) for lane in lanes) > MOST:
            return True
        delayed = (graph.nodes.get(key) for _, key in graph.pauses)
        held = (node for node in chain(claimed.values(), delayed) if node is not None and node.instance is instance)
        if keyed:
            lanes += [lane for lane in graph.keyed.values() if lane.ready and self._reason(lane) is None]
        return any(held) or any(lane.holds(instance.key) for lane in lanes)

    def _reason(self, lane: Lane) -> str | None:
        if lane.id not in self._reasons:
            self._reasons[lane.id] = self._dispatch.why_nobody(lane)
        return self._reasons[lane.id]

    def _unfinished(self, instance: Instance) -> Iterator[Node | None]:
        """Its nodes that have not ended, and None for each place that was looked at for nothing."""
        nodes, left = self._dispatch.graph.nodes, instance.live
        for run in instance.runs:
            for key in range(run.first_key, run.first_key + run.count):
                if not left:
                    return
                node = nodes.get(key)
                left -= node is not None
                yield node

    def _bounded(self, nodes: Iterable[Node | None], standing: Standing) -> Iterator[Node]:
        for node in nodes:
            if self._left <= 0:
                standing.more = True
                return
            self._left -= 1
            if node is not None:
                yield node

    def _count(self, node: Node, standing: Standing) -> None:
        state = node.state
        if state is QUEUED:
            self._count_queued(node.lane, standing)
        elif state is CLAIMED:
            standing.running += 1
            if node.slot is not None:
                standing.worker = node.slot.worker.presence.name
        elif state is BACKOFF:
            standing.delayed += 1
            retry_at = node.trouble.retry_at if node.trouble is not None else 0.0
            standing.retry_at = min(standing.retry_at or retry_at, retry_at)
        else:
            standing.waiting += 1

    def _count_queued(self, lane: Lane, standing: Standing) -> None:
        id, counts = lane.id, standing.counts
        if id in counts:
            counts[id] += 1
            return
        reason = self._reason(lane)
        if reason is None:
            standing.queued += 1
        else:
            standing.obstacles[id] = Obstacle(lane, 1, reason)
            counts[id] = 1


def _awaited(node: Node) -> Sequence[Node]:
    """What a node waits for, ended or not."""
    if node.state is WAITING:
        return node.sources
    return node.refs if node.state is RESOLVING else ()


def left_behind(dispatch: Dispatch, worker: Worker) -> list[Obstacle]:
    """Queued nodes of the queues that a worker serves which no connected worker may run, by function.

    To be asked before the worker is given nothing more, while its own reason still counts.
    """
    own = worker.presence
    active = dispatch.graph.active.values()
    lanes = [lane for lane in active if lane.function.world is own.world and own.takes(lane.function.queue)]
    return [Obstacle(lane, lane.queued, reason) for lane, reason in dispatch.unservable(lanes)]
