"""resolve(): it never waits unless asked, and says what became of a node."""

import pickle
import threading
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from dagorama.api import broker_pb2
from dagorama.context import current_attempt
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, resolve
from dagorama.errors import (
    BrokerUnavailable,
    FailedAttempt,
    NodeCancelled,
    NodeFailed,
    NotFound,
    ProcessDied,
    PromiseMisuse,
    QueueTimeout,
    ResultRejected,
    WorkerLost,
    WrongInstance,
)
from dagorama.graph.scope import AttemptScope
from dagorama.models.outcome import outcome
from dagorama.models.promise import DAGPromise
from tests.support.recording_broker import RecordingBroker, serving


@dataclass
class Pair:
    left: Any
    right: Any


class Sample(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, value: Any) -> Any:
        return value

    @dagorama().syncfn
    def pair(self, depth: int) -> Any:
        return [self.entrypoint(depth), Pair(self.pair(depth - 1), {"depth": depth})] if depth else "end"


def fail(
    broker: RecordingBroker,
    promise: DAGPromise[Any],
    state: broker_pb2.NodeState.ValueType,
    pickled: bytes = b"",
    **details: Any,
) -> None:
    """`pickled` is the exception, which its worker has signed."""
    node = broker.nodes[promise.node_id]
    node.state = state
    if pickled:
        details["exception"] = node.signed_failure(pickled)
    node.failure = broker_pb2.NodeFailure(node=node.id, function=node.function.name, **details)


def test_not_yet_is_none_and_does_not_wait(broker: RecordingBroker) -> None:
    instance, promise = Sample()(1)
    assert resolve(instance, promise) is None
    assert broker.waits[-1].now


@pytest.mark.parametrize("value", [0, "", None, [], {"key": (1, 2)}, 5])
def test_a_value_comes_as_it_was_returned(broker: RecordingBroker, value: object) -> None:
    instance, promise = Sample()(value)
    broker.run()
    assert resolve(instance, promise) == value
    assert resolve(instance, promise, timeout=5) == value


def test_promises_in_a_value_are_resolved_wherever_they_stand(broker: RecordingBroker) -> None:
    instance, _ = Sample()(0)
    promise = instance.pair(2)
    broker.run()
    assert resolve(instance, promise) == [2, Pair([1, Pair("end", {"depth": 1})], {"depth": 2})]


def test_an_instance_and_a_promise_from_text_will_do(broker: RecordingBroker) -> None:
    made, promise = Sample()(7)
    broker.run()
    instance = DAGInstance(str(made.instance_id), Sample())
    assert resolve(instance, DAGPromise[int](UUID(str(promise.identifier)))) == 7


def test_pickled_ones_too(broker: RecordingBroker) -> None:
    pair = pickle.loads(pickle.dumps(Sample()(8)))
    broker.run()
    assert resolve(*pair) == 8


def test_a_large_value_is_fetched(broker: RecordingBroker) -> None:
    from dagorama.values.codec import encode

    instance, promise = Sample()(0)
    node = broker.nodes[promise.node_id]
    value = bytes(range(256)) * 4096
    node.returned(encode(value, "result", large_from=1000, put_large=broker._keep).envelope)
    assert resolve(instance, promise) == value


# --- failures


OF_THE_BROKER = [QueueTimeout, WorkerLost, ProcessDied, ResultRejected]


@pytest.mark.parametrize("kind", OF_THE_BROKER)
def test_a_failure_that_the_broker_records_raises_the_error_of_its_type(
    broker: RecordingBroker, kind: type[NodeFailed]
) -> None:
    instance, promise = Sample()(1)
    fail(broker, promise, broker_pb2.FAILED, type=f"dagorama.errors.{kind.__name__}", message="why", attempts=3)
    with pytest.raises(NodeFailed) as caught:
        resolve(instance, promise)
    assert type(caught.value) is kind
    assert caught.value.type == f"dagorama.errors.{kind.__name__}"
    assert f"failed after 3 attempts: {kind.__name__}: why" in str(caught.value)
    found: Any = resolve(instance, outcome(promise))
    assert found.type == caught.value.type
    assert type(found.error()) is kind


@pytest.mark.parametrize("kind", OF_THE_BROKER)
def test_an_error_of_that_name_which_a_node_has_raised_is_a_failure_like_others(
    broker: RecordingBroker, kind: type[NodeFailed]
) -> None:
    instance, promise = Sample()(1)
    fail(broker, promise, broker_pb2.FAILED, type=f"dagorama.errors.{kind.__name__}", traceback="Traceback: line 1")
    with pytest.raises(NodeFailed) as caught:
        resolve(instance, promise)
    assert type(caught.value) is NodeFailed


