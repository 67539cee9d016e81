"""Completes nodes with cached values without a worker, if their callers have announced and signed the cache keys.

The third layer of `Graph`. The broker holds no signing key: the value that it records consists of the signatures of the
caller and of the process that has computed the value, which readers check.
"""

from __future__ import annotations

from collections.abc import Iterable

from dagorama_broker.model.domain import pack_keys
from dagorama_broker.model.rows import CachedRow, LinkRow, OutcomeRow
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.objects import Node
from dagorama_broker.scheduler.states import States
from dagorama_broker.scheduler.transitions import COMPLETED

#: The first bytes of such a value; docs/reference/envelopes.md has the rest.
FOUND_HEAD = b"\x01\x40"


class Hits(States):
    def __init__(self) -> None:
        super().__init__()
        self.edges = 0  #: sources and promises of unfinished nodes

    def take_over(self, node: Node) -> bool:
        """Complete a waiting node with a cached value, if its caller has signed the key of that. Return whether it did.

        The caller notifies its dependents. Nothing completes while its queue is paused.
        """
        row = self.caching.found_for_caller(node, self.now + self.wall)
        other = None if row is None or node.queue.is_paused else self.node_of(row)
        if row is None or other is None:
            return False
        self.record_links(node.instance, (other,))
        node.refs = (other,)
        node.pending = 0
        other.consumers = 1
        self.edges += 1
        self.move(node, COMPLETED)
        signature = self.caching.announced[node.key]
        value = (FOUND_HEAD, row.key, node.instance.id, signature, row.instance_id, row.node_id, row.proof)
        named, ended = pack_keys([other.key]), self.now + self.wall
        self.changes.outcomes.append(
            OutcomeRow(node.key, int(COMPLETED), node.attempt, named, b"".join(value), 0, None, ended, 0, 0)
        )
        return True

    def node_of(self, row: CachedRow) -> Node | None:
        """Return the completed node that has a cached value; None: memory does not know all of it."""
        queue = None if row.has_refs else self.queue_by_id.get(row.function_id)
        if queue is None:
            return None
        instance = Instance(row.instance, row.instance_id)
        block = NodeBlock(row.node_id[:12], int.from_bytes(row.node_id[12:], "big"), 1, row.node, instance)
        return Node(row.node, instance, queue, block, COMPLETED)

    def record_links(self, instance: Instance, refs: Iterable[Node]) -> None:
        """Record that instances which a value names must be kept as long as its own."""
        named = {ref.instance.key for ref in refs}
        named.discard(instance.key)
        links = self.changes.links
        for other in sorted(named):
            link = LinkRow(instance.key, other)
            if not links or links[-1] != link:  # many values in a row name nodes of the same instance
                links.append(link)
