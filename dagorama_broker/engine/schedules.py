"""Starts what schedules say when their times come, and asleep until then; changes schedules on request.

The rule: what a schedule has decided about its times goes into the commit of the instance that it starts. So a time is
neither lost nor used twice, whenever a broker dies, and another one goes on from the rows in the store.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import NamedTuple

from dagorama_broker.engine.calendar import ON_TIME, next_time
from dagorama_broker.engine.cancellation import Cancellation
from dagorama_broker.engine.clock import advance_clock
from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.firings import Decision, block_of, decide, with_missed, without_waiting
from dagorama_broker.engine.submissions import Submissions
from dagorama_broker.errors import (
    BrokerRefusal,
    Conflict,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StoreError,
    Unavailable,
)
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.model.schedules import MOST_SCHEDULES, ScheduleRow

log = logging.getLogger("dagorama_broker")

#: Seconds after which the clock is read again although no time is near, because somebody may have set it.
LONGEST_SLEEP = 5.0
#: Seconds after which a schedule tries again that could not start anything.
RETRY = 5.0
#: Seconds by which a timer may be early.
EARLY = 0.001


class Upcoming(NamedTuple):
    """A schedule, and the next time at which it starts something."""

    row: ScheduleRow
    next: float  #: seconds since 1970; 0: it is paused, stuck, or there is none
    stuck: str = ""  #: why its times cannot be computed; empty: they can, or it is paused


class Schedules:
    """The schedules of a broker, for as long as it runs."""

    def __init__(self, commits: Commits, submissions: Submissions, cancellation: Cancellation) -> None:
        self._commits = commits
        self._submissions = submissions
        self._cancellation = cancellation
        self._scheduler = commits.scheduler
        self._news = asyncio.Event()
        self._changing = asyncio.Lock()  # one schedule is decided about, or changed, at a time
        self._upcoming: dict[str, Upcoming] = {}  # computed for the rows in it, by name
        self._held_up: dict[str, float] = {}  # until when a schedule is not tried again, by name
        self.waits = False  #: a schedule waits for the end of its last instance
        self.fired = self.missed = 0  #: instances that were started, and times that were missed, since the start

    # --- the loop -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start what is due, until cancelled or until the broker leaves."""
        try:
            while True:
                self._news.clear()
                pause = await self.step()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()
        except Unavailable:
            return

    def look(self) -> None:
        """Look at all schedules again: an instance that one waits for may have ended."""
        self._news.set()

    async def step(self) -> float | None:
        """Start what is due; when that is durable, return the seconds until the next look. None: there is none."""
        async with self._changing:
            self._notice_the_clock()
            now = self._now()
            due = [name for name, at in self._times(now).items() if at <= now]
            for name in due:
                await self._try(name, now)
                self._check_progress(name, now)
            if due:
                await self._commits.wait_durable()
            self.waits = any(row.waiting for row in self._scheduler.schedules.values())
            times = self._times(now)
        return max(0.0, min(LONGEST_SLEEP, min(times.values()) - self._clock())) if times else None

    def _clock(self) -> float:
        return self._commits.clock.time()

    def _notice_the_clock(self) -> None:
        """Let schedules go on from now if the clock was set back. Times that come again start nothing twice."""
        now = self._clock()
        for row in list(self._scheduler.schedules.values()):
            if row.fired > now + ON_TIME:
                log.warning("schedule %r goes on from now: the clock was set back since its last time", row.name)
                waiting = row.waiting if row.waiting <= now else 0.0  # it will come again
                self._scheduler.put_schedule(row._replace(fired=now, waiting=waiting))

    def _now(self) -> float:
        """Return the time; if a timer was a little early, the time that it was set for."""
        now = self._clock()
        soon = min(self._times(now).values(), default=now)
        return soon if now < soon <= now + EARLY else now

    def _times(self, now: float) -> dict[str, float]:
        """Return when schedules are due, by name; without paused ones."""
        found = {}
        for name, row in self._scheduler.schedules.items():
            upcoming = self._upcoming_of(row)
            at = 0.0 if row.is_catching_up else upcoming.next
            if row.waiting and not self._is_running(row):
                at = now
            if at and not upcoming.stuck:
                found[name] = max(at, self._held_up.get(name, 0.0))
        return found

    def _upcoming_of(self, row: ScheduleRow) -> Upcoming:
        known = self._upcoming.get(row.name)
        if known is None or known.row is not row:
            known = self._upcoming[row.name] = _upcoming(row)
            if known.stuck:
                log.error("schedule %r starts nothing: %s", row.name, known.stuck)
        return known

    def _is_running(self, row: ScheduleRow) -> bool:
        return bool(row.instance) and self._scheduler.instance(row.instance) is not None

    # --- one schedule ---------------------------------------------------------------------------------

    async def _try(self, name: str, now: float) -> None:
        self._held_up.pop(name, None)
        try:
            await self._fire(self._scheduler.schedules[name], now)
        except Unavailable:
            raise
        except (BrokerRefusal, StoreError) as error:
            # Expected when limits are reached, or a database is away; the times are kept.
            log.error("schedule %r cannot start its instance, will retry: %s", name, error)
            self._held_up[name] = now + RETRY

    def _check_progress(self, name: str, now: float) -> None:
        """Hold a schedule up that has a time before `now` although it was just decided about all of them.

        That is a fault; without a pause the broker would do nothing else.
        """
        upcoming = self._upcoming_of(self._scheduler.schedules[name])
        if name not in self._held_up and not upcoming.row.waiting and 0 < upcoming.next <= now:
            log.error("schedule %r is due again at once, which is a fault of the broker; will look at it later", name)
            self._held_up[name] = now + RETRY

    async def _fire(self, row: ScheduleRow, now: float) -> None:
        decision = decide(row, now, self._is_running(row))
        if decision.cancels:
            with suppress(NotFound):  # it was removed meanwhile
                await self._cancellation.cancel(row.instance, (), f"schedule {row.name}")
            decision = decide(row, now, False)
        blocks = [block_of(row, time) for time in decision.start]
        loaded = await self._submissions.load(blocks)
        # Nothing is awaited from here on: all of it is in one commit.
        made = 0
        for block in blocks:
            try:
                self._submissions.make(block, loaded)
                made += 1
            except (Conflict, NotFound) as error:
                log.warning("schedule %r started nothing for one of its times: %s", row.name, error)
        self._note(row, decision, made, now)

    def _note(self, before: ScheduleRow, decision: Decision, made: int, now: float) -> None:
        """Record a decision, of which `made` instances were started."""
        row, lost = decision.row, len(decision.start) - made
        if lost:
            row = with_missed(row, lost, now)
        if decision.start and not made:
            row = row._replace(instance=before.instance, last=before.last)
        self.fired += made
        self.missed += decision.skipped + lost
        at_least = "at least " if row.uncounted and not before.uncounted else ""
        if decision.missed:
            text = "schedule %r has started nothing for %s%d of its times: they have passed"
            log.warning(text, row.name, at_least, decision.missed)
        if overlapped := decision.skipped - decision.missed:
            text = "schedule %r has started nothing for %d of its times: its last instance had not ended"
            log.info(text, row.name, overlapped)
        self._scheduler.put_schedule(row)

    # --- on request -----------------------------------------------------------------------------------

    def upcoming(self) -> list[Upcoming]:
        """Return all schedules by name, with their next times."""
        rows = self._scheduler.schedules
        return [self._upcoming_of(rows[name]) for name in sorted(rows)]

    async def put(self, new: ScheduleRow) -> Upcoming:
        """Add a schedule, or replace the one with its name; return when that is durable.

        Times go on if they are the same as before, and a paused schedule stays paused.
        Raises ResourceExhausted if there are too many.
        """
        async with self._changing:
            now, old = self._clock(), self._scheduler.schedules.get(new.name)
            if old is None and len(self._scheduler.schedules) >= MOST_SCHEDULES:
                raise ResourceExhausted(f"there are {MOST_SCHEDULES:,} schedules already")
            row = _replaced(old, new._replace(start=float(int(now)) if new.every else 0.0, fired=now, put=now))
            if row != old:
                self._change(row, ActionRow(ActionKind.SCHEDULE, new.by, target=row.name))
            await self._commits.wait_durable()
            return self._upcoming_of(row)

    async def remove(self, name: str, by: str) -> None:
        """Remove a schedule, but nothing that it has started. Raises NotFound."""
        async with self._changing:
            self._known(name)
            advance_clock(self._scheduler, self._commits.clock)
            self._scheduler.remove_schedule(name)
            self._scheduler.record_action(ActionRow(ActionKind.UNSCHEDULE, by, target=name))
            self._upcoming.pop(name, None)
            await self._commits.wait_durable()

    async def pause(self, name: str, paused: bool, by: str) -> bool:
        """Let a schedule start nothing, or go on with the next of its times; return whether that is a change.

        Raises NotFound.
        """
        async with self._changing:
            row = self._known(name)
            if row.paused != paused:
                now = self._clock()
                changed = without_waiting(row, now)._replace(paused=paused, fired=max(row.fired, now))
                kind = ActionKind.PAUSE_SCHEDULE if paused else ActionKind.RESUME_SCHEDULE
                self._change(changed, ActionRow(kind, by, target=name))
            await self._commits.wait_durable()
            return row.paused != paused

    def _known(self, name: str) -> ScheduleRow:
        row = self._scheduler.schedules.get(name)
        if row is None:
            raise NotFound(f"there is no schedule {name!r}")
        return row

    def _change(self, row: ScheduleRow, action: ActionRow) -> None:
        advance_clock(self._scheduler, self._commits.clock)
        self._scheduler.put_schedule(row)
        self._scheduler.record_action(action)
        self._news.set()


def _upcoming(row: ScheduleRow) -> Upcoming:
    if row.paused:
        return Upcoming(row, 0.0)
    try:
        return Upcoming(row, next_time(row.times, max(row.fired, row.waiting)) or 0.0)
    except InvalidArgument as error:
        return Upcoming(row, 0.0, str(error))


def _replaced(old: ScheduleRow | None, new: ScheduleRow) -> ScheduleRow:
    """Return a schedule with what is kept of the one that it replaces."""
    if old is None:
        return new
    has_other_times = (old.cron, old.zone, old.every) != (new.cron, new.zone, new.every)
    if has_other_times:
        old = without_waiting(old, new.put)
    kept = new._replace(
        paused=old.paused, instance=old.instance, last=old.last, missed=old.missed, missed_at=old.missed_at,
        uncounted=old.uncounted,
    )  # fmt: skip
    if has_other_times:
        return kept
    same = kept._replace(start=old.start, fired=old.fired, waiting=old.waiting, put=old.put)
    return old if same._replace(by=old.by) == old else same
