"""The facts of the store that decide about new nodes, in the loop. A store that is not near is asked in its thread.

The rule: the answer stays true until the decision, because only this broker writes. All that is committed after the
question is added to the answer, and what is not committed yet is known to the scheduler. So a question may be answered
while a commit is made, with or without its rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.used_ids import UsedIds
from dagorama_broker.model.looks import Known, Seen, Wanted
from dagorama_broker.model.rows import Changes, NameRow, NodeBlockRow, RemovedRow
from dagorama_broker.scheduler import NewNodes, name_key


class Look:
    """The answer of a store that is not near, with what was committed since. It must not be asked for anything else."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._origins = {origin for origin, _ in wanted.blocks}
        self._ids = wanted.instances | self._origins | {name_key(*each) for each in wanted.names}
        self._seen = Seen()
        self._written: list[NodeBlockRow] = []

    def answer(self, seen: Seen) -> None:
        """Take the answer of the store, which was asked for more."""
        wanted, noted = self.wanted, self._seen
        noted.instances |= seen.instances & wanted.instances
        noted.removed = {id: row for id, row in seen.removed.items() if id in wanted.instances} | noted.removed
        noted.origins |= seen.origins & self._origins
        noted.blocks = {each: row for each, row in seen.blocks.items() if each in wanted.blocks}
        noted.names = {each: row for each, row in seen.names.items() if each in wanted.names} | noted.names
        noted.large = seen.large & wanted.large

    def note(self, changes: Changes, made: set[bytes]) -> None:
        """Add a commit that was made after the question; `made` has its IDs and name keys."""
        seen, wanted = self._seen, self.wanted
        seen.removed.update((row.id, row) for row in changes.removed if row.id in wanted.instances)
        if self._ids.isdisjoint(made):
            return
        seen.instances |= made & wanted.instances
        seen.names.update(
            ((row.definition, row.name), row) for row in changes.names if (row.definition, row.name) in wanted.names
        )
        blocks = [row for row in changes.blocks if row.origin in self._origins]
        seen.origins.update(row.origin for row in blocks)
        self._written += blocks

    # --- the facts, as `Known` has them -----------------------------------------------------------------

    def has_instance(self, id: bytes) -> bool:
        self._check(id in self.wanted.instances)
        return id in self._seen.instances

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        self._check(origin in self._origins)
        return origin not in self._seen.origins and not self.has_instance(instance)

    def removed(self, id: bytes) -> RemovedRow | None:
        self._check(id in self.wanted.instances)
        return self._seen.removed.get(id)

    def last_block(self, origin: bytes, before: int) -> NodeBlockRow | None:
        self._check((origin, before) in self.wanted.blocks)
        found = [row for row in self._written if row.origin == origin and row.first < before]
        if (stored := self._seen.blocks.get((origin, before))) is not None:
            found.append(stored)
        return max(found, key=lambda row: row.first, default=None)

    def named_instance(self, definition: str, name: str) -> NameRow | None:
        self._check((definition, name) in self.wanted.names)
        return self._seen.names.get((definition, name))

    def has_large(self, sha256: bytes) -> bool:
        self._check(sha256 in self.wanted.large)
        return sha256 in self._seen.large

    def _check(self, is_wanted: bool) -> None:
        if not is_wanted:
            raise LookupError("the store was not asked for this: an unknown answer would be taken for a no")


class Looks:
    """Asks the store for all that gathers in a turn of the loop, or while it answers, with one question."""

    def __init__(self, commits: Commits) -> None:
        self.under_way: set[Look] = set()
        self.used = UsedIds()  #: what need not be asked; empty if the store is near and large
        self._commits = commits
        self._store = commits.store
        self._gathering: Wanted | None = None  # what the next question is about
        self._next: asyncio.Task[Seen] | None = None
        self._one = asyncio.Lock()  # one question is asked at a time

    @asynccontextmanager
    async def at(self, blocks: Iterable[NewNodes], large: Iterable[bytes] = ()) -> AsyncIterator[Known]:
        """Yield the facts about these blocks and large values, which are true within the context."""
        if self._store.near:
            yield self._store
            return
        blocks, large = list(blocks), set(large)
        known = None if large else self.without_asking(blocks)
        look = known or Look(wanted_of(blocks, large))
        self.under_way.add(look)
        self._commits.observers.add(look.note)
        try:
            if known is None and look.wanted:
                look.answer(await self._asked(look.wanted))
            yield look
        finally:
            self._commits.observers.discard(look.note)
            self.under_way.discard(look)

    async def run(self) -> None:
        """Learn which IDs the store certainly lacks. Raises StoreError."""
        await self.used.fill(self._commits)

    def may_have(self, instance: bytes, origin: bytes) -> bool:
        """Return whether the store may know an instance or an origin of nodes. Ask it if this returns True."""
        used = self.used
        return not used.is_complete or instance in used or origin in used

    def without_asking(self, blocks: Iterable[NewNodes]) -> Look | None:
        """Return the facts about blocks whose IDs were certainly never used; None: the store must be asked."""
        if not self.used.is_complete:
            return None
        wanted, used = Wanted(), self.used
        for block in blocks:
            if block.origin in used or block.large or (block.start is not None and block.start.name):
                return None
            # Nodes of an origin that was never used are new, also in an instance that exists.
            if block.creates is not None or not block.function:
                if block.instance in used:
                    return None
                wanted.instances.add(block.instance)
            wanted.blocks.add((block.origin, block.first + block.count))
        return Look(wanted)

    def large(self) -> set[bytes]:
        """Return the large values of decisions that are under way, which must not be removed."""
        return {sha256 for look in self.under_way for sha256 in look.wanted.large}

    async def _asked(self, wanted: Wanted) -> Seen:
        if self._gathering is None or self._next is None:
            self._gathering = Wanted()
            self._next = asyncio.create_task(self._ask())
        self._gathering.add(wanted)
        return await asyncio.shield(self._next)  # others wait for it too

    async def _ask(self) -> Seen:
        async with self._one:
            wanted, self._gathering = self._gathering, None
            assert wanted is not None
            # Large values are collected in the store's thread: one that is found must not be about to go.
            ask = self._commits.in_store if wanted.large else self._commits.in_look
            return await ask(self._store.look, wanted)


def wanted_of(blocks: Iterable[NewNodes], large: Iterable[bytes] = ()) -> Wanted:
    """Return all that the decision about these blocks may ask for."""
    wanted = Wanted(large=set(large))
    for block in blocks:
        wanted.instances.add(block.instance)
        wanted.blocks.add((block.origin, block.first + block.count))
        wanted.large.update(block.large)
        if block.creates is not None and block.start is not None and block.start.name:
            wanted.names.add((block.creates[0], block.start.name))
    return wanted
