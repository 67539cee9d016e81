"""Schedules with real processes: a broker that is killed, and code that no worker has."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from dagorama import DAGDefinition, dagorama, pause_schedule, resolve, schedule, scheduled_for
from dagorama.client.connection import connection
from tests.support.brokers import launch_broker
from tests.support.worker_command import await_that, worker
from tests.support.workers import launch_workers

SECOND = timedelta(seconds=1)


class Ticks(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, name: str) -> list[object]:
        return [name, scheduled_for(), self.child()]

    @dagorama(codec="json").syncfn
    def child(self) -> datetime | None:
        return scheduled_for()


class JsonTicks(DAGDefinition, codec="json"):
    @dagorama().syncfn
    def entrypoint(self, name: str) -> list[datetime | None]:
        return [scheduled_for(), self.child()]

    @dagorama(codec="pickle").syncfn
    def child(self) -> datetime | None:
        return scheduled_for()


def ids() -> list[str]:
    """Return the IDs of all instances, oldest first."""
    return [info.name for info in reversed(connection().list_instances().instances)]


def codes(instance: bytes) -> list[str]:
    """Return the codes of the reasons for which an instance waits."""
    return [reason.code for cause in connection().explain_node(instance).causes for reason in cause.reasons]


def test_a_killed_broker_goes_on_with_its_schedules_and_uses_no_time_twice(tmp_path: Path) -> None:
    with launch_broker(0, f"sqlite:///{tmp_path}/store") as broker, launch_workers(1):
        schedule(Ticks(), every=SECOND, id="ticks", overlap="allow", catch_up="all")("a")
        await_that(lambda: len(ids()) >= 1)
        broker.kill()
        broker.restart()
        await_that(lambda: len(ids()) >= 3)
        pause_schedule("ticks")
        found = ids()
        times = [datetime.fromisoformat(id.removeprefix("ticks/")) for id in found]
        assert all(later - earlier == SECOND for earlier, later in pairwise(times))
        for id, time in zip(found, times, strict=True):
            assert resolve(*Ticks.attach(id=id), timeout=30) == ["a", time, time]


def test_json_arguments_and_their_nodes_have_the_time_too() -> None:
    with launch_broker(0), launch_workers(1):
        schedule(JsonTicks(), every=SECOND, id="json")("a")
        await_that(lambda: bool(ids()))
        pause_schedule("json")
        id = ids()[-1]
        time = datetime.fromisoformat(id.removeprefix("json/"))
        assert resolve(*JsonTicks.attach(id=id), timeout=30) == [time, time]


def test_an_instance_whose_code_no_worker_has_says_why_it_waits() -> None:
    with launch_broker(0), worker():  # workers that this process launches would get the class
        gone: Any = type("Gone", (Ticks,), {"__module__": "no_such_module"})
        put: Any = schedule(gone(), every=SECOND, id="gone")
        put("a")
        await_that(lambda: bool(ids()))
        instance = connection().list_instances().instances[-1].instance
        await_that(lambda: codes(instance) == ["not_importable"])
        pause_schedule("gone")
        (found,) = connection().list_schedules("gone")
        assert found.function == "no_such_module:Gone.entrypoint"
        assert "no_such_module" in found.instance.stuck
        assert connection().explain_node(instance).schedule == "gone"
