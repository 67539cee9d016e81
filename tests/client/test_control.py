"""state(), cancel() and retry_failed(): what a program asks and does about an instance."""

import copy
import pickle
from typing import Any, cast
from uuid import UUID

import grpc
import pytest

from dagorama.api import broker_pb2
from dagorama.client.control import cancel, retry_failed, state
from dagorama.context import current_attempt
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, resolve
from dagorama.errors import (
    BrokerError,
    NodeCancelled,
    NodeFailed,
    NotFound,
    PromiseMisuse,
    RequestRejected,
    WrongInstance,
)
from dagorama.graph.scope import AttemptScope
from dagorama.models.promise import DAGPromise
from dagorama.models.state import Retried, State, Unschedulable
from tests.support.recording_broker import RecordingBroker


class Sample(DAGDefinition):
    retries = 0

    @dagorama().syncfn
    def entrypoint(self, value: Any) -> Any:
        if value == "bad":
            raise ValueError(value)
        return value


@pytest.fixture
def made(broker: RecordingBroker) -> tuple[Any, DAGPromise[Any]]:
    return Sample()(None)


def test_states_are_those_of_the_wire() -> None:
    assert {each.name: each.value for each in State} == dict(broker_pb2.NodeState.items())
    assert [each for each in State if each.has_ended] == [State.COMPLETED, State.FAILED, State.CANCELLED]


def test_a_state_reads_as_its_name() -> None:
    assert f"{State.BACKOFF}" == str(State.BACKOFF) == "BACKOFF"


def test_not_yet_is_told_from_a_value_that_is_none(broker: RecordingBroker, made: Any) -> None:
    assert (state(*made), resolve(*made)) == (State.QUEUED, None)
    broker.run()
    assert (state(*made), resolve(*made)) == (State.COMPLETED, None)


def test_a_failure_is_told_without_raising(broker: RecordingBroker) -> None:
    made = Sample()("bad")
    broker.run(catch=(ValueError,))
    assert state(*made) is State.FAILED


def test_what_a_plain_entry_point_returned_is_there(made: Any) -> None:
    assert state(made[0], "plain") is State.COMPLETED  # type: ignore[arg-type]


def test_an_unknown_node_has_no_state(made: Any) -> None:
    with pytest.raises(NotFound):
        state(made[0], DAGPromise(UUID(int=4)))


# --- cancel


def test_one_node_is_cancelled_by_its_promise(broker: RecordingBroker, made: Any) -> None:
    instance, promise = made
    assert cancel(instance, promise) == 1
    assert list(broker.cancels[0].node) == [promise.node_id]
    assert state(instance, promise) is State.CANCELLED
    with pytest.raises(NodeCancelled, match=r"Sample\.entrypoint was cancelled"):
        resolve(instance, promise)
    assert cancel(instance, promise) == 0


def test_all_of_an_instance_is(broker: RecordingBroker, made: Any) -> None:
    instance, _ = made
    instance.entrypoint(1)
    assert cancel(instance) == 2
    assert (broker.cancels[0].instance, list(broker.cancels[0].node)) == (instance.instance_id.bytes, [])


def test_a_refusal_comes_through(broker: RecordingBroker, made: Any) -> None:
    broker.refusal = grpc.StatusCode.NOT_FOUND, "no such instance"
    with pytest.raises(NotFound, match="no such instance"):
        cancel(made[0])


# --- retry


@pytest.fixture
def broken(broker: RecordingBroker) -> tuple[Any, DAGPromise[Any]]:
    made = Sample()("bad")
    broker.run(catch=(ValueError,))
    return made


def test_what_failed_runs_again_and_its_value_is_there_then(broker: RecordingBroker, broken: Any) -> None:
    instance, promise = broken
    with pytest.raises(NodeFailed):
        resolve(instance, promise)
    assert retry_failed(instance, promise) == 1
    assert list(broker.retries[0].node) == [promise.node_id]
    assert (state(instance, promise), resolve(instance, promise)) == (State.QUEUED, None)
    broker.end(promise.node_id, "good")
    assert resolve(instance, promise, timeout=1) == "good"
    assert retry_failed(instance, promise) == 0


def test_an_instance_can_be_retried_itself(broker: RecordingBroker, broken: Any) -> None:
    instance, promise = broken
    assert (instance.retry(), instance.retry(promise)) == (1, 0)
    assert (broker.retries[0].instance, list(broker.retries[0].node)) == (instance.instance_id.bytes, [])
    assert "retry" in dir(instance)


