"""What has ended and is needed by nothing leaves memory: a broker is as large after many instances as after few."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from itertools import count
from pathlib import Path

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import payload_cache
from dagorama_broker.engine.broker import Broker
from dagorama_broker.store.sqlite import connection
from tests.support.raw import LEAF, Given, Served, envelope, results, serving, submit

INSTANCES = 16_000
IN_A_MESSAGE = 200
SIDE_BY_SIDE = 4
MEBIBYTE = 1 << 20


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def many_instances() -> tuple[pb.SubmitRequest, bytes]:
    """A message that makes instances of one node each, and the last one's ID."""
    request, block = pb.SubmitRequest(functions=[LEAF]), os.urandom(12)
    for number in range(IN_A_MESSAGE):
        instance = block + number.to_bytes(4, "big")
        origin = instance[4:]
        request.nodes.append(
            pb.Nodes(
                instance=instance, creates=pb.NewInstance(definition="work:Task", entry=origin + bytes(4)),
                origin=origin, function=[0], arguments=[envelope(b"argument")],
            )
        )  # fmt: skip
    return request, instance


def holds_nothing(broker: Broker) -> None:
    scheduler = broker.scheduler
    graph = scheduler.graph
    for held in (graph.nodes, graph.instances, graph.origins, graph.active, scheduler.staged, graph.pauses):
        assert not held
    assert not scheduler.claims.claimed
    assert not broker.watching._watches
    assert not broker.payloads.arguments.size
    kept = broker.payloads.values.kept
    assert len(kept) <= payload_cache.MOST_RECENT
    assert all(key in broker.recent for key in kept)


async def run_instances(served: Served, messages: int) -> None:
    numbers = iter(range(messages))

    async def client() -> None:
        for _ in numbers:
            request, last = many_instances()
            await submit(served.stub, request)
            assert await served.value(last, last[4:] + bytes(4)) == envelope(b"result")

    await asyncio.gather(*(client() for _ in range(SIDE_BY_SIDE)))


@pytest.mark.slow
async def test_sixteen_thousand_instances_pass_through_in_flat_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLite's own cache grows to its bound; it is not measured here.
    monkeypatch.setattr(connection, "CACHE_KIB", 2048)
    async with serving(store=f"sqlite:///{tmp_path}/store") as served:
        ran = count()

        def outcome(node: Given) -> pb.Results:
            next(ran)
            return results(node, value=b"result")

        worker = await served.worker(slots=2)
        running = asyncio.create_task(worker.run(outcome))
        sizes, blocks = [], []
        for _ in range(10):
            await run_instances(served, INSTANCES // IN_A_MESSAGE // 10)
            worker.messages.clear()
            await served.until(lambda broker: not broker.scheduler.graph.nodes)
            gc.collect()
            sizes.append(resident())
            blocks.append(sys.getallocatedblocks())
        running.cancel()
        assert next(ran) == INSTANCES
        await asyncio.sleep(0.1)
        holds_nothing(served.broker)
        # The first rounds fill caches of the latest instances. What each of the others would leave in memory shows in
        # the blocks, if Python allocates it, and in the bytes. A message that is on its way is there in some rounds.
        assert min(blocks[-3:]) - min(blocks[4:7]) < INSTANCES // 8, blocks
        assert sizes[-1] - sizes[4] < 2 * MEBIBYTE, sizes
