"""resolve_all(): the values of promises of many instances, by one call."""

import threading
from typing import Any, cast

import pytest

from dagorama import (
    DAGDefinition,
    Failure,
    NodeFailed,
    PromiseMisuse,
    WrongInstance,
    dagorama,
    outcome,
    put,
    resolve_all,
)
from dagorama.context import current_attempt
from dagorama.graph.scope import AttemptScope
from tests.support.recording_broker import RecordingBroker


class Half(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2


class Plain(DAGDefinition):
    def entrypoint(self) -> Any:
        return "no node"


def test_values_come_in_the_order_asked_for_by_one_call(broker: RecordingBroker) -> None:
    made = [Half()(number) for number in (8, 2, 6)]
    broker.run()
    assert resolve_all(reversed(made), timeout=10) == [3, 1, 4]
    assert len(broker.waits) == 1


def test_a_promise_asked_for_twice_is_a_value_each_time(broker: RecordingBroker) -> None:
    pair = Half()(4)
    broker.run()
    assert resolve_all([pair, pair], timeout=10) == [2, 2]


def test_it_waits_for_those_that_have_not_ended(broker: RecordingBroker) -> None:
    made = [Half()(number) for number in (2, 4)]
    ender = threading.Timer(0.1, broker.run)
    ender.start()
    assert resolve_all(made) == [1, 2]
    ender.join()


def test_one_that_failed_raises_and_says_which(broker: RecordingBroker) -> None:
    made = [Half()(number) for number in (2, 3)]
    broker.run(catch=(ValueError,))
    with pytest.raises(NodeFailed, match="3 is odd"):
        resolve_all(made, timeout=10)


def test_a_failure_comes_as_a_value_if_its_outcome_is_asked_for(broker: RecordingBroker) -> None:
    (fine, good), (instance, bad) = Half()(2), Half()(3)
    broker.run(catch=(ValueError,))
    value, failure = resolve_all([(fine, good), (instance, outcome(bad))], timeout=10)
    assert value == 1
    assert isinstance(failure, Failure)
    assert failure.message == "3 is odd"


def test_what_does_not_end_in_time_is_counted(broker: RecordingBroker) -> None:
    made = [Half()(number) for number in (2, 4)]
    with pytest.raises(TimeoutError, match="2 of 2 promises have not ended"):
        resolve_all(made, timeout=0.05)


def test_what_a_plain_entry_point_returned_is_its_value_and_nothing_asks_for_nothing(broker: RecordingBroker) -> None:
    assert resolve_all([Plain()()], timeout=1) == ["no node"]
    assert resolve_all([]) == []
    assert not broker.waits


def test_what_was_put_and_returned_by_a_plain_entry_point_is_the_plain_value(broker: RecordingBroker) -> None:
    assert resolve_all([(Plain()()[0], cast(Any, put([1, 2])))], timeout=1) == [[1, 2]]


def test_a_promise_with_another_instance_is_refused(broker: RecordingBroker) -> None:
    (one, _), (_, other) = Half()(2), Half()(4)
    with pytest.raises(WrongInstance):
        resolve_all([(one, other)])


def test_inside_a_node_it_is_refused(broker: RecordingBroker) -> None:
    pair = Half()(2)
    token = current_attempt.set(AttemptScope(bytes(16)))
    try:
        with pytest.raises(PromiseMisuse, match="would wait inside a running node"):
            resolve_all([pair])
    finally:
        current_attempt.reset(token)
