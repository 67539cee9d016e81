"""Records what workers report of cached values, and answers questions about them.

The fourth layer of `Scheduler`. Each verb changes everything it must, or refuses and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from dagorama_broker.model.rows import CachedRow
from dagorama_broker.scheduler.caching import CachedCount, Computed
from dagorama_broker.scheduler.objects import Node, Worker
from dagorama_broker.scheduler.outcomes import Outcomes


class CachedValues(Outcomes):
    def look_up(self, worker: Worker, key: int, attempt: int, cache_key: bytes) -> bool:
        """Take a node back whose cache key its worker has computed: it is granted again with what is known of the key.

        Return False if the worker does not hold the attempt.
        """
        node = self._taken_back(worker, key, attempt)
        if node is None:
            return False
        if node.queue.caches:
            self.graph.look_up(node, cache_key)
        else:
            self.graph.back(node)
        return True

    def found_gone(self, worker: Worker, key: int, attempt: int) -> bool:
        """Take back a node that should get the value of another one, if that cannot be named; look its key up again."""
        node = self._taken_back(worker, key, attempt)
        if node is None:
            return False
        cache_key = self.graph.caching.keys.get(node.key)
        if cache_key is None:
            self.graph.back(node)
        else:
            self.graph.caching.drop([cache_key], self.graph.changes)
            self.graph.look_up(node, cache_key)
        return True

    def computed(self, worker: Worker, key: int, attempt: int, cache_key: bytes, proof: bytes) -> None:
        """Note, before its result, that a node has computed the value of a cache key."""
        node = self.claims.held(worker, key, attempt)
        if node is not None and node.queue.caches:
            self.graph.caching.computed[node.key] = Computed(cache_key, proof)

    def found_for(self, node: Node) -> CachedRow | bool:
        """Return the cached value that a granted node gets; else whether it is to run. If not, its key is unknown."""
        caching = self.graph.caching
        if caching.is_to_run(node):
            return True
        cache_key = caching.keys.get(node.key)
        return False if cache_key is None else caching.find(cache_key, self.graph.now + self.graph.wall) or False

    def announced_key(self, node: Node) -> bytes:
        """Return the cache key of a node that only its caller has computed; empty: there is none."""
        caching = self.graph.caching
        return caching.keys[node.key] if node.key in caching.announced else b""

    def nodes_found(self, ids: Iterable[bytes]) -> dict[bytes, Node]:
        """Return the nodes with cached values among these IDs, by ID, as far as memory knows all of them."""
        found: dict[bytes, Node] = {}
        for id in ids:
            row = self.graph.caching.row_of(id)
            node = None if row is None or id in found else self.graph.node_of(row)
            if node is not None:
                found[id] = node
        return found

    def clear_cache(self, function: str) -> int:
        """Drop the cached values of a function, by its name; return how many there were."""
        return self.graph.caching.clear(function, self.graph.changes)

    def cached_counts(self) -> dict[str, CachedCount]:
        """Return the number of cached values of each function, by its name."""
        return self.graph.caching.counts()

    @property
    def cached_values(self) -> int:
        """The number of cached values."""
        return len(self.graph.caching.entries)

    @property
    def cache_hits(self) -> int:
        """Nodes that completed with a cached value, since the start."""
        return self.graph.caching.hits

    @property
    def cache_misses(self) -> int:
        """Nodes whose value was computed and cached, since the start."""
        return self.graph.caching.misses
