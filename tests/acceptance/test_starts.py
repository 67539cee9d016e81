"""`start` with IDs, labels and priorities: idempotent in clients, batches and nodes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dagorama import (
    DAGDefinition,
    DAGInstance,
    InstanceExists,
    NodeFailed,
    NotFound,
    aresolve,
    batch,
    dagorama,
    delete,
    outcome,
    resolve,
    start,
)
from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers

WAIT = 60


class Doubles(DAGDefinition):
    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    @dagorama().syncfn
    def entrypoint(self, number: int, fails: bool = False) -> int:
        if fails:
            raise ValueError("as asked")
        return self.factor * number


class Plain(DAGDefinition):
    """An entry point that is not decorated runs in the caller, and returns no single promise."""

    ran = 0

    def entrypoint(self, *numbers: int) -> list[int]:
        Plain.ran += 1
        return [self.double(number) for number in numbers]

    @dagorama().syncfn
    def double(self, number: int) -> int:
        return 2 * number


class Later(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return 2 * number


class Parent(DAGDefinition):
    """Starts others by their IDs."""

    @dagorama().syncfn
    def entrypoint(self, *ids: str) -> list[int]:
        return [start(Doubles(), id=id)(4)[1] for id in ids]  # type: ignore[misc]  # promises of their values


class Clashes(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> Any:
        return self.seen(outcome(self.clash()))

    @dagorama().syncfn
    def seen(self, failure: Any) -> str:
        return str(failure.type)

    @dagorama().syncfn
    def clash(self) -> int:
        start(Doubles(), id="clash-in-node")(1)
        return start(Doubles(), id="clash-in-node")(2)[1]  # type: ignore[return-value]  # the promise of its value


class Eager(DAGDefinition):
    @dagorama(stream_children=True).syncfn
    def entrypoint(self) -> int:
        return start(Doubles(), id="eager")(1)[1]  # type: ignore[return-value]  # the promise of its value


@pytest.fixture(scope="module", autouse=True)
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedBroker]:
    store = f"sqlite:///{tmp_path_factory.mktemp('starts')}/store"
    with launch_broker(port=0, store=store) as broker, launch_workers(1):
        yield broker


def info(instance: DAGInstance) -> pb.InstanceInfo:
    return connection().get_instance(instance.instance_id.bytes)


def test_a_second_start_with_the_same_arguments_returns_the_same_instance() -> None:
    instance, promise = start(Doubles(), id="order-1", labels={"tenant": "7"}, priority=5, fair="tenant-7")(8)
    again, same = start(Doubles(), id="order-1")(number=8)
    assert (again.instance_id, same) == (instance.instance_id, promise)
    assert resolve(again, same, timeout=WAIT) == resolve(instance, promise, timeout=WAIT) == 16
    assert start(Doubles(), id="order-1")(8)[0].instance_id == instance.instance_id
    assert Doubles.attach(id="order-1")[1] == promise
    seen = info(instance)
    assert (seen.name, dict(seen.labels), seen.priority) == ("order-1", {"tenant": "7"}, 5)
    assert seen.fair == "tenant-7"


def test_other_arguments_or_another_constructor_are_refused() -> None:
    instance, _ = start(Doubles(), id="order-2")(8)
    for definition, arguments in ((Doubles(), (9,)), (Doubles(3), (8,))):
        with pytest.raises(InstanceExists, match=rf"{instance.instance_id} .* 'order-2' .* other arguments"):
            start(definition, id="order-2")(*arguments)


def test_a_failed_instance_is_returned_too() -> None:
    instance, promise = start(Doubles(), id="fails")(1, fails=True)
    with pytest.raises(NodeFailed):
        resolve(instance, promise, timeout=WAIT)
    again, same = start(Doubles(), id="fails")(1, fails=True)
    assert (again.instance_id, same) == (instance.instance_id, promise)


def test_a_deleted_instance_makes_room_and_its_values_do_not_come_back() -> None:
    instance, promise = start(Doubles(), id="deleted")(1)
    assert resolve(instance, promise, timeout=WAIT) == 2
    assert delete(instance) == 1
    with pytest.raises(NotFound, match="deleted"):
        resolve(instance, promise, timeout=WAIT)
    again, other = start(Doubles(), id="deleted")(2)
    assert again.instance_id != instance.instance_id
    assert other != promise
    assert resolve(again, other, timeout=WAIT) == 4


def test_threads_that_start_the_same_id_get_the_same_instance() -> None:
    def one(_: int) -> tuple[DAGInstance, Any]:
        return start(Doubles(), id="raced")(5)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(one, range(16)))
    assert len({instance.instance_id for instance, _ in found}) == 1
    assert {resolve(*each, timeout=WAIT) for each in found} == {10}


def test_a_plain_entry_point_returns_the_same_promises() -> None:
    instance, promises = start(Plain(), id="plain")(1, 2)
    again, same = start(Plain(), id="plain")(1, 2)
    assert again.instance_id == instance.instance_id
    assert resolve(instance, promises, timeout=WAIT) == [2, 4]
    assert resolve(again, same, timeout=WAIT) == [2, 4]
    assert info(instance).nodes == 2
    late = again.double(7)
    assert resolve(again, late, timeout=WAIT) == 14


async def test_an_async_entry_point() -> None:
    instance, promise = await start(Later(), id="later")(8)
    again, same = await start(Later(), id="later")(8)
    assert (again.instance_id, same) == (instance.instance_id, promise)
    assert await aresolve(again, same, timeout=WAIT) == 16


def test_a_batch_starts_each_id_once() -> None:
    before, first = start(Doubles(), id="batch-1")(1)
    with batch():
        known, same = start(Doubles(), id="batch-1")(1)
        one, promise = start(Doubles(), id="batch-2")(1)
        two, other = start(Doubles(), id="batch-2")(1)
        with pytest.raises(InstanceExists):
            start(Doubles(), id="batch-2")(2)
    assert (known.instance_id, same) == (before.instance_id, first)
    assert (one.instance_id, promise) == (two.instance_id, other)
    assert resolve(two, other, timeout=WAIT) == 2


def test_nodes_start_each_id_once() -> None:
    before, promise = start(Doubles(), id="node-1")(4)
    assert resolve(*Parent()("node-1", "node-2", "node-2", "node-3"), timeout=WAIT) == [8] * 4
    assert Doubles.attach(id="node-1")[0].instance_id == before.instance_id
    assert resolve(before, promise, timeout=WAIT) == 8
    assert resolve(*Clashes()(), timeout=WAIT) == "dagorama.errors.InstanceExists"


def test_a_function_with_stream_children_starts_no_id() -> None:
    with pytest.raises(NodeFailed, match="stream_children: an attempt that fails cancels what it has started"):
        resolve(*Eager()(), timeout=WAIT)


def test_without_an_id_each_start_is_an_instance() -> None:
    one, two = (start(Doubles(), labels={"kind": "twin"})(1)[0] for _ in range(2))
    found = connection().list_instances(labels={"kind": "twin"})
    assert found.total == 2
    assert [each.instance for each in found.instances] == [two.instance_id.bytes, one.instance_id.bytes]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"id": ""}, ValueError, "id has 0 characters: 1 to 256"),
        ({"id": "x" * 257}, ValueError, "id has 257 characters"),
        ({"id": 7}, TypeError, "id is 7: it must be a string"),
        ({"id": "\ud800"}, ValueError, "cannot be encoded"),
        ({"id": "a\0"}, ValueError, r"id is 'a\\x00': a NUL character is not allowed"),
        ({"labels": {"a": "\0"}}, ValueError, "the value of the label 'a' is .*: a NUL character"),
        ({"fair": "\0"}, ValueError, "fair is .*: a NUL character"),
        ({"labels": ["a"]}, TypeError, "must be a mapping"),
        ({"labels": {"a": 1}}, TypeError, "the value of the label 'a' is 1"),
        ({"labels": {"": "a"}}, ValueError, "a label has 0 characters"),
        ({"labels": {str(n): "" for n in range(17)}}, ValueError, "16 labels, and 17 were given"),
        ({"priority": 128}, ValueError, "priority is 128"),
        ({"priority": 1.0}, TypeError, "must be an integer"),
        ({"priority": True}, TypeError, "must be an integer"),
        ({"fair": ""}, ValueError, "fair has 0 characters: 1 to 256"),
        ({"fair": "x" * 257}, ValueError, "fair has 257 characters"),
        ({"fair": 7}, TypeError, "fair is 7: it must be a string"),
    ],
)
def test_what_is_not_allowed_is_refused_at_the_call(options: dict[str, Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        start(Doubles(), **options)


def test_what_is_not_a_definition_is_refused() -> None:
    with pytest.raises(TypeError, match="an object of a DAGDefinition, and was given <class"):
        start(Doubles)  # type: ignore[call-overload]  # the mistake


def test_attach_takes_one_of_two_ids() -> None:
    with pytest.raises(TypeError, match="either the UUID of an instance or the ID"):
        Doubles.attach()
    with pytest.raises(NotFound, match=r"no instance of .*Doubles has the ID 'never'"):
        Doubles.attach(id="never")