def test_a_failure_of_a_type_that_a_newer_broker_has_is_a_failure_like_others(broker: RecordingBroker) -> None:
    instance, promise = Sample()(1)
    fail(broker, promise, broker_pb2.FAILED, type="dagorama.errors.SomethingNew", message="why")
    with pytest.raises(NodeFailed, match="SomethingNew: why") as caught:
        resolve(instance, promise)
    assert type(caught.value) is NodeFailed


def test_a_failure_raises_with_what_is_known_of_it(broker: RecordingBroker) -> None:
    instance, promise = Sample()(1)
    fail(
        broker, promise, broker_pb2.FAILED,
        type="builtins.ValueError", message="no", traceback="Traceback: line 1", attempts=3,
        pickled=pickle.dumps(ValueError("no")),
    )  # fmt: skip
    with pytest.raises(NodeFailed, match="Traceback: line 1") as failed:
        resolve(instance, promise)
    error = failed.value
    assert (error.function, error.type, error.message, error.attempts) == (
        f"{__name__}:Sample.entrypoint", "builtins.ValueError", "no", 3,
    )  # fmt: skip
    assert isinstance(error.__cause__, ValueError)
    assert not isinstance(error, NodeCancelled)


@pytest.mark.parametrize("pickled", [b"", b"garbage", pickle.dumps("not an exception"), b"cnowhere\nnothing\n."])
def test_a_cause_that_cannot_be_rebuilt_is_left_out(broker: RecordingBroker, pickled: bytes) -> None:
    instance, promise = Sample()(1)
    fail(broker, promise, broker_pb2.FAILED, pickled, type="x.Y", message="no")
    with pytest.raises(NodeFailed, match=r"x\.Y: no") as failed:
        resolve(instance, promise, timeout=3)
    assert failed.value.__cause__ is None


def test_a_cancelled_node_is_told_apart(broker: RecordingBroker) -> None:
    instance, promise = Sample()(1)
    fail(broker, promise, broker_pb2.CANCELLED)
    with pytest.raises(NodeCancelled):
        resolve(instance, promise)


def test_a_failure_upstream_names_the_node_that_has_no_value_and_the_root_cause(broker: RecordingBroker) -> None:
    instance, promise = Sample()(1)
    root_cause: Any = instance.pair(0)
    fail(
        broker, root_cause, broker_pb2.FAILED, type="builtins.ValueError", message="no", attempts=2,
        traceback="Traceback: line 1", pickled=pickle.dumps(ValueError("no")),
        earlier=[broker_pb2.EarlierFailure(type="builtins.OSError", message="busy", traceback="Traceback: line 0")],
    )  # fmt: skip
    broker.nodes[promise.node_id].state = broker_pb2.FAILED
    broker.nodes[promise.node_id].failure = broker.nodes[root_cause.node_id].failure
    with pytest.raises(NodeFailed) as failed:
        resolve(instance, promise)
    error = failed.value
    assert str(error).splitlines() == [
        f"{__name__}:Sample.entrypoint has no value: {__name__}:Sample.pair failed after 2 attempts: "
        f"ValueError: no (instance {instance.instance_id}, node {root_cause.identifier})",
        "", "before that:", "OSError: busy", "", "where it ran:", "Traceback: line 1",
    ]  # fmt: skip
    assert (error.dependent, error.function) == (f"{__name__}:Sample.entrypoint", f"{__name__}:Sample.pair")
    assert error.node_id == error.identifier == root_cause.identifier
    assert error.instance_id == instance.instance_id
    assert error.earlier == (FailedAttempt("builtins.OSError", "busy", "Traceback: line 0"),)
    assert isinstance(error.__cause__, ValueError)


def test_the_failure_of_a_root_cause_names_no_other_node(broker: RecordingBroker) -> None:
    instance, promise = Sample()(1)
    fail(broker, promise, broker_pb2.FAILED, type="a.B", message="no", attempts=1)
    with pytest.raises(NodeFailed) as failed:
        resolve(instance, promise)
    assert (failed.value.dependent, failed.value.node_id) == ("", promise.identifier)


def test_a_promise_of_an_unnamed_function_is_named_by_its_id(broker: RecordingBroker) -> None:
    instance, promise = Sample()(1)
    fail(broker, promise, broker_pb2.FAILED)
    broker.nodes[promise.node_id].failure.node = bytes(16)  # type: ignore[union-attr]  # it has just been set
    with pytest.raises(NodeFailed, match=f"node {promise.identifier} has no value"):
        resolve(instance, DAGPromise[int](promise.identifier))


