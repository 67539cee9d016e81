"""How long what nobody needs is kept, and what is said of what was not kept longer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from dagorama_broker.errors import NotKnown
from dagorama_broker.model import RemovedRow

#: Seconds between two looks for something to remove, at most and at least.
LONGEST_PAUSE, SHORTEST_PAUSE = 60.0, 0.02
DAY, HOUR, MINUTE = 86_400, 3_600, 60


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long what nobody needs is kept. Seconds; infinity: never removed."""

    ended: float = 24 * HOUR  #: an instance, when it has ended
    failed: float = 7 * DAY  #: an instance that has ended and in which a node failed or was cancelled
    grace: float = HOUR  #: a large value that no node names

    def kept(self, failed: bool) -> float:
        return self.failed if failed else self.ended

    def pause(self) -> float:
        """Seconds between two looks for something to remove."""
        return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, min(self.ended, self.failed, self.grace) / 4))


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
