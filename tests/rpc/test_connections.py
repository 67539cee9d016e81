"""Clients that do not behave: they cost the broker little, are hung up on, and an honest client notices nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama_broker import server
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.raw import PATIENCE, Dag, RawWorker, serving, submit

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PING, GOAWAY, SETTINGS = 6, 7, 4
ENHANCE_YOUR_CALM = 11
MIB = 1 << 20


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4) + payload


@pytest.fixture(scope="module")
def broker() -> Iterator[LaunchedBroker]:
    environment = {"DAGORAMA_HANDSHAKE_TIMEOUT": "0.5", "DAGORAMA_CACHE_BYTES": f"{MIB}"}
    with launch_broker(port=0, environment=environment) as broker:
        yield broker


@asynccontextmanager
async def stub_of(broker: LaunchedBroker) -> AsyncIterator[BrokerAsyncStub]:
    async with grpc.aio.insecure_channel(broker.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield BrokerStub(channel)


@asynccontextmanager
async def connected(broker: LaunchedBroker) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(broker.host, broker.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def all_is_well(broker: LaunchedBroker) -> None:
    """An honest client and an honest worker get a node through."""
    async with stub_of(broker) as stub, asyncio.timeout(PATIENCE):
        dag, worker = Dag(), RawWorker(stub)
        await submit(stub, dag.submission(b"a"), wait_for_ready=True)
        await worker.connect()
        await worker.durable(await worker.complete(await worker.node()))
        await worker.vanish()


def resident(broker: LaunchedBroker) -> int:
    pages = int(Path(f"/proc/{broker.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def read_out(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the broker hangs up."""
    data = b""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionResetError):
            while piece := await reader.read(1 << 16):
                data += piece
    return data


# --- connections ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [b"", PREFACE[:10], PREFACE, b"GET / HTTP/1.1\r\n\r\n", os.urandom(64)],
    ids=["nothing", "half a preface", "a preface alone", "HTTP/1.1", "noise"],
)  # fmt: skip
async def test_a_connection_that_says_nothing_of_use_is_closed(broker: LaunchedBroker, said: bytes) -> None:
    async with connected(broker) as (reader, writer):
        writer.write(said)
        await all_is_well(broker)
        await read_out(reader)


async def test_a_hundred_half_open_connections_do_not_keep_others_out(broker: LaunchedBroker) -> None:
    sockets = [socket.create_connection((broker.host, broker.port)) for _ in range(100)]
    try:
        for half_open in sockets:
            half_open.sendall(PREFACE[:5])
        await all_is_well(broker)
    finally:
        for half_open in sockets:
            half_open.close()


async def test_connections_are_bounded_and_there_is_room_again_when_some_close() -> None:
    environment = {"DAGORAMA_MAX_CONNECTIONS": "3", "DAGORAMA_HANDSHAKE_TIMEOUT": "60"}
    with launch_broker(port=0, environment=environment) as broker:
        sockets = [socket.create_connection((broker.host, broker.port)) for _ in range(3)]
        fourth = socket.create_connection((broker.host, broker.port))
        fourth.settimeout(PATIENCE)
        assert fourth.recv(1) == b""
        for each in (*sockets, fourth):
            each.close()
        await all_is_well(broker)


async def test_a_connection_without_calls_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_MS", 1000)
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(PREFACE + frame(SETTINGS) + frame(SETTINGS, flags=1))
        assert b"connection idle" in await read_out(reader)
        writer.close()
        await served.status()


async def test_a_flood_of_pings_is_told_to_calm_down(broker: LaunchedBroker) -> None:
    pings = [frame(PING, number.to_bytes(8, "big")) for number in range(10)]
    async with connected(broker) as (reader, writer):
        writer.write(PREFACE + frame(SETTINGS) + frame(SETTINGS, flags=1) + b"".join(pings))
        assert ENHANCE_YOUR_CALM in goaways(await read_out(reader))
    for _ in range(20):
        async with connected(broker) as (_, writer):
            writer.write(PREFACE + frame(SETTINGS) + b"".join(pings * 1000))
    await all_is_well(broker)


def goaways(data: bytes) -> Iterator[int]:
    """The error codes of the GOAWAY frames in what a server sent."""
    while len(data) >= 9:
        length, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind == GOAWAY:
            yield int.from_bytes(data[13:17], "big")
        data = data[9 + length :]


# --- who does not read ------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_unread_replies_to_a_wait_do_not_pile_up(broker: LaunchedBroker) -> None:
    """120 values of 200 KiB, which is more than twenty times the broker's cache."""
    count, value = 120, bytes(200 << 10)
    async with stub_of(broker) as stub, stub_of(broker) as slow:
        dag, worker = Dag(), RawWorker(stub)
        await submit(stub, dag.submission(*[b"a"] * count))
        request = pb.WaitRequest(instance=dag.instance, node=[dag.id(at) for at in range(count)])
        heard = (await stub.GetStatus(pb.GetStatusRequest())).messages_in
        unread = [slow.Wait(request) for _ in range(10)]
        async with asyncio.timeout(PATIENCE):
            while (await stub.GetStatus(pb.GetStatusRequest())).messages_in < heard + len(unread):
                pass
        await worker.connect()
        before = resident(broker)
        for _ in range(count):
            await worker.durable(await worker.complete(await worker.node(), value=value))
        # 24 MiB of values, which an in-memory store keeps, and no multiple of that for those who do not read.
        assert resident(broker) - before < 24 * MIB + 60 * MIB
        await worker.vanish()
        for call in unread:
            call.cancel()
    await all_is_well(broker)


@pytest.mark.slow
async def test_a_worker_that_neither_reads_nor_speaks_loses_its_nodes_and_then_its_stream() -> None:
    async with serving(lease=1.5, heartbeat=0.3) as served:
        for _ in range(4):
            await submit(served.stub, Dag().submission(*[bytes(200 << 10)] * 15))
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=[("grpc.use_local_subchannel_pool", 1)])
        call = BrokerStub(channel).Work()
        await call.write(pb.WorkerMessage(hello=pb.Hello(protocol=1, worker=os.urandom(16), name="deaf", slots=60)))
        await served.until(lambda broker: len(broker.sessions) == 1)
        (deaf,) = served.broker.sessions
        await served.until(lambda broker: deaf.info.id not in broker.scheduler.claims.workers)
        await served.until(lambda broker: not broker.sessions)
        worker = await served.worker()
        for _ in range(60):
            await worker.durable(await worker.complete(await worker.node()))
        await channel.close()


async def test_a_client_that_asks_for_a_value_and_does_not_read_it_holds_up_no_other(broker: LaunchedBroker) -> None:
    async with stub_of(broker) as stub, stub_of(broker) as slow:
        chunk = pb.ValueChunk(data=bytes(MIB))
        kept = await stub.PutValue(iter([chunk] * 64))
        before = resident(broker)
        unread = [slow.GetValue(pb.GetValueRequest(sha256=kept.sha256)) for _ in range(20)]
        await asyncio.gather(*(call.wait_for_connection() for call in unread))
        await all_is_well(broker)
        # Some chunks of each are on their way; of 64 MiB for each there is no question.
        assert resident(broker) - before < 20 * 12 * MIB
        for call in unread:
            call.cancel()
