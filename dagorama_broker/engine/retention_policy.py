"""Defines how long ended instances and unreferenced values are kept, and how fast they are removed."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from dagorama_broker.errors import NotFound, utc_text
from dagorama_broker.model.rows import DELETED, RemovedRow
from dagorama_broker.scheduler import Scheduler

#: Seconds between two looks for something to remove, at most and at least.
LONGEST_PAUSE, SHORTEST_PAUSE = 60.0, 0.02
DAY, HOUR, MINUTE = 86_400, 3_600, 60
#: Instances that one commit removes, and nodes that one transaction deletes, at least: other commits wait for these.
INSTANCES, NODES = 100, 1_000
#: The same at most: the loop is blocked while this many instances are looked up.
MOST_INSTANCES, MOST_NODES = 4_000, 20_000
#: Instances, or nodes, removed for each one that was made meanwhile, so that removal is never slower than creation.
SHARE = 2


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long things are kept, in seconds; infinity: forever."""

    ended: float = 24 * HOUR  #: an instance, when it has ended
    failed: float = 7 * DAY  #: an instance that has ended and in which a node failed or was cancelled
    grace: float = HOUR  #: an unreferenced large value

    def kept(self, failed: bool) -> float:
        """Return how long an ended instance is kept."""
        return self.failed if failed else self.ended

    def pause(self) -> float:
        """Return the seconds between two looks for something to remove."""
        return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, min(self.ended, self.failed, self.grace) / 4))


class RemovalRate:
    """Sizes the portions of a removal: small, but larger than what is made meanwhile, with pauses in between."""

    def __init__(self, scheduler: Scheduler, now: float) -> None:
        self._scheduler = scheduler
        self._instances, self._nodes = scheduler.instances_made, scheduler.nodes_made
        self._paused_at = now
        self._removed = 0  # instances since then

    def instances(self) -> int:
        """Return how many instances may be removed now, by how many were made since the last call."""
        before, self._instances = self._instances, self._scheduler.instances_made
        return min(MOST_INSTANCES, max(INSTANCES, SHARE * (self._instances - before)))

    def nodes(self) -> int:
        """Return how many nodes may be deleted now, by how many were made since the last call."""
        before, self._nodes = self._nodes, self._scheduler.nodes_made
        return min(MOST_NODES, max(NODES, SHARE * (self._nodes - before)))

    def count(self, removed: int) -> None:
        """Record that `removed` instances were removed."""
        self._removed += removed

    def pause(self, now: float, longest: float) -> float:
        """Return the seconds until a portion has expired, at the rate since the last pause."""
        since, self._paused_at = now - self._paused_at, now
        removed, self._removed = self._removed, 0
        if not removed:
            return longest
        return min(longest, max(SHORTEST_PAUSE, since * INSTANCES / removed))


def not_known(instance: bytes, removed: RemovedRow | None, keeping: RetentionPolicy) -> NotFound:
    """Return the error for an instance that is unknown or was removed."""
    if removed is not None:
        ended = utc_text(removed.ended)
        setting = "DAGORAMA_RETENTION_FAILED" if removed.failed else "DAGORAMA_RETENTION"
        if removed.kept == DELETED:
            return NotFound(f"instance {instance.hex()} ended on {ended} and was deleted by a user")
        return NotFound(
            f"instance {instance.hex()} ended on {ended} and was removed after its retention of"
            f" {format_duration(removed.kept)} ({setting})"
        )
    return NotFound(f"instance {instance.hex()} is not known to this broker{_what_is_removed(keeping)}")


def _what_is_removed(keeping: RetentionPolicy) -> str:
    kept = [
        f"{what} {format_duration(seconds)} ({setting})"
        for what, seconds, setting in (
            ("ended ones after", keeping.ended, "DAGORAMA_RETENTION"),
            ("failed ones after", keeping.failed, "DAGORAMA_RETENTION_FAILED"),
        )
        if seconds < inf
    ]
    return f"; old instances are removed, {', '.join(kept)}" if kept else ""


def format_duration(seconds: float) -> str:
    """Return a duration as text: 7 days, 24 h, 90 min, 45 s."""
    for size, unit in ((DAY, " days"), (HOUR, " h"), (MINUTE, " min")):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g} s"
