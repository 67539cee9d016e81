"""An open page follows what happens, and keeps what its reader has done to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.dashboard.browser.pages.conftest import Board
from tests.dashboard.browser.pages.work import Reading, ended, listening, speaker, started
from tests.dashboard.serving import dashboard
from tests.dashboard.shown_work import Lonely
from tests.support.brokers import launch_broker

#: Set in a page that must not be loaded again.
MARK, IS_MARKED = "window.isOld = true", "window.isOld === true"


def opened(page: Page, address: str) -> None:
    page.goto(address)
    page.evaluate(MARK)


def test_an_instance_that_completes_changes_its_page(board: Board, page: Page, tmp_path: Path) -> None:
    with speaker(tmp_path) as other_end:
        opened(page, board.at(f"/instances/{listening(other_end)}"))
        expect(page.locator("h1 .state")).to_contain_text("running")
        page.wait_for_selector("#g-panel:not(.g-loading)", state="attached")
        other_end.stop()
        expect(page.locator("h1 .state")).to_contain_text("completed")
        expect(page.locator(".summary")).to_contain_text("2 done")
        expect(page.locator(".g-legend")).to_contain_text("done2")
    assert page.evaluate(IS_MARKED)


def test_the_log_of_a_running_node_arrives_line_by_line_and_once(board: Board, page: Page, tmp_path: Path) -> None:
    with speaker(tmp_path) as other_end:
        opened(page, board.at(f"/instances/{listening(other_end)}/2"))
        log = page.get_by_role("log")
        for line in ("first", "second", "third"):
            other_end.say(line)
            expect(log).to_contain_text(line)
        other_end.stop()
        expect(page.locator("h1 .state")).to_contain_text("done")
    expect(log.locator(".record")).to_have_count(4)
    assert page.evaluate(IS_MARKED)


def test_the_page_of_workers_names_what_they_run(board: Board, page: Page, tmp_path: Path) -> None:
    opened(page, board.at("/workers"))
    with speaker(tmp_path) as other_end:
        id = listening(other_end)
        link = page.get_by_role("link", name=f"Listening.listen {id[:8]}/2")
        expect(link).to_have_attribute("href", f"/instances/{id}/2")
        other_end.stop()
        expect(link).to_have_count(0)
    assert page.evaluate(IS_MARKED)


def test_a_log_begins_again_with_the_node(board: Board, page: Page, tmp_path: Path) -> None:
    id = ended(Reading(), f"{tmp_path / 'file'}")
    opened(page, board.at(f"/instances/{id}/2"))
    log = page.locator(".log")
    old = log.get_attribute("id")
    other = page.context.new_page()
    other.goto(board.at(f"/instances/{id}"))
    other.get_by_role("button", name="Retry", exact=True).click()
    other.locator("form[action='/do'] button").click()
    expect(log).not_to_have_attribute("id", f"{old}")
    assert page.evaluate(IS_MARKED)


def test_what_was_typed_chosen_and_opened_survives_updates(board: Board, page: Page) -> None:
    first = started(Lonely(), kind="typed").instance_id
    opened(page, board.at("/instances?q=label:kind=typed"))
    search = page.get_by_role("searchbox")
    page.locator(f"#i{first}").get_by_role("checkbox").check()
    page.get_by_text("All that match").click()
    search.fill("half a sea")
    for _ in range(2):
        row = page.locator(f"#i{started(Lonely(), kind='typed').instance_id}")
        expect(row).to_be_visible()
        expect(search).to_have_value("half a sea")
        expect(search).to_be_focused()
        expect(page.locator(f"#i{first}").get_by_role("checkbox")).to_be_checked()
        expect(row.get_by_role("checkbox")).not_to_be_checked()
        expect(page.get_by_role("button", name="Cancel all unfinished")).to_be_visible()
    assert page.evaluate(IS_MARKED)


def test_the_place_of_the_reader_survives_updates(board: Board, page: Page) -> None:
    ids = [started(Lonely(), kind="placed").instance_id for _ in range(30)]
    opened(page, board.at("/instances?q=label:kind=placed"))
    link = page.locator(f"#i{ids[0]} a").first
    link.focus()
    link.scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    assert place > 0
    new = page.locator(f"#i{started(Lonely(), kind='placed').instance_id}")
    expect(new).to_have_count(1)
    assert page.evaluate("scrollY") >= place
    expect(link).to_be_focused()
    expect(link).to_be_in_viewport()


def test_an_attempt_that_was_folded_stays_folded(board: Board, page: Page, tmp_path: Path) -> None:
    id = ended(Reading(), f"{tmp_path / 'file'}")
    opened(page, board.at(f"/instances/{id}/2"))
    attempt = page.locator("#attempt-1")
    expect(attempt).to_have_attribute("open", "")
    attempt.locator("summary").click()
    updates = page.evaluate_handle("""() => { const seen = {count: 0};
        document.addEventListener("htmx:sse:after:message", () => seen.count++); return seen; }""")
    page.wait_for_function("seen => seen.count > 0", arg=updates)  # its times grow
    assert attempt.get_attribute("open") is None


def test_a_paused_page_stands_still_and_the_pace_is_kept(board: Board, page: Page) -> None:
    page.goto(board.at("/instances?q=label:kind=paused"))
    pace = page.locator("#pace")
    expect(pace).to_have_text("live")
    pace.focus()
    page.keyboard.press("Enter")
    expect(pace).to_have_text("5 s")
    expect(pace).to_be_focused()
    page.keyboard.press("Enter")
    expect(pace).to_have_text("paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(board.at("/instances"))
    expect(pace).to_have_text("paused")
    assert not [address for address in asked if "/live" in address]
    page.keyboard.press("p")
    expect(pace).to_have_text("live")
    id = started(Lonely()).instance_id
    expect(page.locator(f"#i{id}")).to_be_visible()


def test_a_page_that_updates_every_five_seconds_updates(board: Board, page: Page) -> None:
    page.context.add_cookies([{"name": "dagorama-live", "value": "5", "url": board.served.url}])
    opened(page, board.at("/instances?q=label:kind=slow"))
    expect(page.get_by_text("No instance matches.")).to_be_visible()
    id = started(Lonely(), kind="slow").instance_id
    expect(page.locator(f"#i{id}")).to_be_visible()
    assert page.evaluate(IS_MARKED)


@pytest.mark.parametrize("preferred", ["light", "dark"])
def test_the_theme_follows_the_system_until_one_is_chosen(
    board: Board, new_page: Callable[..., Page], preferred: str
) -> None:
    page = new_page(color_scheme=preferred)
    page.goto(board.at("/"))
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.locator("#theme").click()
    after = page.evaluate(ground)
    assert after != before
    page.goto(board.at("/workers"))
    assert page.evaluate(ground) == after


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_for_readers_who_want_no_motion(
    board: Board, new_page: Callable[..., Page], motion: str, tmp_path: Path
) -> None:
    page = new_page(reduced_motion=motion)
    with speaker(tmp_path) as other_end:
        page.goto(board.at(f"/instances/{listening(other_end)}"))
        page.locator(".g-box").first.wait_for()
        endless = "document.getAnimations().filter((each) => each.effect.getTiming().iterations === Infinity).length"
        moving = page.evaluate(endless)
    assert (moving > 0) is (motion == "no-preference")


def test_pages_go_on_after_a_restart_of_the_broker(page: Page, tmp_path: Path, complaints: list[str]) -> None:
    with (
        launch_broker(0, store=f"sqlite:///{tmp_path}/store.sqlite3") as broker,
        dashboard(broker.host, broker.port) as served,
    ):
        id = started(Lonely()).instance_id
        opened(page, f"{served.url}/instances/{id}")
        page.locator(".g-box").first.wait_for()
        broker.kill()
        expect(page.get_by_role("alert")).to_contain_text("No broker answers")
        expect(page.locator("h1")).to_contain_text("Lonely")
        broker.start()
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(page.locator(".g-box")).to_have_count(1)
        assert page.evaluate(IS_MARKED)
        page.goto("about:blank")  # it would miss the dashboard
    complaints[:] = [said for said in complaints if "503" not in said and "ERR_" not in said]


def test_a_page_without_a_broker_loads_itself_until_there_is_one(page: Page, complaints: list[str]) -> None:
    with launch_broker(0) as broker, dashboard(broker.host, broker.port) as served:
        broker.kill()
        page.goto(served.url)
        expect(page.get_by_role("alert")).to_contain_text("No broker answers")
        broker.start()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.goto("about:blank")  # it would miss the dashboard
    assert all("503" in said for said in complaints)
    complaints.clear()


def test_a_page_follows_even_if_a_script_arrives_late(board: Board, page: Page) -> None:
    held: list[Route] = []
    page.route("**/hx-sse.min.js", lambda route: held.append(route))
    with page.expect_request("**/hx-sse.min.js"):
        page.goto(board.at("/instances?q=label:kind=late"), wait_until="commit")
    expect(page.get_by_text("No instance matches.")).to_be_visible()
    page.evaluate("new Promise((done) => setTimeout(() => setTimeout(done)))")  # what was to begin has begun
    held[0].continue_()
    row = page.locator(f"#i{started(Lonely(), kind='late').instance_id}")
    expect(row).to_be_visible()
