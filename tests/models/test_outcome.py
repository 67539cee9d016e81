"""Failure as a value: outcome() in the arguments of a call, and what its function gets."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from dagorama.api import broker_pb2
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, instance_within, resolve
from dagorama.errors import FailedAttempt, NodeCancelled, NodeFailed, PromiseMisuse, ValueNotReadable
from dagorama.graph.node_batch import FunctionTable
from dagorama.graph.scope import AttemptScope
from dagorama.models.failure import Failure
from dagorama.models.outcome import outcome
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import FailedSource, decode, decode_call, encode, encode_call
from dagorama.values.failures import failed_source
from tests.support.recording_broker import RecordingBroker, block_of

INSTANCE = b"i" * 16


@dataclass
class Box:
    inner: Any


class Bad(Exception): ...


class Sums(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, numbers: list[int], tolerant: bool = True) -> Any:
        parts = [self.half(number) for number in numbers]
        return self.total([outcome(part) for part in parts] if tolerant else parts)

    @dagorama().syncfn
    def half(self, number: int) -> int:
        if number % 2:
            raise Bad(f"{number} is odd")
        return number // 2

    @dagorama().syncfn
    def total(self, parts: list[Any]) -> Any:
        failures = [part for part in parts if isinstance(part, Failure)]
        return sum(filter(None, parts)), [failure.message for failure in failures]

    @dagorama().syncfn
    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    @dagorama().syncfn
    def returns(self, wrap: str) -> Any:
        promise = self.half(1)
        return WRAPPERS[wrap](promise)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "plain": outcome,
    "in a list": lambda promise: [outcome(promise)],
    "deep": lambda promise: {"a": Box((promise, outcome(promise)))},
}


@pytest.fixture
def attempt() -> AttemptScope:
    return AttemptScope(INSTANCE, put_large=lambda data: b"h" * 32)


@pytest.fixture
def inside(attempt: AttemptScope) -> Any:
    return instance_within(INSTANCE, Sums(), attempt)


def promise(number: int) -> DAGPromise[Any]:
    return DAGPromise(UUID(int=number))


FAILURE = Failure("app:Dag.work", "builtins.ValueError", "no rows", "Traceback", 3, node_id=UUID(int=7))


# --- the whole way


def test_one_bad_item_does_not_lose_a_fan_out(broker: RecordingBroker) -> None:
    instance, promise = Sums()([2, 3, 4, 5])
    broker.run(catch=(Bad,))
    assert resolve(instance, promise, timeout=5) == (3, ["3 is odd", "5 is odd"])


def test_without_outcome_the_failure_spreads_to_the_caller(broker: RecordingBroker) -> None:
    instance, _ = Sums()([2, 3], tolerant=False)
    broker.run(catch=(Bad,))
    node = broker.called("total")[0]
    total = DAGPromise[Any](UUID(bytes=node.id))
    with pytest.raises(NodeFailed, match="3 is odd"):
        resolve(instance, total, timeout=5)
    assert not broker.called("total")[0].tolerated


def test_a_function_gets_the_failure_wherever_the_outcome_stood(broker: RecordingBroker) -> None:
    instance: Any = Sums()([])[0]
    failing, fine = instance.half(3), instance.half(4)
    told = instance.echo(outcome(failing), {"deep": Box([outcome(fine), outcome(failing)])}, key=outcome(failing))
    broker.run(catch=(Bad,))
    (first, boxes), named = resolve(instance, told, timeout=5)
    assert (first.message, first.type, first.function) == ("3 is odd", f"{__name__}.Bad", f"{__name__}:Sums.half")
    assert boxes["deep"].inner[0] == 2
    assert boxes["deep"].inner[1] == named["key"] == first
    assert first.node_id == failing.identifier


# --- on the wire


def test_the_wire_has_the_same_sources_and_which_of_them_are_tolerated(attempt: AttemptScope, inside: Any) -> None:
    one, two, three = (inside.half(number) for number in range(3))
    inside.echo(one, outcome(two))
    inside.echo(outcome(three), [two, outcome(one)])
    message = attempt.runs[0].to_message(FunctionTable())
    assert list(message.source) == [0, 1, 2, 1, 0]
    assert list(message.tolerant) == [1, 2, 4]
    nodes = block_of(attempt.runs[0])
    assert [node.tolerated for node in nodes[3:]] == [[two.node_id], [three.node_id, one.node_id]]


def test_a_piece_of_a_run_counts_its_own_places(attempt: AttemptScope, inside: Any) -> None:
    one = inside.half(0)
    for _ in range(3):
        inside.echo(outcome(one))
    assert list(attempt.runs[0].to_message(FunctionTable(), 2, 4).tolerant) == [0, 1]
    assert not attempt.runs[0].to_message(FunctionTable(), 0, 1).tolerant


def test_calls_without_outcomes_say_nothing_of_it(attempt: AttemptScope, inside: Any) -> None:
    inside.echo(inside.half(0))
    assert not attempt.runs[0].to_message(FunctionTable()).tolerant


@pytest.mark.parametrize("first", [True, False])
def test_given_with_and_without_outcome_the_failure_spreads(attempt: AttemptScope, inside: Any, first: bool) -> None:
    one = inside.half(1)
    inside.echo(*([outcome(one), one] if first else [one, outcome(one), outcome(one)]))
    node = block_of(attempt.runs[0])[-1]
    assert (node.sources, node.tolerated) == ([one.node_id], [])


@pytest.mark.slow
def test_wide_tolerant_calls_are_weighed(attempt: AttemptScope, inside: Any) -> None:
    parts = [inside.half(0) for _ in range(100_000)]
    inside.echo([outcome(part) for part in parts])
    run = attempt.runs[0]
    assert all(run.to_message(FunctionTable(), *piece).ByteSize() < 4 * 1024 * 1024 for piece in run.pieces())
    assert len(block_of(run)[-1].tolerated) == 100_000


def test_a_stranger_is_refused_under_outcome_too(inside: Any) -> None:
    stranger = instance_within(b"s" * 16, Sums(), AttemptScope(b"s" * 16)).half(1)
    with pytest.raises(ValueError, match="a promise of another instance"):
        inside.echo(outcome(stranger))


# --- filling


def test_values_and_failures_fill_their_places() -> None:
    encoded = encode_call((outcome(promise(1)), outcome(promise(2))), {"key": promise(3)})
    assert encoded.tolerant == [0, 1]
    args, kwargs = decode_call(encoded.envelope, [FailedSource(FAILURE), 5, 6])
    assert (args, kwargs) == ((FAILURE, 5), {"key": 6})


def test_a_failure_never_fills_a_place_that_did_not_ask_for_it() -> None:
    encoded = encode_call((promise(1), outcome(promise(2))), {})
    with pytest.raises(ValueNotReadable, match=r"a promise in it failed: app:Dag\.work failed after 3 attempts"):
        decode_call(encoded.envelope, [FailedSource(FAILURE), 5])


def test_a_failure_that_is_a_value_fills_any_place() -> None:
    assert decode_call(encode_call((promise(1),), {}).envelope, [FAILURE]) == ((FAILURE,), {})
    assert decode(encode(FAILURE).envelope) == FAILURE


def test_failures_are_hashable_members_of_sets() -> None:
    encoded = encode_call(({outcome(promise(1)), outcome(promise(2))},), {})
    (members,), _ = decode_call(encoded.envelope, [FailedSource(FAILURE), 5])
    assert members == {FAILURE, 5}


def test_what_only_cloudpickle_can_carry_holds_outcomes_too() -> None:
    class Local(Box): ...

    encoded = encode_call((Local(outcome(promise(1))),), {})
    assert encoded.tolerant == [0]
    arrived: Any = decode_call(encoded.envelope, [FailedSource(FAILURE)])[0][0]
    assert arrived.inner == FAILURE


def test_a_failure_is_read_from_what_the_broker_sends() -> None:
    message = broker_pb2.NodeFailure(
        node=UUID(int=7).bytes, function="app:Dag.work", type="builtins.ValueError", message="no rows",
        traceback="Traceback", attempts=3, earlier=[broker_pb2.EarlierFailure(type="a.B", message="m", traceback="t")],
    )  # fmt: skip
    failure = failed_source(message.SerializeToString()).failure
    assert failure == Failure(
        "app:Dag.work", "builtins.ValueError", "no rows", "Traceback", 3, (FailedAttempt("a.B", "m", "t"),), UUID(int=7)
    )


def test_a_cancelled_one_says_so() -> None:
    message = broker_pb2.NodeFailure(function="app:Dag.work", type="dagorama.errors.NodeCancelled")
    failure = failed_source(message.SerializeToString()).failure
    assert (failure.cancelled, str(failure)) == (True, "app:Dag.work was cancelled")


# --- the records themselves


def test_a_failure_reads_as_a_sentence_and_its_repr_has_no_traceback() -> None:
    assert str(FAILURE) == "app:Dag.work failed after 3 attempts: ValueError: no rows"
    assert "Traceback" not in repr(FAILURE)


def test_a_failure_is_false_and_told_apart_by_its_class() -> None:
    results: list[int | Failure] = [0, FAILURE, 2]
    assert [result or "default" for result in results] == ["default", "default", 2]
    assert [isinstance(result, Failure) for result in results] == [False, True, False]


def test_a_failure_can_be_raised_after_all() -> None:
    error = FAILURE.error()
    assert type(error) is NodeFailed
    assert (error.function, error.traceback, error.node_id) == ("app:Dag.work", "Traceback", UUID(int=7))
    assert type(Failure("f", cancelled=True).error()) is NodeCancelled


def test_a_failure_travels() -> None:
    for again in (pickle.loads(pickle.dumps(FAILURE)), copy.deepcopy(FAILURE)):
        assert (again, hash(again)) == (FAILURE, hash(FAILURE))


# --- outcome() itself


@pytest.mark.parametrize("value", [0, None, "", [1, 2], {"a": 1}, FAILURE])
def test_what_is_no_promise_is_its_own_outcome(value: object) -> None:
    assert outcome(value) is value


def test_an_outcome_is_the_same_promise_to_everybody_else(inside: Any) -> None:
    one = inside.half(1)
    tolerant = outcome(one)
    assert tolerant == one
    assert hash(tolerant) == hash(one)
    assert outcome(tolerant) == one
    assert repr(tolerant) == f"<outcome of {one!r}>"
    for again in (pickle.loads(pickle.dumps(tolerant)), copy.copy(tolerant)):
        assert (again, type(again)) == (one, type(tolerant))


def test_used_as_a_value_it_explains_itself(inside: Any) -> None:
    tolerant: Any = outcome(inside.half(1))
    with pytest.raises(PromiseMisuse, match=rf"`Sums.half`, made at {__file__}"):
        tolerant + 1
    with pytest.raises(PromiseMisuse, match="its truth"):
        bool(tolerant)


def test_whether_it_failed_cannot_be_asked_before_its_node_has_ended(inside: Any) -> None:
    one = inside.half(1)
    for asked in (one, outcome(one)):
        with pytest.raises(PromiseMisuse, match=r"whether this is a Failure is not known before.*Sums\.half"):
            isinstance(asked, Failure)


@pytest.mark.parametrize("wrap", [list, tuple, set, lambda promises: dict(enumerate(promises))])
def test_an_outcome_is_of_one_promise(inside: Any, wrap: Callable[[Any], Any]) -> None:
    with pytest.raises(PromiseMisuse, match=r"write \[outcome\(promise\) for promise in promises\]"):
        outcome(wrap([inside.half(1), inside.half(2)]))


# --- where it has no place


@pytest.mark.parametrize("wrap", list(WRAPPERS))
def test_a_result_with_an_outcome_in_it_is_refused(broker: RecordingBroker, wrap: str) -> None:
    instance: Any = Sums()([])[0]
    instance.returns(wrap)
    with pytest.raises(PromiseMisuse, match=r"the result holds the <outcome of .*: pass it to such a method"):
        broker.run()


def test_an_outcome_returned_by_a_plain_entry_point_is_refused(broker: RecordingBroker) -> None:
    class Plain(Sums):
        def entrypoint(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]  # it is plain
            return outcome(self.half(1))

    with pytest.raises(PromiseMisuse, match=r"returned the <outcome of .*return the promise"):
        Plain()()
    assert not broker.nodes


# --- resolve


def test_resolve_gives_the_failure_where_it_is_asked_for(broker: RecordingBroker) -> None:
    instance, promise = Sums()([3])
    failing: Any = instance.half(3)
    assert resolve(instance, outcome(failing)) is None
    broker.run(catch=(Bad,))
    failure = resolve(instance, outcome(failing), timeout=5)
    assert isinstance(failure, Failure)
    assert failure.message == "3 is odd"
    assert resolve(instance, outcome(promise), timeout=5) == (0, ["3 is odd"])


def test_the_failure_of_a_cancelled_node_says_that_it_was_cancelled(broker: RecordingBroker) -> None:
    instance, promise = Sums()([3])
    broker.nodes[promise.node_id].state = broker_pb2.CANCELLED
    failure = resolve(DAGInstance(instance.instance_id, Sums()), outcome(promise))
    assert isinstance(failure, Failure)
    assert failure.cancelled
