"""Makes nodes for clients and for running attempts: load, drop what was made before, check, decide, wait."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama_broker.engine.clock import advance_clock
from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.drafts import Drafts
from dagorama_broker.engine.loading import Loaded, Loading, reject_other_protocol
from dagorama_broker.engine.lookups import Lookups
from dagorama_broker.scheduler import NewNodes, Worker


class Submissions:
    def __init__(self, commits: Commits, lookups: Lookups, loading: Loading, drafts: Drafts) -> None:
        self._commits = commits
        self._lookups = lookups
        self._loading = loading
        self._drafts = drafts
        self._scheduler = commits.scheduler
        self._store = commits.store

    async def submit(self, blocks: Sequence[NewNodes]) -> None:
        """Make nodes and instances, once, and return when they are durable.

        Raises a BrokerRefusal, and then nothing has changed.
        """
        if self._is_large(blocks):
            await self._drafts.submit(blocks)
            return
        if not self.submit_from_memory(blocks):
            loaded = await self._loading.load(blocks)
            # Nothing is awaited from here to the scheduler: what was loaded is still valid.
            await self._refuse_unknown(blocks, loaded)
            self._make(blocks, loaded)
        await self._commits.wait_durable()

    def submit_from_memory(self, blocks: Sequence[NewNodes]) -> bool:
        """Make nodes and instances if all that they name is in memory. Return False if it must be loaded first.

        The caller waits until they are durable. Raises a BrokerRefusal, and then nothing has changed.
        """
        if self._is_large(blocks) or (loaded := self._loading.from_memory(blocks)) is None:
            return False
        self._make(blocks, loaded)
        return True

    async def load(self, blocks: Sequence[NewNodes]) -> Loaded:
        """Load what a few blocks name. They may be made by `make` up to the next await."""
        return self._loading.from_memory(blocks) or await self._loading.load(blocks)

    def make(self, block: NewNodes, loaded: Loaded) -> None:
        """Make an instance that was loaded, unless it was made before.

        Raises a BrokerRefusal, and then nothing has changed.
        """
        self._make([block], loaded)

    def _is_large(self, blocks: Sequence[NewNodes]) -> bool:
        return self._scheduler.limits.is_large(sum([block.weight for block in blocks]))

    def _make(self, blocks: Sequence[NewNodes], loaded: Loaded) -> None:
        reject_other_protocol(blocks, loaded)
        new = self._loading.left_to_make(blocks, loaded)
        self._lookups.check_names(new, loaded.known)
        for block in new:
            self._lookups.check_large(block.large, loaded.known)
        advance_clock(self._scheduler, self._commits.clock)
        self._scheduler.submit(new, loaded.nodes, loaded.instances.values())

    async def _refuse_unknown(self, blocks: Sequence[NewNodes], loaded: Loaded) -> None:
        """Raise NotFound if an instance that nodes are added to does not exist."""
        for block in blocks:
            if block.instance in loaded.unknown and self._scheduler.instance(block.instance) is None:
                await self._commits.wait_durable()  # its removal may be under way
                raise await self._lookups.not_known(block.instance)

    async def report_children(self, worker: Worker, key: int, attempt: int, block: NewNodes) -> bool:
        """Take the children that a worker reports for a running attempt.

        Returns False if the worker does not hold the attempt. Raises a BrokerRefusal, and then nothing has changed.
        """
        if self._scheduler.is_eager(worker, key, attempt):
            loaded = await self._loading.load([block])
        else:
            loaded = Loaded(self._store) if self._store.near else await self._loading.look([block])
        advance_clock(self._scheduler, self._commits.clock)
        reject_other_protocol([block], loaded)
        self._lookups.check_names([block], loaded.known)
        self._lookups.check_large(block.large, loaded.known)
        if not self._scheduler.has_made(key, block):  # else it is a report that was sent again
            self._loading.refuse_made(block, loaded.known)
        return self._scheduler.report_children(worker, key, attempt, block, loaded.nodes, loaded.instances.values())
