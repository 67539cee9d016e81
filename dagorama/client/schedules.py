"""Schedules as a client sees them: what `schedule()` returns, and how to remove, pause and resume one by its ID."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from dagorama.api.contract import LONGEST_SCHEDULE
from dagorama.client.connection import connection
from dagorama.client.display.tables import utc
from dagorama.models.texts import check_content


class Schedule(NamedTuple):
    """A schedule that the broker has taken. `next` is the next time at which it starts an instance, in UTC."""

    id: str
    next: datetime | None  #: None: it is paused, or has no time in the next 50 years
    paused: bool = False


def schedule_of(id: str, next: float, paused: bool = False) -> Schedule:
    """Return a schedule; `next` is in seconds since 1970, or 0."""
    return Schedule(id, utc(next) if next else None, paused)


def check_schedule_id(id: str) -> str:
    """Return the ID of a schedule. Raises TypeError or ValueError."""
    if not isinstance(id, str):
        raise TypeError(f"the ID of a schedule is {id!r}: it must be a string")
    return check_content(id, "the ID of a schedule", 1, LONGEST_SCHEDULE)


def unschedule(id: str) -> None:
    """Remove a schedule by its ID. Instances that it has started continue. Raises NotFound if there is none."""
    connection().remove_schedule(check_schedule_id(id))


def pause_schedule(id: str) -> Schedule:
    """Pause a schedule: it starts nothing until `resume_schedule`. Raises NotFound if there is none.

    It stays paused if `schedule()` is called again, so that a deployment does not undo what a person has decided.
    """
    reply = connection().pause_schedule(check_schedule_id(id))
    return schedule_of(id, reply.next, paused=True)


def resume_schedule(id: str) -> Schedule:
    """Resume a paused schedule from its next time on; times that have passed are skipped. Raises NotFound."""
    return schedule_of(id, connection().pause_schedule(check_schedule_id(id), resume=True).next)
