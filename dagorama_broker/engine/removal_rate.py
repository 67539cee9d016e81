"""How much is removed at a time, and how long removal pauses: fast enough for any rate of creation, and no faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagorama_broker.engine.retention_policy import SHORTEST_PAUSE

if TYPE_CHECKING:
    from dagorama_broker.scheduler.graph import Graph

#: Instances that go in one commit, and nodes in one transaction, at least: commits of others wait for these.
INSTANCES, NODES = 100, 1_000
#: The same at most: the loop stands still while so many instances are looked up.
MOST_INSTANCES, MOST_NODES = 4_000, 20_000
#: Instances, or nodes, that go for each one that was made meanwhile: removal is never slower than creation.
SHARE = 2


class Pace:
    """Removes little at a time, but more than is made meanwhile, and waits until a portion has come together."""

    def __init__(self, graph: Graph, now: float) -> None:
        self._graph = graph
        self._instances, self._nodes = graph.next_instance, graph.next_node
        self._paused_at = now
        self._removed = 0  #: instances since then

    def instances(self) -> int:
        """How many may go now, by how many were made since this was asked last."""
        made, self._instances = self._graph.next_instance - self._instances, self._graph.next_instance
        return min(MOST_INSTANCES, max(INSTANCES, SHARE * made))

    def nodes(self) -> int:
        """How many nodes may go now, by how many were made since this was asked last."""
        made, self._nodes = self._graph.next_node - self._nodes, self._graph.next_node
        return min(MOST_NODES, max(NODES, SHARE * made))

    def count(self, removed: int) -> None:
        """Note that so many instances were removed."""
        self._removed += removed

    def pause(self, now: float, longest: float) -> float:
        """Seconds until a portion has expired, if instances go on expiring as they have since the last pause."""
        since, self._paused_at = now - self._paused_at, now
        removed, self._removed = self._removed, 0
        if not removed:
            return longest
        return min(longest, max(SHORTEST_PAUSE, since * INSTANCES / removed))