def test_a_root_cause_that_was_cancelled_is_told_apart(broker: RecordingBroker) -> None:
    instance, promise = Sample()(1)
    for state in (broker_pb2.FAILED, broker_pb2.CANCELLED):
        fail(broker, promise, state, type="dagorama.errors.NodeCancelled")
        with pytest.raises(NodeCancelled) as cancelled:
            resolve(instance, promise)
        assert cancelled.value.summary == f"{__name__}:Sample.entrypoint was cancelled"
        ids = f"(instance {instance.instance_id}, node {promise.identifier})"
        assert str(cancelled.value) == f"{cancelled.value.summary} {ids}"


def test_an_unknown_node_is_said_to_be_unknown(broker: RecordingBroker) -> None:
    instance, _ = Sample()(1)
    with pytest.raises(NotFound):
        resolve(instance, DAGPromise[int](UUID(int=4)))
    with pytest.raises(NotFound):
        resolve(instance, DAGPromise[int](UUID(int=4)), timeout=5)


def test_resolve_refuses_a_promise_of_another_instance(broker: RecordingBroker) -> None:
    (one, _), (_, stranger) = Sample()(1), Sample()(2)
    with pytest.raises(WrongInstance, match=str(one.instance_id)):
        resolve(one, stranger)


# --- waiting


def test_waiting_ends_with_the_value(broker: RecordingBroker) -> None:
    instance, promise = Sample()(5)
    threading.Timer(0.3, broker.run).start()
    assert resolve(instance, promise, timeout=None) == 5
    assert not broker.waits[-1].now


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_waiting_has_an_end(broker: RecordingBroker, timeout: float) -> None:
    instance, promise = Sample()(5)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"Sample\.entrypoint"):
        resolve(instance, promise, timeout=timeout)
    assert time.monotonic() - started >= timeout


def test_a_timeout_of_nothing_still_gives_what_is_there(broker: RecordingBroker) -> None:
    instance, promise = Sample()(5)
    broker.run()
    assert resolve(instance, promise, timeout=0) == 5


def test_waiting_outlives_a_broker_that_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    with serving() as broker:
        monkeypatch.setenv("DAGORAMA_PORT", str(broker.port))
        instance, promise = Sample()(5)
        waiting = Waiting(instance, promise)
        while not broker.waits:
            time.sleep(0.01)
    again = serving(broker.port)
    again.broker.nodes = broker.nodes
    time.sleep(0.5)
    with again:
        broker.run()
        waiting.join(10)
    assert waiting.value == 5


class Waiting(threading.Thread):
    """resolve(), in a thread."""

    value: Any = None

    def __init__(self, instance: DAGInstance, promise: DAGPromise[Any]) -> None:
        super().__init__(daemon=True)
        self.instance, self.promise = instance, promise
        self.start()

    def run(self) -> None:
        self.value = resolve(self.instance, self.promise, timeout=None)


@pytest.mark.slow
def test_a_missing_broker_is_an_error_and_not_none(broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    instance, promise = Sample()(5)
    monkeypatch.setenv("DAGORAMA_PORT", "1")
    with pytest.raises(BrokerUnavailable):
        resolve(instance, promise)


# --- inside a running node


@pytest.fixture
def attempt() -> Any:
    scope = AttemptScope(b"i" * 16)
    token = current_attempt.set(scope)
    yield scope
    current_attempt.reset(token)


@pytest.fixture
def elsewhere(broker: RecordingBroker) -> Any:
    return Sample()(5)


def test_a_node_does_not_wait(broker: RecordingBroker, elsewhere: Any, attempt: AttemptScope) -> None:
    for timeout in (None, 3):
        with pytest.raises(PromiseMisuse, match=r"would wait inside a running node.*return the promise"):
            resolve(*elsewhere, timeout=timeout)


def test_a_node_may_look(broker: RecordingBroker, elsewhere: Any, attempt: AttemptScope) -> None:
    assert resolve(*elsewhere) is None
    with pytest.raises(TimeoutError):
        resolve(*elsewhere, timeout=0)
    broker.end(elsewhere[1].node_id, 6)
    assert resolve(*elsewhere) == 6
    assert resolve(*elsewhere, timeout=None) == 6


def test_what_the_same_run_made_is_never_resolved(broker: RecordingBroker, attempt: AttemptScope) -> None:
    instance, promise = Sample()(1)
    for options in ({}, {"timeout": 0}, {"timeout": None}):
        with pytest.raises(PromiseMisuse, match="the running node made"):
            resolve(instance, promise, **options)
    assert not broker.waits
