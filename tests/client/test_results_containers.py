"""resolve() and its kin given what is no promise: containers of promises are filled, everything else is a value."""

from collections import UserList
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest

from dagorama.client.completed import as_completed
from dagorama.client.control import cancel, retry_failed, state
from dagorama.client.results import aresolve, resolve_all
from dagorama.context import current_attempt
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.errors import NodeFailed, PromiseMisuse
from dagorama.graph.scope import AttemptScope
from dagorama.models.failure import Failure
from dagorama.models.outcome import outcome
from dagorama.models.state import State
from tests.support.recording_broker import RecordingBroker


@dataclass
class Report:
    title: str
    parts: list[Any]


class Spread(DAGDefinition):
    """Its entry point is plain code, which makes nodes and returns what holds their promises."""

    def entrypoint(self, numbers: list[int]) -> Any:
        return {"report": Report("halves", [self.half(number) for number in numbers]), "numbers": numbers}

    @dagorama().syncfn
    def half(self, number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2


def spread(numbers: list[int]) -> tuple[Any, Any]:
    """Return an instance and its container of promises, which is a promise to a type checker."""
    return Spread()(numbers)


FILLED = {"report": Report("halves", [1, 2]), "numbers": [2, 4]}


def test_a_container_of_promises_has_no_value_before_all_of_them_have(broker: RecordingBroker) -> None:
    instance, made = spread([2, 4])
    assert resolve(instance, made) is None
    broker.end(made["report"].parts[0].node_id, 1)
    assert resolve(instance, made) is None
    with pytest.raises(TimeoutError):
        resolve(instance, made, timeout=0)


async def test_a_container_of_promises_is_filled_in_a_copy(broker: RecordingBroker) -> None:
    instance, made = spread([2, 4])
    broker.run()
    assert resolve(instance, made) == FILLED
    assert resolve(instance, made, timeout=10) == FILLED
    assert await aresolve(instance, made) == FILLED
    assert resolve_all([(instance, made), (instance, made["report"].parts[1])], timeout=10) == [FILLED, 2]
    assert made["report"].parts[0] == made["report"].parts[0], "it still holds promises"


def test_a_failure_of_a_promise_in_a_container_is_raised_unless_it_is_an_outcome(broker: RecordingBroker) -> None:
    instance, made = spread([2, 3])
    broker.run(catch=(ValueError,))
    for options in ({}, {"timeout": 10}):
        with pytest.raises(NodeFailed, match="3 is odd"):
            resolve(instance, made, **options)
    parts: Any = [outcome(part) for part in made["report"].parts]  # to a checker, `resolve` takes one promise
    (value, failure) = resolve(instance, parts, timeout=10)
    assert value == 1
    assert isinstance(failure, Failure)


def test_a_plain_value_without_promises_comes_back_as_it_is(broker: RecordingBroker) -> None:
    instance, _ = spread([2])
    values: Any = ([1, {"a": (2,)}], Report("empty", []), object(), None, 5)
    for value in values:
        assert resolve(instance, value) is value
        assert resolve(instance, cast(Any, value), timeout=5) is value
    assert not broker.waits


class Holder:
    def __init__(self, held: object) -> None:
        self.held = held


HOLDERS: list[Callable[[Any], Any]] = [
    Holder,
    lambda promise: [SimpleNamespace(part=promise)],
    lambda promise: partial(print, promise),
    lambda promise: UserList([promise]),
    lambda promise: MappingProxyType({"part": promise}),
    lambda promise: lambda: promise,
]


@pytest.mark.parametrize("hold", HOLDERS)
async def test_a_promise_where_no_copy_can_have_its_value_is_refused(
    broker: RecordingBroker, hold: Callable[[Any], Any]
) -> None:
    instance, made = spread([2])
    promise = made["report"].parts[0]
    held = hold(promise)
    broker.run()
    for options in ({}, {"timeout": 10}):
        with pytest.raises(PromiseMisuse, match="cannot fill in the value of <DAGPromise"):
            resolve(instance, held, **options)
    with pytest.raises(PromiseMisuse, match=r"aresolve\(\) cannot fill in"):
        await aresolve(instance, held)
    assert resolve(instance, promise) == 1


def test_an_attribute_of_a_dataclass_that_is_no_field_is_filled(broker: RecordingBroker) -> None:
    instance, made = spread([2])
    made["report"].first = made["report"].parts[0]
    broker.run()
    assert resolve(instance, made, timeout=10)["report"].first == 1


def test_inside_a_node_a_container_is_not_waited_for(broker: RecordingBroker) -> None:
    instance, made = spread([2])
    token = current_attempt.set(AttemptScope(bytes(16)))
    try:
        with pytest.raises(PromiseMisuse, match=r"resolve\(\) would wait inside a running node"):
            resolve(instance, made, timeout=5)
        assert resolve(instance, made) is None
    finally:
        current_attempt.reset(token)


def test_what_takes_one_promise_says_so(broker: RecordingBroker) -> None:
    instance, made = spread([2])
    assert state(instance, "plain") is State.COMPLETED  # type: ignore[arg-type]
    with pytest.raises(PromiseMisuse, match="takes one promise, not a dict that contains promises"):
        state(instance, made)
    for act in (cancel, retry_failed):
        with pytest.raises(TypeError, match=r"a promise of .* is needed, or None for the whole instance, not a dict"):
            act(instance, made)
    refused: tuple[Any, ...] = (made, [[1]], [5])
    for given in refused:
        with pytest.raises(TypeError, match=r"as_completed\(\) takes promises"):
            as_completed(instance, given)


async def test_an_instance_and_a_promise_in_each_others_place_are_noticed(broker: RecordingBroker) -> None:
    instance, made = spread([2])
    promise: Any = made["report"].parts[0]
    for call in (resolve, state, cancel, retry_failed, as_completed):
        with pytest.raises(TypeError, match=r"must be the instance that .* returns, not a DAGPromise"):
            call(promise, instance)
        with pytest.raises(TypeError, match="not a Spread"):
            cast(Any, call)(Spread(), promise)
    with pytest.raises(TypeError, match="must be the instance"):
        await aresolve(promise, instance)
    with pytest.raises(TypeError, match="must be the instance"):
        resolve_all([(promise, instance)])
    with pytest.raises(TypeError, match=r"takes pairs \(instance, promise\), not a DAGPromise"):
        resolve_all([promise])
