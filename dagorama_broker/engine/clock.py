"""The clocks of the scheduler and of retention, and the timer of the loop.

A system clock that jumps makes nothing old at once. A clock that is put forward cannot be told from a long sleep of the
machine, nor, across a restart, from a broker that was off for long. So time that did not pass while a broker ran counts
only when the clock has stayed ahead for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from dagorama_broker.scheduler import Scheduler

log = logging.getLogger("dagorama_broker")

#: Seconds that the clock has to stay ahead before it is trusted.
BELIEVED_AFTER = 3_600.0
#: Seconds after which the loop advances the clock even if nothing is due, so that it notices when it stood still.
LONGEST_SLEEP = 5.0
#: Seconds that the clock may be off without a warning; brokers note the time about once a minute.
USUAL = 3_600.0


class Clock(Protocol):
    """The time as a broker sees it. The module `time` is the clock of the system."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        ...

    def time(self) -> float:
        """Return seconds since 1970."""
        ...


#: The clock of the machine.
SYSTEM: Clock = time


def advance_clock(scheduler: Scheduler, clock: Clock) -> float:
    """Set the scheduler's clock, before a verb; return the time."""
    now = clock.monotonic()
    scheduler.at(now, clock.time() - now)
    return now


class Alarm:
    """One timer, which is set again only if it would ring too late: one that rings too early does no harm."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, changed: asyncio.Event, seconds: float) -> None:
        """Wait until `changed` is set, which happens by itself after these seconds, or sooner."""
        if changed.is_set():
            await asyncio.sleep(0)  # let calls that are ready to run join the next commit
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + min(max(0.0, seconds), LONGEST_SLEEP)
        if self._timer is None or self._timer.when() > when:
            self.cancel()
            self._timer = loop.call_at(when, self._ring, changed)
        await changed.wait()

    def _ring(self, changed: asyncio.Event) -> None:
        self._timer = None
        changed.set()

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RetentionClock:
    """Tells the time for retention; call `now` at least once in a few minutes.

    `last_used` is the time that the last broker noted in the store, or 0.
    """

    def __init__(
        self,
        last_used: float,
        wall: Callable[[], float] = lambda: SYSTEM.time(),
        monotonic: Callable[[], float] = lambda: SYSTEM.monotonic(),
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        now = wall()
        is_odd = last_used > 0 and abs(now - last_used) > USUAL
        self._offset = (min(now, last_used) if is_odd else now) - monotonic()
        self._ahead_since: float | None = None
        if is_odd:
            self._warn(now, last_used)

    def now(self) -> float:
        """Return seconds since 1970, as far as the system clock is trusted."""
        wall, monotonic = self._wall(), self._monotonic()
        believed = self._offset + monotonic
        if wall <= believed:
            self._ahead_since = None
            return wall
        if self._ahead_since is None:
            self._ahead_since = monotonic
        if monotonic - self._ahead_since < BELIEVED_AFTER:
            return believed
        self._offset, self._ahead_since = wall - monotonic, None
        return wall

    def _warn(self, now: float, last_used: float) -> None:
        hours = (now - last_used) / 3600
        log.warning(
            "the clock says %s, %.1f h %s a broker last used this store: set it if it is wrong, for after %g min it is"
            " believed, and what is past its retention by it is removed",
            datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC"), abs(hours),
            "after" if hours > 0 else "before", BELIEVED_AFTER / 60,
        )  # fmt: skip
