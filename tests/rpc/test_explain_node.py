"""Explaining one node over the wire: unfinished ones by the scheduler's reasons, ended ones by how they ended."""

from __future__ import annotations

import grpc

from dagorama.api import broker_pb2 as pb
from tests.support.raw import FUNCTION, Dag, Served, refused, serving, submit

GPU = pb.Function(name="work:Task.gpu", hash="h", queue="heavy", taint="GPU")


async def explained(served: Served, dag: Dag, counter: int | None = None) -> pb.Explanation:
    node = b"" if counter is None else dag.id(counter)
    return await served.stub.ExplainNode(pb.ExplainNodeRequest(instance=dag.instance, node=node))


def codes(found: pb.Explanation | pb.Cause) -> list[str]:
    return [reason.code for reason in found.reasons]


async def test_each_node_is_explained_as_it_stands(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(
        b"a", b"b", b"c", functions=[FUNCTION, GPU], function=[0, 1, 0], source_count=[0, 0, 2], source=[0, 1],
    ))  # fmt: skip
    assert codes(await explained(served, dag, 0)) == ["no_workers"]
    worker = await served.worker(name="here")
    given = await worker.node()
    running = await explained(served, dag, 0)
    assert (codes(running), running.reasons[0].text, running.state) == (["running"], "here runs it", pb.CLAIMED)
    assert running.since > 1e9
    assert codes(await explained(served, dag, 1)) == ["no_toleration"]
    waits = await explained(served, dag, 2)
    (reason,) = waits.reasons
    assert (reason.code, reason.about, list(reason.node)) == ("missing_source", 2, [dag.id(0), dag.id(1)])
    assert [(cause.node, cause.function, codes(cause)) for cause in waits.causes] == [
        (dag.id(1), GPU.name, ["no_toleration"]), (dag.id(0), FUNCTION.name, ["running"]),
    ]  # fmt: skip
    await worker.durable(await worker.fail(given, message="boom"))
    failed, followed = [await explained(served, dag, counter) for counter in (0, 2)]
    assert (codes(failed), failed.reasons[0].text) == (["failed"], "it failed after 1 attempt: ValueError: boom")
    assert (codes(followed), list(followed.reasons[0].node)) == (["failed_source"], [dag.id(0)])
    assert followed.reasons[0].text == "a node that it depends on failed after 1 attempt: ValueError: boom"
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    assert codes(await explained(served, dag, 1)) == ["cancelled"]


async def test_a_completed_node_says_when(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node()))
    found = await explained(served, dag, 0)
    assert (codes(found), found.state, found.since > 1e9) == (["completed"], pb.COMPLETED, True)
    assert not (await explained(served, dag)).causes


async def test_an_instance_is_explained_by_what_its_nodes_wait_for(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(
        *[b"a"] * 5, functions=[FUNCTION, GPU], function=[1, 1, 1, 0, 0],
        source_count=[0, 0, 0, 3, 1], source=[0, 1, 2, 3],
    ))  # fmt: skip
    await served.worker()
    (cause,) = (await explained(served, dag)).causes
    assert (cause.nodes, cause.function, codes(cause), cause.state) == (3, GPU.name, ["no_toleration"], pb.QUEUED)


async def test_what_is_unknown_is_refused(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
        await served.stub.ExplainNode(pb.ExplainNodeRequest(instance=bytes(16)))
    with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
        await explained(served, dag, 7)


async def test_a_backoff_has_its_end_in_wall_time() -> None:
    async with serving() as served:
        dag, again = Dag(), pb.Function(name="work:Task.again", hash="h", retry=pb.Retry(max_attempts=2, interval=3600))
        await submit(served.stub, dag.submission(b"a", functions=[again]))
        worker = await served.worker()
        await worker.durable(await worker.fail(await worker.node()))
        (reason,) = (await explained(served, dag, 0)).reasons
        status = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
        assert reason.code == "backoff"
        assert status.created + 3590 < reason.until < status.created + 3700
