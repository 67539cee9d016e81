"""The call Explain, the instances that are shown as stuck, and what a worker that leaves is told is left."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.raw import FUNCTION, Dag, Served, refused, serving, submit

GPU = pb.Function(name="work:Task.gpu", hash="hash-3", queue="heavy", taint="GPU")
NOBODY = "no worker is connected (start one with `worker`)"


async def explained(served: Served, dag: Dag, *counters: int) -> pb.ExplainReply:
    request = pb.ExplainRequest(instance=dag.instance, node=[dag.id(counter) for counter in counters])
    return await served.stub.Explain(request)


async def submitted(served: Served, *arguments: bytes, **columns: Any) -> Dag:
    dag = Dag()
    await submit(served.stub, dag.submission(*arguments, **columns))
    return dag


async def chain(served: Served) -> Dag:
    """b waits for a, which needs a GPU."""
    return await submitted(
        served, b"a", b"b", functions=[GPU, FUNCTION], function=[0, 1], source_count=[0, 1], source=[0]
    )


async def test_a_node_is_explained_by_what_it_waits_for(served: Served) -> None:
    dag = await chain(served)
    reply = await explained(served, dag, 1)
    assert [(each.function.name, each.queued, each.reason) for each in reply.unschedulable] == [(GPU.name, 1, NOBODY)]
    assert (reply.waiting, reply.queued, reply.running, reply.delayed) == (1, 0, 0, 0)
    worker = await served.worker(name="host:1", tolerations=["GPU"])
    await worker.node()
    reply = await explained(served, dag, 1)
    assert (list(reply.unschedulable), reply.running, reply.worker) == ([], 1, "host:1")


async def test_the_code_that_is_deployed_instead_is_named(served: Served) -> None:
    dag = await submitted(served, b"a")
    worker = await served.worker()
    node = await worker.node()
    returned = pb.Return(
        node=[node.key], attempt=[node.attempt], reason=pb.CODE_MISMATCH, detail="has hash other", hash="other"
    )
    await worker.say(returns=[returned])
    await served.until(lambda broker: broker.scheduler.claims.unschedulable())
    (found,) = (await explained(served, dag, 0)).unschedulable
    assert list(found.deployed) == ["other"]
    assert "dagorama rebind" in found.reason


async def test_nodes_of_several_instances_are_explained_together(served: Served) -> None:
    one, other = await chain(served), await submitted(served, b"a")
    request = pb.ExplainRequest(
        node=[one.id(1), other.id(0)], instances=[one.instance, other.instance], instance_of=[0, 1]
    )
    reply = await served.stub.Explain(request)
    assert {each.function.name: each.queued for each in reply.unschedulable} == {GPU.name: 1, FUNCTION.name: 1}


async def test_unknown_nodes_ended_ones_and_those_of_another_instance_do_not_count(served: Served) -> None:
    dag, other = await submitted(served, b"a"), await submitted(served, b"a")
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node()))
    for request in (
        pb.ExplainRequest(instance=dag.instance, node=[dag.id(0), dag.id(7)]),
        pb.ExplainRequest(instance=dag.instance, node=[other.id(0)]),
    ):
        assert await served.stub.Explain(request) == pb.ExplainReply()


@pytest.mark.parametrize(
    "request_",
    [
        pb.ExplainRequest(instance=bytes(16)),
        pb.ExplainRequest(instance=b"short", node=[bytes(16)]),
        pb.ExplainRequest(instance=bytes(16), node=[b"short"] * 3),
        pb.ExplainRequest(instances=[bytes(16)], node=[bytes(16)], instance_of=[1]),
        pb.ExplainRequest(instance=bytes(16), node=[bytes(16)] * 10_001),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(served: Served, request_: pb.ExplainRequest) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        await served.stub.Explain(request_)


# --- instances ------------------------------------------------------------------------------------------


async def test_an_instance_that_cannot_proceed_is_shown_as_stuck_with_the_reason(served: Served) -> None:
    dag = await chain(served)
    running = await submitted(served, b"a")
    worker = await served.worker()
    await worker.node()
    info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
    assert info.stuck == (
        f"1 queued node of {GPU.name}: the only connected worker may not run it: it does not tolerate 'GPU' (start one "
        "with --toleration GPU)"
    )
    listed = (await served.stub.ListInstances(pb.ListInstancesRequest())).instances
    assert {each.instance: each.stuck for each in listed} == {running.instance: "", dag.instance: info.stuck}
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    assert (await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))).stuck == ""


# --- workers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [pb.DRAINED, pb.IDLE])
async def test_a_worker_that_may_leave_is_told_what_is_left(served: Served, until: pb.Until.ValueType) -> None:
    await chain(served)
    worker = await served.worker(until=until)
    await worker.until(lambda: worker.done)
    (left,) = [each for message in worker.messages for each in message.left]
    assert (left.function.name, left.queued) == (GPU.name, 1)
    assert "does not tolerate 'GPU'" in left.reason


async def test_the_log_names_workers_that_join_leave_and_are_lost(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dagorama_broker")
    async with serving() as served:
        await submitted(served, b"a")
        lost = await served.worker(name="one:1\nworker two:2 joined", tolerations=["GPU"])
        await lost.node()
        await lost.vanish()
        leaving = await served.worker(name="three:3")
        await leaving.say(draining=True)
        await served.until(lambda broker: any(session.leaving for session in broker.sessions.values()))
        await leaving.vanish()
        await served.until(lambda broker: not broker.sessions)
    lines = [line for line in caplog.messages if line.startswith("worker ")]
    assert lines == [
        r"worker 'one:1\nworker two:2 joined' joined: 1 slots, queues 'all', tolerations 'GPU'",
        r"worker 'one:1\nworker two:2 joined' was lost with 1 nodes: its connection has ended",
        "worker 'three:3' joined: 1 slots, queues 'all', tolerations 'none'",
        "worker 'three:3' left",
    ]
