"""The times of cron expressions around clock changes, against clocks that are read minute by minute."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from dagorama_broker.engine.cron import cron_times

HOUR, MINUTE = 3_600.0, timedelta(minutes=1)
#: Moments, in UTC, at which clocks are set forward or back, and one zone in which they never are.
CHANGES = {
    "Europe/Berlin": ["2026-03-29T01:00", "2026-10-25T01:00"],
    "America/New_York": ["2026-03-08T07:00", "2026-11-01T06:00"],
    "Australia/Lord_Howe": ["2026-04-04T15:00", "2026-10-03T15:30"],  # by half an hour
    "America/Havana": ["2026-03-08T05:00", "2026-11-01T05:00"],  # at midnight, and to midnight
    "America/Sao_Paulo": ["2018-02-18T02:00", "2018-11-04T03:00"],  # to the day before, and at midnight
    "Africa/Casablanca": ["2026-02-15T02:00", "2026-03-22T02:00"],
    "Antarctica/Troll": ["2026-03-29T01:00", "2026-10-25T01:00"],  # by two hours
    "Pacific/Apia": ["2011-12-30T10:00"],  # a whole day is left out
    "UTC": ["2026-10-25T01:00"],
}
FIXED = [
    "30 2 * * *",
    "0 0 * * *",
    "15,45 1-3 * * *",
    "30 1 * * SUN",
    "0 2 L * *",
    "59 23 1-15 * MON-FRI",
    "30 0 * * *",
]
WHENEVER = ["*/7 * * * *", "*/30 2 * * *", "0 */2 * * *", "* 0 * * SUN", "45 * * * *", "*/20 1-3 * * *", "*/15 3 L * *"]
CASES = [
    pytest.param(ZoneInfo(zone), datetime.fromisoformat(change).replace(tzinfo=UTC).timestamp(), id=f"{zone} {change}")
    for zone, changes in CHANGES.items()
    for change in changes
]


@cache
def clock(zone: ZoneInfo, moment: float) -> datetime:
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def matching(cron: str, around: float) -> set[datetime]:
    """Return the clock times that an expression matches within some days of a moment, without a zone."""
    begin = datetime.fromtimestamp(around, UTC).replace(tzinfo=None) - timedelta(days=4)
    return set(takewhile(lambda found: found < begin + timedelta(days=8), CronSim(cron, begin)))


@cache
def minutes(zone: ZoneInfo, change: float) -> list[tuple[float, datetime, list[datetime]]]:
    """Return the minutes around a change, what the clock shows then, and what it shows or passes for the first time."""
    latest = clock(zone, change - 31 * HOUR)
    found = list[tuple[float, datetime, list[datetime]]]()
    for minute in range(-31 * 60 + 1, 30 * 60):
        moment = change + minute * 60
        now = clock(zone, moment)
        found.append((moment, now, [now - MINUTE * ago for ago in range(int((now - latest) / MINUTE))]))
        latest = max(latest, now)
    return found


def shown(zone: ZoneInfo, change: float, cron: str) -> list[float]:
    """Return when the clock shows or passes a matching time, within 30 hours of a change."""
    matches, begin = matching(cron, change), change - 30 * HOUR
    return [
        moment
        for moment, now, passed in minutes(zone, change)
        if moment > begin and not matches.isdisjoint([now] if cron in WHENEVER else passed)
    ]


@pytest.mark.parametrize(("zone", "change"), CASES)
@pytest.mark.parametrize("cron", [*FIXED, *WHENEVER])
def test_times_are_those_that_the_clock_shows_wherever_one_begins(zone: ZoneInfo, change: float, cron: str) -> None:
    expected = shown(zone, change, cron)
    begin, end = change - 30 * HOUR, change + 30 * HOUR
    assert list(takewhile(lambda time: time < end, cron_times(cron, zone, begin))) == expected
    near = [change + minutes * 60 + late for minutes in range(-200, 200, 5) for late in (-0.5, 0.0, 1.0)]
    for moment in [*near, *(begin + minutes * 60 for minutes in range(0, 60 * 60, 47))]:
        found = next(cron_times(cron, zone, moment))
        assert found > moment
        assert [found] == (expected[bisect_right(expected, moment) :][:1] or [found])


def test_seconds_of_a_repeated_hour_come_in_their_order() -> None:
    zone, change = ZoneInfo("Europe/Berlin"), datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()
    begin = change - 10
    found = list(takewhile(lambda time: time < change + 10, cron_times("*/5 * * * * *", zone, begin)))
    assert found == [begin + 5, begin + 10, begin + 15]
