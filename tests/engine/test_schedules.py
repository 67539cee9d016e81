"""Tests that a broker starts instances at the times of its schedules: under load, after restarts and after a takeover.

The clock is set by the tests, and nothing else moves it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dagorama.api.contract import scheduled_time
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import NotFound, ResourceExhausted, StoreError, Unavailable
from dagorama_broker.model.domain import Function
from dagorama_broker.model.queries import InstanceQuery
from dagorama_broker.model.schedules import ScheduleRow, packed_function
from dagorama_broker.scheduler import NewNodes, Scheduler, Start
from dagorama_broker.store import Store, StoreOptions, open_store
from tests.support.postgres_server import new_schema
from tests.support.records import restart

FUNCTION = Function("work:Report.entrypoint", "hash", "reports")
HOUR, DAY = 3_600.0, 86_400.0
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
HOURLY = ScheduleRow(
    "hourly", "work:Report", packed_function(FUNCTION), b"\1\1arguments", "0 * * * *", "UTC", 0.0, 0.0,
    "skip", "last", False, 0.0,
)  # fmt: skip


class SetClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.wall = NOON

    def monotonic(self) -> float:
        return self.wall - NOON + 1_000.0

    def time(self) -> float:
        return self.wall


class Served:
    """A broker that runs on a clock that is set."""

    def __init__(self, broker: Broker, clock: SetClock) -> None:
        self.broker, self.clock = broker, clock

    async def at(self, hours: float) -> None:
        """Let it be this many hours after noon."""
        self.clock.wall = NOON + hours * HOUR
        await self.broker.schedules.step()

    async def names(self) -> list[str]:
        """Return the IDs of all instances, oldest first, without the ID of the schedule."""
        view, in_view = self.broker.store.view, self.broker.commits.in_view
        found = await in_view(view.list_instances, InstanceQuery(1 << 62, 1_000))
        marks = await in_view(view.marks, [stored.row.key for stored in found.instances])
        return [marks[stored.row.key].name.rpartition("/")[2] for stored in reversed(found.instances)]

    async def end(self) -> None:
        """End all instances that run."""
        for instance in list(self.broker.scheduler.instances):
            await self.broker.cancellation.cancel(instance, [], "")

    @property
    def row(self) -> ScheduleRow:
        return self.broker.scheduler.schedules["hourly"]


@asynccontextmanager
async def serving(store: Store, clock: SetClock | None = None, step: int | None = None) -> AsyncIterator[Served]:
    """A broker on a store, which was closed and is opened again."""
    clock = clock or SetClock()
    scheduler, now = Scheduler(restart(store)), clock.monotonic()
    scheduler.restore(store.live(), now, clock.time() - now)
    broker = Broker(scheduler, store, clock=clock)
    running = asyncio.create_task(broker.run())
    try:
        yield Served(broker, clock)
    finally:
        broker.stop()
        await running


def hours(*numbers: int) -> list[str]:
    """Return the names of these hours after noon."""
    return [datetime.fromtimestamp(NOON + number * HOUR, UTC).isoformat(timespec="minutes") for number in numbers]


# --- times ------------------------------------------------------------------------------------------------


async def test_an_instance_is_started_at_each_time_and_knows_it(store: Store) -> None:
    async with serving(store) as served:
        upcoming = await served.broker.schedules.put(HOURLY)
        assert upcoming.next == NOON + HOUR
        await served.at(0.99)
        assert await served.names() == []
        for hour in (1, 2):
            await served.at(hour)
            (node,) = served.broker.scheduler.unfinished_of(served.row.instance)
            arguments = (await served.broker.payloads.arguments.get([node.key]))[node.key]
            assert scheduled_time(arguments) == hours(hour)[0]
            await served.at(hour + 0.5)
            await served.end()
        assert await served.names() == hours(1, 2)
        assert (served.row.last, served.row.missed, served.broker.schedules.fired) == (NOON + 2 * HOUR, 0, 2)


async def test_the_loop_wakes_at_the_time_by_itself() -> None:
    store = open_store("memory://")
    store.open()
    async with serving(store) as served:
        await served.broker.schedules.put(HOURLY)
        served.clock.wall = NOON + HOUR
        served.broker.schedules.look()
        while not await served.names():
            await served.broker.commits.wait_durable()
        assert await served.names() == hours(1)


@pytest.mark.parametrize(
    ("overlap", "started", "missed"),
    [("skip", [1, 3], 1), ("queue", [1, 2, 3], 0), ("allow", [1, 2, 3], 0), ("replace", [1, 2, 3], 0)],
)
async def test_a_time_at_which_the_last_instance_runs(
    store: Store, overlap: str, started: list[int], missed: int
) -> None:
    async with serving(store) as served:
        await served.broker.schedules.put(HOURLY._replace(overlap=overlap))
        await served.at(1)
        await served.at(2)
        running = 2 if overlap == "allow" else 1
        assert len(served.broker.scheduler.instances) == running
        assert (await served.names() == hours(1, 2)) == (overlap in ("allow", "replace"))
        await served.end()
        await served.at(2.5)
        await served.end()
        await served.at(3)
        assert await served.names() == hours(*started)
        assert served.row.missed == missed


async def test_a_queued_time_starts_when_the_last_instance_has_ended_and_not_before(store: Store) -> None:
    async with serving(store) as served:
        await served.broker.schedules.put(HOURLY._replace(overlap="queue"))
        await served.at(1)
        await served.at(2)
        assert served.row.waiting == NOON + 2 * HOUR
        await served.end()
        while len(await served.names()) == 1:  # the end wakes it
            await served.broker.commits.wait_durable()
        assert await served.names() == hours(1, 2)
        assert not served.row.waiting


@pytest.mark.parametrize("change", ["pause", "other times"])
async def test_a_queued_time_that_a_change_drops_counts_as_missed(store: Store, change: str) -> None:
    async with serving(store) as served:
        schedules, queued = served.broker.schedules, HOURLY._replace(overlap="queue")
        await schedules.put(queued)
        await served.at(1)
        await served.at(2)
        if change == "pause":
            await schedules.pause("hourly", True, "ops")
        else:
            await schedules.put(queued._replace(cron="30 * * * *"))
        assert (served.row.waiting, served.row.missed, served.row.missed_at) == (0.0, 1, NOON + 2 * HOUR)


async def test_a_schedule_whose_time_zone_is_unknown_after_a_restart_is_stuck_and_the_others_go_on(
    store: Store,
) -> None:
    clock, gone = SetClock(), HOURLY._replace(name="gone", zone="Mars/Olympus", fired=NOON, waiting=NOON)
    async with serving(store, clock) as served:
        await served.broker.schedules.put(HOURLY)
        await served.broker.schedules.put(gone)
    async with serving(store, clock) as served:
        await served.at(1)
        assert await served.names() == hours(1)
        stuck, hourly = served.broker.schedules.upcoming()
        assert (stuck.next, hourly.stuck) == (0.0, "")
        assert "'Mars/Olympus' is not a time zone that the broker's machine knows" in stuck.stuck
        mended = await served.broker.schedules.put(gone._replace(zone="Europe/Berlin"))
        assert (mended.next, mended.stuck) == (NOON + 2 * HOUR, "")
        await served.broker.schedules.remove("gone", "")


async def test_a_schedule_that_is_due_again_at_once_is_held_up(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(store) as served:
        monkeypatch.setattr("dagorama_broker.engine.schedules.next_time", lambda times, moment: moment - 1)
        await served.broker.schedules.put(HOURLY)
        assert await served.broker.schedules.step() == 5.0
    assert (
        caplog.messages.count(
            "schedule 'hourly' is due again at once, which is a fault of the broker; will look at it later"
        )
        == 1
    )


# --- a broker that was off ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("catch_up", "started"), [("last", [168]), ("none", []), ("all", list(range(69, 169)))])
async def test_a_broker_that_was_off_for_a_week(
    store: Store, catch_up: str, started: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    clock = SetClock()
    async with serving(store, clock) as served:
        await served.broker.schedules.put(HOURLY._replace(catch_up=catch_up, overlap="allow"))
    clock.wall = NOON + 168.25 * HOUR
    with caplog.at_level(logging.WARNING, "dagorama_broker"):
        async with serving(store, clock) as served:
            await served.broker.schedules.step()
            assert await served.names() == hours(*started)
            assert (served.row.missed, served.row.uncounted) == (168 - len(started), False)
            assert served.row.missed_at == clock.wall
            await served.at(169)
            assert await served.names() == hours(*started, 169)
    assert f"'hourly' has started nothing for {168 - len(started)} of its times: they have passed" in caplog.text


async def test_not_all_of_very_many_missed_times_are_counted(store: Store) -> None:
    clock = SetClock()
    async with serving(store, clock) as served:
        await served.broker.schedules.put(HOURLY._replace(cron="* * * * *"))
    clock.wall = NOON + 365 * DAY
    async with serving(store, clock) as served:
        await served.broker.schedules.step()
        assert await served.names() == ["2027-11-25T12:00+00:00"]
        assert served.row.missed >= 1_000
        assert served.row.uncounted


async def test_a_restart_between_two_times_changes_nothing(store: Store) -> None:
    clock = SetClock()
    async with serving(store, clock) as served:
        await served.broker.schedules.put(HOURLY)
        await served.at(1)
    async with serving(store, clock) as served:
        await served.at(1.5)
        assert await served.names() == hours(1)
        assert served.broker.scheduler.instance(served.row.instance) is not None
        await served.end()
        await served.at(2)
        assert await served.names() == hours(1, 2)


@pytest.mark.parametrize("overlap", ["skip", "queue"])
async def test_missed_times_are_caught_up_with_one_after_the_other_also_over_a_restart(
    store: Store, overlap: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SetClock()
    async with serving(store, clock) as served:
        await served.broker.schedules.put(HOURLY._replace(overlap=overlap, catch_up="all"))
    async with serving(store, clock) as served:
        await served.at(3.5)
        assert await served.names() == hours(1)
        assert [each.next for each in served.broker.schedules.upcoming()] == [NOON + 4 * HOUR]
    async with serving(store, clock) as served:
        for started in (2, 3):
            await served.end()
            await served.at(3.6)
            assert await served.names() == hours(*range(1, started + 1))
        await served.end()
        await served.at(4)
        assert await served.names() == hours(1, 2, 3, 4)
        assert served.row.missed == 0
    assert "started nothing" not in caplog.text
    assert "fault" not in caplog.text


async def test_a_clock_that_is_set_back_starts_nothing_twice(store: Store) -> None:
    async with serving(store) as served:
        await served.broker.schedules.put(HOURLY._replace(overlap="allow"))
        for hour in (1, 2, 24, 1, 2, 3):
            await served.at(hour)
        assert await served.names() == hours(1, 2, 24, 3)


async def test_a_time_whose_id_a_user_has_taken_is_missed_and_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(store) as served:
        await served.broker.schedules.put(HOURLY)
        start = Start(f"hourly/{hours(1)[0]}", b"digest")
        taken = NewNodes(
            bytes(16), bytes(12), 0, [FUNCTION], [0], [b"a"], creates=("work:Report", bytes(16)), start=start
        )
        await served.broker.submissions.submit([taken])
        with caplog.at_level(logging.WARNING, "dagorama_broker"):
            await served.at(1)
        assert "an instance of work:Report with the ID" in caplog.text
        assert (served.row.missed, served.row.instance) == (1, b"")
        await served.at(2)
        assert await served.names() == hours(1, 2)


# --- on request -----------------------------------------------------------------------------------------------


async def test_the_same_schedule_put_again_goes_on_and_another_one_begins(store: Store) -> None:
    async with serving(store) as served:
        schedules = served.broker.schedules
        every = HOURLY._replace(cron="", every=HOUR)
        await schedules.put(every)
        served.clock.wall = NOON + 0.75 * HOUR
        assert (await schedules.put(every._replace(arguments=b"\1\1others"))).next == NOON + HOUR
        assert served.row.arguments == b"\1\1others"
        assert (await schedules.put(every._replace(every=2 * HOUR))).next == NOON + 2.75 * HOUR
        assert len(schedules.upcoming()) == 1


async def test_a_paused_schedule_starts_nothing_also_if_it_is_put_again(store: Store) -> None:
    clock = SetClock()
    async with serving(store, clock) as served:
        await served.broker.schedules.put(HOURLY)
        assert await served.broker.schedules.pause("hourly", True, "ops")
        assert not await served.broker.schedules.pause("hourly", True, "ops")
        assert (await served.broker.schedules.put(HOURLY._replace(overlap="allow"))).next == 0
        await served.at(1)
    async with serving(store, clock) as served:
        await served.at(2.5)
        assert await served.names() == []
        assert await served.broker.schedules.pause("hourly", False, "ops")
        await served.at(2.9)
        assert await served.names() == []
        await served.at(3)
        assert await served.names() == hours(3)


async def test_a_removed_schedule_starts_nothing_and_what_it_has_started_goes_on(store: Store) -> None:
    clock = SetClock()
    async with serving(store, clock) as served:
        await served.broker.schedules.put(HOURLY)
        await served.at(1)
        await served.broker.schedules.remove("hourly", "ops")
        with pytest.raises(NotFound, match="there is no schedule 'hourly'"):
            await served.broker.schedules.remove("hourly", "ops")
    async with serving(store, clock) as served:
        await served.at(5)
        assert (await served.names(), len(served.broker.scheduler.instances)) == (hours(1), 1)


async def test_put_and_removed_within_one_commit_is_gone(store: Store) -> None:
    async with serving(store) as served:
        schedules = served.broker.schedules
        await asyncio.gather(schedules.put(HOURLY), schedules.put(HOURLY._replace(every=90.0, cron="")))
        await asyncio.gather(schedules.put(HOURLY), schedules.remove("hourly", ""))
        assert store.live().schedules == []


async def test_too_many_schedules_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama_broker.engine.schedules.MOST_SCHEDULES", 1)
    async with serving(store) as served:
        await served.broker.schedules.put(HOURLY)
        await served.broker.schedules.put(HOURLY._replace(overlap="queue"))
        with pytest.raises(ResourceExhausted, match="there are 1 schedules already"):
            await served.broker.schedules.put(HOURLY._replace(name="another"))


# --- two brokers ----------------------------------------------------------------------------------------------


async def test_a_broker_that_was_replaced_starts_nothing_and_its_successor_all_of_it(
    postgres_url: str, tmp_path: Path
) -> None:
    clock, options = SetClock(), StoreOptions(f"file://{tmp_path}/values")
    with new_schema(postgres_url) as url:
        old_store, new_store = open_store(url, options._replace(lease=3.0)), open_store(url, options)
        old_store.open()
        scheduler, now = Scheduler(old_store.take()), clock.monotonic()
        scheduler.restore(old_store.live(), now, clock.time() - now)
        old = Served(Broker(scheduler, old_store, clock=clock), clock)
        running = asyncio.create_task(old.broker.run())
        await old.broker.schedules.put(HOURLY._replace(overlap="allow", catch_up="all"))
        await old.at(1)
        new_store.open()
        async with serving(new_store, clock) as new:  # the old one does not renew its lease
            clock.wall = NOON + 2 * HOUR
            late = asyncio.create_task(old.broker.schedules.step())
            await new.broker.schedules.step()
            await new.at(3)
            assert await new.names() == hours(1, 2, 3)
            old.broker.stop()
            with pytest.raises(StoreError):
                await running
            with pytest.raises(Unavailable):
                await late
            assert await new.names() == hours(1, 2, 3)
        old_store.close()
        new_store.close()
