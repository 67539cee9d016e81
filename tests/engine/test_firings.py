"""What a schedule does when its times have come: overlaps, missed times, pauses, and what it starts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dagorama.api.contract import scheduled_arguments
from dagorama_broker.engine.firings import block_of, decide, instance_of
from dagorama_broker.model.domain import Function
from dagorama_broker.model.schedules import ScheduleRow, packed_function
from dagorama_broker.scheduler import Scheduler

FUNCTION = Function("work:Report.entrypoint", "hash", "reports")
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
HOUR = 3_600.0
HOURLY = ScheduleRow(
    "hourly", "work:Report", packed_function(FUNCTION), b"\1\1arguments", "0 * * * *", "Europe/Berlin", 0.0, 0.0,
    "skip", "last", False, NOON,
)  # fmt: skip


def test_nothing_happens_before_the_time() -> None:
    assert decide(HOURLY, NOON + 3_599, False) == (HOURLY, [], False, 0, 0)


def test_an_instance_is_started_at_the_time_and_not_again() -> None:
    decision = decide(HOURLY, NOON + HOUR + 0.5, False)
    assert (decision.start, decision.cancels, decision.skipped) == ([NOON + HOUR], False, 0)
    assert decision.row.instance == instance_of(HOURLY, NOON + HOUR)
    assert decide(decision.row, NOON + HOUR + 1, False).start == []
    assert decide(decision.row, NOON + 2 * HOUR, False).start == [NOON + 2 * HOUR]


@pytest.mark.parametrize(
    ("overlap", "start", "waiting", "cancels", "skipped"),
    [
        ("skip", [], 0.0, False, 1),
        ("queue", [], NOON + HOUR, False, 0),
        ("allow", [NOON + HOUR], 0.0, False, 0),
        ("replace", [NOON + HOUR], 0.0, True, 0),
    ],
)
def test_a_time_at_which_the_last_instance_still_runs(
    overlap: str, start: list[float], waiting: float, cancels: bool, skipped: int
) -> None:
    decision = decide(HOURLY._replace(overlap=overlap), NOON + HOUR, True)
    assert (decision.start, decision.row.waiting, decision.cancels) == (start, waiting, cancels)
    assert decision.skipped == skipped
    assert decision.row.fired == NOON + HOUR


def test_only_the_latest_time_waits_for_the_end_of_the_last_instance() -> None:
    row = HOURLY._replace(overlap="queue")
    for hour in (1, 2, 3):
        decision = decide(row, NOON + hour * HOUR, True)
        assert (decision.start, decision.row.waiting) == ([], NOON + hour * HOUR)
        assert decision.skipped == (hour > 1)
        row = decision.row
    decision = decide(row, NOON + 3 * HOUR + 60, False)
    assert (decision.start, decision.row.waiting, decision.cancels) == ([NOON + 3 * HOUR], 0.0, False)
    assert decide(decision.row, NOON + 3 * HOUR + 61, False).start == []


@pytest.mark.parametrize(
    ("overlap", "catch_up", "hours", "waiting"),
    [
        ("skip", "last", [10], 0), ("skip", "all", [1], 10), ("skip", "none", [], 0), ("allow", "last", [10], 0),
        ("allow", "all", list(range(1, 11)), 0), ("replace", "all", [10], 0), ("queue", "last", [10], 0),
        ("queue", "all", [1], 10),
    ],
)  # fmt: skip
def test_ten_times_that_passed_while_no_broker_ran(overlap: str, catch_up: str, hours: list[int], waiting: int) -> None:
    row = HOURLY._replace(overlap=overlap, catch_up=catch_up)
    decision = decide(row, NOON + 10.5 * HOUR, False)
    assert decision.start == [NOON + hour * HOUR for hour in hours]
    assert decision.row.waiting == (NOON + waiting * HOUR if waiting else 0.0)
    assert decide(decision.row, NOON + 10.9 * HOUR, True).start == []


@pytest.mark.parametrize(("overlap", "waiting", "skipped"), [("skip", 0.0, 2), ("queue", NOON + 5 * HOUR, 1)])
def test_missed_times_are_caught_up_with_one_after_the_other(overlap: str, waiting: float, skipped: int) -> None:
    decision = decide(HOURLY._replace(overlap=overlap, catch_up="all"), NOON + 3.5 * HOUR, False)
    assert (decision.start, decision.skipped) == ([NOON + HOUR], 0)
    for running_at in (3.6, 4.0):  # a time that comes meanwhile changes nothing
        assert decide(decision.row, NOON + running_at * HOUR, True) == (decision.row, [], False, 0, 0)
    decision = decide(decision.row, NOON + 4.1 * HOUR, False)
    assert (decision.start, decision.skipped) == ([NOON + 2 * HOUR], 0)
    decision = decide(decision.row, NOON + 5.1 * HOUR, False)
    assert (decision.start, decision.row.waiting) == ([NOON + 3 * HOUR], waiting)
    assert (decision.skipped, decision.missed, decision.row.missed) == (skipped, 0, skipped)
    assert not decision.row.is_catching_up
    decision = decide(decision.row._replace(waiting=0.0), NOON + 6 * HOUR, False)
    assert decision.start == [NOON + 6 * HOUR]


def test_a_time_that_was_missed_while_the_last_instance_ran_is_caught_up_with_when_it_has_ended() -> None:
    row = HOURLY._replace(catch_up="all")
    decision = decide(row, NOON + 1.5 * HOUR, True)
    assert (decision.start, decision.skipped) == ([], 0)
    decision = decide(decision.row, NOON + 1.6 * HOUR, False)
    assert (decision.start, decision.row.waiting, decision.skipped) == ([NOON + HOUR], 0.0, 0)


def test_times_that_a_slow_broker_comes_to_while_the_last_instance_runs_are_left_out() -> None:
    row = HOURLY._replace(cron="", every=2.0, start=NOON, catch_up="all")
    assert decide(row, NOON + 7, True).skipped == 3
    assert decide(row, NOON + 7, False).start == [NOON + 2]


def test_missed_times_that_a_later_one_replaces_are_missed() -> None:
    decision = decide(HOURLY._replace(overlap="replace", catch_up="all"), NOON + 3.5 * HOUR, True)
    assert (decision.start, decision.cancels) == ([NOON + 3 * HOUR], True)
    assert (decision.skipped, decision.missed) == (2, 2)


def test_a_schedule_that_catches_up_and_may_overlap_from_now_on_starts_the_rest_at_once() -> None:
    row = decide(HOURLY._replace(catch_up="all"), NOON + 3.5 * HOUR, False).row
    decision = decide(row._replace(overlap="allow"), NOON + 4.5 * HOUR, True)
    assert decision.start == [NOON + hour * HOUR for hour in (2, 3, 4)]
    assert not decision.row.is_catching_up


def test_what_came_while_it_was_paused_is_not_made_up_for() -> None:
    paused = decide(HOURLY._replace(paused=True, waiting=NOON), NOON + 5.5 * HOUR, False)
    assert (paused.start, paused.row.waiting) == ([], 0.0)
    resumed = paused.row._replace(paused=False)
    assert decide(resumed, NOON + 5.9 * HOUR, False).start == []
    assert decide(resumed, NOON + 6 * HOUR, False).start == [NOON + 6 * HOUR]


def test_what_it_starts_is_an_instance_with_one_node_that_has_its_name() -> None:
    block = block_of(HOURLY, NOON + HOUR)
    assert block.start is not None
    assert (block.start.name, block.start.labels) == ("hourly/2026-11-25T14:00+01:00", (("schedule", "hourly"),))
    assert (block.count, block.functions) == (1, [FUNCTION])
    assert scheduled_arguments(block.arguments[0]) == (b"\1\1arguments", "2026-11-25T14:00+01:00")
    scheduler = Scheduler(1)
    scheduler.submit([block], {})
    node = scheduler.node(block.origin + bytes(4))
    assert node is not None
    assert node.instance.id == instance_of(HOURLY, NOON + HOUR)
