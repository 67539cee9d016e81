"""Schedules as clients and nodes see them: at their times an instance starts, whose nodes know the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dagorama import (
    DAGDefinition,
    DAGInstance,
    DAGPromise,
    InstanceExists,
    NotFound,
    PromiseMisuse,
    Schedule,
    aresolve,
    dagorama,
    pause_schedule,
    put,
    resolve,
    resume_schedule,
    retry_failed,
    schedule,
    scheduled_for,
    start,
    unschedule,
)
from dagorama.client.connection import connection
from dagorama_testing import World, inline

HOUR, DAY = 3_600.0, 86_400.0
EVERY_HOUR = timedelta(hours=1)
Times = list[Any]  #: the time of an instance, and the times that its child nodes see


class Report(DAGDefinition):
    def __init__(self, title: str = "") -> None:
        self.title = title

    @dagorama().syncfn
    def entrypoint(self, region: str, *, pages: int = 1) -> tuple[str, Times]:
        return f"{self.title}{region}{pages}", [scheduled_for(), self.child()]

    @dagorama().syncfn
    def child(self) -> Times:
        return [scheduled_for(), self.grandchild(), Other()()[1]]

    @dagorama().syncfn
    def grandchild(self) -> datetime | None:
        return scheduled_for()


class Other(DAGDefinition):
    """An instance that a node starts is not of the schedule."""

    @dagorama().syncfn
    def entrypoint(self) -> datetime | None:
        return scheduled_for()


class Keyed(DAGDefinition):
    @dagorama(max_concurrency=1, concurrency_key="tenant").asyncfn
    async def entrypoint(self, tenant: str) -> str:
        return tenant


class Plain(DAGDefinition):
    def entrypoint(self) -> int:
        return 1


@pytest.fixture
def world() -> Iterator[World]:
    with inline(retention=30 * DAY) as world:
        yield world


def named(definition: type[DAGDefinition]) -> list[str]:
    """Return the IDs of the instances of a definition, oldest first."""
    name = f"{definition.__module__}:{definition.__qualname__}"
    return [info.name for info in reversed(connection().list_instances(definition=name).instances)]


def value_of(instance: DAGInstance, promise: DAGPromise[tuple[str, Times]]) -> tuple[str, Times]:
    found = resolve(instance, promise)
    assert found is not None
    return found


def test_all_nodes_of_the_instance_know_the_time_of_the_schedule(world: World) -> None:
    taken = schedule(Report("a "), "0 7 * * MON-FRI", tz="Europe/Berlin", id="daily")("EU", pages=3)
    assert (taken.id, taken.paused) == ("daily", False)
    assert taken.next is not None
    assert taken.next.tzinfo is UTC
    world.clock.advance(7 * DAY)
    ids = named(Report)
    assert len(ids) == 5
    assert all(id.startswith("daily/20") and "T07:00+0" in id for id in ids)
    instance, promise = Report.attach(id=ids[0])
    text, times = value_of(instance, promise)
    assert text == "a EU3"
    assert times == [taken.next, [taken.next, taken.next, None]]
    assert isinstance(times[0], datetime)
    assert times[0].isoformat(timespec="minutes") == ids[0].removeprefix("daily/")


def test_the_instance_of_a_time_is_the_one_that_a_start_with_its_id_returns(world: World) -> None:
    schedule(Report(), every=EVERY_HOUR, id="hourly")("EU")
    world.clock.advance(HOUR)
    (id,) = named(Report)
    assert start(Report(), id=id)("EU")[0].instance_id == Report.attach(id=id)[0].instance_id
    with pytest.raises(InstanceExists):
        start(Report(), id=id)("US")
    assert len(named(Report)) == 1


def test_an_interval_is_counted_from_the_first_call_and_a_clock_that_moves_far_meets_each_time(world: World) -> None:
    schedule(Report(), every=EVERY_HOUR, id="hourly")("EU")
    world.clock.advance(HOUR / 2)
    schedule(Report(), every=EVERY_HOUR, id="hourly")("US")
    world.clock.advance(HOUR / 2)
    assert len(named(Report)) == 1
    world.clock.advance(DAY)
    assert len(named(Report)) == 25
    assert value_of(*Report.attach(id=named(Report)[0]))[0] == "US1"


def test_run_lets_no_time_pass_for_schedules_alone(world: World) -> None:
    schedule(Report(), every=EVERY_HOUR, id="hourly")("EU")
    assert (world.run(), world.clock.passed) == (0, 0.0)


def test_a_schedule_is_paused_resumed_and_removed(world: World) -> None:
    schedule(Report(), every=EVERY_HOUR, id="hourly")("EU")
    assert pause_schedule("hourly") == Schedule("hourly", None, paused=True)
    again = schedule(Report(), every=EVERY_HOUR, id="hourly")("EU")
    assert (again.paused, again.next) == (True, None)
    world.clock.advance(3 * HOUR)
    assert named(Report) == []
    assert resume_schedule("hourly").next is not None
    world.clock.advance(HOUR)
    assert len(named(Report)) == 1
    unschedule("hourly")
    world.clock.advance(DAY)
    assert len(named(Report)) == 1
    for change in (unschedule, pause_schedule, resume_schedule):
        with pytest.raises(NotFound, match="there is no schedule 'hourly'"):
            change("hourly")


def test_a_concurrency_key_and_an_async_entry_point_are_kept(world: World) -> None:
    schedule(Keyed(), every=EVERY_HOUR, id="keyed", overlap="allow")("a")
    world.clock.advance(2 * HOUR)
    assert [run.result for run in world.runs_of(Keyed.entrypoint)] == ["a", "a"]
    (found,) = connection().list_schedules()
    assert (found.function, found.overlap) == (f"{__name__}:Keyed.entrypoint", "allow")


def test_its_instances_take_turns_by_its_fair_key_until_it_is_put_without_one(world: World) -> None:
    schedule(Report(), every=EVERY_HOUR, id="hourly", fair="tenant-7")("EU")
    assert [each.fair for each in connection().list_schedules()] == ["tenant-7"]
    world.restart_broker()
    world.clock.advance(HOUR)
    schedule(Report(), every=EVERY_HOUR, id="hourly")("EU")
    world.clock.advance(HOUR)
    found = connection().list_instances(definition=f"{Report.__module__}:{Report.__qualname__}").instances
    assert [each.fair for each in sorted(found, key=lambda each: each.created)] == ["tenant-7", ""]


def test_the_schedules_of_a_crashed_broker_go_on(world: World) -> None:
    schedule(Report(), every=EVERY_HOUR, id="hourly")("EU")
    world.clock.advance(1.5 * HOUR)
    world.restart_broker()
    world.clock.advance(HOUR)
    assert len(named(Report)) == 2
    assert {run.result for run in world.runs_of(Report.grandchild)} == {
        datetime.fromisoformat(id.partition("/")[2]) for id in named(Report)
    }


async def test_a_failed_instance_is_retried_at_its_own_time(world: World) -> None:
    world.fail(Report.entrypoint, ValueError("no"))
    schedule(Report(), every=EVERY_HOUR, id="hourly")("EU")
    world.clock.advance(HOUR)
    (id,) = named(Report)
    instance, promise = Report.attach(id=id)
    world.clock.advance(HOUR / 2)
    assert retry_failed(instance).queued == 1
    _, times = await aresolve(instance, promise)
    assert times[0] == datetime.fromisoformat(id.partition("/")[2])


def test_outside_of_scheduled_instances_there_is_no_time(world: World) -> None:
    assert scheduled_for() is None
    instance, promise = Report()("EU")
    world.run()
    _, times = value_of(instance, promise)
    assert times == [None, [None, None, None]]


# --- what is refused ------------------------------------------------------------------------------------------


def hourly(**named: Any) -> Callable[..., Schedule]:
    return schedule(Report(), **{"id": "hourly", "every": EVERY_HOUR, **named})


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: schedule(Report(), "0 25 * * *", id="a"), ValueError, "is not a cron expression: Bad hour"),
        (lambda: schedule(Report(), "0 0 30 2 *", id="a"), ValueError, "Bad day-of-month"),
        (lambda: schedule(Report(), "", id="a"), ValueError, "is not a cron expression: five fields are wanted"),
        (lambda: schedule(Report(), "@daily", id="a"), ValueError, "'@daily', .*: five fields are wanted, such as"),
        (lambda: schedule(Report(), "0 7 * * *", tz="Mars/Olympus", id="a"), ValueError, "is not a time zone"),
        (lambda: schedule(Report(), "0 7 * * *", tz="localtime", id="a"), ValueError, "another zone on each machine"),
        (lambda: schedule(Report(), "0 7 * * *", tz=1, id="a"), TypeError, "must be the name of a time zone"),  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
        (lambda: schedule(Report(), 5, id="a"), TypeError, "must be a string of five fields"),  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
        (lambda: schedule(Report(), id="a"), TypeError, "either a cron expression"),
        (lambda: hourly(cron="0 7 * * *"), TypeError, "either a cron expression"),
        (lambda: hourly(every=300), TypeError, "must be a timedelta"),
        (lambda: hourly(every=timedelta(0)), ValueError, "at least one second"),
        (lambda: hourly(every=timedelta.max), ValueError, "must be at most 2147483647 seconds"),
        (lambda: hourly(tz="UTC"), TypeError, "an interval has no time zone"),
        (lambda: hourly(overlap="wait"), ValueError, "'skip', 'queue', 'allow', 'replace'"),
        (lambda: hourly(catch_up="some"), ValueError, "'last', 'none', 'all'"),
        (lambda: hourly(fair=""), ValueError, "fair"),
        (lambda: hourly(fair=7), TypeError, "fair"),
        (lambda: hourly(id=""), ValueError, "has 0 characters: 1 to 200"),
        (lambda: hourly(id="x" * 201), ValueError, "has 201 characters"),
        (lambda: hourly(id=None), TypeError, "must be a string"),
        (lambda: hourly(id=" "), ValueError, "id is ' ', which is blank"),
        (lambda: hourly(id="a\nb"), ValueError, "line breaks and control characters are not allowed"),
        (lambda: hourly(id="a\x1bb"), ValueError, "line breaks and control characters are not allowed"),
        (lambda: hourly(id="a\u2028b"), ValueError, "line breaks and control characters are not allowed"),
        (lambda: hourly(id="\ud800"), ValueError, "the ID of a schedule is .* which has a lone surrogate"),
        (lambda: schedule(Keyed(), every=EVERY_HOUR, id="a")(""), ValueError, "concurrency key of .* is empty"),
        (lambda: schedule(Keyed(), every=EVERY_HOUR, id="a")("a\0"), ValueError, "a NUL character is not allowed"),
        (lambda: schedule(Plain(), every=EVERY_HOUR, id="a"), ValueError, "is not decorated"),
        (lambda: schedule(Report, every=EVERY_HOUR, id="a"), TypeError, "takes an object of a DAGDefinition"),  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
        (lambda: hourly()(), TypeError, "missing a required argument: 'region'"),
        (lambda: hourly()("x" * 70_000), ValueError, "too large"),
        (lambda: hourly()(put(b"x" * 300_000)), ValueError, "hold a value of put"),
        (lambda: hourly()(Report()("EU")[1]), PromiseMisuse, "resolve.. it first"),
    ],
)  # fmt: skip
def test_what_cannot_be_scheduled_is_refused_at_the_call(
    world: World, call: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call()
    assert connection().list_schedules() == []
