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
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING

from dagorama_broker.errors import NotKnown, NotServing, StoreError
from dagorama_broker.model import Changes, RemovedRow

if TYPE_CHECKING:
    from dagorama_broker.broker import Broker

log = logging.getLogger("dagorama_broker")

#: Instances that go in one commit, and nodes in one transaction: others' commits wait no longer than for these.
INSTANCES, NODES = 100, 1_000
#: Large values that are looked at in one go.
VALUES = 64
#: Seconds between two looks, at most and at least.
LONGEST_PAUSE, SHORTEST_PAUSE = 60.0, 0.02
DAY, HOUR, MINUTE = 86_400, 3_600, 60


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long what nobody needs is kept. Seconds; infinity: never removed."""

    ended: float = 24 * HOUR  #: an instance, when it has ended
    failed: float = 7 * DAY  #: an instance that has ended and in which a node failed or was cancelled
    grace: float = HOUR  #: a large value that no node names

    def pause(self) -> float:
        """Seconds between two looks for something to remove."""
        return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, min(self.ended, self.failed, self.grace) / 4))


class Holds:
    """Instances that a call is reading; none of them is removed meanwhile."""

    def __init__(self) -> None:
        self._held: Counter[bytes] = Counter()

    def __contains__(self, id: object) -> bool:
        return id in self._held

    @contextmanager
    def on(self, id: bytes) -> Iterator[None]:
        """To be entered before the instance is looked up, and before anything is awaited after that."""
        self._held[id] += 1
        try:
            yield
        finally:
            self._held[id] -= 1
            if not self._held[id]:
                del self._held[id]


class Retention:
    """Removes, sweeps and collects, for as long as its broker runs."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._began = time.time() - time.monotonic()
        self._looked_around = False

    async def run(self) -> None:
        """Until cancelled, or until the broker leaves."""
        try:
            while True:
                started = time.monotonic()
                is_more = await self._step()
                # As long for others as it took itself.
                pause = time.monotonic() - started if is_more else self._broker.keeping.pause()
                await asyncio.sleep(pause)
        except NotServing:
            return

    async def _step(self) -> bool:
        """Do a little; whether there is more to do at once."""
        broker = self._broker
        try:
            if not self._looked_around:
                await asyncio.to_thread(broker.store.find_unnamed_large)
                self._looked_around = True
            is_more = self._remove()
            if is_more:
                await broker.durable()
            is_more |= await broker.in_store(broker.store.sweep, NODES)
            is_more |= self._collect()
            await broker.in_store(broker.store.delete_collected)
        except StoreError as error:
            # What is to be forgotten does no harm meanwhile; where the store is beyond use, a commit will say so.
            log.error("what is past its retention cannot be removed, which is tried again later: %s", error)
            return False
        return is_more

    # --- instances ------------------------------------------------------------------------------------

    def _remove(self) -> bool:
        """Have the next commit remove instances whose time is over."""
        broker, keeping, now = self._broker, self._broker.keeping, self._now()
        expired = [
            RemovedRow(stored.row.key, stored.row.id, stored.ended or 0.0, failed, kept)
            for failed, kept in ((False, keeping.ended), (True, keeping.failed))
            if kept < inf
            for stored in broker.store.expired(failed, now - kept, INSTANCES)
        ]
        rows = self._unneeded(expired) if expired else []
        broker.scheduler.graph.changes.removed += rows
        keys = {row.key for row in rows}
        for load in broker.loads:
            load.gone |= keys
        return bool(rows)

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

    def _uncommitted(self) -> tuple[Changes, Changes]:
        return self._broker.in_flight, self._broker.scheduler.graph.changes

    def _now(self) -> float:
        """Seconds since 1970; a clock that is put forward while the broker runs makes nothing older."""
        return min(time.time(), self._began + time.monotonic())

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


# --- what is said of it -------------------------------------------------------------------------------


def not_known(instance: bytes, removed: RemovedRow | None, keeping: Keeping) -> NotKnown:
    """One sentence for whoever names an instance that is not there, or not any more."""
    if removed is not None:
        ended = datetime.fromtimestamp(removed.ended, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        setting = "DAGORAMA_RETENTION_FAILED" if removed.failed else "DAGORAMA_RETENTION"
        return NotKnown(
            f"instance {instance.hex()} ended on {ended} and was removed after its retention of"
            f" {in_words(removed.kept)} ({setting})"
        )
    return NotKnown(f"instance {instance.hex()} is not known to this broker{_what_is_removed(keeping)}")


def _what_is_removed(keeping: Keeping) -> str:
    kept = [
        f"{what} {in_words(seconds)} ({setting})"
        for what, seconds, setting in (
            ("those that have ended after", keeping.ended, "DAGORAMA_RETENTION"),
            ("failed ones after", keeping.failed, "DAGORAMA_RETENTION_FAILED"),
        )
        if seconds < inf
    ]
    return f"; old instances are removed, {', '.join(kept)}" if kept else ""


def in_words(seconds: float) -> str:
    """7 days, 24 h, 90 min, 45 s."""
    for size, unit in ((DAY, " days"), (HOUR, " h"), (MINUTE, " min")):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g} s"

