"""Decides what a schedule does when times have come: which instances it starts, and whether it cancels the last one.

The rule: a decision and the row that records it go into one commit, so that no time is decided about twice.
"""

from __future__ import annotations

from typing import NamedTuple

from dagorama.api.contract import SCHEDULE_LABEL, entry_node, firing_arguments, firing_instance, schedule_digest
from dagorama_broker.engine.calendar import due, time_name
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


class Decision(NamedTuple):
    """A decision about the times of a schedule that have come."""

    row: ScheduleRow  #: as it is stored from now on
    start: list[float]  #: times for which an instance is started, oldest first
    cancels: bool  #: the last instance is cancelled before
    skipped: int  #: times that have come and for which nothing is started, as far as they were counted
    missed: int = 0  #: of these, times for which `catch_up` starts nothing


def decide(row: ScheduleRow, now: float, is_running: bool) -> Decision:
    """Return what a schedule does at `now`, in seconds since 1970; `is_running`: its last instance has not ended.

    All times up to `now` are decided about. A time that waits for the end of the last instance comes first.
    """
    if row.paused:
        return Decision(row._replace(fired=max(row.fired, now), waiting=0.0), [], False, 0)
    found = due(row.times, CatchUp(row.catch_up), row.fired, now)
    came = [row.waiting, *found.start] if row.waiting else found.start
    start, waiting = _by_overlap(Overlap(row.overlap), came, is_running)
    fired = now if found.start or found.left_out else row.fired
    changed = row._replace(fired=fired, waiting=waiting)
    if start:
        changed = changed._replace(instance=instance_of(row, start[-1]), last=start[-1])
    skipped = found.left_out + len(came) - len(start) - bool(waiting)
    if skipped or found.more:
        changed = with_missed(changed, skipped, now)._replace(uncounted=row.uncounted or found.more)
    cancels = bool(start) and is_running and row.overlap == Overlap.REPLACE
    return Decision(changed, start, cancels, skipped, found.left_out)


def with_missed(row: ScheduleRow, times: int, now: float) -> ScheduleRow:
    """Return the row with more times counted for which nothing was started."""
    return row._replace(missed=row.missed + times, missed_at=now)


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
    """Return the id of the instance that a schedule starts for a time."""
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
    """Return the id of the schedule that has started an instance, and the time; None: none has.

    `name` is the id that the instance has by its user.
    """
    schedule, _, time = name.rpartition("/")
    if not schedule or firing_instance(schedule_digest(definition, schedule), time) != instance:
        return None
    return schedule, time
