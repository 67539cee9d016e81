"""A refused submission, report or legacy call changes nothing: it leaves no function behind."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any
from uuid import uuid4

import grpc
import pytest

from dagorama.api import api_pb2 as old
from dagorama.api import broker_pb2 as pb
from tests.support.raw import Dag, EagerAttemptRecord, Served, refused, results, submit

OTHER = pb.Function(name="work:Other.node", hash="hash-3")
NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


def names(served: Served) -> set[str]:
    return {function.name for function in served.broker.scheduler.graph.queues}


@pytest.mark.parametrize("is_large", [False, True])
async def test_a_refused_submission_leaves_no_function_behind(served: Served, is_large: bool) -> None:
    scheduler = served.broker.scheduler
    scheduler.limits = replace(scheduler.limits, large=1 if is_large else 1_000)
    unknown = Dag().submission(b"a", b"b", functions=[OTHER], creates=False)
    with refused(NOT_FOUND, "instance"):
        await submit(served.stub, unknown)
    nobody = Dag().submission(b"a", functions=[OTHER], source_count=[1], source=[-1], foreign=[Dag().id(0)])
    with refused(NOT_FOUND, "source"):
        await submit(served.stub, nobody)
    unsent = Dag().submission(b"a", functions=[OTHER], large=[os.urandom(32)])
    with refused(NOT_FOUND, "large value"):
        await submit(served.stub, unsent)
    malformed = Dag().submission(b"a", functions=[OTHER], keys=["k"], key=[2])
    with refused(INVALID, "concurrency keys"):
        await submit(served.stub, malformed)
    assert names(served) == set()
    assert not served.broker.scheduler.graph.changes.functions


async def test_children_that_are_refused_leave_no_function_behind(served: Served) -> None:
    for eager in (False, True):
        dag = Dag()
        parent_function = pb.Function(name=f"work:parent-{eager}", hash="h", stream_children=eager)
        await submit(served.stub, dag.submission(b"parent", functions=[parent_function]))
        worker = await served.worker()
        parent = await worker.node()
        wrong = EagerAttemptRecord(parent).nodes(b"x", source_count=[1], source=[-1], foreign=[Dag().id(0)])
        await worker.durable(await worker.report(results(parent, functions=[OTHER], children=[wrong])))
        assert await served.states(dag.instance, dag.id(0)) == [pb.FAILED]
        await worker.vanish()
    assert names(served) == {"work:parent-False", "work:parent-True"}


async def test_children_of_an_attempt_that_is_over_leave_no_function_behind(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"parent"))
    worker = await served.worker()
    parent = await worker.node()
    await worker.durable(await worker.complete(parent))
    late = pb.Results(functions=[OTHER], children=[EagerAttemptRecord(parent).nodes(b"x")])
    await worker.durable(await worker.report(late))
    assert "work:Other.node" not in names(served)


async def test_a_refused_legacy_node_leaves_no_function_behind(served: Served) -> None:
    node = old.NodeConfigurationMessage(identifier=str(uuid4()), instanceId=str(uuid4()), functionName="work:f")
    with refused(NOT_FOUND, "instance"):
        await served.original.CreateNode(node)
    assert names(served) == set()


NUL = "has a NUL character, which is not allowed"


@pytest.mark.parametrize(
    "function",
    [
        pb.Function(name="work:\0", hash="h"),
        pb.Function(name="work:Other.node", hash="\0"),
        pb.Function(name="work:Other.node", hash="h", queue="a\0b"),
        pb.Function(name="work:Other.node", hash="h", taint="a\0b"),
    ],
)
async def test_a_text_that_not_every_store_can_hold_is_refused(served: Served, function: pb.Function) -> None:
    with refused(INVALID, NUL):
        await submit(served.stub, Dag().submission(b"a", functions=[function]))
    assert names(served) == set()


@pytest.mark.parametrize(
    "marks", [{"definition": "work:\0"}, {"name": "\0"}, {"labels": {"\0": "x"}}, {"labels": {"x": "\0"}}]
)
async def test_neither_can_an_instance_have_it(served: Served, marks: dict[str, Any]) -> None:
    creates = pb.NewInstance(**{"definition": "work:Task", **marks})
    with refused(INVALID, NUL):
        await submit(served.stub, Dag().submission(b"a", creates=creates))


async def test_nor_a_key_a_trace_a_worker_or_a_paused_queue(served: Served) -> None:
    for columns in ({"keys": ["\0"], "key": [1]}, {"trace": "\0"}):
        with refused(INVALID, NUL):
            await submit(served.stub, Dag().submission(b"a", **columns))
    with refused(INVALID, NUL):
        await served.stub.PauseQueue(pb.PauseQueueRequest(queue="\0"))
    call = served.stub.Work()
    await call.write(pb.WorkerMessage(hello=pb.Hello(protocol=1, worker=bytes(16), slots=1, name="\0")))
    with refused(INVALID, NUL):
        await call.read()
