"""Forgets what ended long ago: instances after their retention, in small portions, and large values nobody names.

Whether an instance may go is decided in the broker's loop without awaiting anything, from the store's index and from
what the store is about to learn; it goes with the next commit of the heart. From then on it is unknown. Its rows go in
transactions of their own, between those of others, and after a restart the next broker goes on with them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

from dagorama_broker.engine.clock import RetentionClock
from dagorama_broker.engine.retention_policy import MOST_INSTANCES, Pace
from dagorama_broker.errors import NotServing, StoreError
from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.model.rows import Changes, RemovedRow

if TYPE_CHECKING:
    from dagorama_broker.engine.broker import Broker

log = logging.getLogger("dagorama_broker")

#: Named instances that are looked into in one go, and those that are found to hang together at most.
NAMED, KNOT = 16, 100
#: Large values that are looked at in one go.
VALUES = 64


class Holds:
    """Instances that a call is reading; none of them is removed meanwhile."""

    def __init__(self) -> None:
        self._held: Counter[bytes] = Counter()

    def __contains__(self, id: object) -> bool:
        return id in self._held

    @contextmanager
    def on(self, id: bytes) -> Iterator[None]:
        """To be entered before the instance is looked up, and before anything is awaited after that."""
        self.take(id)
        try:
            yield
        finally:
            self.let_go(id)

    def take(self, id: bytes) -> None:
        """The same, until `let_go`."""
        self._held[id] += 1

    def let_go(self, id: bytes) -> None:
        self._held[id] -= 1
        if not self._held[id]:
            del self._held[id]


class Retention:
    """Removes, sweeps and collects, for as long as its broker runs."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._clock = RetentionClock(broker.store.last_used)
        self._pace = Pace(broker.scheduler.graph, time.monotonic())
        self._is_more = False  #: whether there were more than what has been removed then
        self._cutoff = 0.0  #: wall time of the last look
        self._blocked = 0  #: whose time was over, and that somebody was reading or about to use then
        self._is_left_over = False  #: whether removed instances have rows, so that these go first
        self._looked_around = False
        self._knots_after = 0  #: key of the named instance that was looked into last

    async def run(self) -> None:
        """Until cancelled, or until the broker leaves."""
        try:
            while True:
                await asyncio.sleep(await self._step())
        except NotServing:
            return

    async def _step(self) -> float:
        """Do a little; seconds until the next step."""
        started = time.monotonic()
        try:
            is_more = await self._forget_some()
        except StoreError as error:
            # What is to be forgotten does no harm meanwhile; where the store is beyond use, a commit will say so.
            log.error("what is past its retention cannot be removed, which is tried again later: %s", error)
            return self._broker.keeping.pause()
        # As long for others as it took itself.
        return time.monotonic() - started if is_more else self._pace.pause(started, self._broker.keeping.pause())

    async def _forget_some(self) -> bool:
        """Remove, sweep and collect a portion; whether there is more to do at once."""
        broker = self._broker
        if not self._looked_around:
            await asyncio.to_thread(broker.store.find_unnamed_large)
            self._looked_around = True
        if not self._is_left_over and self._remove():
            await broker.durable()
            self._is_more |= self._are_freed()
        is_more = self._collect()
        self._is_left_over = await broker.in_store(self._sweep, self._pace.nodes())
        return is_more or self._is_more or self._is_left_over

    def _sweep(self, nodes: int) -> bool:
        """In the store's thread: delete rows and files; whether rows are left over."""
        store = self._broker.store
        is_left_over = store.sweep(nodes)
        store.delete_collected(self._broker.keeping.grace)
        return is_left_over

    # --- instances ------------------------------------------------------------------------------------

    def _remove(self) -> int:
        """Have the next commit remove instances whose time is over; how many."""
        broker, now = self._broker, self._now()
        self._cutoff = now
        expired = self._expired(now)
        rows = self._unneeded(expired) if expired else self._knot(now)
        self._blocked = min(len(expired) - len(rows), MOST_INSTANCES) if expired else 0
        self._is_more |= bool(rows) and not expired
        broker.scheduler.graph.changes.removed += rows
        keys = {row.key for row in rows}
        if keys:
            broker.forget(keys)
        for load in broker.loads:
            load.gone |= keys
        self._pace.count(len(rows))
        return len(rows)

    def _expired(self, now: float) -> list[RemovedRow]:
        """A portion of those whose time is over and that no other instance names, failed ones too."""
        keeping, store = self._broker.keeping, self._broker.store
        most = self._pace.instances() + self._blocked
        expired: list[RemovedRow] = []
        self._is_more = False
        for failed in (False, True):
            if keeping.kept(failed) < inf:
                found = store.expired(failed, now - keeping.kept(failed), most)
                expired += map(self._removal, found)
                self._is_more |= len(found) == most
        return expired

    def _are_freed(self) -> bool:
        """Whether what has been removed named others whose time was over, so that these can go at once."""
        keeping, store, most = self._broker.keeping, self._broker.store, self._blocked + 1
        found = [
            len(store.expired(failed, self._cutoff - keeping.kept(failed), most))
            for failed in (False, True)
            if keeping.kept(failed) < inf
        ]
        return sum(found) > self._blocked

    def _unneeded(self, expired: list[RemovedRow]) -> list[RemovedRow]:
        """Those that no call is about to use, and of which the store will not learn otherwise."""
        broker = self._broker
        unsettled: set[int] = set()
        for changes in self._uncommitted():
            unsettled.update(end.key for end in changes.instance_ends)
            unsettled.update(link.named for link in changes.links)
        live = broker.scheduler.graph.instances
        return [
            row for row in expired if row.key not in unsettled and row.id not in live and row.id not in broker.holds
        ]

    def _removal(self, stored: StoredInstance) -> RemovedRow:
        assert stored.ended is not None
        kept = self._broker.keeping.kept(stored.failed)
        return RemovedRow(stored.row.key, stored.row.id, stored.ended, stored.failed, kept)

    def _knot(self, now: float) -> list[RemovedRow]:
        """Instances that name each other, where the time of them all is over; a few are looked into at a time."""
        named = self._broker.store.named(self._knots_after, NAMED)
        self._knots_after = 0
        for stored in named:
            knot = self._who_needs(stored, now)
            if knot and len(self._unneeded(knot)) == len(knot):
                return knot
            self._knots_after = stored.row.key
        return []

    def _who_needs(self, stored: StoredInstance, now: float) -> list[RemovedRow]:
        """An instance, those that name it, and so on; none where one of them is to be kept, or there are too many."""
        found, stack = {stored.row.key: stored}, [stored]
        while stack:
            other = stack.pop()
            if other.ended is None or other.ended > now - self._broker.keeping.kept(other.failed):
                return []
            for naming in self._broker.store.naming(other.row.key):
                if naming.row.key not in found:
                    found[naming.row.key] = naming
                    stack.append(naming)
            if len(found) > KNOT:
                return []
        return [self._removal(each) for each in found.values()]

    def _uncommitted(self) -> tuple[Changes, Changes]:
        return self._broker.in_flight, self._broker.scheduler.graph.changes

    def _now(self) -> float:
        """Seconds since 1970; a clock that jumps makes nothing old at once."""
        return self._clock.now()

    # --- large values ---------------------------------------------------------------------------------

    def _collect(self) -> bool:
        broker = self._broker
        wanted: set[bytes] | None = None

        def is_wanted(sha256: bytes) -> bool:
            nonlocal wanted
            if wanted is None:
                wanted = self._wanted()
            return sha256 in wanted

        return broker.store.collect_large(broker.keeping.grace, VALUES, is_wanted)

    def _wanted(self) -> set[bytes]:
        """Large values that the store is about to be told of, or may be when an attempt ends."""
        staged = self._broker.scheduler.staged.values()
        wanted = {sha256 for each in staged for run in each.runs for sha256 in run.large}
        for changes in self._uncommitted():
            wanted.update(row.sha256 for row in changes.large)
        return wanted
