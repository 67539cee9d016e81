"""Each page on a light screen and on a dark phone: nothing to complain about for axe or the browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from dagorama import schedule
from tests.dashboard.browser.graph_page import AXE
from tests.dashboard.browser.pages.conftest import Board, assert_well_made, violations
from tests.dashboard.browser.pages.work import Speaker, ended, listening, speaker, started
from tests.dashboard.shown_work import HOSTILE, Lonely, Shapes, Turned

DRAWN = "#g-panel:not(.g-loading)"
VIEWS = ("shape", "quilt", "focus", "timeline", "table")


@pytest.fixture(scope="module")
def places(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the paths of all pages by name, for instances in all states."""
    with speaker(tmp_path_factory.mktemp("listening")) as other_end:
        yield {f"{name}": path for name, path in _places(other_end)}


def _places(other_end: Speaker) -> Iterator[tuple[str, str]]:
    failed = ended(Shapes(), 4, 2, tenant=HOSTILE)
    stuck = started(Lonely()).instance_id
    running = listening(other_end)
    schedule(Lonely(), "0 0 1 1 *", tz="Europe/Berlin", id=f"yearly {HOSTILE}")()
    for view in VIEWS:
        yield view, f"/instances/{failed}?view={view}&node=4"
    yield from {
        "overview": "/",
        "instances": "/instances",
        "a running instance": f"/instances/{running}",
        "a stuck instance": f"/instances/{stuck}",
        "a failed node": f"/instances/{failed}/4",
        "a node that failed with another": f"/instances/{failed}/1",
        "a waiting node": f"/instances/{stuck}/1",
        "a running node": f"/instances/{running}/2",
        "workers": "/workers",
        "queues": "/queues",
        "schedules": "/schedules",
        "failures": "/failures",
        "actions": "/actions",
        "a question": f"/confirm?action=retry&id={failed}&next=/instances/{failed}",
        "sign in": "/login",
        "no such page": "/nothing",
        "a refused filter": f"/instances/{failed}?view=none",
    }.items()


NAMES = (
    *VIEWS, "overview", "instances", "a running instance", "a stuck instance", "a failed node",
    "a node that failed with another", "a waiting node", "a running node", "workers", "queues", "schedules",
    "failures", "actions", "a question", "sign in", "no such page", "a refused filter",
)  # fmt: skip
#: Pages whose status the browser notes on its console.
ERRORS = {"no such page": 404, "a refused filter": 400}


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_well_made(
    name: str, board: Board, places: dict[str, str], page: Page, complaints: list[str]
) -> None:
    page.emulate_media(color_scheme="light")
    response = page.goto(board.at(places[name]))
    assert response is not None
    assert response.status == ERRORS.get(name, 200)
    if name in ERRORS:
        assert f"status of {ERRORS[name]}" in complaints.pop()
    if "instance" in name and name != "instances":
        page.wait_for_selector(DRAWN, state="attached")
    page.evaluate(AXE.read_text())
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert violations(page) == []


@pytest.mark.parametrize(
    ("asked", "notice"),
    [("action=resume&name=never-paused", "notice"), (f"action=drain&name={'00' * 16}", "notice bad")],
    ids=["done", "refused"],
)
def test_the_notice_after_an_action_is_well_made(board: Board, page: Page, asked: str, notice: str) -> None:
    page.goto(board.at(f"/confirm?{asked}&next=/queues"))
    page.locator("form[action='/do'] button").click()
    expect(page.locator(".notice")).to_have_class(notice)
    assert_well_made(page)


def test_the_list_of_keys_is_well_made(board: Board, page: Page) -> None:
    page.goto(board.at("/workers"))
    page.wait_for_load_state()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_well_made(page)


def test_what_users_have_written_runs_nothing(board: Board, places: dict[str, str], page: Page) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    for name in ("overview", "instances", "table", "a failed node", "a waiting node", "queues", "failures"):
        page.goto(board.at(places[name]))
        assert page.get_by_text("<img src=x").count(), name
        assert page.locator("img").count() == 0
    page.goto(board.at(places["a failed node"]))
    page.get_by_role("log").get_by_text("measuring").wait_for()
    assert page.locator("img").count() == 0
    assert dialogs == []


def test_a_name_that_turns_the_direction_of_writing_moves_nothing_next_to_it(board: Board, page: Page) -> None:
    started(Turned())
    page.goto(board.at("/queues"))
    cell = page.locator("td.name", has_text="left")
    name, taint = cell.locator(".strong").bounding_box(), cell.locator(".tag").bounding_box()
    assert name is not None
    assert taint is not None
    assert taint["x"] >= name["x"] + name["width"]
