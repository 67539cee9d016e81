"""The cache of values: which node has the value of a cache key, and which nodes are waiting for it.

If the caller of a node has announced the key, the node completes without a worker as soon as the value is there (a
hit). Else a worker reports the key before it runs the node, which is then granted again: with a node that has the
value, to be run (a miss), or once the node that computes the same has ended (single flight).

The rule: only recorded values of completed nodes are found, and an entry lives no longer than its node's instance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import CachedRow, Changes
from dagorama_broker.scheduler.objects import Node

#: Cached values that are kept at the same time; beyond them the oldest is dropped.
MOST_CACHED = 200_000
#: Bytes of the ID of a signing key, with which a signature begins.
KEY_ID_BYTES = 8
#: Nodes that are examined to find out whether a node would wait for itself.
MOST_LOOKED_AT = 10_000


class Computed(NamedTuple):
    """The cache key of the value of a running node, as its worker says, and the proof of that."""

    key: bytes
    proof: bytes


class CachedCount(NamedTuple):
    """The cached values of a function."""

    values: int
    oldest: float  #: seconds since 1970
    newest: float


class Caching:
    """Knows the cached values, and of unfinished nodes the keys that were reported."""

    def __init__(self) -> None:
        self.entries: dict[bytes, CachedRow] = {}  #: by cache key, the oldest first
        self.keys: dict[int, bytes] = {}  #: reported cache keys of unfinished nodes, by the keys of the nodes
        self.leaders: dict[bytes, Node] = {}  #: by cache key: the node that computes its value now
        #: Signatures of cache keys that only the callers of nodes have computed, by the keys of these nodes. Empty:
        #: the signature is not used.
        self.announced: dict[int, bytes] = {}
        self.alone: set[int] = set()  #: keys of nodes that run although another one computes the same
        self.followed: set[int] = set()  #: keys of unfinished nodes that others, with the same cache key, wait for
        self.computed: dict[int, Computed] = {}  #: of unfinished nodes whose value will be cached, by their keys
        self.hits = self.misses = 0  #: nodes that ended with a cached value, and with one that was then cached
        self._of_node: dict[bytes, bytes] = {}  # cache keys of entries, by the IDs of their nodes
        self._of_instance: dict[int, set[bytes]] = {}

    # --- finding ----------------------------------------------------------------------------------------

    def find(self, key: bytes, now: float) -> CachedRow | None:
        """Return the entry of a cache key; None: there is none, or it has expired. `now`: seconds since 1970."""
        entry = self.entries.get(key)
        return None if entry is None or (entry.expires and entry.expires <= now) else entry

    def found_for_caller(self, node: Node, now: float) -> CachedRow | None:
        """Return the entry whose value a node may have without a worker, because of what its caller has signed.

        If a value was computed under another signing key, a worker decides whether it can be used.
        """
        signature = self.announced.get(node.key)
        row = None if signature is None else self.find(self.keys[node.key], now)
        if signature is None or row is None or row.proof[:KEY_ID_BYTES] != signature[:KEY_ID_BYTES]:
            return None
        return row

    def leave_to_workers(self, node: Node) -> None:
        """Ignore what the caller of a node has signed: the node will run with other code, which has other keys."""
        if node.key in self.announced:
            self.announced[node.key] = b""

    def is_to_run(self, node: Node) -> bool:
        """Return whether a node computes the value of its cache key."""
        key = self.keys.get(node.key)
        return key is not None and (self.leaders.get(key) is node or node.key in self.alone)

    def is_hit(self, node: Node) -> bool:
        """Return whether a node that ends now has the value of another one."""
        return node.key in self.keys and node.key not in self.computed

    def report(self, node: Node, key: bytes, now: float) -> Node | None:
        """Note the cache key of a node before it is queued. Return the node that it has to wait for, if any."""
        self._forget_key(node, key)
        self.keys[node.key] = key
        self.alone.discard(node.key)
        self.announced.pop(node.key, None)
        node.twin = None
        if self.find(key, now) is not None:
            return None
        leader = self.leaders.setdefault(key, node)
        if leader is node:
            return None
        if _waits_for(leader, node):
            self.alone.add(node.key)
            return None
        node.twin = leader
        self.followed.add(leader.key)
        return leader

    def followers_in_circles(self, node: Node) -> list[Node]:
        """Return nodes that wait for a leader which waits for them, now that `node` waits for its promises.

        From now on they run, as `report` says of nodes that were made later.
        """
        found = list[Node]()
        for leader in _above(node) if self.followed else ():
            if leader.key not in self.followed:
                continue
            for follower in [each for each in leader.dependents or () if each.twin is leader]:
                if follower.state is State.WAITING and _waits_for(leader, follower):
                    assert leader.dependents is not None
                    leader.dependents.remove(follower)
                    self.alone.add(follower.key)
                    found.append(follower)
        return found

    def _forget_key(self, node: Node, key: bytes) -> None:
        """Drop an earlier key of a node that was bound to other code since; its followers wait until its end."""
        before = self.keys.get(node.key)
        if before is not None and before != key and self.leaders.get(before) is node:
            del self.leaders[before]

    # --- ends -------------------------------------------------------------------------------------------

    def ended(self, node: Node, changes: Changes, now: float) -> None:
        """Forget an ended node; if it has completed with a value to be cached, cache that."""
        key, computed = self.keys.pop(node.key, None), self.computed.pop(node.key, None)
        if key is not None and self.leaders.get(key) is node:
            del self.leaders[key]
        self.alone.discard(node.key)
        self.followed.discard(node.key)
        self.announced.pop(node.key, None)
        if node.state is not State.COMPLETED:
            return
        if computed is not None:
            self.misses += 1
            self._keep(node, computed, changes, now)
        elif key is not None:
            self.hits += 1

    def _keep(self, node: Node, computed: Computed, changes: Changes, now: float) -> None:
        assert node.block is not None
        function, instance = node.queue.function, node.instance
        expires = now + function.cache_ttl if function.cache_ttl else 0.0
        row = CachedRow(
            computed.key, function.name, node.queue.id, instance.key, instance.id, node.key,
            node.block.id_of(node.key), now, expires, int(bool(node.refs)), computed.proof,
        )  # fmt: skip
        self._drop(row.key)
        self.enter(row)
        changes.cached.append(row)
        while len(self.entries) > MOST_CACHED:
            self.drop([next(iter(self.entries))], changes)

    # --- entries ----------------------------------------------------------------------------------------

    def enter(self, row: CachedRow) -> None:
        """Add an entry that is in the store, or about to be."""
        self.entries[row.key] = row
        self._of_node[row.node_id] = row.key
        self._of_instance.setdefault(row.instance, set()).add(row.key)

    def _drop(self, key: bytes) -> bool:
        row = self.entries.pop(key, None)
        if row is None:
            return False
        if self._of_node.get(row.node_id) == key:
            del self._of_node[row.node_id]
        of_instance = self._of_instance[row.instance]
        of_instance.discard(key)
        if not of_instance:
            del self._of_instance[row.instance]
        return True

    def drop(self, keys: Iterable[bytes], changes: Changes) -> int:
        """Drop entries, also from the store; return how many there were."""
        dropped = [key for key in keys if self._drop(key)]
        if dropped:
            gone = set(dropped)
            changes.cached = [row for row in changes.cached if row.key not in gone]  # the store deletes first
            changes.uncached += dropped
        return len(dropped)

    def drop_instances(self, instances: Iterable[int], changes: Changes) -> None:
        """Drop the entries whose nodes are removed with their instances."""
        if self._of_instance:
            for instance in instances:
                self.drop(list(self._of_instance.get(instance, ())), changes)

    def drop_node(self, node: Node, changes: Changes) -> None:
        """Drop the entry of a node that is about to run again."""
        assert node.block is not None
        key = self._of_node.get(node.block.id_of(node.key)) if self._of_node else None
        if key is not None:
            self.drop([key], changes)

    def row_of(self, node: bytes) -> CachedRow | None:
        """Return the entry of a node, by its ID."""
        key = self._of_node.get(node)
        return None if key is None else self.entries[key]

    def clear(self, function: str, changes: Changes) -> int:
        """Drop all entries of a function, by its name; return how many there were."""
        return self.drop([key for key, row in self.entries.items() if row.function == function], changes)

    def counts(self) -> dict[str, CachedCount]:
        """Return the number of entries of each function, by its name."""
        found: dict[str, CachedCount] = {}
        for row in self.entries.values():
            last = found.get(row.function, CachedCount(0, row.completed, row.completed))
            found[row.function] = CachedCount(
                last.values + 1, min(last.oldest, row.completed), max(last.newest, row.completed)
            )
        return found


def _above(node: Node) -> list[Node]:
    """Return a node and all nodes that wait for it, directly or through others, but not too many."""
    found, seen = [node], {node.key}
    for at in found:
        if len(found) > MOST_LOOKED_AT:
            break
        for other in at.dependents or ():
            if other.key not in seen:
                seen.add(other.key)
                found.append(other)
    return found


def _waits_for(leader: Node, node: Node) -> bool:
    """Return whether the leader waits for a node, directly or through others: then neither may wait for the leader.

    Only a leader that has returned promises waits for nodes. In doubt, it does.
    """
    if leader.state is not State.RESOLVING:
        return False
    stack, seen = [node], {node.key}
    while stack:
        at = stack.pop()
        for other in at.dependents or ():
            if other is leader:
                return True
            if other.key not in seen:
                seen.add(other.key)
                stack.append(other)
        maker = at.block.eager_attempt if at.block is not None else None
        # The running attempt that made it may yet return a promise of it.
        if maker is not None or len(seen) > MOST_LOOKED_AT:
            return True
    return False
