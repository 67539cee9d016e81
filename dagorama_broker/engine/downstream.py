"""Finds the ended nodes downstream of a retry: readers of a failure as a value, and nodes that depend on them.

The dependencies of nodes are read page by page, so that other commits are made in between. Sources never change, and
the caller records the nodes that end meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence

from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.domain import EagerState, State, unpack_keys
from dagorama_broker.model.queries import Edges
from dagorama_broker.model.rows import UsedFailureRow

#: Nodes whose edges are read at a time.
PAGE = 10_000


class Downstream:
    """Ended nodes that become unfinished again; `reruns` drop their values and run again."""

    def __init__(self, failed: Collection[int], seeds: Collection[int]) -> None:
        self.nodes = {*failed, *seeds}
        self.reruns = set(seeds)
        self.resolving: set[int] = set()  #: nodes that were given what one of these returned and wait for promises
        self.dead: set[int] = set()  #: nodes of aborted attempts, which are left alone
        self.log: list[tuple[set[int], int]] = []  #: what was added to which of the sets, in order

    def take(self, edges: Edges) -> None:
        """Add a node that has ended, or returned promises, if it depends on one of these."""
        given = any(abs(key) in self.nodes for key in unpack_keys(edges.sources))
        if edges.state == State.RESOLVING:
            if given:
                self._add(self.resolving, edges.key)
        elif given:
            self._add(self.nodes, edges.key)
            if edges.has_value:
                self._add(self.reruns, edges.key)
        elif edges.has_value and not self.nodes.isdisjoint(unpack_keys(edges.refs)):
            self._add(self.nodes, edges.key)

    def _add(self, its: set[int], key: int) -> None:
        if key not in its:
            its.add(key)
            self.log.append((its, key))

    def undo(self, length: int) -> None:
        """Remove what was added since the log had this length."""
        for its, key in self.log[length:]:
            its.discard(key)
        del self.log[length:]


async def users_of(broker: Broker, failed: Collection[int], instances: Iterable[int]) -> list[UsedFailureRow]:
    """Return nodes that were given the failure of one of these as a value, and have ended or returned promises.

    This includes nodes that failed because of a promise that they returned: they keep their values.
    """
    users = []
    for instance in sorted(instances):
        async for page in _pages(broker, instance, tolerant=True):
            found = [
                edges for edges in page
                if edges.state not in (None, State.CANCELLED) and (edges.has_value or edges.key not in failed)
                and any(-key in failed for key in unpack_keys(edges.sources))
            ]  # fmt: skip
            users += [UsedFailureRow(edges.key, instance) for edges in found]
    dead = await _dead(broker, [row.key for row in users]) if users else set()
    return [row for row in users if row.key not in dead]


async def closure(
    broker: Broker, failed: Collection[int], seeds: Collection[int], instances: Iterable[int]
) -> Downstream:
    """Return the failed nodes, the seeds, which run again, and all ended nodes that depend on them.

    `instances` are the instances of these nodes; instances whose values name them are searched too.
    """
    found = Downstream(failed, seeds)
    through = {*instances, *await _naming(broker, instances)}
    length = -1
    # A source is older than its node, so one pass follows sources to the end; values may name younger nodes.
    while length != len(found.log):
        length = len(found.log)
        for instance in sorted(through):
            async for page in _pages(broker, instance, tolerant=False):
                await _take(broker, found, page)
    return found


async def _take(broker: Broker, found: Downstream, page: Sequence[Edges]) -> None:
    """Add the nodes of a page that depend on those found, except for children of aborted attempts."""
    ended = [edges for edges in page if edges.state in (State.COMPLETED, State.FAILED, State.RESOLVING)]
    while True:
        length = len(found.log)
        for edges in ended:
            if edges.key not in found.dead:
                found.take(edges)
        added = {key for _, key in found.log[length:]}
        dead = await _dead(broker, added) if added else set()
        if not dead:
            return
        found.dead |= dead
        found.undo(length)


async def _dead(broker: Broker, keys: Collection[int]) -> set[int]:
    """Return the nodes among these that an aborted attempt has made."""
    eager_states = await broker.commits.in_store(broker.store.eager_states, sorted(keys))
    return {key for key, eager_state in eager_states.items() if eager_state is EagerState.ABORTED}


async def _naming(broker: Broker, instances: Iterable[int]) -> set[int]:
    """Return the instances that name one of these, directly or through others."""
    found: set[int] = set()
    stack = list(instances)
    while stack:
        for stored in await broker.commits.quickly(broker.store.naming, stack.pop()):
            if stored.row.key not in found:
                found.add(stored.row.key)
                stack.append(stored.row.key)
    return found


async def _pages(broker: Broker, instance: int, tolerant: bool) -> AsyncIterator[Sequence[Edges]]:
    after = 0
    while True:
        page = await broker.commits.in_store(broker.store.edges, instance, after, PAGE, tolerant)
        yield page.edges
        after = page.more
        if not after:
            return
