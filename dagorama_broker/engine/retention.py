"""Removes ended instances after their retention, in small portions, and unreferenced large values.

Whether an instance may be removed is decided in the event loop without awaiting: from the store's index, from what was
committed since that was read, and from changes that are not committed yet. It is removed with the next commit, and
unknown from then on. Its rows are deleted in transactions of their own, between other commits; after a restart the next
broker continues.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from math import inf

from dagorama_broker.engine.clock import RetentionClock
from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.loading import Loading
from dagorama_broker.engine.lookups import Lookups
from dagorama_broker.engine.retention_policy import MOST_INSTANCES, RemovalRate
from dagorama_broker.errors import FailedPrecondition, StoreError, Unavailable
from dagorama_broker.model.actions import ActionRow
from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.model.rows import DELETED, Changes, RemovedRow

log = logging.getLogger("dagorama_broker")

#: Named instances that one step checks, and the size up to which a cycle of instances is found.
NAMED, KNOT = 16, 100
#: Looks at an instance that is deleted, while other calls use it.
DELETE_ATTEMPTS = 20
#: Large values that one step checks.
VALUES = 64


class Retention:
    """Removes instances, deletes rows and collects large values, for as long as its broker runs."""

    def __init__(
        self, commits: Commits, lookups: Lookups, loading: Loading, forget: Callable[[Collection[RemovedRow]], None]
    ) -> None:
        """Call `forget` with removed instances, so that nothing cached of them is used."""
        self._commits = commits
        self._lookups = lookups
        self._loading = loading
        self._forget = forget
        self._scheduler = commits.scheduler
        self._store = commits.store
        clock = self._system = commits.clock
        self._clock = RetentionClock(commits.store.last_used, lambda: clock.time(), lambda: clock.monotonic())
        self._pace = RemovalRate(commits.scheduler, self._system.monotonic())
        self._is_more = False  # whether there were more expired instances than were removed
        self._cutoff = 0.0  # wall time of the last look
        self._blocked = 0  # expired instances that calls used then
        self._is_left_over = False  # whether removed instances have rows, which are deleted first
        self._looked_around = False
        self._knots_after = 0  # key of the named instance that was checked last

    async def run(self) -> None:
        """Remove what has expired, until cancelled or until the broker leaves."""
        try:
            while True:
                await asyncio.sleep(await self._step())
        except Unavailable:
            return

    async def _step(self) -> float:
        """Remove a portion. Return the seconds until the next step."""
        now = self._system.monotonic
        started = now()
        try:
            is_more = await self._forget_some()
        except StoreError as error:
            # Expired instances do no harm meanwhile; if the store is unusable, a commit will fail.
            log.error("cannot delete expired instances, will retry: %s", error)
            return self._lookups.keeping.pause()
        # Let other calls run for as long as this took.
        return now() - started if is_more else self._pace.pause(started, self._lookups.keeping.pause())

    async def _forget_some(self) -> bool:
        """Remove, delete and collect a portion. Return whether there is more to do at once."""
        if not self._looked_around:
            await asyncio.to_thread(self._store.find_unnamed_large)
            self._looked_around = True
        if not self._is_left_over and await self._remove():
            await self._commits.wait_durable()
            self._is_more |= await self._are_freed()
        is_more = await self._collect()
        self._is_left_over = await self._commits.in_store(self._sweep, self._pace.nodes())
        return is_more or self._is_more or self._is_left_over

    def _sweep(self, nodes: int) -> bool:
        """Delete rows and files, in the store's thread. Return whether rows are left over."""
        is_left_over = self._store.sweep(nodes)
        self._store.delete_collected(self._lookups.keeping.grace)
        return is_left_over

    # --- instances ------------------------------------------------------------------------------------

    async def _remove(self) -> int:
        """Remove expired instances with the next commit. Return how many."""
        now = self._clock.now()
        self._cutoff = now
        with self._commits.observed() as since:
            expired = await self._expired(now)
            rows = self._unneeded(expired, since) if expired else await self._knot(now, since)
            self._blocked = min(len(expired) - len(rows), MOST_INSTANCES) if expired else 0
            self._is_more |= bool(rows) and not expired
            self._take_out(rows)
            self._pace.count(len(rows))
            return len(rows)

    def _take_out(self, rows: Collection[RemovedRow]) -> None:
        """Remove instances with the next commit: from now on no call finds them."""
        self._scheduler.remove_instances(rows)
        keys = {row.key for row in rows}
        if keys:
            self._forget(rows)
        for load in self._loading.under_way:
            load.gone |= keys

    async def delete(self, id: bytes, action: ActionRow) -> None:
        """Remove one ended instance now, record that, and return when it is durable.

        Raises NotFound, or FailedPrecondition if it has not ended, if another instance needs its values, or if a call
        uses it.
        """
        for _ in range(DELETE_ATTEMPTS):
            with self._commits.observed() as since:
                row = await self._deletable(id)
                is_unneeded = bool(self._unneeded([row], since))
                if is_unneeded:
                    self._take_out([row])
                    self._scheduler.record_action(action)
            if is_unneeded:
                self._is_left_over = True
                await self._commits.wait_durable()
                return
        raise FailedPrecondition(f"another call reads instance {id.hex()}: try again in a moment")

    async def _deletable(self, id: bytes) -> RemovedRow:
        """Return the record of the removal of an ended instance that no other one needs. Raises a BrokerRefusal."""
        stored = await self._lookups.stored_instance(id)
        if stored.ended is None or id in self._scheduler.instances:
            raise FailedPrecondition(f"instance {id.hex()} has unfinished nodes: cancel it, or wait until it ends")
        if naming := await self._commits.quickly(self._store.naming, stored.row.key):
            raise FailedPrecondition(
                f"instance {naming[0].row.id.hex()} needs values of instance {id.hex()}, which it has from the cache or"
                " through promises that it returned: delete that one first"
            )
        return RemovedRow(stored.row.key, id, stored.ended, stored.failed, DELETED)

    async def _expired(self, now: float) -> list[RemovedRow]:
        """Return a portion of the expired instances, failed ones too, that no other instance names."""
        keeping, quickly, expired_in = self._lookups.keeping, self._commits.quickly, self._store.expired
        most = self._pace.instances() + self._blocked
        expired: list[RemovedRow] = []
        self._is_more = False
        for failed in (False, True):
            if keeping.kept(failed) < inf:
                found = await quickly(expired_in, failed, now - keeping.kept(failed), most)
                expired += map(self._removal, found)
                self._is_more |= len(found) == most
        return expired

    async def _are_freed(self) -> bool:
        """Return whether the removed instances named expired ones, so that these can be removed at once."""
        keeping, quickly, most = self._lookups.keeping, self._commits.quickly, self._blocked + 1
        found = [
            len(await quickly(self._store.expired, failed, self._cutoff - keeping.kept(failed), most))
            for failed in (False, True)
            if keeping.kept(failed) < inf
        ]
        return sum(found) > self._blocked

    def _unneeded(self, expired: list[RemovedRow], since: Iterable[Changes]) -> list[RemovedRow]:
        """Return the instances that no call uses, and that no change concerns which was made after they were read.

        `since` are the changes that were committed meanwhile; uncommitted changes count too.
        """
        unsettled: set[int] = set()
        for changes in (*since, *self._uncommitted()):
            unsettled.update(end.key for end in changes.instance_ends)
            unsettled.update(link.named for link in changes.links)
            unsettled.update(row.key for row in changes.removed)
        live, holds = self._scheduler.instances, self._lookups.holds
        return [row for row in expired if row.key not in unsettled and row.id not in live and row.id not in holds]

    def _removal(self, stored: StoredInstance) -> RemovedRow:
        assert stored.ended is not None
        kept = self._lookups.keeping.kept(stored.failed)
        return RemovedRow(stored.row.key, stored.row.id, stored.ended, stored.failed, kept)

    async def _knot(self, now: float, since: Iterable[Changes]) -> list[RemovedRow]:
        """Return expired instances that name each other; a few are checked at a time."""
        named = await self._commits.quickly(self._store.named, self._knots_after, NAMED)
        self._knots_after = 0
        for stored in named:
            knot = await self._who_needs(stored, now)
            if knot and len(self._unneeded(knot, since)) == len(knot):
                return knot
            self._knots_after = stored.row.key
        return []

    async def _who_needs(self, stored: StoredInstance, now: float) -> list[RemovedRow]:
        """Return an instance, the instances that name it, and so on; nothing if one must be kept, or there are many."""
        found, stack = {stored.row.key: stored}, [stored]
        while stack:
            other = stack.pop()
            if other.ended is None or other.ended > now - self._lookups.keeping.kept(other.failed):
                return []
            for naming in await self._commits.quickly(self._store.naming, other.row.key):
                if naming.row.key not in found:
                    found[naming.row.key] = naming
                    stack.append(naming)
            if len(found) > KNOT:
                return []
        return [self._removal(each) for each in found.values()]

    def _uncommitted(self) -> tuple[Changes, Changes]:
        return self._commits.in_flight, self._scheduler.changes

    # --- large values ---------------------------------------------------------------------------------

    async def _collect(self) -> bool:
        """Mark unreferenced large values for deletion. Return whether there are more."""
        grace = self._lookups.keeping.grace
        if not self._store.near:
            # Looks and commits that are asked for later wait in the store's thread until this is over.
            named = self._wanted().__contains__
            return await self._commits.in_store(self._store.collect_large, grace, VALUES, named)
        wanted: set[bytes] | None = None

        def is_wanted(sha256: bytes) -> bool:
            nonlocal wanted
            if wanted is None:
                wanted = self._wanted()
            return sha256 in wanted

        return self._store.collect_large(grace, VALUES, is_wanted)

    def _wanted(self) -> set[bytes]:
        """Return large values that uncommitted changes, staged children or decisions that are under way name."""
        staged = self._scheduler.all_staged()
        wanted = {sha256 for each in staged for block in each.blocks for sha256 in block.large}
        wanted |= self._loading.looks.large()
        for changes in self._uncommitted():
            wanted.update(row.sha256 for row in changes.large)
        return wanted
