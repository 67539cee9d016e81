"""Delays of single nodes on the wire: what is shown of them, what is told of them, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.rpc import events as messages
from tests.rpc.test_events import follow, told
from tests.support.raw import Dag, refused, serving, submit

HOUR = 3_600.0


async def test_a_delayed_node_is_shown_with_its_delay_until_it_ends(tmp_path: Path) -> None:
    async with serving(store=f"sqlite:///{tmp_path}/store") as served:
        dag, tomorrow = Dag(), time.time() + 24 * HOUR
        columns: dict[str, Any] = {"delayed": [1, 2], "delay": [HOUR, 0], "not_before": [0, tomorrow]}
        await submit(served.stub, dag.submission(b"a", b"b", b"c", **columns))
        nodes = (await served.stub.ListNodes(pb.ListNodesRequest(instance=dag.instance))).nodes
        assert [(node.state, node.delay, node.not_before) for node in nodes] == [
            (pb.QUEUED, 0, 0), (pb.BACKOFF, HOUR, 0), (pb.BACKOFF, 0, tomorrow),
        ]  # fmt: skip
        assert nodes[2].retry_at == pytest.approx(tomorrow, abs=0.01)
        assert nodes[1].retry_at == pytest.approx(nodes[1].created + HOUR, abs=0.5)
        why = await served.stub.ExplainNode(pb.ExplainNodeRequest(instance=dag.instance, node=dag.id(2)))
        assert [(reason.code, round(reason.until - tomorrow)) for reason in why.reasons] == [("delay", 0)]
        worker = await served.worker(slots=3)
        await worker.durable(await worker.complete(await worker.node()))
        cancelled = await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
        assert cancelled.cancelled == 2


async def test_a_delay_is_not_told_as_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "INTERVAL", 0.01)
    async with serving(store="memory://") as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        replies = await follow(served, dag)
        late = dag.submission(b"b", first=1, creates=False, delayed=[0], delay=[HOUR], not_before=[0])
        await submit(served.stub, late)
        worker = await served.worker()
        await worker.durable(await worker.complete(await worker.node()))
        await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
        batches = []
        while (batch := await replies.read()) is not grpc.aio.EOF:
            batches.append(batch)
        assert [kind for kind, _, _ in told(batches)] == ["CREATED", "STARTED", "COMPLETED", "CANCELLED"]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"delayed": [0], "delay": [1], "not_before": []}, "different lengths"),
        ({"delayed": [], "delay": [1], "not_before": [1]}, "different lengths"),
        ({"delayed": [2], "delay": [1], "not_before": [0]}, "do not fit its nodes"),
        ({"delayed": [1, 0], "delay": [1, 1], "not_before": [0, 0]}, "do not fit its nodes"),
        ({"delayed": [0, 0], "delay": [1, 1], "not_before": [0, 0]}, "do not fit its nodes"),
        ({"delayed": [0], "delay": [-1], "not_before": [0]}, "the delay of a node is -1.0"),
        ({"delayed": [0], "delay": [0], "not_before": [float("inf")]}, "the delay of a node is inf"),
        ({"delayed": [0], "delay": [float("nan")], "not_before": [0]}, "the delay of a node is nan"),
    ],
)
async def test_columns_that_do_not_fit_are_refused(columns: dict[str, Any], text: str) -> None:
    async with serving(store="memory://") as served:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, text):
            await submit(served.stub, Dag().submission(b"a", b"b", **columns))
