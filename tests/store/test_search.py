"""What every store finds: instances by function and error, nodes by error."""

from __future__ import annotations

import pytest

from dagorama_broker.model.domain import Failure, State
from dagorama_broker.model.queries import InstanceQuery
from dagorama_broker.model.rows import Changes, FunctionRow, InstanceEnd, OutcomeRow
from dagorama_broker.store import Store
from dagorama_broker.store.sql import search
from tests.support.records import RICH, completed, failed, graph, node, restart

LAST = (1 << 63) - 1


def failure(key: int, type: str, message: str, state: State = State.FAILED) -> OutcomeRow:
    packed = Failure("work:Plain.step", type, message, "Traceback: nothing of this", b"", 1).packed()
    return failed(key)._replace(failure=packed, state=int(state))


@pytest.fixture
def full(store: Store) -> Store:
    """Instances 1 to 4, of which 1 and 3 have failed, and 4 has a node of another function."""
    store.commit(graph(*(node(key) for key in range(1, 7))))
    for instance in (2, 3):
        origin = b"origin-%05d" % instance
        store.commit(graph(node(10 * instance, instance=instance), instance=instance, origin=origin))
    store.commit(Changes(functions=[FunctionRow(2, RICH)]))
    store.commit(graph(node(40, instance=4, function=2), instance=4, origin=b"origin-00004"))
    outcomes = [
        failure(1, "builtins.ValueError", "no such 'Order' 42\nsecond line \N{LATIN SMALL LETTER E WITH ACUTE}"),
        failed(2, root_cause=1),
        completed(3),
        failure(4, "builtins.KeyError", "other"),
        failure(5, "dagorama.errors.NodeCancelled", "order 42", State.CANCELLED),
        failure(30, "work.ValueError", "order 43"),
    ]
    ends = [InstanceEnd(1, None, True), InstanceEnd(3, 5.5, True)]
    store.commit(Changes(outcomes=outcomes, instance_ends=ends))
    restart(store)
    return store


def listed(store: Store, limit: int = 100, before: int = LAST, **asked: object) -> tuple[list[int], int]:
    found = store.view.list_instances(InstanceQuery(before, limit, **asked))  # type: ignore[arg-type]  # its fields
    return [stored.row.key for stored in found.instances], found.more


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("order", [1]),
        ("ORDER' 42", [1]),
        ("valueerror: no such", [1]),
        ("second line \N{LATIN SMALL LETTER E WITH ACUTE}", [1]),
        ("Error", [1, 4]),
        ("nothing of this", []),
        ("%", []),
        ("order_", []),
    ],
)
def test_nodes_are_found_by_the_type_and_message_of_their_own_failure(full: Store, text: str, keys: list[int]) -> None:
    assert full.view.failed_with(1, text, 0, 100) == keys


def test_they_come_page_by_page(full: Store) -> None:
    assert full.view.failed_with(1, "error", 0, 1) == [1]
    assert full.view.failed_with(1, "error", 1, 9) == [4]
    assert full.view.failed_with(1, "error", 4, 9) == []


def test_a_failure_that_is_not_as_ours_is_no_match(store: Store) -> None:
    store.commit(graph(node(1)))
    store.commit(Changes(outcomes=[failed(1)]))
    assert store.view.failed_with(1, "failure", 0, 9) == []


def test_instances_are_found_by_error_and_function(full: Store) -> None:
    assert listed(full, error="order") == ([3, 1], 0)
    assert listed(full, error="order", unfinished=True) == ([1], 0)
    assert listed(full, error="keyerror") == ([1], 0)
    assert listed(full, error="order", limit=1) == ([3], 3)
    assert listed(full, error="order", before=3) == ([1], 0)
    assert listed(full, function=RICH.name) == ([4], 0)
    assert listed(full, function="work:Plain.step") == ([3, 2, 1], 0)
    assert listed(full, function="work:Plain.step", error="other") == ([1], 0)
    assert listed(full, function="work:None") == ([], 0)


def test_a_page_looks_into_a_bounded_number_of_instances(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LOOKED_INTO", 2)
    # A store in memory looks at all of them.
    assert listed(full, function="work:None") == ([], 0 if full.view.is_the_store else 3)
    assert listed(full, function="work:None", before=3) == ([], 0)