def test_what_the_definition_calls_retry_is_the_definitions(broker: RecordingBroker) -> None:
    class Own(Sample):
        def retry(self, order: int) -> int:
            return order

    instance: Any = Own()(1)[0]
    assert instance.retry(5) == 5
    assert not broker.retries


def test_why_it_is_refused_comes_through(broker: RecordingBroker, broken: Any) -> None:
    broker.refusal = grpc.StatusCode.FAILED_PRECONDITION, "what was cancelled is not run again"
    with pytest.raises(RequestRejected, match="what was cancelled is not run again"):
        broken[0].retry()


# --- whose nodes


@pytest.mark.parametrize("act", [state, cancel, retry_failed])
def test_control_of_a_promise_of_another_instance_is_refused(broker: RecordingBroker, made: Any, act: Any) -> None:
    with pytest.raises(WrongInstance):
        act(made[0], Sample()(1)[1])


def test_cancel_refuses_anything_but_a_promise(broker: RecordingBroker, made: Any) -> None:
    with pytest.raises(TypeError, match=r"a promise of .*, or None for the whole instance, not a str"):
        cancel(made[0], cast(Any, "all"))
    assert not broker.cancels


@pytest.mark.parametrize("act", [state, cancel, retry_failed])
def test_what_the_same_run_made_is_not_known_yet(made: Any, act: Any) -> None:
    attempt = AttemptScope(made[0].instance_id.bytes)
    token = current_attempt.set(attempt)
    try:
        instance, promise = Sample()(1)
        with pytest.raises(PromiseMisuse, match="the running node made"):
            act(instance, promise)
    finally:
        current_attempt.reset(token)


# --- on the instance


def test_an_instance_can_be_cancelled_itself(broker: RecordingBroker, made: Any) -> None:
    instance, promise = made
    assert (instance.cancel(promise), instance.cancel()) == (1, 0)
    assert "cancel" in dir(instance)


def test_what_the_definition_calls_so_is_the_definitions(broker: RecordingBroker) -> None:
    class Own(Sample):
        @dagorama().syncfn
        def cancel(self, order: int) -> int:
            return order

    instance: Any = Own()(1)[0]
    assert isinstance(instance.cancel(5), DAGPromise)
    assert not broker.cancels
    assert cancel(instance) == 2


def test_attributes_of_the_same_name_set_on_a_definition_or_an_instance_win(broker: RecordingBroker, made: Any) -> None:
    class Stores(Sample):
        def __init__(self) -> None:
            self.cancel = "mine"

    stored: Any = DAGInstance(UUID(int=5), Stores())
    assert stored.cancel == "mine"
    made[0].cancel = "also mine"
    assert made[0].cancel == "also mine"


def test_an_instance_without_a_broker_says_so(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "1")
    monkeypatch.setattr("dagorama.client.connection.PATIENCE", 0.2)
    with pytest.raises(BrokerError, match="no broker answers"):
        made[0].cancel()


def test_a_retry_is_a_number_and_tells_what_a_number_does_not() -> None:
    unservable = Unschedulable("app:Dag.step", "h1", ("h2",), "it has other code")
    retried = Retried(1, 2, 1, 3, 4, (unservable,))
    assert (retried, retried + 1, f"{retried}") == (3, 4, "3")
    for again in (pickle.loads(pickle.dumps(retried)), copy.copy(retried)):
        assert (again, again.queued, again.waiting, again.completed) == (3, 1, 2, 1)
        assert (again.used_failures, again.rebound, again.unschedulable) == (3, 4, (unservable,))
    assert retried.warnings == [
        "3 nodes have used this failure and were not run again; use --downstream, or downstream=True",
        "no connected worker may run app:Dag.step: it has other code; use --new-code, or new_code=True, "
        "to run these nodes with the deployed code",
    ]
    assert Retried(1, 2).warnings == []


def test_what_a_retry_leaves_behind_is_logged(
    broker: RecordingBroker, made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    instance, promise = made
    broker.retried = broker_pb2.RetryReply(queued=1, used_failures=1)
    assert instance.retry(promise, downstream=True, new_code=True) == 1
    assert (broker.retries[0].downstream, broker.retries[0].new_code) == (True, True)
    said = capsys.readouterr().err
    assert f"retry of {instance.instance_id}: 1 node has used this failure and was not run again" in said
