"""Decides what a schedule does when times have come: which instances it starts, and whether it cancels the last one.

The rule: a decision and the row that records it go into one commit, so that no time is decided about twice.
"""

from __future__ import annotations

from itertools import takewhile
from typing import NamedTuple

from dagorama.api.contract import SCHEDULE_LABEL, entry_node, firing_arguments, firing_instance, schedule_digest
from dagorama_broker.engine.calendar import ON_TIME, Due, after, due, time_name
from dagorama_broker.model.hooks import Hook
from dagorama_broker.model.schedules import (
    CatchUp,
    Overlap,
    ScheduleRow,
    unpacked_fair,
    unpacked_function,
    unpacked_hook,
)
from dagorama_broker.scheduler import NewNodes, Start

#: Seconds before a time, after the time before it: times are at least a second apart.
BEFORE = 0.5


class Decision(NamedTuple):
    """A decision about the times of a schedule that have come."""

    row: ScheduleRow  #: as it is stored from now on
    start: list[float]  #: times for which an instance is started, oldest first
    cancels: bool  #: the last instance is cancelled before
    skipped: int  #: times that have come and for which nothing is started, as far as they were counted
    missed: int = 0  #: of these, times for which nothing is started although no instance ran


def decide(row: ScheduleRow, now: float, is_running: bool) -> Decision:
    """Return what a schedule does at `now`, in seconds since 1970; `is_running`: its last instance has not ended.

    All times up to `now` are decided about. A time that waits for the end of the last instance comes first.
    """
    if row.paused:
        return Decision(row._replace(fired=max(row.fired, now), waiting=0.0), [], False, 0)
    if row.is_catching_up:
        if _in_sequence(row):
            return _next_missed(row, now, is_running)
        row = row._replace(waiting=0.0)  # its rules have changed meanwhile
    found = due(row.times, CatchUp(row.catch_up), row.fired, now)
    came = [row.waiting, *found.start] if row.waiting else found.start
    if _in_sequence(row) and _were_missed(found.start, now, is_running):
        # The first one starts now, or when the last instance has ended.
        changed = row._replace(fired=came[0] - BEFORE, waiting=came[-1])
        decision = Decision(changed, [], False, 0) if is_running else _next_missed(changed, now, False)
        return _with_skipped(decision, found, now, found.left_out, found.left_out)
    start, waiting = _by_overlap(Overlap(row.overlap), came, is_running)
    fired = now if found.start or found.left_out else row.fired
    changed = _started(row._replace(fired=fired, waiting=waiting), start)
    skipped = found.left_out + len(came) - len(start) - bool(waiting)
    missed = skipped if row.overlap == Overlap.REPLACE else found.left_out  # a later one replaces those before
    cancels = bool(start) and is_running and row.overlap == Overlap.REPLACE
    return _with_skipped(Decision(changed, start, cancels, 0), found, now, skipped, missed)


def _in_sequence(row: ScheduleRow) -> bool:
    """Return whether instances for missed times are started one after the other."""
    return row.catch_up == CatchUp.ALL and row.overlap in (Overlap.SKIP, Overlap.QUEUE)


def _were_missed(times: list[float], now: float, is_running: bool) -> bool:
    """Return whether no broker ran at some of these times, or it was too late for more than the last of them.

    A broker that is a little late leaves times out as others do, if the last instance runs.
    """
    return any(now - time > ON_TIME for time in times) if is_running else len(times) > 1


def _next_missed(row: ScheduleRow, now: float, is_running: bool) -> Decision:
    """Return what a schedule does that catches up: times after `fired` and up to `waiting` each get an instance.

    Times that have come meanwhile are decided about with the last one: an instance has run at each of them.
    """
    if is_running:
        return Decision(row, [], False, 0)
    missed = list(takewhile(lambda time: time <= row.waiting, after(row.times, row.fired)))
    if len(missed) > 1:
        return Decision(_started(row._replace(fired=missed[0]), missed[:1]), missed[:1], False, 0)
    found = due(row.times, CatchUp.LAST, row.waiting, now)
    _, waiting = _by_overlap(Overlap(row.overlap), found.start, is_running=True)
    changed = _started(row._replace(fired=now, waiting=waiting), missed)
    skipped = found.left_out + len(found.start) - bool(waiting)
    return _with_skipped(Decision(changed, missed, False, 0), found, now, skipped, 0)


def _started(row: ScheduleRow, start: list[float]) -> ScheduleRow:
    return row._replace(instance=instance_of(row, start[-1]), last=start[-1]) if start else row


def _with_skipped(decision: Decision, found: Due, now: float, skipped: int, missed: int) -> Decision:
    row = decision.row
    if skipped or found.more:
        row = with_missed(row, skipped, now)._replace(uncounted=row.uncounted or found.more)
    return decision._replace(row=row, skipped=skipped, missed=missed)


def with_missed(row: ScheduleRow, times: int, now: float) -> ScheduleRow:
    """Return the row with more times counted for which nothing was started."""
    return row._replace(missed=row.missed + times, missed_at=now)


def without_waiting(row: ScheduleRow, now: float) -> ScheduleRow:
    """Return the row without the time that waits, and those before it: they count as times that were missed."""
    if not row.waiting:
        return row
    counted = with_missed(row, 1, now)
    return counted._replace(waiting=0.0, uncounted=row.uncounted or row.is_catching_up)


def _by_overlap(overlap: Overlap, came: list[float], is_running: bool) -> tuple[list[float], float]:
    """Return the times for which an instance is started now, and the one that waits, or 0."""
    if not came or overlap is Overlap.ALLOW:
        return came, 0.0
    if overlap is Overlap.REPLACE:
        return came[-1:], 0.0
    if overlap is Overlap.SKIP:
        return ([] if is_running else came[-1:]), 0.0
    if is_running:
        return [], came[-1]
    return came[:1], came[-1] if len(came) > 1 else 0.0


def instance_of(row: ScheduleRow, time: float) -> bytes:
    """Return the ID of the instance that a schedule starts for a time."""
    return firing_instance(schedule_digest(row.definition, row.name), time_name(row.times, time))


def block_of(row: ScheduleRow, time: float) -> NewNodes:
    """Return the instance that a schedule starts for a time, with its entry point."""
    instance, name = instance_of(row, time), time_name(row.times, time)
    entry = entry_node(instance)
    return NewNodes(
        instance,
        entry[:12],
        0,
        [unpacked_function(row.function)],
        [0],
        [firing_arguments(row.arguments, name)],
        creates=(row.definition, entry),
        keys=[row.key] if row.key else (),
        key=[1] if row.key else (),
        weight=2,
        start=Start(
            f"{row.name}/{name}",
            row.digest,
            labels=((SCHEDULE_LABEL, row.name),),
            hook=_hook_of(row, name),
            fair=unpacked_fair(row.function),
        ),
    )


def _hook_of(row: ScheduleRow, time: str) -> Hook | None:
    """Return the failure hook of the instance that a schedule starts for a time."""
    hook = unpacked_hook(row.function)
    if hook is None:
        return None
    return Hook(hook.function, firing_arguments(hook.arguments, time))


def fired_by(definition: str, name: str, instance: bytes) -> tuple[str, str] | None:
    """Return the ID of the schedule that has started an instance, and the time; None: none has.

    `name` is the ID that the instance has by its user.
    """
    schedule, _, time = name.rpartition("/")
    if not schedule or firing_instance(schedule_digest(definition, schedule), time) != instance:
        return None
    return schedule, time
