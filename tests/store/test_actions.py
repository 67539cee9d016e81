"""Actions of people: numbered, the latest kept, in pages from the latest on."""

from __future__ import annotations

import pytest

from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.model.maps import LAST_KEY
from dagorama_broker.model.rows import DELETED, Changes, RemovedRow
from dagorama_broker.store import Store
from dagorama_broker.store.memory import tables
from dagorama_broker.store.sql import actions
from tests.support.records import graph, instance_row, node, restart


def act(store: Store, *rows: ActionRow) -> None:
    store.commit(Changes(actions=list(rows)))


def numbered(count: int) -> list[ActionRow]:
    return [ActionRow(ActionKind.PAUSE, "ada", target=f"q{number}", time=float(number)) for number in range(count)]


def test_actions_are_numbered_and_listed_from_the_latest_on(store: Store) -> None:
    rows = numbered(5)
    act(store, *rows[:3])
    restart(store)
    act(store, *rows[3:])
    listed = store.view.list_actions(LAST_KEY, 10)
    assert [(each.number, each.row) for each in listed.actions] == list(enumerate(rows, 1))[::-1]
    assert (listed.more, listed.total) == (0, 5)
    first = store.view.list_actions(LAST_KEY, 2)
    assert ([each.number for each in first.actions], first.more, first.total) == ([5, 4], 4, 5)
    rest = store.view.list_actions(first.more, 3)
    assert ([each.number for each in rest.actions], rest.more) == ([3, 2, 1], 0)
    assert store.view.list_actions(1, 3) == ([], 0, 5)


def test_only_the_latest_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MOST_ACTIONS", 4)
    monkeypatch.setattr(tables, "MOST_ACTIONS", 4)
    rows = numbered(9)
    act(store, *rows[:3])
    act(store, *rows[3:])
    listed = store.view.list_actions(LAST_KEY, 10)
    assert [(each.number, each.row) for each in listed.actions] == list(enumerate(rows, 1))[:4:-1]
    assert (listed.more, listed.total) == (0, 4)


def test_an_action_on_an_instance_names_its_definition_also_if_the_commit_creates_it(store: Store) -> None:
    id = instance_row(1).id
    made = graph(node(1))
    made.actions = [ActionRow(ActionKind.CANCEL, "", id, nodes=1)]
    store.commit(made)
    deleted = Changes(
        actions=[ActionRow(ActionKind.RETRY, "", id), ActionRow(ActionKind.CANCEL, "", bytes(16))],
        removed=[RemovedRow(1, id, 1.0, failed=False, kept=DELETED)],
    )
    store.commit(deleted)
    listed = store.view.list_actions(LAST_KEY, 10).actions
    assert [(each.row.action, each.row.target) for each in listed] == [
        ("cancel", ""), ("retry", "work:Plain"), ("cancel", "work:Plain"),
    ]  # fmt: skip
