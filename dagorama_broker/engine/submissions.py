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

    async def submit(self, runs: Sequence[NewNodes]) -> None:
        """Make nodes and instances, once, and return when they are durable.

        Raises a BrokerRefusal, and then nothing has changed.
        """
        if self._is_large(runs):
            await self._drafts.submit(runs)
            return
        if not self.submit_from_memory(runs):
            loaded = await self._loading.load(runs)
            # Nothing is awaited from here to the scheduler: what was loaded is still valid.
            await self._refuse_unknown(runs, loaded)
            self._make(runs, loaded)
        await self._commits.wait_durable()

    def submit_from_memory(self, runs: Sequence[NewNodes]) -> bool:
        """Make nodes and instances if all that they name is in memory. Return False if it must be loaded first.

        The caller waits until they are durable. Raises a BrokerRefusal, and then nothing has changed.
        """
        if self._is_large(runs) or (loaded := self._loading.from_memory(runs)) is None:
            return False
        self._make(runs, loaded)
        return True

    def _is_large(self, runs: Sequence[NewNodes]) -> bool:
        return self._scheduler.limits.is_large(sum([run.weight for run in runs]))

    def _make(self, runs: Sequence[NewNodes], loaded: Loaded) -> None:
        reject_other_protocol(runs, loaded)
        new = self._loading.left_to_make(runs, loaded)
        for run in new:
            self._lookups.check_large(run.large)
        advance_clock(self._scheduler)
        self._scheduler.submit(new, loaded.nodes, loaded.instances.values())

    async def _refuse_unknown(self, runs: Sequence[NewNodes], loaded: Loaded) -> None:
        """Raise NotFound if an instance that nodes are added to does not exist."""
        for run in runs:
            if run.instance in loaded.unknown and self._scheduler.instance(run.instance) is None:
                await self._commits.wait_durable()  # its removal may be under way
                raise self._lookups.not_known(run.instance)

    async def report_children(self, worker: Worker, key: int, attempt: int, run: NewNodes) -> bool:
        """Take the children that a worker reports for a running attempt.

        Returns False if the worker does not hold the attempt. Raises a BrokerRefusal, and then nothing has changed.
        """
        is_eager = self._scheduler.is_eager(worker, key, attempt)
        loaded = await self._loading.load([run]) if is_eager else Loaded()
        advance_clock(self._scheduler)
        reject_other_protocol([run], loaded)
        self._lookups.check_large(run.large)
        if not self._scheduler.has_made(key, run):  # else it is a report that was sent again
            self._loading.refuse_made(run)
        return self._scheduler.report_children(worker, key, attempt, run, loaded.nodes, loaded.instances.values())
