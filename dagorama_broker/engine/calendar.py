"""Computes the times of schedules. The scheduler knows no times; it only gets instances to start.

The rule: what comes after a time does not depend on where the computation began, so that each time has one name.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from math import floor
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from dagorama_broker.engine.cron import cron_times
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.schedules import MOST_CAUGHT_UP, CatchUp, Times

#: Seconds by which a broker may be late at a time without having missed it.
ON_TIME = 60.0
#: The shortest and the longest interval, and the seconds in which the last times of a schedule are searched first.
SHORTEST, LONGEST, FIRST_SEARCH = 1.0, 2.0**31 - 1, 3_600.0
#: The end of the year 9998 in seconds since 1970; a later time may have no date in some time zone.
LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
#: Missed times that are counted before the search for others ends.
MOST_COUNTED = 1_000


class Due(NamedTuple):
    """The times of a schedule that have come since it was last decided about."""

    start: list[float]  #: times for which an instance is started, oldest first
    left_out: int  #: missed times for which none is, as far as they were counted
    more: bool  #: there were others before the counted ones


def check_times(times: Times) -> None:
    """Raise InvalidArgument, which says what is wrong, if a schedule would never come to a time or cannot be read."""
    if bool(times.cron) is bool(times.every):
        raise InvalidArgument("a schedule has either a cron expression or an interval")
    if times.every:
        if not SHORTEST <= times.every <= LONGEST:
            raise InvalidArgument(
                f"a schedule starts an instance every {times.every:g} s:"
                f" it must be from {SHORTEST:g} to {LONGEST:.0f} s"
            )
        return
    try:
        _zone(times.zone)
        next(CronSim(times.cron, datetime.now(UTC)))
    except CronSimError as error:
        raise _unreadable(times.cron, error) from None
    except StopIteration:
        raise InvalidArgument(f"the cron expression {times.cron!r} has no time in the next 50 years") from None


def _unreadable(cron: str, error: CronSimError) -> InvalidArgument:
    wanted = "five fields are wanted, such as 0 7 * * MON-FRI, or six with seconds first"
    why = wanted if len(cron.split()) not in (5, 6) else str(error)
    return InvalidArgument(f"{cron!r} is not a cron expression: {why}")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgument(
            f"{name!r} is not a time zone that the broker's machine knows: use a name such as Europe/Berlin, and"
            " install the package tzdata there if it has no zones"
        ) from None


def after(times: Times, moment: float) -> Iterator[float]:
    """Yield the times of a schedule after a moment, in seconds since 1970."""
    if times.every:
        number = floor((moment - times.start) / times.every) + 1
        while True:
            found = times.start + max(number, 1) * times.every
            number = max(number, 1) + 1
            if found > moment:
                yield found
    else:
        yield from cron_times(times.cron, _zone(times.zone), moment)


def next_time(times: Times, moment: float) -> float | None:
    """Return the next time after a moment; None: there is none in the next 50 years, or before the year 9999.

    Raises InvalidArgument if the times cannot be computed on this machine, as another one may have stored them.
    """
    try:
        found = next(after(times, moment), None)
    except CronSimError as error:
        raise _unreadable(times.cron, error) from None
    return found if found is not None and found <= LATEST else None


def latest(times: Times, since: float, until: float, most: int) -> tuple[list[float], bool]:
    """Return the last times after `since` and up to `until`, at least `most` of them, and whether there are more.

    Times are looked for from `until` backwards, in longer and longer stretches, so that a broker which was off for
    years does not count all of them.
    """
    stretch = FIRST_SEARCH
    while True:
        begin = max(since, until - stretch)
        found = list(takewhile(lambda time: time <= until, after(times, begin)))
        if len(found) >= most or begin == since:
            return found, begin > since
        stretch *= 2


def due(times: Times, catch_up: CatchUp, since: float, now: float) -> Due:
    """Return for which of the times after `since` an instance is started `now`."""
    wanted = MOST_CAUGHT_UP if catch_up is CatchUp.ALL else 1
    found, more = latest(times, since, now, MOST_COUNTED)
    start = [time for time in found[-wanted:] if catch_up is not CatchUp.NONE or now - time <= ON_TIME]
    return Due(start, len(found) - len(start), more)


def time_name(times: Times, time: float) -> str:
    """Return the name of a time in the IDs of instances, such as `2026-11-25T07:00+01:00`."""
    local = datetime.fromtimestamp(time, _zone(times.zone))
    if local.microsecond:
        return local.isoformat(timespec="microseconds")
    return local.isoformat(timespec="seconds" if local.second else "minutes")
