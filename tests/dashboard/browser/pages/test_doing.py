"""Each action from its page: a question that names what it changes, and what it did on the page after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dagorama import resolve
from tests.dashboard.browser.pages.conftest import Board, assert_well_made
from tests.dashboard.browser.pages.work import Reading, ended, listening, speaker, started
from tests.dashboard.shown_work import DEPLOYED_BEFORE, DEPLOYED_NOW, Lonely
from tests.support.worker_command import WAIT, old_of_two, worker
from tests.support.workers import launch_workers


def do(page: Page, action: str, notice: str) -> None:
    """Click an action and the button of the question that follows; wait for what it did."""
    page.get_by_role("button", name=action, exact=True).click()
    confirm(page, notice)


def confirm(page: Page, notice: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_contain_text("?")
    assert_well_made(page)
    page.locator("form[action='/do'] button").click()
    expect(page.locator(".notice[role=status]")).to_contain_text(notice)


def state(page: Page, word: str) -> None:
    expect(page.locator("h1 .state")).to_contain_text(word)


def test_an_instance_is_cancelled(board: Board, page: Page, tmp_path: Path) -> None:
    with speaker(tmp_path) as other_end:
        page.goto(board.at(f"/instances/{listening(other_end)}"))
        do(page, "Cancel", "2 nodes of 1 instance cancelled")
        state(page, "cancelled")
        expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)


def test_a_question_that_is_not_confirmed_changes_nothing(board: Board, page: Page) -> None:
    page.goto(board.at(f"/instances/{started(Lonely()).instance_id}"))
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("link", name="Back").click()
    state(page, "stuck")


@pytest.mark.parametrize("action", ["Retry", "Retry with the deployed code"])
def test_a_failed_instance_is_retried_and_completes_while_its_page_is_open(
    board: Board, page: Page, tmp_path: Path, action: str
) -> None:
    path = tmp_path / "file"
    page.goto(board.at(f"/instances/{ended(Reading(), f'{path}')}"))
    state(page, "failed")
    path.write_text("text")
    do(page, action, "nodes run or wait again")
    state(page, "completed")


def test_one_node_is_retried_from_its_page(board: Board, page: Page, tmp_path: Path) -> None:
    path = tmp_path / "file"
    page.goto(board.at(f"/instances/{ended(Reading(), f'{path}')}/2"))
    expect(page.get_by_text("FileNotFoundError").first).to_be_visible()
    path.write_text("text")
    do(page, "Retry", "again")
    state(page, "done")


def test_the_nodes_of_a_group_of_failures_are_retried(board: Board, page: Page, tmp_path: Path) -> None:
    path = tmp_path / "a group of its own"
    ids = [ended(Reading(), f"{path}") for _ in range(2)]
    page.goto(board.at("/failures"))
    group = page.locator(".group", has_text="FileNotFoundError").filter(has_text="Reading.read")
    path.write_text("text")
    group.get_by_role("button", name="Retry", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Retry the nodes that failed with")
    confirm(page, "run or wait again")
    for id in ids:
        page.goto(board.at(f"/instances/{id}"))
        state(page, "completed")


def test_chosen_instances_are_retried_and_deleted(board: Board, page: Page, tmp_path: Path) -> None:
    path = tmp_path / "file"
    ids = [ended(Reading(), f"{path}", kind="again") for _ in range(2)]
    path.write_text("text")
    for action, notice in (("Retry chosen", "run or wait again"), ("Delete chosen", "2 instances deleted")):
        page.goto(board.at("/instances?q=label:kind=again"))
        page.get_by_label("Choose all on this page").check()
        page.get_by_role("button", name=action).click()
        confirm(page, notice)
        expect(page.locator(f"#i{ids[0]} .state.done")).to_have_count(1 if action == "Retry chosen" else 0)


def test_nodes_of_old_code_run_with_the_deployed_code(
    board: Board, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_of_two(tmp_path, monkeypatch, "deployed_on_a_page", DEPLOYED_BEFORE, DEPLOYED_NOW)
    instance, promise = old.Deployed()()
    with worker(path=tmp_path / "new"):
        page.goto(board.at("/queues"))
        row = page.locator("tr", has_text="deployed_on_a_page")
        row.get_by_role("button", name="Run with the deployed code").click()
        confirm(page, "1 node runs with the deployed code")
        assert resolve(instance, promise, timeout=WAIT) == 2


def test_the_stack_of_a_running_node_is_shown(board: Board, page: Page, tmp_path: Path) -> None:
    with speaker(tmp_path) as other_end:
        page.goto(board.at(f"/instances/{listening(other_end)}/2"))
        page.get_by_role("link", name="Stack now").click()
        expect(page.locator(".trace")).to_contain_text("in listen")
        assert_well_made(page)


def test_one_node_is_cancelled_from_its_page(board: Board, page: Page) -> None:
    page.goto(board.at(f"/instances/{started(Lonely()).instance_id}/1"))
    do(page, "Cancel", "1 node cancelled")
    state(page, "cancelled")


def test_an_ended_instance_is_deleted(board: Board, page: Page, tmp_path: Path) -> None:
    id = ended(Reading(), f"{tmp_path / 'file'}", kind="deleted")
    page.goto(board.at(f"/instances/{id}"))
    do(page, "Delete", "1 instance deleted, with 3 nodes")
    expect(page.get_by_role("heading", name="Instances")).to_be_visible()
    expect(page.locator(f"#i{id}")).to_have_count(0)


def test_chosen_instances_are_cancelled_and_others_are_not(board: Board, page: Page) -> None:
    ids = [started(Lonely(), kind="chosen").instance_id for _ in range(3)]
    page.goto(board.at("/instances?q=label:kind=chosen"))
    for id in ids[:2]:
        page.locator(f"#i{id}").get_by_role("checkbox").check()
    page.get_by_role("button", name="Cancel chosen").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 2 instances?")
    confirm(page, "2 nodes of 2 instances cancelled")
    expect(page.locator("tr .state.cancelled")).to_have_count(2)
    expect(page.locator(f"#i{ids[2]}")).to_contain_text("stuck")


def test_all_instances_of_the_page_are_chosen_at_once(board: Board, page: Page) -> None:
    for _ in range(3):
        started(Lonely(), kind="everything")
    page.goto(board.at("/instances?q=label:kind=everything"))
    page.get_by_label("Choose all on this page").check()
    page.get_by_role("button", name="Cancel chosen").click()
    confirm(page, "3 nodes of 3 instances cancelled")


def test_all_instances_that_match_are_cancelled(board: Board, page: Page) -> None:
    for _ in range(3):
        started(Lonely(), kind="matching")
    other = started(Lonely(), kind="other").instance_id
    page.goto(board.at("/instances?q=label:kind=matching"))
    page.get_by_text("All that match").click()
    page.get_by_role("button", name="Cancel all unfinished").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cancel 3 instances that match 'label:kind=matching'?")
    confirm(page, "3 nodes of 3 instances cancelled")
    page.goto(board.at(f"/instances/{other}"))
    state(page, "stuck")


def test_a_queue_is_paused_and_resumed(board: Board, page: Page) -> None:
    started(Lonely())
    page.goto(board.at("/queues"))
    row = page.locator("tr", has_text="queue <img")
    row.get_by_role("button", name="Pause").click()
    confirm(page, "is paused")
    expect(row).to_contain_text("paused")
    row.get_by_role("button", name="Resume").click()
    confirm(page, "runs")
    expect(row).to_contain_text("open")


def test_a_worker_is_drained_and_leaves_the_page(board: Board, page: Page) -> None:
    page.goto(board.at("/workers"))
    cards = page.locator(".card")
    expect(cards).to_have_count(1)
    old = cards.get_attribute("id")
    with launch_workers(1) as workers:
        expect(cards).to_have_count(2)
        page.locator(f".card:not(#{old})").get_by_role("button", name="Drain").click()
        confirm(page, "and leaves")
        for worker in workers:
            worker.join()
        expect(cards).to_have_count(1)
    assert cards.get_attribute("id") == old


def test_what_people_did_is_listed_while_they_look(board: Board, page: Page) -> None:
    page.goto(board.at("/actions"))
    other = page.context.new_page()
    id = f"{started(Lonely()).instance_id}"
    other.goto(board.at(f"/instances/{id}"))
    do(other, "Cancel", "1 node of 1 instance cancelled")
    expect(page.locator("tr", has_text=id[:8])).to_contain_text("cancel")
