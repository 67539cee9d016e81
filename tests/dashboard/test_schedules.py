"""The page of schedules: times, the last instance, missed times, and what a person may do about one."""

from __future__ import annotations

from datetime import timedelta

from dagorama import pause_schedule, schedule
from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker
from tests.dashboard.conftest import Guarded
from tests.dashboard.serving import Dashboard
from tests.dashboard.shown_work import HOSTILE, Lonely
from tests.support.worker_command import await_that


def test_schedules_are_listed_and_text_in_them_is_no_markup(empty: tuple[Dashboard, LaunchedBroker]) -> None:
    pages, _ = empty
    assert "There is no schedule." in pages.page("/schedules")
    schedule(Lonely(), "0 7 * * MON-FRI", tz="Europe/Berlin", id=f"daily {HOSTILE}")()
    schedule(Lonely(), every=timedelta(minutes=5), id="often")()
    page = pages.page("/schedules")
    for text in ("<code>0 7 * * MON-FRI</code>", "Europe/Berlin", "every 5 min", "Lonely"):
        assert text in page
    assert HOSTILE not in page
    assert "<img" not in pages.page(f"/confirm?action=pause-schedule&name={HOSTILE}")


def test_an_instance_that_no_worker_runs_is_shown_with_its_schedule(
    empty: tuple[Dashboard, LaunchedBroker],
) -> None:
    pages, _ = empty
    schedule(Lonely(), every=timedelta(seconds=1), id="often")()
    await_that(lambda: len(connection().list_instances(1).instances) == 1)
    pause_schedule("often")
    (info,) = connection().list_instances().instances
    page = pages.page("/schedules")
    assert "no worker is connected" in page
    assert "stuck" in page
    assert info.instance.hex()[:8] in page
    assert "the schedule often" in pages.page(f"/instances/{info.instance.hex()}")


def test_a_schedule_is_paused_resumed_and_removed_and_the_page_says_so(empty: tuple[Dashboard, LaunchedBroker]) -> None:
    pages, _ = empty
    schedule(Lonely(), "0 7 * * *", id="daily")()
    for action, text in (
        ("pause-schedule", "The schedule daily is paused"),
        ("pause-schedule", "The schedule daily is paused already"),
        ("resume-schedule", "The schedule daily goes on"),
        ("remove-schedule", "The schedule daily is removed"),
        ("remove-schedule", "there is no schedule"),
    ):
        assert text in pages.done(action=action, name="daily", next="/schedules")
    assert "There is no schedule." in pages.page("/schedules")
    history = pages.page("/actions")
    assert "pause-schedule" in history
    assert "unschedule" in history


def test_readers_see_schedules_and_change_none(as_admin: Guarded) -> None:
    schedule(Lonely(), "0 7 * * *", id="daily")()
    for role, changes in (("reader", False), ("client", True)):
        as_admin.pages.sign_in(as_admin.tokens[role])
        page = as_admin.pages.page("/schedules")
        assert "daily" in page
        assert ('value="pause-schedule"' in page) is changes
        assert ('value="remove-schedule"' in page) is changes
