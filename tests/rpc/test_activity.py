"""Watching queues: their counts, again whenever they have changed, of all or of one."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.rpc import activity
from tests.support.raw import PATIENCE, Dag, Served, refused, serving, submit

FUNCTIONS = [pb.Function(name=f"work:Task.f{number}", hash="h", queue=f"q{number}") for number in range(3)]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "INTERVAL", 0.01)


async def now(served: Served, queue: str = "") -> pb.Activity:
    (reply,) = [each async for each in served.stub.WatchQueues(pb.WatchQueuesRequest(queue=queue, now=True))]
    return reply


def counts(reply: pb.Activity) -> dict[str, tuple[int, int]]:
    return {queue.queue: (queue.queued, queue.claimed) for queue in reply.queues}


async def until(replies: Any, expected: dict[str, tuple[int, int]]) -> pb.Activity:
    async with asyncio.timeout(PATIENCE):
        async for reply in replies:
            if counts(reply) == expected:
                found: pb.Activity = reply
                return found
    raise AssertionError(f"the watch ended with {counts(reply)}")


async def nodes(served: Served, *functions: int) -> Dag:
    dag = Dag()
    await submit(served.stub, dag.submission(*[b"a"] * len(functions), functions=FUNCTIONS, function=list(functions)))
    return dag


async def test_the_queues_with_most_nodes_come_first() -> None:
    async with serving() as served:
        await nodes(served, 0, 1, 1, 2, 2, 2)
        reply = await now(served)
        assert [queue.queue for queue in reply.queues] == ["q2", "q1", "q0"]
        assert counts(reply) == {"q0": (1, 0), "q1": (2, 0), "q2": (3, 0)}
        assert (reply.nodes[pb.QUEUED], reply.instances, reply.workers) == (6, 1, 0)
        assert counts(await now(served, "q1")) == {"q1": (2, 0)}
        assert counts(await now(served, "none")) == {"none": (0, 0)}


async def test_a_watch_follows_what_happens() -> None:
    async with serving() as served:
        all, one = (served.stub.WatchQueues(pb.WatchQueuesRequest(queue=queue)) for queue in ("", "q1"))
        await until(all, {})
        await until(one, {"q1": (0, 0)})
        await nodes(served, 0, 1)
        await until(all, {"q0": (1, 0), "q1": (1, 0)})
        await until(one, {"q1": (1, 0)})
        worker = await served.worker(slots=2)
        reply = await until(all, {"q0": (0, 1), "q1": (0, 1)})
        assert (reply.workers, reply.slots) == (1, 2)
        await worker.complete(*await worker.nodes(2))
        reply = await until(all, {})
        assert (reply.nodes[pb.COMPLETED], reply.instances) == (2, 0)


async def test_a_reply_is_bounded_and_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "MOST_QUEUES", 2)
    async with serving() as served:
        await nodes(served, 0, 1, 1, 2, 2, 2)
        reply = await now(served)
        assert ([queue.queue for queue in reply.queues], reply.left_out) == (["q2", "q1"], 1)


async def test_a_broker_that_leaves_ends_the_watch() -> None:
    async with serving() as served:
        replies = served.stub.WatchQueues(pb.WatchQueuesRequest())
        await until(replies, {})
        served.stop()
        with refused(grpc.StatusCode.UNAVAILABLE):
            await until(replies, {"never": (1, 1)})
