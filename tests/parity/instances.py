"""Stories of instances: names, labels, batches, links between them, and what ends them."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import pytest

from dagorama import (
    DAGDefinition,
    DAGInstance,
    Failure,
    InstanceExists,
    NotFound,
    WrongInstance,
    as_completed,
    batch,
    cancel,
    dagorama,
    delete,
    generate_instance_id,
    outcome,
    resolve,
    resolve_all,
    start,
    state,
)
from dagorama.client.connection import connection
from tests.parity.stage import WAIT, Failed, Stage
from tests.parity.stories import story

HOUR = 3_600


class Adding(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> int:
        return self.plus(number, 1)

    @dagorama
    def plus(self, left: int, right: int) -> int:
        return left + right

    @dagorama(delay=HOUR)
    def late(self, number: int) -> int:
        return number

    @dagorama
    def told(self, found: int | Failure) -> str:
        return "cancelled" if isinstance(found, Failure) and found.cancelled else str(found)


class Calling(DAGDefinition):
    """Returns the promise of a node of another instance as its value."""

    @dagorama
    def entrypoint(self, number: int) -> int:
        return Adding()(number)[1]  # type: ignore[return-value]  # a promise stands for its value


class Deep(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> int:
        return self.doubled(self.called(number))

    @dagorama
    def called(self, number: int) -> int:
        return Calling()(number)[1]  # type: ignore[return-value]  # a promise stands for its value

    @dagorama
    def doubled(self, number: int) -> int:
        return 2 * number


@story
def a_value_is_the_value_of_a_node_of_another_instance(stage: Stage) -> None:
    assert stage.told(*Calling()(3)) == 4
    assert stage.told(*Deep()(3)) == 8


class Failing(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        return self.used(self.called())

    @dagorama
    def called(self) -> int:
        return Broken()()[1]  # type: ignore[return-value]  # a promise stands for its value

    @dagorama
    def used(self, number: int) -> int:
        return number


class Broken(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        raise ValueError("in another instance")


@story
def a_failure_reaches_other_instances(stage: Stage) -> None:
    found = stage.told(*Failing()())
    assert isinstance(found, Failed)
    assert found.function.endswith("Broken.entrypoint")


@story
def a_promise_is_no_argument_in_another_instance(stage: Stage) -> None:
    instance, promise = Adding()(1)
    stage.include(instance)
    with pytest.raises(WrongInstance):
        Adding()(promise)  # type: ignore[arg-type]  # the mistake of the story


@story
def a_start_with_an_id_is_made_once(stage: Stage) -> None:
    first, promise = start(Adding(), id="once")(1)
    again, same = start(Adding(), id="once")(1)
    assert (first.instance_id, promise) == (again.instance_id, same)
    with pytest.raises(InstanceExists):
        start(Adding(), id="once")(2)
    assert stage.told(*Adding.attach(id="once")) == 2


@story
def labels_and_priorities_of_a_start_are_kept(stage: Stage) -> None:
    instance, promise = start(Adding(), labels={"tenant": "7"}, priority=5)(1)
    assert stage.told(instance, promise) == 2
    found = connection().list_instances(labels={"tenant": "7"}).instances
    assert [each.instance for each in found] == [instance.instance_id.bytes]


@story
def a_batch_is_submitted_as_one(stage: Stage) -> None:
    with batch():
        pairs = [Adding()(number) for number in range(3)]
    assert [stage.told(*pair) for pair in pairs] == [1, 2, 3]


@story
def a_batch_that_fails_leaves_nothing_behind(stage: Stage) -> None:
    with suppress(LookupError), batch():
        start(Adding(), id="never")(1)
        raise LookupError
    with pytest.raises(NotFound):
        Adding.attach(id="never")


@story
def an_empty_instance_is_filled_by_calls(stage: Stage) -> None:
    instance = DAGInstance(generate_instance_id(), Adding())
    assert stage.told(instance, instance.plus(instance.plus(1, 2), 3)) == 6


@story
def values_of_many_instances_are_asked_for_at_once(stage: Stage) -> None:
    pairs = [Adding()(number) for number in range(4)]
    assert resolve_all(pairs, timeout=WAIT) == [1, 2, 3, 4]


@story
def each_promise_is_reported_once_when_its_node_ends(stage: Stage) -> None:
    instance, promise = Adding()(0)
    promises = [promise, *(instance.plus(promise, number) for number in range(3))]
    stage.include(instance)
    found = {resolve(instance, each) for each in as_completed(instance, promises, timeout=WAIT)}
    assert found == {1, 2, 3}


# --- ends ---------------------------------------------------------------------------------------------


@story
def a_cancelled_node_cancels_what_needs_it(stage: Stage) -> None:
    instance, _ = Adding()(0)
    late = instance.late(1)
    total = instance.plus(instance.plus(late, 1), 1)
    stage.note(cancel(instance, late))
    assert stage.told(instance, total).kind == "NodeCancelled"


@story
def a_cancellation_may_be_taken_as_a_value(stage: Stage) -> None:
    instance, _ = Adding()(0)
    late = instance.late(1)
    told = instance.told(outcome(late))
    cancel(instance, late)
    assert stage.told(instance, told) == "cancelled"


@story
def a_cancelled_instance_ends(stage: Stage) -> None:
    instance, promise = Adding()(0)
    assert stage.told(instance, promise) == 1
    late = [instance.late(number) for number in range(3)]
    assert cancel(instance) == 3
    assert {state(instance, each).name for each in late} == {"CANCELLED"}


@story
def a_deleted_instance_is_gone(stage: Stage) -> None:
    instance, promise = Adding()(1)
    assert resolve(instance, promise, timeout=WAIT) == 2
    assert delete(instance) == 2
    with pytest.raises(NotFound):
        resolve(instance, promise)


@story
def an_unknown_instance_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        Adding.attach(UUID(int=1))
