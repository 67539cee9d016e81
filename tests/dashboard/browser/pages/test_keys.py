"""Everything can be done by the keyboard, and a token that may only look sees nothing to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dagorama.client.connection import connection
from tests.dashboard.browser.pages.conftest import Board
from tests.dashboard.browser.pages.work import Reading, ended, started
from tests.dashboard.conftest import Guarded
from tests.dashboard.shown_work import Lonely

PAGES = {"o": "Overview", "i": "Instances", "w": "Workers", "q": "Queues", "f": "Failures", "a": "Actions"}
#: Roles whose tokens may cancel, retry and delete; roles whose tokens may pause queues.
CLIENTS, ADMINS = {"client", "admin"}, {"admin"}


def press(page: Page, *keys: str) -> None:
    page.wait_for_load_state()  # its scripts have run
    for key in keys:
        page.keyboard.press(key)


def test_a_failed_node_is_found_and_retried_from_the_overview(board: Board, page: Page, tmp_path: Path) -> None:
    path = tmp_path / "file"
    id = ended(Reading(), f"{path}")
    page.goto(board.at("/"))
    press(page, "j", "Enter")  # the latest instance
    expect(page.locator("h1")).to_contain_text(f"Reading {id[:8]}")
    press(page, "j", "Enter")  # its first failure
    expect(page.locator("h1")).to_contain_text("Reading.read 2")
    path.write_text("text")
    press(page, "r")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Retry one node")
    press(page, "Enter")
    expect(page.locator(".notice[role=status]")).to_contain_text("again")
    expect(page.locator("h1 .state")).to_contain_text("done")
    press(page, "u")
    expect(page.locator("h1")).to_contain_text(f"Reading {id[:8]}")


def test_a_question_is_left_by_escape(board: Board, page: Page) -> None:
    id = started(Lonely()).instance_id
    page.goto(board.at(f"/instances/{id}"))
    press(page, "c")
    expect(page.get_by_role("heading", level=1)).to_contain_text("?")
    press(page, "Escape")
    expect(page.locator("h1 .state")).to_contain_text("stuck")


def test_two_keys_lead_to_each_page(board: Board, page: Page) -> None:
    page.goto(board.at("/instances"))
    for key, title in PAGES.items():
        press(page, "g", key)
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
        expect(page.get_by_role("link", name=title, exact=True)).to_have_attribute("aria-current", "page")


def test_rows_are_walked_and_chosen_by_keys(board: Board, page: Page) -> None:
    ids = [started(Lonely(), kind="walked").instance_id for _ in range(3)][::-1]
    page.goto(board.at("/instances?q=label:kind=walked"))
    press(page, "j", "j", "x")
    expect(page.locator(f"#i{ids[1]}").get_by_role("checkbox")).to_be_checked()
    expect(page.locator(f"#i{ids[1]} a").first).to_be_focused()
    press(page, "k")
    expect(page.locator(f"#i{ids[0]} a").first).to_be_focused()
    press(page, "k")
    expect(page.locator(f"#i{ids[0]} a").first).to_be_focused()


def test_the_search_takes_letters_as_letters(board: Board, page: Page) -> None:
    page.goto(board.at("/instances"))
    press(page, "/")
    page.keyboard.type("gi jkp?")
    expect(page.get_by_role("searchbox")).to_have_value("gi jkp?")
    press(page, "Enter")
    expect(page.get_by_text("No instance matches.")).to_be_visible()


def test_the_keys_are_explained_by_a_key(board: Board, page: Page) -> None:
    page.goto(board.at("/workers"))
    press(page, "?")
    expect(page.get_by_role("dialog")).to_contain_text("next and previous row")
    press(page, "Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_first_stop_of_the_tab_key_leads_past_the_navigation(board: Board, page: Page) -> None:
    page.goto(board.at("/workers"))
    press(page, "Tab", "Enter")
    expect(page.locator("#content")).to_be_focused()


@pytest.mark.parametrize("role", ["reader", "client", "admin"])
def test_a_token_decides_which_buttons_there_are(
    as_admin: Guarded, page: Page, complaints: list[str], role: str
) -> None:
    id = started(Lonely()).instance_id
    pages = as_admin.pages
    page.goto(f"{pages.url}/instances/{id}")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert "403" in complaints.pop()
    page.get_by_label("Token").fill(as_admin.tokens[role])
    page.get_by_role("button", name="Sign in").click()
    roles = {f"/instances/{id}": CLIENTS, f"/instances/{id}/1": CLIENTS, "/instances": CLIENTS, "/queues": ADMINS}
    for path, allowed in roles.items():
        page.goto(f"{pages.url}{path}")
        expect(page.locator("#content h1")).to_be_visible()
        forms = page.locator("#content form:is([action='/confirm'], [action='/do']) button")
        assert (forms.count() > 0) is (role in allowed), path
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.goto(pages.url)
    expect(page.get_by_label("Token")).to_be_visible()
    connection().close_stream()
