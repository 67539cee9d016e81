"""Inspection of instances, nodes and queues: unfinished ones come from the scheduler, ended ones from the store."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.model.queries import InstanceQuery, ListedInstances
from dagorama_broker.rpc import inspect
from tests.support.raw import (
    FUNCTION,
    LEAF,
    Dag,
    EagerAttemptRecord,
    Served,
    envelope,
    refused,
    results,
    serving,
    submit,
)


async def instances(served: Served, **asked: Any) -> pb.ListInstancesReply:
    return await served.stub.ListInstances(pb.ListInstancesRequest(**asked))


async def nodes(served: Served, dag: Dag, **asked: Any) -> pb.ListNodesReply:
    return await served.stub.ListNodes(pb.ListNodesRequest(instance=dag.instance, **asked))


async def four(served: Served) -> tuple[Dag, Any]:
    """a has failed, and b because of it; c has completed; d is claimed, e is queued for a GPU, f waits for d."""
    dag = Dag()
    gpu = pb.Function(name="work:Task.gpu", hash="hash-3", queue="heavy", taint="GPU")
    again = pb.Function(name="work:Task.again", hash="h", retry=pb.Retry(max_attempts=2))
    await submit(served.stub, dag.submission(
        *(b"a", b"b", b"c", b"d", b"e", b"f"), functions=[FUNCTION, gpu, again], function=[0, 0, 0, 2, 1, 0],
        source_count=[0, 1, 0, 0, 0, 1], source=[0, 3],
    ))  # fmt: skip
    worker = await served.worker(name="a worker")
    await worker.durable(await worker.fail(await worker.node(), message="no such file"))
    await worker.durable(await worker.complete(await worker.node()))
    await worker.durable(await worker.fail(await worker.node(), message="not yet"))
    await worker.node()
    return dag, worker


async def test_an_instance_is_shown_with_its_nodes_and_how_it_ended() -> None:
    async with serving() as served:
        dag, _ = await four(served)
        info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
        assert (info.nodes, info.unfinished, info.ended, info.failed, info.ended_at) == (6, 3, False, True, 0.0)
        assert info.entry_state == pb.FAILED
        await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
        info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
        assert (info.nodes, info.unfinished, info.ended, info.failed) == (6, 0, True, True)
        assert info.ended_at >= info.created > 1e9
        assert list((await instances(served)).instances) == [info]


async def test_instances_are_listed_page_by_page_and_by_what_is_asked_for() -> None:
    async with serving() as served:
        dags = [Dag() for _ in range(5)]
        for dag in dags:
            await submit(served.stub, dag.submission(b"a"))
        worker = await served.worker()
        await worker.durable(await worker.fail(await worker.node()))
        await worker.durable(await worker.complete(await worker.node()))
        first = await instances(served, limit=3)
        assert [info.instance for info in first.instances] == [dag.instance for dag in dags[:1:-1]]
        rest = await instances(served, limit=3, before=first.more)
        assert [info.instance for info in rest.instances] == [dags[1].instance, dags[0].instance]
        assert rest.more == 0
        assert [info.instance for info in (await instances(served, failed=True)).instances] == [dags[0].instance]
        assert len((await instances(served, unfinished=True)).instances) == 3
        assert len((await instances(served, unfinished=True, failed=True)).instances) == 4
        assert len((await instances(served, definition="work:Task")).instances) == 5
        assert not (await instances(served, definition="work:Other")).instances


async def test_each_node_is_shown_as_it_stands() -> None:
    async with serving() as served:
        dag, worker = await four(served)
        reply = await nodes(served, dag)
        a, b, c, d, e, f = reply.nodes
        assert reply.more == 0
        assert [node.node for node in reply.nodes] == [dag.id(counter) for counter in range(6)]
        assert [node.state for node in reply.nodes] == [
            pb.FAILED, pb.FAILED, pb.COMPLETED, pb.CLAIMED, pb.QUEUED, pb.WAITING,
        ]  # fmt: skip
        assert (a.reason, a.root_cause, a.failed_attempts) == ("ValueError: no such file", b"", 1)
        assert (b.reason, b.root_cause, list(b.sources)) == (a.reason, dag.id(0), [dag.id(0)])
        assert a.ended > 1e9
        assert (c.reason, c.failed_attempts, c.worker) == ("", 0, "a worker")
        assert (d.worker, d.failed_attempts, d.reason, d.ended) == ("a worker", 1, "ValueError: not yet", 0.0)
        assert "does not tolerate 'GPU'" in e.reason
        assert (e.function.queue, e.function.taint) == ("heavy", "GPU")
        assert (list(f.sources), f.reason) == ([dag.id(3)], "")
        await worker.vanish()
        await served.until(lambda broker: not broker.scheduler.claims.workers)
        d = (await nodes(served, dag)).nodes[3]
        assert (d.state, d.worker_losses, d.reason) == (
            pb.QUEUED,
            1,
            "no worker is connected (start one with `worker`)",
        )


async def test_nodes_are_listed_page_by_page_and_by_state() -> None:
    async with serving() as served:
        dag, _ = await four(served)
        seen: list[bytes] = []
        after = 0
        while True:
            reply = await nodes(served, dag, limit=2, after=after)
            seen += [node.node for node in reply.nodes]
            after = reply.more
            if not after:
                break
        assert seen == [dag.id(counter) for counter in range(6)]
        for states, found in (
            ([pb.FAILED], [0, 1]), ([pb.CANCELLED], []), ([pb.QUEUED, pb.COMPLETED], [2, 4]), ([pb.WAITING], [5]),
        ):  # fmt: skip
            reply = await nodes(served, dag, states=states)
            assert [node.node for node in reply.nodes] == [dag.id(counter) for counter in found]


async def test_nodes_and_instances_are_found_by_function_and_error() -> None:
    async with serving() as served:
        dag, _ = await four(served)
        await submit(served.stub, Dag().submission(b"a"))
        assert [info.node for info in (await nodes(served, dag, error="No Such")).nodes] == [dag.id(0)]
        assert [info.node for info in (await nodes(served, dag, error="valueerror", limit=1)).nodes] == [dag.id(0)]
        assert not (await nodes(served, dag, error="not yet")).nodes
        assert not (await nodes(served, dag, error="no such", states=[pb.COMPLETED])).nodes
        assert [info.node for info in (await nodes(served, dag, function="work:Task.gpu")).nodes] == [dag.id(4)]
        assert len((await nodes(served, dag, function=FUNCTION.name)).nodes) == 4
        assert [info.instance for info in (await instances(served, error="no such")).instances] == [dag.instance]
        assert [info.instance for info in (await instances(served, function="work:Task.gpu")).instances] == [
            dag.instance
        ]
        assert len((await instances(served, function=FUNCTION.name)).instances) == 2
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "the text of an error"):
            await nodes(served, dag, error="x" * 5_000)


async def test_nodes_are_found_by_worker_run_time_and_failed_attempts() -> None:
    async with serving() as served:
        dag, _ = await four(served)
        other = await served.worker(name="another", tolerations=["GPU"])
        await other.durable(await other.complete(await other.node(), microseconds=[2_000_000]))

        async def found(**asked: Any) -> list[bytes]:
            return [info.node for info in (await nodes(served, dag, **asked)).nodes]

        a, _, c, d, e, _ = (dag.id(counter) for counter in range(6))
        assert await found(worker="a worker") == [a, c, d]
        assert await found(worker="a worker", states=[pb.CLAIMED]) == [d]
        assert await found(worker="another") == [e]
        assert await found(worker="nobody") == []
        assert await found(min_microseconds=30, states=[pb.COMPLETED, pb.FAILED]) == [c, e]
        assert await found(min_microseconds=31, states=[pb.COMPLETED, pb.FAILED]) == [e]
        assert await found(min_microseconds=2_000_001, states=[pb.COMPLETED, pb.FAILED]) == []
        assert d in await found(min_microseconds=1)
        assert await found(min_failed_attempts=1) == [a, d]
        assert await found(min_failed_attempts=2) == []
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "the name of a worker"):
            await nodes(served, dag, worker="x" * 5_000)


async def test_a_node_that_waits_before_its_next_run_says_until_when() -> None:
    async with serving() as served:
        dag = Dag()
        pausing = pb.Function(name="work:Task.pausing", hash="h", retry=pb.Retry(max_attempts=2, interval=600))
        await submit(served.stub, dag.submission(b"a", functions=[pausing]))
        worker = await served.worker(name="here")
        await worker.durable(await worker.fail(await worker.node(), microseconds=40))
        (node,) = (await nodes(served, dag)).nodes
        assert node.state == pb.BACKOFF
        assert (node.worker, node.microseconds) == ("here", 40)
        (found,) = (await nodes(served, dag, worker="here", min_microseconds=40)).nodes
        assert found.node == node.node
        assert not (await nodes(served, dag, min_microseconds=41)).nodes
        info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
        assert 590 < node.retry_at - info.created < 660
        (queue,) = (await served.status()).queues
        assert (queue.queue, queue.delayed) == ("work:Task.pausing", 1)


async def test_a_page_looks_at_so_many_nodes_and_says_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "LARGEST_PAGE", 2)
    monkeypatch.setattr(inspect, "LOOKED_AT", 4)
    async with serving() as served:
        dag, _ = await four(served)
        first = await nodes(served, dag, states=[pb.QUEUED])
        assert not first.nodes
        (node,) = (await nodes(served, dag, states=[pb.QUEUED], after=first.more)).nodes
        assert node.node == dag.id(4)


async def test_a_page_fits_in_a_message() -> None:
    async with serving() as served:
        dag = Dag()
        many = pb.Function(name="work:Task." + "long" * 1000, hash="h")
        await submit(served.stub, dag.submission(*[b"a"] * 400, functions=[many]))
        first = await nodes(served, dag, limit=400)
        assert 0 < len(first.nodes) < 400
        rest = await nodes(served, dag, limit=400, after=first.more)
        seen = [node.node for node in (*first.nodes, *rest.nodes)]
        assert seen == [dag.id(counter) for counter in range(len(seen))]


async def test_queues_are_counted() -> None:
    async with serving() as served:
        await four(served)
        queues = (await served.status()).queues
        assert [(q.queue, q.queued, q.claimed, q.delayed, list(q.taints)) for q in queues] == [
            ("heavy", 1, 0, 0, ["GPU"]),
            ("work:Task.again", 0, 1, 0, []),
        ]


async def test_showing_an_unknown_instance_or_node_is_refused() -> None:
    async with serving() as served:
        with refused(grpc.StatusCode.NOT_FOUND, "is not known to this broker"):
            await served.stub.ListNodes(pb.ListNodesRequest(instance=bytes(16)))
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            await served.stub.ListNodes(pb.ListNodesRequest(instance=b"short"))
        dag = Dag()
        await submit(served.stub, dag.submission(b"a", functions=[LEAF]))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "the request names an unknown state"):
            await nodes(served, dag, states=[99])


# --- one node -------------------------------------------------------------------------------------------


async def details(served: Served, dag: Dag, counter: int, **asked: Any) -> pb.NodeDetails:
    return await served.stub.GetNode(pb.GetNodeRequest(instance=dag.instance, node=dag.id(counter), **asked))


async def test_all_that_is_kept_of_a_node_is_told_whether_it_has_ended_or_not() -> None:
    async with serving() as served:
        dag, _ = await four(served)
        a, b, c, d, e, _ = found = [await details(served, dag, counter) for counter in range(6)]
        listed = (await nodes(served, dag)).nodes
        for info in (found[3].info, listed[3]):
            info.started = 0.0  # the difference between the clocks may change between two calls
        assert [each.info for each in found] == list(listed)
        assert (a.failure.node, a.failure.message) == (dag.id(0), "no such file")
        assert (b.failure.node, b.failure.message) == (dag.id(0), "no such file")
        assert not c.HasField("failure")
        assert (c.argument_bytes, c.value_bytes, c.arguments) == (3, len(envelope(b"done")), b"")
        assert (d.failure.node, d.failure.message, d.info.state) == (dag.id(3), "not yet", pb.CLAIMED)
        assert not e.HasField("failure")
        assert (await details(served, dag, 0, arguments=True)).arguments == envelope(b"a")


async def test_a_node_tells_when_it_was_created_ready_and_started_how_long_it_ran_and_where() -> None:
    async with serving() as served:
        dag, before = Dag(), time.time()
        await submit(served.stub, dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
        a, b = [await details(served, dag, counter) for counter in range(2)]
        assert before - 1 < a.info.created == b.info.created < time.time() + 1
        assert (a.ready_at, b.ready_at) == (a.info.created, 0.0)
        assert (a.info.started, a.info.microseconds, a.info.worker) == (0.0, 0, "")
        worker = await served.worker(name="first")
        given = await worker.node()
        assert (await details(served, dag, 0)).info.started >= a.info.created - 1
        await worker.durable(await worker.report(results(given, microseconds=[250_000])))
        await worker.durable(await worker.report(results(await worker.node(), microseconds=[40])))
        a, b = [await details(served, dag, counter) for counter in range(2)]
        assert (a.info.microseconds, a.info.worker) == (250_000, "first")
        assert a.info.ended - a.info.started == pytest.approx(0.25, abs=1e-5)
        assert b.ready_at == a.info.ended
        assert b.info.microseconds == 40


async def test_the_attempt_that_created_a_node_and_the_time_until_it_returned_promises_are_told() -> None:
    async with serving() as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"parent"))
        worker = await served.worker()
        parent = await worker.node()
        made = EagerAttemptRecord(parent).nodes(b"child")
        report = results(parent, children=[made], ref_count=[1], ref=[0], microseconds=[2_000_000])
        report.functions.append(FUNCTION)
        await worker.durable(await worker.report(report))
        (child,) = (await nodes(served, dag)).nodes[1:]
        assert (child.creator, child.created > 1e9) == (dag.id(0), True)
        before = (await nodes(served, dag)).nodes[0]
        await worker.durable(await worker.complete(await worker.node()))
        after = (await nodes(served, dag)).nodes[0]
        assert (before.state, after.state) == (pb.RESOLVING, pb.COMPLETED)
        assert (before.worker, before.microseconds) == (after.worker, 2_000_000)
        assert before.started == pytest.approx(after.started, abs=1e-3)
        assert child.created - after.started == pytest.approx(2.0, abs=1e-3)  # it is created when its parent returns
        assert after.microseconds == 2_000_000
        assert not after.creator


async def test_each_failed_run_tells_when_it_ended_how_long_it_took_and_where() -> None:
    async with serving() as served:
        dag, again = Dag(), pb.Function(name="work:Task.again", hash="h", retry=pb.Retry(max_attempts=2))
        await submit(served.stub, dag.submission(b"a", functions=[again]))
        for name, microseconds in (("first", 100), ("second", 200)):
            worker = await served.worker(name=name)
            node = await worker.node()
            failure = pb.Failure(node=node.key, attempt=node.attempt, type="E", microseconds=microseconds)
            await worker.durable(await worker.report(pb.Results(failures=[failure])))
            await worker.vanish()
        found = await details(served, dag, 0)
        (earlier,) = found.failure.earlier
        assert (earlier.worker, earlier.microseconds) == ("first", 100)
        assert (found.failure.worker, found.failure.microseconds) == ("second", 200)
        assert 1e9 < earlier.ended <= found.failure.ended == pytest.approx(found.info.ended)
        assert (found.info.worker, found.info.microseconds) == ("second", 200)


async def test_a_slow_look_delays_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(store=f"sqlite:///{tmp_path}/store") as served:
        dag, looking, go_on = Dag(), threading.Event(), threading.Event()
        view = served.broker.store.view
        read = view.list_instances

        def slow(asked: InstanceQuery) -> ListedInstances:
            looking.set()
            go_on.wait()
            return read(asked)

        monkeypatch.setattr(view, "list_instances", slow)
        listing = asyncio.ensure_future(instances(served))
        try:
            await asyncio.to_thread(looking.wait)
            await submit(served.stub, dag.submission(b"a"))
            worker = await served.worker()
            await worker.durable(await worker.complete(await worker.node()))
            assert not listing.done()
        finally:
            go_on.set()
        assert [info.instance for info in (await listing).instances] == [dag.instance]


async def test_every_failed_run_of_a_node_is_told_and_no_exception_is_sent() -> None:
    async with serving() as served:
        dag = Dag()
        again = pb.Function(name="work:Task.again", hash="h", retry=pb.Retry(max_attempts=2))
        await submit(served.stub, dag.submission(b"a", functions=[again]))
        worker = await served.worker()
        for number in ("first", "second"):
            await worker.durable(await worker.fail(
                await worker.node(), message=number, traceback=f"{number} traceback", exception=b"pickle"
            ))  # fmt: skip
        found = (await details(served, dag, 0)).failure
        assert (found.message, found.traceback, found.exception) == ("second", "second traceback", b"")
        assert [(run.message, run.traceback) for run in found.earlier] == [("first", "first traceback")]


async def test_a_node_that_is_unknown_or_of_another_instance_is_refused() -> None:
    async with serving() as served:
        dag, other = Dag(), Dag()
        for each in (dag, other):
            await submit(served.stub, each.submission(b"a"))
        with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
            await details(served, dag, 9)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "belongs to another instance"):
            await served.stub.GetNode(pb.GetNodeRequest(instance=dag.instance, node=other.id(0)))
        with refused(grpc.StatusCode.NOT_FOUND):
            await served.stub.GetNode(pb.GetNodeRequest(instance=bytes(16), node=dag.id(0)))
