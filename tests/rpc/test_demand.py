"""The demand of a pool of workers: read once or watched, and narrowed to what a worker's token allows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.rpc import demand
from tests.rpc.test_auth import guarded, stubs, worker_of
from tests.support.raw import PATIENCE, Dag, Served, refused, serving, submit
from tests.support.tokens import Tokens

PLAIN = pb.Function(name="work:Task.plain", hash="h", queue="plain")
IMAGE = pb.Function(name="work:Task.image", hash="h", queue="images")
GPU = pb.Function(name="work:Task.train", hash="h", queue="models", taint="GPU")
FUNCTIONS = [PLAIN, IMAGE, GPU]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "INTERVAL", 0.01)


async def slots(served: Served, **asked: Any) -> int:
    return (await served.stub.Demand(pb.DemandRequest(**asked))).slots


async def nodes(served: Served, *functions: int) -> Dag:
    dag = Dag()
    await submit(served.stub, dag.submission(*[b"a"] * len(functions), functions=FUNCTIONS, function=list(functions)))
    return dag


async def first(replies: Any) -> pb.DemandReply:
    async with asyncio.timeout(PATIENCE):
        reply: pb.DemandReply = await anext(aiter(replies))
        return reply


async def until(replies: Any, slots: int, running: int) -> pb.DemandReply:
    async with asyncio.timeout(PATIENCE):
        async for reply in replies:
            if (reply.slots, reply.running) == (slots, running):
                found: pb.DemandReply = reply
                return found
    raise AssertionError("the watch has ended")


async def test_each_pool_is_told_the_work_that_its_workers_may_take() -> None:
    async with serving() as served:
        await nodes(served, 0, 0, 0, 1, 1, 2)
        assert await slots(served) == 5
        assert await slots(served, include_queues=["images"]) == 2
        assert await slots(served, exclude_queues=["images"], tolerations=["GPU"]) == 4
        assert await slots(served, share=0.5) == 3
        await served.stub.PauseQueue(pb.PauseQueueRequest(queue="plain"))
        assert await slots(served) == 2


async def test_a_reply_says_what_the_slots_follow_from() -> None:
    async with serving() as served:
        await nodes(served, 0, 0, 0)
        worker = await served.worker(slots=1)
        node = await worker.node()
        reply = await served.stub.Demand(pb.DemandRequest())
        assert reply == pb.DemandReply(
            slots=3, running=1, running_slots=1, ready=2, unmeasured=2, seconds=20.0, connected=1, busy=1
        )
        await worker.complete(node, microseconds=[2_000_000])
        await worker.nodes(1)
        reply = await served.stub.Demand(pb.DemandRequest(horizon=0.5))
        assert (reply.slots, reply.running, reply.ready, reply.unmeasured) == (2, 1, 1, 0)
        assert reply.seconds == pytest.approx(2.0, abs=0.1)


async def test_a_watch_tells_the_present_demand_and_then_each_change() -> None:
    async with serving() as served:
        all, images = (served.stub.WatchDemand(pb.DemandRequest(include_queues=queues)) for queues in ([], ["images"]))
        await until(all, 0, 0)
        await until(images, 0, 0)
        await nodes(served, 0, 1)
        await until(all, 2, 0)
        await until(images, 1, 0)
        worker = await served.worker(slots=2)
        reply = await until(all, 2, 2)
        assert (reply.connected, reply.busy) == (1, 1)
        await until(images, 0, 0)  # it is not a worker of the other pool, and has taken the node
        await worker.complete(*await worker.nodes(2))
        await until(all, 0, 0)


async def test_a_watch_says_nothing_while_only_the_age_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as served:
        looks: list[float] = []

        def oldest_of(queue: object, now: float) -> float:
            looks.append(now)
            return float(len(looks))

        monkeypatch.setattr(served.broker.series.ages, "oldest_of", oldest_of)
        await nodes(served, 0)
        replies = served.stub.WatchDemand(pb.DemandRequest())
        await until(replies, 1, 0)
        await served.until(lambda broker: len(looks) >= 5)
        await nodes(served, 0)
        reply = await first(replies)
        assert (reply.slots, reply.oldest_ready > 5.0) == (2, True)


async def test_a_broker_that_leaves_ends_the_watch() -> None:
    async with serving() as served:
        replies = served.stub.WatchDemand(pb.DemandRequest())
        await until(replies, 0, 0)
        served.stop()
        with refused(grpc.StatusCode.UNAVAILABLE):
            await until(replies, 1, 1)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"horizon": -1.0}, "a horizon of -1 seconds; 0.001 to 86400 are allowed"),
        ({"horizon": float("nan")}, "a horizon of nan seconds"),
        ({"share": 1.5}, "a share of 1.5; more than 0 and at most 1 is allowed"),
        ({"share": float("nan")}, "a share of nan"),
        ({"include_queues": ["q"] * 501}, "a worker names 501 queues and taints"),
        ({"key_ids": [b"k" * 65]}, "the ID of a signing key has at most 64 bytes"),
    ],
)
async def test_an_unusable_request_is_refused_with_the_reason(asked: dict[str, Any], why: str) -> None:
    async with serving() as served:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, why):
            await served.stub.Demand(pb.DemandRequest(**asked))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, why):
            await first(served.stub.WatchDemand(pb.DemandRequest(**asked)))


async def test_a_worker_is_told_the_work_of_its_token_and_a_reader_any(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.toml")
    for role in ("client", "reader"):
        tokens.add(role, role)
    tokens.add("images", "worker", queues=["images"], tolerations=[])
    async with guarded(tokens) as served:
        dag = Dag()
        request = dag.submission(*[b"a"] * 4, functions=FUNCTIONS, function=[0, 1, 1, 2])
        await submit(stubs(served, tokens["client"]), request)
        own, reader = stubs(served, tokens["images"]), stubs(served, tokens["reader"])
        assert (await own.Demand(pb.DemandRequest())).slots == 2
        assert (await first(own.WatchDemand(pb.DemandRequest()))).slots == 2
        assert (await reader.Demand(pb.DemandRequest(tolerations=["GPU"]))).slots == 4
        with refused(grpc.StatusCode.PERMISSION_DENIED, "allows the queues images, and this worker requests plain"):
            await own.Demand(pb.DemandRequest(include_queues=["plain"]))
        with refused(grpc.StatusCode.PERMISSION_DENIED, "allows no tolerations, and this worker requests GPU"):
            await first(own.WatchDemand(pb.DemandRequest(tolerations=["GPU"])))
        with refused(grpc.StatusCode.PERMISSION_DENIED, "has the role client"):
            await stubs(served, tokens["client"]).Demand(pb.DemandRequest())


async def test_pools_with_tokens_of_their_own_are_told_apart(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.toml")
    for name, role in (("client", "client"), ("reader", "reader"), ("one", "worker"), ("two", "worker")):
        tokens.add(name, role)
    async with guarded(tokens) as served:
        dag = Dag()
        await submit(stubs(served, tokens["client"]), dag.submission(b"a", b"a", functions=[PLAIN], function=[0, 0]))
        worker = await worker_of(served, tokens["one"])
        await worker.node()
        found = [await stubs(served, tokens[name]).Demand(pb.DemandRequest()) for name in ("one", "two", "reader")]
        assert [(reply.connected, reply.running, reply.ready) for reply in found] == [(1, 1, 1), (0, 0, 1), (1, 1, 1)]
