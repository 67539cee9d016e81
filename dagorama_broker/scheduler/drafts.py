"""Makes large calls in slices, and accepts or refuses each of them in one step.

A draft reserves its names and its keys. Before it is accepted its nodes are in the graph, and their rows may be in the
store, but no run names them, so that no call finds them. `carry_out` accepts it, in one step and with one commit. A
draft that is given up, or that a crash cuts short, leaves no node behind, and functions that are dropped when unused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dagorama_broker.model.domain import ENDED
from dagorama_broker.model.rows import DraftRow
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.limits import Limits
from dagorama_broker.scheduler.objects import UNSTARTED, Node, Reservation
from dagorama_broker.scheduler.requests import NewNodes
from dagorama_broker.scheduler.submission import SubmissionPlan

#: Nodes that one step enters or deletes.
PORTION = 500


class Draft:
    """A plan that is made in slices.

    Its owner calls `find_out`, `enter` and `carry_out`, or `give_up` at any moment before that. The scheduler starts
    the nodes.
    """

    def __init__(self, graph: Graph, limits: Limits, blocks: Sequence[NewNodes], known: Mapping[bytes, Node]) -> None:
        self._graph = graph
        self._limits = limits
        self._nodes = sum(block.count for block in blocks)
        self._entered = 0
        self._started = 0
        self._is_begun = False
        self.is_carried_out = False
        self._reservation = Reservation(graph.next_node, graph.next_instance)
        graph.next_node += self._nodes
        graph.next_instance += sum(block.creates is not None for block in blocks)
        self.plan = SubmissionPlan(graph, blocks, known, self._reservation)

    def find_out(self) -> Iterator[int]:
        """Find out all that is asked for. Yield how many nodes and sources each step looked at.

        Raises InvalidArgument, NotFound, Conflict or ResourceExhausted; then the draft can only be given up.
        """
        for block in self.plan.new_blocks:
            self._limits.check_sources(block.sources)
            yield len(block.sources or ()) // 8
        yield from self.plan.steps()

    def enter(self) -> Iterator[int]:
        """Enter the nodes; their rows are written with the commits that happen meanwhile. Yield how many each time."""
        self.plan.record_functions()
        first_key = self._reservation.first_key
        if self._nodes:
            self._graph.changes.drafts.append(DraftRow(first_key, first_key + self._nodes - 1))
            self._is_begun = True
        portion = min(PORTION, self._limits.step)
        for new, block in zip(self.plan.new_blocks, self.plan.blocks, strict=True):
            for start in range(0, block.count, portion):
                size = min(portion, block.count - start)
                for node in self.plan.enter_nodes(block, new.arguments, start, start + size):
                    node.pending = UNSTARTED
                self._entered += size
                yield size

    def carry_out(self, creator: int) -> None:
        """Accept the draft; `creator` is the key of the node whose attempt asked for it. Its nodes start later."""
        self.plan.publish(creator)
        if self._is_begun:
            self._graph.changes.drafts_over.append(self._reservation.first_key)
        self._release()
        self._graph.starting.append(self)
        self.is_carried_out = True

    @property
    def is_started(self) -> bool:
        """Whether all of its nodes are waiting for their sources, or queued."""
        return self._started == self._nodes

    def start(self, most: int) -> int:
        """Start up to `most` nodes and return how many; fewer: all are started."""
        graph, end = self._graph, min(self._started + most, self._nodes)
        for node in self.plan.nodes[self._started : end]:
            if node.state not in ENDED:  # else it was cancelled
                node.pending = 0
                graph.start(node, self.plan.cache_keys.get(node.key))
        count, self._started = end - self._started, end
        if end == self._nodes:
            graph.evict_idle(new.instance for new in self.plan.new_blocks)
        return count

    def give_up(self) -> Iterator[int]:
        """Remove what was entered, and delete its rows. Yield how many nodes each step removed."""
        self._release()
        graph, first_key = self._graph, self._reservation.first_key
        last_key = first_key + self._entered - 1
        for first in range(first_key, last_key + 1, PORTION):
            last = min(first + PORTION - 1, last_key)
            for key in range(first, last + 1):
                graph.take_out(graph.nodes[key])
            graph.changes.given_up.append(DraftRow(first, last))
            yield last - first + 1
        if self._is_begun:
            graph.changes.drafts_over.append(first_key)

    def _release(self) -> None:
        """Release the reserved names."""
        reserved = self._graph.reserved
        for block in self.plan.new_blocks:
            for name in (block.instance, block.origin):
                if reserved.get(name) is self._reservation:
                    del reserved[name]
