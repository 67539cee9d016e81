"""Trace contexts travel with blocks of nodes, from what creates them to the workers that run them."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.raw import Dag, RawWorker, children, refused, serving, submit

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01 vendor=state"


def traces_of(worker: RawWorker) -> dict[int, str]:
    """The trace context that each granted node has come with, by its key."""
    found: dict[int, str] = {}
    for body in bodies_of(worker):
        known = ["", *body.traces]
        places = [*body.trace, *[0] * (len(body.node) - len(body.trace))]
        found.update(zip(body.node, (known[place] for place in places), strict=True))
    return found


def bodies_of(worker: RawWorker) -> list[pb.GrantBody]:
    return [pb.GrantBody.FromString(grant.body) for message in worker.messages for grant in message.grants]


async def test_a_worker_is_given_the_trace_context_of_traced_nodes_and_of_no_others() -> None:
    async with serving() as served:
        await submit(served.stub, Dag().submission(b"a", trace=TRACE))
        await submit(served.stub, Dag().submission(b"b"))
        worker = await served.worker(slots=2)
        traced, plain = await worker.nodes(2)
        assert traces_of(worker) == {traced.key: TRACE, plain.key: ""}


async def test_trace_contexts_outlive_the_broker(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/broker.sqlite3"
    async with serving(store=store) as served:
        await submit(served.stub, Dag().submission(b"a", trace=TRACE))
        await submit(served.stub, Dag().submission(b"b"))
    async with serving(store=store) as served:
        worker = await served.worker(slots=2)
        traced, plain = await worker.nodes(2)
        assert traces_of(worker) == {traced.key: TRACE, plain.key: ""}


async def test_children_have_the_trace_context_that_their_attempt_gives_them() -> None:
    async with serving() as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a", trace=TRACE))
        worker = await served.worker()
        parent = await worker.node()
        made = Dag()
        made.instance = dag.instance
        nodes = made.nodes(b"child", trace=OTHER)
        await worker.complete(parent, children=[children(parent, nodes)], functions=[parent.function])
        child = await worker.node()
        assert traces_of(worker)[child.key] == OTHER


async def test_a_node_is_told_the_trace_contexts_of_the_attempts_that_it_uses() -> None:
    async with serving() as served:
        dag = Dag()
        nodes = dag.submission(b"a", b"b", b"join", source_count=[0, 0, 2], source=[0, 1], trace=TRACE)
        await submit(served.stub, nodes)
        worker = await served.worker(slots=2)
        one, two = await worker.nodes(2)
        await worker.complete(one, trace=[OTHER], trace_of=[0])
        await worker.complete(two)
        join = await worker.node()
        body = next(body for body in bodies_of(worker) if join.key in body.node)
        assert dict(zip(body.linked, body.link, strict=True)) == {one.key: OTHER}


@pytest.mark.parametrize("trace", ["x" * 1_000, "00-ümlaut"])
async def test_a_trace_context_that_cannot_be_one_is_refused(trace: str) -> None:
    async with serving() as served:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "a trace context has at most 568 ASCII characters"):
            await submit(served.stub, Dag().submission(b"a", trace=trace))


async def test_a_report_whose_trace_contexts_fit_no_node_ends_the_session() -> None:
    async with serving() as served:
        await submit(served.stub, Dag().submission(b"a", trace=TRACE))
        worker = await served.worker()
        await worker.complete(await worker.node(), trace=[OTHER], trace_of=[7])
        assert (await worker.end()).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_contexts_of_ended_instances_leave_memory() -> None:
    async with serving() as served:
        await submit(served.stub, Dag().submission(b"a", trace=TRACE))
        worker = await served.worker()
        assert served.broker.scheduler.has_traced
        await worker.durable(await worker.complete(await worker.node()))
        assert not served.broker.scheduler.has_traced
