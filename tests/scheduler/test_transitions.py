"""One table, one function that assigns a state, and a page that shows both as they are."""

import ast
import pickle
from pathlib import Path

import pytest

from dagorama_broker.errors import IllegalTransition
from dagorama_broker.model.domain import ENDED, State
from dagorama_broker.scheduler.transitions import REASONS, TRANSITIONS, mermaid, page
from tests.support.driver import SchedulerDriver

ROOT = Path(__file__).parents[2]
HEART = [*(ROOT / "dagorama_broker" / "scheduler").glob("*.py")]


def assignments_of_state() -> set[tuple[str, str]]:
    """(file, function) of each place that assigns an attribute called `state`, however it does so."""
    found = set()
    for file in HEART:
        for function in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(function):
                stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == "state"
                called = isinstance(node, ast.Name) and node.id == "setattr"
                if stored or called:
                    found.add((file.name, function.name))
    return found


def test_only_move_assigns_a_state() -> None:
    assert assignments_of_state() == {("states.py", "move"), ("objects.py", "__init__")}


def test_every_state_is_in_the_table_and_every_move_has_its_reason() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {(state, to) for state, nexts in TRANSITIONS.items() for to in nexts} == set(REASONS)
    assert all(REASONS.values())


def test_what_was_cancelled_never_moves_and_what_has_failed_or_completed_only_when_a_person_retries() -> None:
    assert {state for state, nexts in TRANSITIONS.items() if not nexts} == {State.CANCELLED}
    for state in ENDED - {State.CANCELLED}:
        assert TRANSITIONS[state] == {State.QUEUED, State.WAITING, State.RESOLVING}


def test_what_has_not_ended_can_fail_and_be_cancelled() -> None:
    assert all({State.FAILED, State.CANCELLED} <= TRANSITIONS[state] for state in set(State) - ENDED)


@pytest.mark.parametrize("to", sorted(set(State) - TRANSITIONS[State.QUEUED]), ids=lambda state: state.name)
def test_a_move_that_is_not_in_the_table_changes_nothing(driver: SchedulerDriver, to: State) -> None:
    driver.spawn("a")
    node = driver.scheduler.graph.find(driver.ids["a"])
    assert node is not None
    before = pickle.dumps(driver.scheduler)
    with pytest.raises(IllegalTransition, match=f"QUEUED -> {to.name}"):
        driver.scheduler.graph.move(node, to)
    assert pickle.dumps(driver.scheduler) == before


def test_the_page_shows_the_table() -> None:
    text = (ROOT / "docs" / "reference" / "states.md").read_text()
    assert f"```mermaid\n{mermaid()}```" in text
    assert text == page()
