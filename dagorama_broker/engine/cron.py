"""Computes the times of cron expressions in time zones whose clocks are set forward and back.

The rule: CronSim only says which clock times match, without a zone. When a clock shows them is computed here, so that
the times after a moment do not depend on where the computation began.

An expression whose minutes and hours do not begin with `*` comes once for each clock time that matches, as in Debian's
cron: when the clock shows it for the first time, or, if the clock leaves it out, when it is set forward. Others come
whenever the clock shows a time that matches.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

DAY, MINUTE = 86_400.0, timedelta(minutes=1)


class _Shown(NamedTuple):
    """When a clock shows a time, in seconds since 1970."""

    first: float
    again: float | None  #: the second time, if it was set back meanwhile


def cron_times(cron: str, zone: ZoneInfo, moment: float) -> Iterator[float]:
    """Yield the times of a valid expression after a moment, in seconds since 1970."""
    fields = cron.split()
    is_fixed = len(fields) == 5 and not (fields[0].startswith("*") or fields[1].startswith("*"))
    found = _first_shown(cron, zone, moment) if is_fixed else _each_shown(cron, zone, moment)
    last = moment
    for time in found:
        if time > last:
            yield time
            last = time


def _clock(zone: ZoneInfo, moment: float) -> datetime:
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def _earliest_clock(zone: ZoneInfo, moment: float) -> datetime:
    """Return the earliest time that the clock shows from a moment on: it may be set back soon."""
    now, tomorrow = _clock(zone, moment), _clock(zone, moment + DAY)
    back = now + timedelta(seconds=DAY) - tomorrow
    if back > timedelta() and _clock(zone, moment + back.total_seconds()) < now + back:
        return now - back
    return now


def _first_shown(cron: str, zone: ZoneInfo, moment: float) -> Iterator[float]:
    for clock in CronSim(cron, _clock(zone, moment)):
        shown = _shown(clock, zone)
        while shown is None:
            clock += MINUTE
            shown = _shown(clock, zone)
        yield shown.first


def _each_shown(cron: str, zone: ZoneInfo, moment: float) -> Iterator[float]:
    again = list[float]()  # a heap of times that come for the second time, after clock times that are not found yet
    for clock in CronSim(cron, _earliest_clock(zone, moment)):
        shown = _shown(clock, zone)
        if shown is None:
            continue
        while again and again[0] < shown.first:
            yield heappop(again)
        yield shown.first
        if shown.again is not None:
            heappush(again, shown.again)
    while again:
        yield heappop(again)


def _shown(clock: datetime, zone: ZoneInfo) -> _Shown | None:
    """Return when the clock shows a time; None: it is set forward and leaves it out."""
    local = clock.replace(tzinfo=zone, fold=0)
    later = local.replace(fold=1)
    before, after = local.utcoffset(), later.utcoffset()
    if before == after:
        return _Shown(local.timestamp(), None)
    if before is None or after is None or before < after:
        return None
    return _Shown(local.timestamp(), later.timestamp())
