"""Commands list schedules, pause, resume and remove them, and say which schedule has started an instance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from dagorama import DAGDefinition, dagorama, schedule
from dagorama.__main__ import main
from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker

OFTEN = timedelta(seconds=1)


class Report(DAGDefinition):
    @dagorama(taint_name="PRINTER").syncfn
    def entrypoint(self, region: str) -> str:
        return region


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0, store="memory://") as broker:
        yield broker


def said(*arguments: str, code: int = 0) -> str:
    """Return what a command prints on standard output, or if it fails, on standard error."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.stderr or result.stdout
    return result.stderr if code else result.stdout


def listed() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(said("schedules", "-o", "json"))
    return found


@pytest.mark.usefixtures("broker")
def test_schedules_are_listed_with_their_times() -> None:
    assert listed() == []
    taken = schedule(Report(), "0 7 * * MON-FRI", tz="Europe/Berlin", id="daily", catch_up="all")("EU")
    schedule(Report(), every=timedelta(minutes=5), id="often")("EU")
    daily, often = listed()
    assert (daily["schedule"], daily["cron"], daily["zone"]) == ("daily", "0 7 * * MON-FRI", "Europe/Berlin")
    assert taken.next is not None
    assert daily["next_at"] == taken.next.timestamp()
    assert daily["next_at_utc"] == f"{taken.next:%Y-%m-%dT%H:%M:%S}.000000Z"
    assert (daily["overlap"], daily["catch_up"], daily["missed"], daily["instance"]) == ("skip", "all", 0, None)
    assert (often["every"], often["cron"], often["last_at"], often["paused"]) == (300.0, None, None, False)
    text = said("schedules", "list")
    assert "0 7 * * MON-FRI Europe/Berlin" in text
    assert "every 5 min" in text
    assert said("schedules", "-o", "name").split() == ["daily", "often"]


@pytest.mark.usefixtures("broker")
def test_a_schedule_is_paused_resumed_and_removed_and_each_is_on_record() -> None:
    schedule(Report(), "0 7 * * *", id="daily")("EU")
    assert said("schedules", "pause", "daily") == "schedule daily is paused\n"
    assert said("schedules", "pause", "daily") == "schedule daily was paused already\n"
    assert (listed()[0]["paused"], listed()[0]["next_at"]) == (True, None)
    assert "paused" in said("schedules")
    assert said("schedules", "resume", "daily").startswith("schedule daily is resumed; its next time is 2")
    assert said("schedules", "remove", "daily") == "schedule daily is removed\n"
    assert listed() == []
    for change in ("pause", "resume", "remove"):
        assert "there is no schedule 'daily'" in said("schedules", change, "daily", code=1)
    actions = [action["action"] for action in json.loads(said("actions", "-o", "json"))]
    assert actions == ["unschedule", "resume-schedule", "pause-schedule", "schedule"]


@pytest.mark.usefixtures("broker")
def test_an_instance_that_no_worker_runs_is_shown_with_its_schedule() -> None:
    schedule(Report(), every=OFTEN, id="often", overlap="skip")("EU")
    while not (infos := connection().list_instances().instances):
        pass  # real time, which no test moves: within a second
    (info,) = infos
    assert info.name.startswith(f"often/{datetime.now(UTC):%Y-%m-}")
    explained = said("explain", f"id={info.name}")
    assert f"The schedule 'often' has started it for {info.name.removeprefix('often/')}." in explained
    assert "[no_workers]" in explained
    (schedule_,) = listed()
    instance = schedule_["instance"]
    assert isinstance(instance, dict)
    assert (instance["schedule"], instance["id"]) == ("often", info.name)
    assert "no worker" in instance["stuck"]
    assert "stuck" in said("schedules")
    assert "started by" in said("show", f"id={info.name}")
