"""Commands list schedules, explain, pause, resume and remove them, and say which schedule has started an instance."""

from __future__ import annotations

import json
import shutil
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

from dagorama import DAGDefinition, dagorama, schedule
from dagorama.__main__ import main
from dagorama.cli.output import utc_text
from dagorama.client.connection import connection
from dagorama.client.display.tables import time_text
from dagorama_broker import launch
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


@pytest.mark.usefixtures("broker")
def test_a_schedule_without_an_id_is_not_found() -> None:
    schedule(Report(), every=OFTEN, id="one")("EU")
    assert "there is no schedule ''" in said("schedules", "explain", "", code=1)


@pytest.mark.usefixtures("broker")
def test_a_schedule_is_explained() -> None:
    schedule(Report(), "0 7 * * *", tz="Europe/Berlin", id="a daily one")("EU")
    first, time, none = said("schedules", "explain", "a daily one").splitlines()
    assert first == "schedule a daily one  0 7 * * * Europe/Berlin"
    assert time == f"- its next time is {time_text(connection().list_schedules()[0].next)}"
    assert none == "- it has started no instance"
    said("schedules", "pause", "a daily one")
    explained = json.loads(said("schedules", "explain", "a daily one", "-o", "json"))
    assert explained["reasons"] == [
        "it is paused and starts nothing; `dagorama schedules resume 'a daily one'` lets it go on",
        "it has started no instance",
    ]
    assert (explained["paused"], explained["cron"]) == (True, "0 7 * * *")
    assert said("schedules", "explain", "a daily one").startswith(f"{first}  paused\n")
    assert "there is no schedule 'daily'" in said("schedules", "explain", "daily", code=1)


@pytest.mark.parametrize(
    ("overlap", "what_then"),
    [
        ("skip", "times until it has ended are left out"),
        ("queue", "the latest time until then starts an instance when it has ended"),
        ("allow", "other times start instances too"),
        ("replace", "the next time cancels it and starts another one"),
    ],
)
@pytest.mark.usefixtures("broker")
def test_an_explanation_of_a_schedule_says_what_its_last_instance_waits_for(
    overlap: Literal["skip", "queue", "allow", "replace"], what_then: str
) -> None:
    schedule(Report(), every=OFTEN, id="often", overlap=overlap)("EU")
    while not connection().list_instances().instances:
        pass  # real time, which no test moves: within a second
    said("schedules", "pause", "often")  # so that no other instance starts
    explained = said("schedules", "explain", "often")
    id = connection().list_instances().instances[0].instance.hex()
    assert f'has not ended, and {what_then} (overlap="{overlap}")' in explained
    assert "no node of that instance can proceed: " in explained
    assert "no worker is connected" in explained
    assert id in explained.replace("-", "")


@pytest.fixture
def own_zone(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The name of a time zone that is known here and to a broker as long as its file is there, and the search path."""
    source = next(Path(folder, "Europe/Berlin") for folder in zoneinfo.TZPATH if Path(folder, "Europe/Berlin").exists())
    (tmp_path / "zones" / "Own").mkdir(parents=True)
    shutil.copy(source, tmp_path / "zones" / "Own" / "Zone")
    known = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([str(tmp_path / "zones"), *known])
    yield "Own/Zone", tmp_path / "zones"
    zoneinfo.reset_tzpath(known)


def test_a_schedule_in_a_zone_that_the_broker_no_longer_knows_is_stuck_and_can_be_removed(
    own_zone: tuple[str, Path], tmp_path: Path
) -> None:
    zone, folder = own_zone
    path = ":".join(zoneinfo.TZPATH)
    store = f"sqlite:///{tmp_path}/dagorama.db"
    with launch.launch_broker(port=0, store=store, environment={"PYTHONTZPATH": path}) as broker:
        schedule(Report(), "0 7 * * *", tz=zone, id="gone")("EU")
        schedule(Report(), "0 7 * * *", tz="Europe/Berlin", id="known")("EU")
        broker.kill()
        shutil.rmtree(folder)
        broker.start()
        gone, known = listed()
        assert (gone["next_at"], known["stuck"]) == (None, None)
        assert "'Own/Zone' is not a time zone that the broker's machine knows" in str(gone["stuck"])
        assert "stuck" in said("schedules")
        explained = said("schedules", "explain", "gone")
        assert "- its times cannot be computed, so it starts nothing: 'Own/Zone' is not a time zone" in explained
        said("schedules", "remove", "gone")
        assert [each["schedule"] for each in listed()] == ["known"]


def test_times_after_the_year_9998_are_shown() -> None:
    assert time_text(1e18)[:4] in ("9998", "9999")
    assert utc_text(1e18).startswith("9999")
