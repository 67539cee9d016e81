"""Ids, labels and priorities of instances over the wire: checked, unique, found again, and gone with their instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.far_store import distance
from tests.support.raw import (
    FUNCTION,
    Dag,
    EagerAttemptRecord,
    Given,
    RawWorker,
    Served,
    children,
    refused,
    results,
    serving,
    submit,
)

__all__ = ["distance"]

EXISTS, INVALID = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.INVALID_ARGUMENT
EAGER = pb.Function(name="work:Task.eager", hash="h", stream_children=True)


@pytest.fixture(params=["memory", "sqlite"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        yield served


def named(dag: Dag, name: str, definition: str = "work:Task", **marks: Any) -> pb.NewInstance:
    return pb.NewInstance(definition=definition, entry=dag.id(0), name=name, digest=b"digest", **marks)


async def start(served: Served, name: str = "", *arguments: bytes, definition: str = "work:Task", **marks: Any) -> Dag:
    dag = Dag()
    creates = named(dag, name, definition, **marks)
    await submit(served.stub, dag.submission(*(arguments or (b"a",)), creates=creates))
    return dag


async def by_name(served: Served, name: str, definition: str = "work:Task") -> pb.InstanceInfo:
    return await served.stub.GetInstance(pb.GetInstanceRequest(definition=definition, name=name))


async def listed(served: Served, **asked: Any) -> list[bytes]:
    reply = await served.stub.ListInstances(pb.ListInstancesRequest(**asked))
    return [info.instance for info in reply.instances]


async def test_an_instance_is_found_by_its_id_and_labels(served: Served) -> None:
    one = await start(served, "order-1", priority=5, labels={"tenant": "7", "kind": "order"}, fair="tenant-7")
    two = await start(served, labels={"tenant": "7"})
    other = await start(served, "order-1", definition="work:Other")
    info = await by_name(served, "order-1")
    assert (info.instance, info.entry, info.name, info.digest) == (one.instance, one.id(0), "order-1", b"digest")
    assert (info.priority, dict(info.labels)) == (5, {"tenant": "7", "kind": "order"})
    assert info.fair == "tenant-7"
    assert [info.fair for info in (await served.stub.ListInstances(pb.ListInstancesRequest())).instances] == [
        "", "", "tenant-7"
    ]  # fmt: skip
    assert (await by_name(served, "order-1", "work:Other")).instance == other.instance
    assert await listed(served, labels={"tenant": "7"}) == [two.instance, one.instance]
    assert await listed(served, labels={"tenant": "7", "kind": "order"}) == [one.instance]
    assert await listed(served, name="order-1") == [other.instance, one.instance]
    assert await listed(served, name="order-1", definition="work:Other") == [other.instance]
    with refused(grpc.StatusCode.NOT_FOUND, "no instance of work:Task has the ID 'order-2'"):
        await by_name(served, "order-2")


async def test_a_definition_gives_an_id_to_one_instance(served: Served) -> None:
    dag = await start(served, "order-1")
    with refused(EXISTS, "an instance of work:Task with the ID 'order-1' exists already"):
        await start(served, "order-1")
    assert await listed(served) == [dag.instance]


async def test_the_same_submission_again_is_the_same_instance(served: Served) -> None:
    dag = Dag()
    request = dag.submission(b"a", creates=named(dag, "order-1", labels={"b": "1", "a": "2", "c": "3"}))
    await submit(served.stub, request)
    await submit(served.stub, request)
    assert await listed(served) == [dag.instance]


async def test_two_in_one_submission_are_refused_together(served: Served) -> None:
    one, two = Dag(), Dag()
    nodes = [dag.nodes(b"a", creates=named(dag, "order-1")) for dag in (one, two)]
    with refused(EXISTS, "order-1"):
        await submit(served.stub, pb.SubmitRequest(functions=[FUNCTION], nodes=nodes))
    assert await listed(served) == []


async def test_one_of_many_that_arrive_at_once_gets_the_id(served: Served) -> None:
    found = await asyncio.gather(*(start(served, "order-1") for _ in range(10)), return_exceptions=True)
    (dag,) = [each for each in found if isinstance(each, Dag)]
    errors = [each for each in found if isinstance(each, grpc.aio.AioRpcError)]
    assert {error.code() for error in errors} == {EXISTS}
    assert len(errors) == 9
    assert await listed(served) == [dag.instance]


async def test_large_submissions_are_checked_too(served: Served) -> None:
    served.broker.scheduler.limits = type(served.broker.scheduler.limits)(step=2)
    await start(served, "order-1", *[b"a"] * 50)
    with refused(EXISTS, "order-1"):
        await start(served, "order-1", *[b"a"] * 50)
    assert len(await listed(served)) == 1


async def test_an_instance_without_nodes_has_its_id_too(served: Served) -> None:
    for status in (None, EXISTS):
        dag = Dag()
        request = dag.submission(creates=pb.NewInstance(definition="work:Task", name="empty"))
        if status is None:
            await submit(served.stub, request)
        else:
            with refused(status, "empty"):
                await submit(served.stub, request)


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        ({"name": "x" * 257}, "the ID of an instance has 257 characters"),
        ({"labels": {str(n): "" for n in range(17)}}, "17 labels; 16 are allowed"),
        ({"labels": {"": "x"}}, "a label has 0 characters"),
        ({"labels": {"x" * 65: ""}}, "a label has 65 characters"),
        ({"labels": {"x": "y" * 257}}, "the value of the label 'x' has 257 characters"),
        ({"priority": 128}, "the priority of an instance is 128"),
        ({"priority": -129}, "the priority of an instance is -129"),
        ({"fair": "x" * 257}, "the fair key of an instance has 257 characters"),
        ({"fair": "a\0"}, "the fair key of an instance"),
        ({"name": "x", "digest": bytes(65)}, "65 bytes"),
    ],
)
async def test_what_is_not_allowed_is_refused(marks: dict[str, Any], text: str) -> None:
    async with serving() as served:
        dag = Dag()
        with refused(INVALID, text):
            creates = pb.NewInstance(definition="work:Task", **marks)
            await submit(served.stub, dag.submission(b"a", creates=creates))


# --- instances that nodes start -----------------------------------------------------------------------


async def starts(served: Served, name: str) -> tuple[RawWorker, Given, Dag, pb.Children]:
    """A worker that runs a node, and a new instance with this ID that the node makes."""
    await submit(served.stub, Dag().submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    dag = Dag()
    return worker, node, dag, children(node, dag.nodes(b"b", creates=named(dag, name)))


async def test_a_node_starts_an_instance_with_an_id(served: Served) -> None:
    worker, node, dag, made = await starts(served, "order-1")
    report = results(node, functions=[FUNCTION], children=[made])
    await worker.durable(await worker.report(report))
    assert (await by_name(served, "order-1")).instance == dag.instance


async def test_a_node_that_starts_an_instance_whose_id_was_given_meanwhile_fails(served: Served) -> None:
    worker, node, _, made = await starts(served, "order-1")
    before = await start(served, "order-1")
    await worker.durable(await worker.report(results(node, functions=[FUNCTION], children=[made])))
    failure = await served.failure(node.instance, node.id)
    assert failure.type == "dagorama.errors.ResultRejected"
    assert "an instance of work:Task with the ID 'order-1' exists already" in failure.message
    assert (await by_name(served, "order-1")).instance == before.instance


async def test_an_id_that_is_given_after_the_children_arrived_fails_the_node_too(served: Served) -> None:
    worker, node, _, made = await starts(served, "order-1")
    await worker.report(pb.Results(functions=[FUNCTION], children=[made]))
    await served.until(lambda broker: broker.scheduler.staged_attempts)
    await start(served, "order-1")
    await worker.durable(await worker.complete(node))
    assert "exists already" in (await served.failure(node.instance, node.id)).message


async def test_an_eager_node_gives_no_id_twice(served: Served) -> None:
    await start(served, "order-1")
    await submit(served.stub, Dag().submission(b"a", functions=[EAGER]))
    worker = await served.worker(exclude_queues=[FUNCTION.queue or FUNCTION.name])
    node = await worker.node()
    if node.function.name != EAGER.name:
        node = await worker.node()
    dag = Dag()
    made = children(node, dag.nodes(b"b", creates=named(dag, "order-1")))
    await worker.report(pb.Results(functions=[FUNCTION], children=[made, EagerAttemptRecord(node).nodes(b"c")]))
    assert "exists already" in (await served.failure(node.instance, node.id)).message


# --- deleted ------------------------------------------------------------------------------------------


async def test_a_deleted_instance_leaves_its_id_to_another_one(served: Served) -> None:
    dag = await start(served, "order-1", labels={"tenant": "7"})
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node()))
    reply = await served.stub.Delete(pb.DeleteRequest(instance=dag.instance))
    assert reply.nodes == 1
    with refused(grpc.StatusCode.NOT_FOUND, "was deleted by a user"):
        await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
    assert await listed(served, labels={"tenant": "7"}) == []
    again = await start(served, "order-1")
    assert (await by_name(served, "order-1")).instance == again.instance != dag.instance


async def test_only_what_has_ended_is_deleted(served: Served) -> None:
    dag = await start(served)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "has unfinished nodes: cancel it, or wait until it ends"):
        await served.stub.Delete(pb.DeleteRequest(instance=dag.instance))
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    await served.stub.Delete(pb.DeleteRequest(instance=dag.instance))
    with refused(grpc.StatusCode.NOT_FOUND, "deleted"):
        await served.stub.Delete(pb.DeleteRequest(instance=dag.instance))
    with refused(grpc.StatusCode.NOT_FOUND, "not known"):
        await served.stub.Delete(pb.DeleteRequest(instance=bytes(16)))


async def test_an_instance_that_another_one_needs_is_kept_until_that_is_deleted(served: Served) -> None:
    worker, node, dag, made = await starts(served, "")
    report = results(node, functions=[FUNCTION], children=[made], ref_count=[1], ref=[-1], foreign=[dag.id(0)])
    await worker.durable(await worker.report(report))
    await worker.durable(await worker.complete(await worker.node()))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, f"instance {node.instance.hex()} needs values of"):
        await served.stub.Delete(pb.DeleteRequest(instance=dag.instance))
    await served.stub.Delete(pb.DeleteRequest(instance=node.instance))
    await served.stub.Delete(pb.DeleteRequest(instance=dag.instance))
