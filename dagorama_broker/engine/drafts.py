"""Carries out large calls in slices: other calls run in between, and still all of a call is made or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from dagorama_broker.engine.clock import advance_clock
from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.loading import Loaded, Loading, made_by, named_by_one, reject_other_protocol
from dagorama_broker.engine.lookups import Lookups
from dagorama_broker.engine.turns import Steps
from dagorama_broker.errors import Unavailable
from dagorama_broker.model.looks import Known
from dagorama_broker.scheduler import Draft, NewNodes, Node, Worker

#: Nodes and references that are looked at between two turns of other calls, if no commit follows.
TURN = 2_000
#: IDs that are looked up in the store at once, and how many nodes a question to the store about one block counts as.
LOOKED_UP, LOOK = 1_000, 20


class Drafts:
    def __init__(self, commits: Commits, lookups: Lookups, loading: Loading) -> None:
        self.lock = asyncio.Lock()  #: one large submission is made at a time
        self._commits = commits
        self._lookups = lookups
        self._loading = loading
        self._scheduler = commits.scheduler
        self._store = commits.store

    async def submit(self, blocks: Sequence[NewNodes]) -> None:
        """Make nodes and instances, once, and return when they are durable.

        Raises a BrokerRefusal, and then nothing has changed.
        """
        async with self.lock:
            added_to = {block.instance for block in blocks} - {
                block.instance for block in blocks if block.creates is not None
            }
            draft = None
            while draft is None:  # else a retry has changed what was read from the store
                draft = await self._carried_out(blocks, added_to)
        await self._commits.wait_durable()
        while not draft.is_started:
            await self._commits.wait_durable()
        steps = Steps(TURN, self._commits.next_turn)
        for block in blocks:  # else all of it would be freed at once when the call returns, which blocks the loop
            await steps.spend(block.weight)
            block.arguments, block.sources = [], None

    async def _carried_out(self, blocks: Sequence[NewNodes], added_to: Collection[bytes]) -> Draft | None:
        """Return an accepted draft of all that is left to make; None: what it needs must be found out again."""
        scheduler = self._scheduler
        revivals = scheduler.revivals
        async with self._pinned(added_to), self._loading.looks.at(blocks) as known:
            left, found = await self._left_to_make(blocks, known)
            async with self.draft(left, found.nodes) as draft:
                if scheduler.revivals != revivals:
                    return None
                self._lookups.check_names(left, known)
                for block in left:
                    self._lookups.check_large(block.large, known)
                advance_clock(scheduler, self._commits.clock)
                draft.carry_out(0)
                return draft

    @asynccontextmanager
    async def _pinned(self, ids: Iterable[bytes]) -> AsyncIterator[None]:
        """Keep these instances, which nodes are added to, from being removed or replaced. Raises NotFound."""
        async with AsyncExitStack() as stack:
            for id in ids:
                stack.enter_context(self._lookups.holds.on(id))
                stored = None
                if self._scheduler.instance(id) is None:
                    await self._commits.wait_durable()
                    stored = await self._commits.in_store(self._store.instance, id)
                    if stored is None and self._scheduler.instance(id) is None:
                        raise await self._lookups.not_known(id)
                self._scheduler.pin_instance(id, stored)
                stack.callback(self._scheduler.unpin_instance, id)
            yield

    async def _left_to_make(self, blocks: Sequence[NewNodes], known: Known) -> tuple[list[NewNodes], Loaded]:
        """Return the blocks that no earlier call has made, and what they name."""
        loading, has_instance = self._loading, self._lookups.has_instance
        left, found, missing = list[NewNodes](), Loaded(known), list[bytes]()
        steps, made = Steps(self._scheduler.limits.step, self._commits.next_turn), made_by(blocks)
        for block in blocks:
            await steps.spend(block.weight + LOOK)
            missing += loading.missing_nodes(named_by_one(block, made), found)
            empty = {block.instance} if not block.function and has_instance(block.instance, known) else ()
            if len(missing) >= LOOKED_UP or empty:
                await self._look_up(missing, empty, found)
                missing = []
            while loading.is_unsettled([block]):
                await self._commits.wait_durable()
            if not loading.is_made(block, found):
                left.append(block)
        await self._look_up(missing, (), found)
        for block in left:
            await steps.spend(len(block.foreign) + 1)
            reject_other_protocol([block], found)
            self._lookups.check_large(block.large, known)
        return left, found

    async def _look_up(self, nodes: Sequence[bytes], instances: Collection[bytes], found: Loaded) -> None:
        if nodes or instances:
            await self._commits.wait_durable()
            await self._loading.read(nodes, instances, found)

    @asynccontextmanager
    async def draft(
        self, blocks: Sequence[NewNodes], known: Mapping[bytes, Node], worker: Worker | None = None
    ) -> AsyncIterator[Draft]:
        """Find out what the blocks ask for and enter it; give it up unless it is carried out within the context.

        `worker` is the one whose attempt makes them: its lease is renewed while its report is processed. Raises a
        BrokerRefusal.
        """
        scheduler, commits = self._scheduler, self._commits
        draft, committing = scheduler.draft(blocks, known), commits.next_commit()

        async def next_turn() -> None:
            await commits.next_turn()
            if worker is not None:
                scheduler.record_contact(worker, advance_clock(scheduler, commits.clock))

        async def next_commit() -> None:
            # Nodes entered now go with the commit after the one under way, which takes about as long.
            nonlocal committing
            await committing
            committing = commits.next_commit()
            if worker is not None:
                scheduler.record_contact(worker, advance_clock(scheduler, commits.clock))

        try:
            steps = Steps(min(TURN, scheduler.limits.step), next_turn)
            for units in draft.find_out():
                await steps.spend(units)
            steps = Steps(scheduler.limits.step, next_commit)
            for units in draft.enter():
                await steps.spend(units)
            yield draft
        finally:
            if not draft.is_carried_out:
                commits.go_on_with(self._give_up(draft))

    async def _give_up(self, draft: Draft) -> None:
        steps = Steps(self._scheduler.limits.step, self._commits.wait_durable)
        with suppress(Unavailable):  # the next broker deletes the rest when it starts
            for units in draft.give_up():
                await steps.spend(units)
