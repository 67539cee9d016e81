"""The times of schedules: clock changes in three zones, brokers that were off, and what cannot be read."""

from __future__ import annotations

from datetime import datetime
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest

from dagorama_broker.engine.calendar import after, check_times, due, latest, next_time, time_name
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.schedules import MOST_CAUGHT_UP, CatchUp, Times

DAY = 86_400.0


def moment(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def names(times: Times, since: str, days: int) -> list[str]:
    begin = moment(since, times.zone)
    found = takewhile(lambda time: time <= begin + days * DAY, after(times, begin))
    return [time_name(times, time) for time in found]


class TestClockChanges:
    """Zones of both hemispheres, and one whose clocks change by half an hour."""

    @pytest.mark.parametrize(
        ("zone", "night", "before", "later"),
        [
            ("Europe/Berlin", "2026-03-28", "+01:00", "+02:00"),
            ("America/New_York", "2026-03-07", "-05:00", "-04:00"),
            ("Australia/Lord_Howe", "2026-10-03", "+10:30", "+11:00"),
        ],
    )
    def test_a_time_that_the_night_leaves_out_comes_once(self, zone: str, night: str, before: str, later: str) -> None:
        found = names(Times("15 2 * * *", zone), night, 3)
        assert len(found) == 3
        assert (found[0][16:], found[-1][16:]) == (before, later)
        assert len({name[:10] for name in found}) == 3

    @pytest.mark.parametrize(
        ("zone", "night", "hour", "before", "later"),
        [
            ("Europe/Berlin", "2026-10-24", "2", "+02:00", "+01:00"),
            ("America/New_York", "2026-10-31", "1", "-04:00", "-05:00"),
            ("Australia/Lord_Howe", "2026-04-04", "1", "+11:00", "+10:30"),
        ],
    )
    def test_a_time_that_the_night_has_twice_comes_once(
        self, zone: str, night: str, hour: str, before: str, later: str
    ) -> None:
        found = names(Times(f"45 {hour} * * *", zone), night, 3)
        assert len({name[:10] for name in found}) == len(found) == 3
        assert (found[0][16:], found[-1][16:]) == (before, later)

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
    @pytest.mark.parametrize("night", ["2026-03-28", "2026-10-24", "2026-10-31", "2026-03-07"])
    def test_what_runs_each_half_hour_does_so_whatever_the_clock_says(self, zone: str, night: str) -> None:
        begin = moment(night, zone)
        found = list(islice(after(Times("*/30 * * * *", zone), begin), 96))
        assert found == [begin + 1_800.0 * (number + 1) for number in range(96)]

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
    @pytest.mark.parametrize("cron", ["30 2 * * *", "10 */2 * * *", "0 * * * *", "15 1 * * SUN", "*/20 * * * *"])
    @pytest.mark.parametrize("night", ["2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24"])
    def test_what_comes_does_not_depend_on_where_one_begins(self, zone: str, cron: str, night: str) -> None:
        times, begin = Times(cron, zone), moment(night, zone)
        whole = list(takewhile(lambda time: time <= begin + 3 * DAY, after(times, begin)))
        for minutes in range(7, 2 * 24 * 60, 97):
            since = begin + minutes * 60
            assert next_time(times, since) == next((time for time in whole if time > since), next_time(times, since))

    def test_each_time_has_a_name_of_its_own(self) -> None:
        times = Times("0 * * * *", "Europe/Berlin")
        found = names(times, "2026-10-25", 1)
        assert found[1:4] == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"]
        assert len(set(found)) == len(found)


class TestIntervals:
    def test_they_are_counted_from_their_start(self) -> None:
        times = Times(every=90.0, start=1_000.0)
        assert list(islice(after(times, 1_000.0), 3)) == [1_090.0, 1_180.0, 1_270.0]
        assert list(islice(after(times, 1_179.9), 2)) == [1_180.0, 1_270.0]
        assert list(islice(after(times, 0.0), 2)) == [1_090.0, 1_180.0]
        assert time_name(times, 1_090.0) == "1970-01-01T00:18:10+00:00"


class TestMissed:
    """The broker was off for a week, over ten times."""

    TIMES = Times("0 7,19 * * MON-FRI", "Europe/Berlin")
    SINCE, NOW = moment("2026-11-20T20:00", "Europe/Berlin"), moment("2026-11-27T20:00", "Europe/Berlin")

    def started(self, catch_up: CatchUp, now: float = NOW) -> list[str]:
        return [time_name(self.TIMES, time) for time in due(self.TIMES, catch_up, self.SINCE, now).start]

    def test_the_last_one_is_made_up_for(self) -> None:
        assert self.started(CatchUp.LAST) == ["2026-11-27T19:00+01:00"]
        assert due(self.TIMES, CatchUp.LAST, self.SINCE, self.NOW)[1:] == (9, False)

    def test_none_is(self) -> None:
        assert self.started(CatchUp.NONE) == []

    def test_a_broker_that_is_late_by_less_than_a_minute_has_missed_nothing(self) -> None:
        on_time = moment("2026-11-27T19:00:59", "Europe/Berlin")
        assert self.started(CatchUp.NONE, on_time) == ["2026-11-27T19:00+01:00"]
        assert self.started(CatchUp.NONE, on_time + 2) == []

    def test_all_are(self) -> None:
        found = self.started(CatchUp.ALL)
        assert (len(found), found[0], found[-1]) == (10, "2026-11-23T07:00+01:00", "2026-11-27T19:00+01:00")
        assert due(self.TIMES, CatchUp.ALL, self.SINCE, self.NOW)[1:] == (0, False)

    def test_of_many_only_the_last_hundred_are_and_it_says_so(self) -> None:
        each_minute = Times("* * * * *")
        found = due(each_minute, CatchUp.ALL, self.NOW - 300 * 60.0, self.NOW)
        assert len(found.start) == MOST_CAUGHT_UP
        assert found.start[-1] == self.NOW
        assert found.left_out > 0

    def test_years_are_not_counted_second_by_second(self) -> None:
        found, more = latest(Times("* * * * * *"), self.NOW - 3_650 * DAY, self.NOW, 1)
        assert (len(found), found[-1], more) == (3_600, self.NOW, True)
        rare, more = latest(Times("0 0 29 2 *"), self.NOW - 3_650 * DAY, self.NOW, 1)
        assert (rare[-1:], more) == ([moment("2024-02-29")], True)

    def test_nothing_is_due_before_its_time(self) -> None:
        assert due(self.TIMES, CatchUp.ALL, self.SINCE, self.SINCE + 60).start == []


class TestRefused:
    @pytest.mark.parametrize(
        ("times", "text"),
        [
            (Times("0 7 * *"), "'0 7 \\* \\*' is not a cron expression: five fields are wanted"),
            (Times("@daily"), "'@daily' is not a cron expression: five fields are wanted"),
            (Times("0 25 * * *"), "is not a cron expression: Bad hour"),
            (Times("0 0 30 2 *"), "is not a cron expression: Bad day-of-month"),
            (Times("0 7 * * *", "Europe/Atlantis"), "'Europe/Atlantis' is not a time zone that the broker's machine"),
            (Times("0 7 * * *", "../etc/passwd"), "is not a time zone"),
            (Times(), "either a cron expression or an interval"),
            (Times("0 7 * * *", every=5.0), "either a cron expression or an interval"),
            (Times(every=0.5), "every 0.5 s: it must be from 1 to 2147483647 s"),
            (Times(every=2.0**31), "every 2.14748e.09 s: it must be from 1"),
            (Times(every=float("inf")), "every inf s"),
        ],
    )
    def test_times_that_cannot_be_read(self, times: Times, text: str) -> None:
        with pytest.raises(InvalidArgument, match=text):
            check_times(times)

    def test_what_an_earlier_broker_has_stored_has_no_time_that_cannot_be_shown(self) -> None:
        assert next_time(Times(every=86_399_999_999_999.0, start=1_000.0), 1_000.0) is None
        with pytest.raises(InvalidArgument, match="'0 7 X \\* \\*' is not a cron expression: Bad day-of-month"):
            next_time(Times("0 7 X * *"), 1_000.0)

    def test_what_can_be_read_is_not(self) -> None:
        for times in (Times("0 7 * * MON-FRI", "Europe/Berlin"), Times("*/10 * * * * *"), Times(every=1.0)):
            check_times(times)
