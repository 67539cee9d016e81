"""Notes which nodes of followed instances have changed, from the changes of each step.

The rule: nothing is noted for instances that no one follows, and a change is noted once for all who follow the same
instance. States are looked up when a message is made. A reader that is too slow is told to read everything again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.events import EventFeed, InstanceEnded
from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler import Effects

#: Changed nodes that are kept for a reader.
MOST_KEPT = 200_000
#: Instead of the state of a node that had not ended when it changed.
_OPEN = -1


class ChangedNodes(NamedTuple):
    keys: list[int]
    states: bytes  #: one byte for each node
    is_incomplete: bool  #: changes before these were dropped


class _Followed:
    """An instance that is followed."""

    def __init__(self) -> None:
        self.readers: list[ChangeReader] = []
        self.fresh: dict[int, int] = {}  #: by key, the last state or `_OPEN`: what the readers do not have yet
        self.news = asyncio.Event()
        self.nodes = 0  #: of the instance
        self.is_counted = False  #: whether `nodes` is exact
        self.blocks = 0  #: that were created since it is followed

    def hand_out(self) -> None:
        """Give all readers the changes that they do not have yet."""
        fresh, self.fresh = self.fresh, {}
        for reader in self.readers:
            reader.put(fresh)
        self.news.clear()


class ChangeReader:
    """The changes of one instance that a reader has not taken yet."""

    def __init__(self, feed: ChangeFeed, instance: int, followed: _Followed) -> None:
        self._feed = feed
        self._instance = instance
        self._followed = followed
        self._kept: dict[int, int] = {}
        self._is_incomplete = False
        self.end: InstanceEnded | None = None  #: after the changes that are kept

    def put(self, changes: dict[int, int]) -> None:
        """Keep changes, which others get too, or drop them all if there are too many."""
        self._kept = self._kept | changes if self._kept else changes.copy()
        if len(self._kept) > MOST_KEPT:
            self._kept.clear()
            self._is_incomplete = True

    def finish(self, end: InstanceEnded) -> None:
        self.end = end
        self._followed.news.set()

    async def wait(self) -> None:
        """Wait until there is something to take."""
        if not (self._kept or self._is_incomplete or self.end is not None):
            await self._followed.news.wait()

    def take(self, most: int) -> ChangedNodes:
        """Return up to `most` changed nodes with their present states."""
        self._followed.hand_out()
        taken, self._kept = self._kept, {}
        if len(taken) > most:
            rest = iter(taken.items())
            taken, self._kept = dict(islice(rest, most)), dict(rest)
        is_incomplete, self._is_incomplete = self._is_incomplete, False
        return ChangedNodes(*self._feed.present(taken), is_incomplete)

    @property
    def is_over(self) -> bool:
        """Whether the instance has ended and all changes were taken."""
        return self.end is not None and not (self._kept or self._followed.fresh or self._is_incomplete)

    async def nodes(self) -> int:
        """Return how many nodes the instance has."""
        if not self._followed.is_counted:
            await self._feed.count(self._instance, self._followed)
        return self._followed.nodes


class ChangeFeed:
    """Notes changes of the nodes of followed instances."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._scheduler = commits.scheduler
        self._followed: dict[int, _Followed] = {}  # by the key of the instance

    @property
    def has_readers(self) -> bool:
        return bool(self._followed)

    @contextmanager
    def follow(self, instance: int) -> Iterator[ChangeReader]:
        """Gather the changes of an instance, by its key, within the context."""
        followed = self._followed.setdefault(instance, _Followed())
        followed.hand_out()  # what has changed before does not concern the new reader
        reader = ChangeReader(self, instance, followed)
        followed.readers.append(reader)
        try:
            yield reader
        finally:
            followed.readers.remove(reader)
            if not followed.readers:
                del self._followed[instance]

    def take(self, changes: Changes, effects: Effects) -> None:
        """Note what a step has changed, once it is durable."""
        followed = self._followed
        for block in changes.blocks:
            if (its := followed.get(block.instance)) is not None:
                its.blocks += 1
                its.nodes += block.size
                its.fresh.update(dict.fromkeys(range(block.first_key, block.first_key + block.size), _OPEN))
        for _, node, _ in effects.granted:
            if (its := followed.get(node.instance.key)) is not None:
                its.fresh[node.key] = _OPEN
        for node in effects.ended:
            if (its := followed.get(node.instance.key)) is not None:
                its.fresh[node.key] = node.state
        self._take_unfinished(changes)  # after the ends: a node that has ended may run again
        self._wake()
        for end in changes.instance_ends:
            if end.ended is not None and (its := followed.get(end.key)) is not None:
                for reader in its.readers:
                    reader.finish(InstanceEnded(end.ended, end.failed))

    def _take_unfinished(self, changes: Changes) -> None:
        """Note nodes that failed, returned promises or were retried, and have not ended."""
        keys = [row.key for row in changes.progress]
        keys += [row.key for row in changes.outcomes if row.state == State.RESOLVING]
        keys += [row.key for row in changes.retried]
        for key in keys:
            node = self._scheduler.nodes.get(key)
            if node is not None and (its := self._followed.get(node.instance.key)) is not None:
                its.fresh[key] = _OPEN

    def _wake(self) -> None:
        for followed in self._followed.values():
            if len(followed.fresh) > MOST_KEPT:
                followed.hand_out()
                followed.news.set()
            elif followed.fresh:
                followed.news.set()

    def present(self, changed: dict[int, int]) -> tuple[list[int], bytes]:
        """Return the present states of changed nodes.

        Nodes that have ended and whose end is not durable yet are left out: they are noted again in a moment.
        """
        unfinished, keys, states = self._scheduler.nodes, list[int](), bytearray()
        for key, state in changed.items():
            if state == _OPEN:
                node = unfinished.get(key)
                if node is None:
                    continue
                state = node.state
            keys.append(key)
            states.append(state)
        return keys, bytes(states)

    async def count(self, instance: int, followed: _Followed) -> None:
        """Count the nodes of an instance; exactly, unless some were created meanwhile."""
        before = followed.blocks
        nodes = await self._commits.in_view(self._commits.store.view.size_of, instance)
        await self._commits.wait_durable()  # all that the view may have seen was noted
        followed.nodes = max(followed.nodes, nodes)
        followed.is_counted = followed.blocks == before


class Feeds:
    """All that follows nodes of instances step by step."""

    def __init__(self, commits: Commits) -> None:
        self.events = EventFeed(commits.scheduler)
        self.nodes = ChangeFeed(commits)

    def begin(self, effects: Effects) -> None:
        """Note what is known of a step before its commit only."""
        if self.events.has_readers:
            self.events.begin(effects)

    def take(self, changes: Changes, effects: Effects) -> None:
        """Note what a step has changed, once it is durable."""
        if self.events.has_readers:
            self.events.take(changes, effects)
        if self.nodes.has_readers:
            self.nodes.take(changes, effects)
