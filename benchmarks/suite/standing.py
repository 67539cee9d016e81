"""The resources of an idle broker: memory for queued nodes, processor time for idle workers; and restarts."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from dagorama import DAGDefinition, dagorama
from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.client.channel import aio_channel
from dagorama.client.connection import connection
from dagorama.settings import Settings
from dagorama.values.signing import keyring
from dagorama_broker.launch import LaunchedBroker, launch_broker
from suite.graphs import One
from suite.serving import cpu_seconds, resident
from suite.table import Row, row, share

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

IDLE_SECONDS = 10.0  #: as long as the pause between two heartbeats
STREAMS = 100  #: of fake workers on one connection
AT_A_TIME = 100_000  #: nodes of one submission


class Queue(DAGDefinition):
    """Nodes that no worker runs; an instance of it is filled in pieces."""

    def entrypoint(self, nodes: int) -> list[int]:
        return [self.one(number) for number in range(nodes)]

    @dagorama().syncfn
    def one(self, number: int) -> int:
        return number


@contextmanager
def alone() -> Iterator[LaunchedBroker]:
    """Start a broker that has served a call, and no worker."""
    with (
        TemporaryDirectory(prefix="dagorama-bench-") as folder,
        launch_broker(port=0, store=f"sqlite:///{Path(folder, 'broker.sqlite3')}") as broker,
    ):
        connection().get_status()
        yield broker


def memory(nodes: int) -> Iterator[Row]:
    """Bytes of the broker's own memory, and seconds from its start to serving again with all of them."""
    with alone() as broker:
        Queue()(1000)
        before = _settled(broker)
        for start in range(0, nodes, AT_A_TIME):
            Queue()(min(AT_A_TIME, nodes - start))
        grown = _settled(broker) - before
        yield Row(f"memory, {nodes:,} queued nodes", grown / nodes, "bytes a node", [grown / nodes], "500")
        broker.kill()
        start_at = perf_counter()
        broker.start()
        seconds = perf_counter() - start_at
        status = connection().get_status()
        assert status.nodes[pb.QUEUED] == nodes + 1000
        restored = resident(_pid(broker)) / (nodes + 1000)
        reach = "20" if nodes == 1_000_000 else ""
        note = f"then {restored:.0f} bytes a node in all"
        yield Row(f"restore, {nodes:,} queued nodes", seconds, "s", [seconds], reach, note)


def _settled(broker: LaunchedBroker) -> int:
    connection().get_status()
    return resident(_pid(broker))


def _pid(broker: LaunchedBroker) -> int:
    assert broker.pid is not None
    return broker.pid


def idle(workers: int) -> Iterator[Row]:
    with alone() as broker:
        share_of_core = asyncio.run(_idle(broker, workers))
    yield Row(f"idle, {workers} connected workers", share_of_core, "% of a core", [share_of_core], "1")


async def _idle(broker: LaunchedBroker, workers: int) -> float:
    async with _fakes(workers):
        await asyncio.sleep(1.0)
        before = cpu_seconds(_pid(broker))
        await asyncio.sleep(IDLE_SECONDS)
        return (cpu_seconds(_pid(broker)) - before) / IDLE_SECONDS * 100


def wide(workers: int, nodes: int) -> Iterator[Row]:
    """Light fakes on the real stream: how long until a node that was submitted is with one of them."""
    with alone():
        waits = asyncio.run(_wide(workers, nodes))
    yield row(f"wide, {workers:,} connected workers, dispatch, p50", [share(waits, 0.5)], "ms")
    yield row(f"wide, {workers:,} connected workers, dispatch, p99", [share(waits, 0.99)], "ms")


@asynccontextmanager
async def _fakes(workers: int) -> AsyncIterator[asyncio.Queue[int]]:
    """Workers that run nothing: they beat as real ones do, and complete at once what they are granted.

    The queue gets a number for each node that has come.
    """
    granted: asyncio.Queue[int] = asyncio.Queue()
    settings, ready = Settings.from_env(), asyncio.Semaphore(0)
    channels = [aio_channel(settings) for _ in range(-(-workers // STREAMS))]
    fakes = [
        asyncio.create_task(_fake(BrokerStub(channels[number // STREAMS]), granted, ready)) for number in range(workers)
    ]
    try:
        for _ in range(workers):
            await ready.acquire()
        yield granted
    finally:
        for fake in fakes:
            fake.cancel()
        await asyncio.gather(*fakes, return_exceptions=True)
        for channel in channels:
            await channel.close()


async def _fake(stub: BrokerAsyncStub, granted: asyncio.Queue[int], ready: asyncio.Semaphore) -> None:
    call, sequence = stub.Work(), count(1)
    hello = pb.Hello(protocol=1, worker=os.urandom(16), name="fake", slots=1, key_ids=keyring().ids)
    await call.write(pb.WorkerMessage(hello=hello))
    beating: asyncio.Task[None] | None = None
    try:
        async for message in call:
            if message.HasField("welcome"):
                ready.release()
                beating = asyncio.create_task(_beat(call, message.welcome.heartbeat))
            for grant in message.grants:
                granted.put_nowait(len(grant.node))
                results = pb.Results(
                    node=grant.node, attempt=grant.attempt, value=[b"done"] * len(grant.node),
                    microseconds=[1_000_000] * len(grant.node),
                )  # fmt: skip
                report = pb.Report(sequence=next(sequence), body=results.SerializeToString())
                await call.write(pb.WorkerMessage(reports=[report]))
    finally:
        if beating is not None:
            beating.cancel()


async def _beat(call: Any, seconds: float) -> None:
    await asyncio.sleep(random.uniform(0, seconds))
    while True:
        await call.write(pb.WorkerMessage(heartbeat=True))
        await asyncio.sleep(seconds)


async def _wide(workers: int, nodes: int) -> list[float]:
    waits = []
    async with _fakes(workers) as granted:
        for number in range(nodes):
            start = perf_counter()
            await asyncio.to_thread(One(), number)
            await granted.get()
            waits.append((perf_counter() - start) * 1000)
    return waits
