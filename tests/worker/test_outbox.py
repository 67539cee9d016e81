"""Outcomes as columns: in order, in pieces that a message holds, children before the outcome of their attempt."""

from typing import Any

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.definition import instance_within
from dagorama.graph.scope import AttemptScope
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import Encoded, encode
from dagorama.worker.child.outbox import FLUSH_BYTES, FLUSH_NODES, Outbox
from dagorama.worker.frames import Kind, Outcome
from tests.support.worker_nodes import Nodes

INSTANCE = b"an instance's id"


class Sent:
    """An outbox and what has left it."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Kind, Outcome]] = []
        self.outbox = Outbox(lambda kind, outcome: self.outcomes.append((kind, outcome)))

    @property
    def results(self) -> list[pb.Results]:
        return [pb.Results.FromString(outcome.body) for kind, outcome in self.outcomes if kind == Kind.RESULTS]

    @property
    def returns(self) -> list[pb.Return]:
        return [pb.Return.FromString(outcome.body) for kind, outcome in self.outcomes if kind == Kind.RETURN]


@pytest.fixture
def sent() -> Sent:
    return Sent()


def scope_with(children: int, size: int = 10) -> tuple[AttemptScope, list[DAGPromise[object]]]:
    scope = AttemptScope(INSTANCE)
    instance = instance_within(INSTANCE, Nodes(), scope)
    return scope, [instance.echo(bytes(size)) for _ in range(children)]


def plain(value: object) -> Encoded:
    return encode(value, "result")


def test_outcomes_leave_together_when_they_are_flushed(sent: Sent) -> None:
    sent.outbox.completed(1, 11, b"one", 5)
    sent.outbox.failed(pb.Failure(node=2, attempt=12))
    assert not sent.outcomes
    sent.outbox.flush()
    [results] = sent.results
    assert (list(results.node), list(results.attempt), list(results.value)) == ([1], [11], [b"one"])
    assert [failure.node for failure in results.failures] == [2]
    assert sent.outcomes[0][1].attempts == [11, 12]
    sent.outbox.flush()
    assert len(sent.outcomes) == 1


def test_enough_outcomes_leave_by_themselves(sent: Sent) -> None:
    for number in range(FLUSH_NODES):
        sent.outbox.completed(number, number, b"", 1)
    assert [len(results.node) for results in sent.results] == [FLUSH_NODES]


def test_large_outcomes_leave_in_pieces(sent: Sent) -> None:
    for number in range(5):
        sent.outbox.completed_with(number, number, plain(bytes(FLUSH_BYTES * 2 // 5)), AttemptScope(INSTANCE), 1)
    sent.outbox.flush()
    assert [len(results.node) for results in sent.results] == [2, 2, 1]


def test_children_leave_before_the_outcome_of_their_attempt_in_as_many_pieces_as_it_takes(sent: Sent) -> None:
    scope, _ = scope_with(children=20, size=FLUSH_BYTES // 8)
    sent.outbox.completed_with(1, 11, plain("done"), scope, 1)
    sent.outbox.flush()
    pieces = sent.results
    assert len(pieces) > 2
    assert all(len(piece.SerializeToString()) < 1.3 * FLUSH_BYTES for piece in pieces)
    nodes = [child.nodes for piece in pieces for child in piece.children]
    assert [each.first for each in nodes] == sorted(each.first for each in nodes)
    assert sum(len(each.arguments) for each in nodes) == 20
    assert [len(piece.node) for piece in pieces] == [0] * (len(pieces) - 1) + [1]
    assert sent.outcomes[0][1].attempts == []
    assert sent.outcomes[-1][1].attempts == [11]


def test_promises_in_values_are_columns_beside_values_without_any(sent: Sent) -> None:
    scope, children = scope_with(children=3)
    foreign = DAGPromise._made(b"o" * 12, 9, INSTANCE, "f", (), {}, ("file", 1))
    other = DAGPromise._made(b"p" * 12, 8, INSTANCE, "f", (), {}, ("file", 1))
    sent.outbox.completed(1, 11, b"first", 1)
    sent.outbox.completed_with(2, 12, plain([children[2], foreign, children[0]]), scope, 1)
    sent.outbox.completed(3, 13, b"third", 1)
    sent.outbox.completed_with(4, 14, plain([other]), AttemptScope(INSTANCE), 1)
    sent.outbox.completed(5, 15, b"fifth", 1)
    sent.outbox.flush()
    [results] = sent.results
    assert list(results.ref_count) == [0, 3, 0, 1, 0]
    assert list(results.ref) == [2, -1, 0, -2]
    assert list(results.foreign) == [foreign.node_id, other.node_id]


def test_values_without_promises_have_no_column_for_them(sent: Sent) -> None:
    sent.outbox.completed(1, 11, b"one", 5)
    sent.outbox.flush()
    assert not sent.results[0].ref_count


def test_large_values_are_named_in_the_header_that_the_supervisor_reads(sent: Sent) -> None:
    scope = AttemptScope(INSTANCE, 100, lambda data: b"a" * 32)
    instance_within(INSTANCE, Nodes(), scope).echo(bytes(200))
    value = encode(bytes(200), "result", large_from=100, put_large=lambda data: b"v" * 32)
    sent.outbox.completed(1, 11, b"small", 1)
    sent.outbox.completed_with(2, 12, value, scope, 1)
    sent.outbox.flush()
    [(_, outcome)] = sent.outcomes
    assert set(outcome.large) == {b"a" * 32, b"v" * 32}
    [results] = sent.results
    assert list(zip(results.large, results.large_of, strict=True)) == [(b"v" * 32, 1)]
    assert list(results.children[0].nodes.large) == [b"a" * 32]


def test_nodes_given_back_for_the_same_reason_go_together(sent: Sent) -> None:
    sent.outbox.returned(1, 11, pb.CODE_MISMATCH, "other code", "hash")
    sent.outbox.returned(2, 12, pb.NOT_IMPORTABLE, "no module")
    sent.outbox.returned(3, 13, pb.CODE_MISMATCH, "other code", "hash")
    sent.outbox.flush()
    found = {(each.reason, each.detail, each.hash): list(each.attempt) for each in sent.returns}
    assert found == {(pb.CODE_MISMATCH, "other code", "hash"): [11, 13], (pb.NOT_IMPORTABLE, "no module", ""): [12]}
    assert [outcome.attempts for _, outcome in sent.outcomes] == [[11, 13], [12]]


# --- what an attempt makes while it runs


def growing(sent: Sent, attempt: int = 11) -> tuple[AttemptScope, Any]:
    """The scope of an eager attempt, and an instance in it."""
    scope = AttemptScope(INSTANCE)
    sent.outbox.follow(attempt - 10, attempt, scope)
    return scope, instance_within(INSTANCE, Nodes(), scope)


def children_of(sent: Sent) -> list[tuple[int, int, int]]:
    """Attempt, first counter and number of each run of children that has left."""
    runs = [child for results in sent.results for child in results.children]
    return [(child.attempt, child.nodes.first, len(child.nodes.arguments)) for child in runs]


def test_children_of_an_eager_attempt_leave_with_a_flush_and_the_rest_with_its_outcome(sent: Sent) -> None:
    scope, instance = growing(sent)
    for _ in range(3):
        instance.echo(1)
    assert not sent.outcomes
    sent.outbox.flush()
    sent.outbox.flush()
    assert children_of(sent) == [(11, 0, 3)]
    assert sent.outcomes[0][1].attempts == []
    instance.echo(1)
    sent.outbox.completed_with(1, 11, plain("done"), scope, 1)
    sent.outbox.flush()
    assert children_of(sent) == [(11, 0, 3), (11, 3, 1)]
    assert [list(results.attempt) for results in sent.results] == [[], [11]]


def test_enough_of_them_leave_by_themselves(sent: Sent) -> None:
    scope, instance = growing(sent)
    for _ in range(2 * FLUSH_NODES + 1):
        instance.echo(1)
    assert children_of(sent) == [(11, 0, FLUSH_NODES), (11, FLUSH_NODES, FLUSH_NODES)]
    sent.outbox.completed_with(1, 11, plain("done"), scope, 1)
    sent.outbox.flush()
    assert children_of(sent)[2:] == [(11, 2 * FLUSH_NODES, 1)]


def test_large_ones_leave_in_pieces(sent: Sent) -> None:
    _, instance = growing(sent)
    for _ in range(20):
        instance.echo(bytes(FLUSH_BYTES // 8))
    assert len(sent.results) >= 2
    assert all(len(results.SerializeToString()) < 1.3 * FLUSH_BYTES for results in sent.results)


def test_a_waiting_node_is_announced_for_the_next_flush(sent: Sent) -> None:
    told: list[int] = []
    sent.outbox.on_waiting = lambda: told.append(len(sent.outcomes))
    _, instance = growing(sent)
    instance.echo(1)
    assert told == [0]


def test_an_instance_leaves_when_its_entry_point_has_returned_and_grows(sent: Sent) -> None:
    scope, _ = growing(sent)
    other = b"another instance"
    inner = scope.new_instance(other)
    inside: Any = instance_within(other, Nodes(), inner)
    inside.echo(1)
    sent.outbox.flush()
    assert not sent.outcomes
    inner.launch("tests.support.worker_nodes:Nodes", None)
    sent.outbox.flush()
    inside.echo(2)
    sent.outbox.flush()
    first, second = (child.nodes for results in sent.results for child in results.children)
    assert (first.first, first.HasField("creates")) == (0, True)
    assert (second.first, second.HasField("creates")) == (1, False)
    assert first.origin == second.origin


def test_an_instance_without_nodes_waits_for_the_outcome(sent: Sent) -> None:
    scope, _ = growing(sent)
    scope.new_instance(b"another instance").launch("tests.support.worker_nodes:Nodes", None)
    sent.outbox.flush()
    assert not sent.outcomes
    sent.outbox.completed_with(1, 11, plain("done"), scope, 1)
    sent.outbox.flush()
    assert children_of(sent) == [(11, 0, 0)]


@pytest.mark.parametrize("how", ["failed", "returned", "cancelled"])
def test_unsent_children_of_an_aborted_attempt_are_never_sent(sent: Sent, how: str) -> None:
    _, instance = growing(sent)
    instance.echo(1)
    match how:
        case "failed":
            sent.outbox.failed(pb.Failure(node=1, attempt=11))
        case "returned":
            sent.outbox.returned(1, 11, pb.INTERRUPTED, "")
        case "cancelled":
            sent.outbox.dropped(11)
    sent.outbox.flush()
    instance.echo(2)
    sent.outbox.flush()
    assert children_of(sent) == []
