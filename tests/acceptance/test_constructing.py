"""What a definition was constructed with travels with its instances: a worker runs nodes on one like the caller's."""

import copy
import pickle
import threading
from collections.abc import Iterator

import pytest

from dagorama import DAGInstance, NodeFailed, PromiseMisuse, resolve
from dagorama.definition import generate_instance_id
from tests.support.brokers import launch_broker
from tests.support.constructing import Breaking, Collecting, Configured, Frozen, Made, Outer, Scaling
from tests.support.workers import launch_workers

WAIT = 30


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment, launch_broker(port=0) as broker:
        environment.setenv("DAGORAMA_PORT", str(broker.port))
        with launch_workers(1):
            yield


def test_each_instance_has_its_callers_arguments() -> None:
    made = [definition([1, 2]) for definition in (Scaling(3), Scaling(), Scaling(5, offset=1), Scaling(factor=3))]
    assert [resolve(*each, timeout=WAIT) for each in made] == [9, 3, 17, 9]


def test_attributes_assigned_since_travel_too() -> None:
    definition = Scaling(3)
    first = definition([1])
    definition.factor = 10
    definition.offset = 5
    second = definition([1])
    assert [resolve(*each, timeout=WAIT) for each in (first, second)] == [3, 15]
    plain = Scaling()
    plain.factor = 4
    assert resolve(*plain([1]), timeout=WAIT) == 4


def test_what_was_put_into_a_list_since_travels_too() -> None:
    definition = Collecting()
    first = definition()
    definition.items += [1, 2]
    second = definition()
    definition.items.clear()
    assert [resolve(*each, timeout=WAIT) for each in (first, second, definition())] == [0, 3, 0]


def test_arguments_of_a_new_of_its_own_and_of_a_frozen_dataclass_travel() -> None:
    made = [definition() for definition in (Made(1), Made(1, 2, 3, other=4), Frozen(7))]
    assert [resolve(*each, timeout=WAIT) for each in made] == [1, 10, 7]


def test_dataclasses_and_large_arguments_travel() -> None:
    definition = Configured("big", {"a": 0.5, "b": 1.5}, blob=b"x" * 1_000_000)
    made = [definition() for _ in range(3)]
    assert {resolve(*each, timeout=WAIT) for each in made} == {("big", 2.0, 1_000_000)}


def test_a_definition_made_in_a_node_has_what_the_node_gave_it() -> None:
    assert resolve(*Outer(7)(3), timeout=WAIT) == 22


def test_calls_on_an_instance_have_them_as_well() -> None:
    instance, _ = Scaling(3)([])
    assert resolve(instance, instance.scaled(5), timeout=WAIT) == 15
    empty = DAGInstance(generate_instance_id(), Scaling(4))
    assert resolve(empty, empty.scaled(5), timeout=WAIT) == 20
    again = pickle.loads(pickle.dumps(instance))
    assert resolve(again, again.scaled(6), timeout=WAIT) == 18


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda definition: pickle.loads(pickle.dumps(definition))])
def test_a_copy_is_like_what_it_was_copied_from(again: object) -> None:
    definition = Scaling(3)
    definition.offset = 1
    assert callable(again)
    assert resolve(*again(definition)([1]), timeout=WAIT) == 4


def test_a_promise_is_refused_among_them() -> None:
    instance, promise = Scaling(1)([1])
    with pytest.raises(PromiseMisuse, match="was constructed with"):
        Scaling(promise)([1])  # type: ignore[arg-type]
    assert instance


def test_what_the_constructor_raises_in_the_worker_fails_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaking, "may_be_made", True)  # here, and not there
    instance, promise = Breaking(7)()
    with pytest.raises(NodeFailed, match="ZeroDivisionError"):
        resolve(instance, promise, timeout=WAIT)


def test_arguments_that_a_class_does_not_take_are_refused_where_it_is_made() -> None:
    from tests.support.troubles import Troubles

    with pytest.raises(TypeError, match=r"Troubles\(\) takes no arguments"):
        Troubles(1)  # type: ignore[call-arg]


def test_a_constructors_signature_is_the_classs() -> None:
    from inspect import signature

    assert str(signature(Scaling)) == "(factor: 'int' = 1, *, offset: 'int' = 0) -> 'None'"
    assert str(signature(Configured)).startswith("(name: 'str', weights: 'dict[str, float]' = <factory>")


def test_a_lock_among_them_waits_for_a_worker_that_registers_one() -> None:
    from dagorama.client.connection import connection
    from tests.support.troubles import Locking
    from tests.support.worker_command import await_that

    instance, _ = Locking(threading.Lock())(1)
    await_that(
        lambda: any("constructed with a lock" in each.reason for each in connection().get_status().unschedulable)
    )
    assert instance.cancel() == 1
