"""Each bound of the broker: one below it, at it, and one above, where there is a status and a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dagorama.api import api_pb2
from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import RETRY_AFTER
from dagorama.client.connection import Connection
from dagorama.client.waiter import NodeWaiter
from dagorama.errors import BrokerOverloaded
from dagorama.settings import Settings
from dagorama_broker.errors import Overloaded
from dagorama_broker.rpc import interceptor
from dagorama_broker.rpc.limits import CallLimiter
from dagorama_broker.rpc.memory_guard import IDLE_SHARE, SHARE, MemoryGuard, available, resident_bytes
from tests.support.raw import FUNCTION, PATIENCE, Dag, EagerAttemptRecord, RawWorker, refused, serving, submit

TOO_MUCH = grpc.StatusCode.RESOURCE_EXHAUSTED


async def at_the_bound(most: int, call: Callable[[int], Awaitable[Any]], said: str) -> None:
    """One below and the bound itself pass, one above is refused."""
    for number in (most - 1, most):
        await call(number)
    with refused(TOO_MUCH, said):
        await call(most + 1)


# --- messages, values, calls ----------------------------------------------------------------------------


def submission_of(size: int) -> pb.SubmitRequest:
    """One of exactly so many bytes."""
    request: pb.SubmitRequest = Dag().submission(b"a" * (size - 200))
    request.nodes[0].arguments[0] += b"b" * (size - request.ByteSize())
    assert request.ByteSize() == size
    return request


def status_request_of(size: int) -> pb.GetStatusRequest:
    """Return a request of `size` bytes, most of them in a field that the broker does not know."""
    tag, content = b"\xc2\x3e", size - 6
    length = bytes([content & 127 | 128, content >> 7 & 127 | 128, content >> 14 & 127 | 128, content >> 21])
    request: pb.GetStatusRequest = pb.GetStatusRequest.FromString(tag + length + bytes(content))
    assert request.ByteSize() == size
    return request


@pytest.mark.parametrize("most", [4 << 20, 5 << 20])
async def test_a_message(most: int) -> None:
    async with serving(max_message=most) as served:
        await at_the_bound(most, lambda size: served.stub.GetStatus(status_request_of(size)), "larger than max")
        await served.status()


async def test_a_call_in_all_its_messages() -> None:
    async with serving(max_submission=10_000) as served:

        def stream(size: int) -> Awaitable[Any]:
            parts = [submission_of(4_000), submission_of(size - 4_000), pb.SubmitRequest()]
            return served.stub.SubmitStream(iter(parts))

        await at_the_bound(10_000, stream, "a submission of more than 10000 bytes")


async def test_a_large_value() -> None:
    async with serving(max_value=1_000) as served:

        def put(size: int) -> Awaitable[Any]:
            return served.stub.PutValue(iter([pb.ValueChunk(data=b"v" * 600), pb.ValueChunk(data=b"v" * (size - 600))]))

        await at_the_bound(1_000, put, "a value of more than 1000 bytes")


async def test_nodes_of_one_call() -> None:
    async with serving(max_nodes=3) as served:

        def submit_nodes(count: int) -> Awaitable[Any]:
            return submit(served.stub, Dag().submission(*[b"a"] * count))

        await at_the_bound(3, submit_nodes, "4 nodes in one call; 3 are allowed")


async def test_sources_of_one_node() -> None:
    async with serving(max_sources=3) as served:

        def submit_nodes(count: int) -> Awaitable[Any]:
            columns: dict[str, Any] = {"source_count": [0] * count + [count], "source": list(range(count))}
            return submit(served.stub, Dag().submission(*[b"a"] * count, b"join", **columns))

        await at_the_bound(3, submit_nodes, "a node has more than 3 sources")


@pytest.mark.parametrize(("count", "failures"), [(2, 0), (3, 0), (4, 1)])
async def test_nodes_that_one_attempt_makes(count: int, failures: int) -> None:
    dag = Dag()
    async with serving(max_nodes=3) as served:
        await submit(served.stub, dag.submission(b"a"))
        worker = await served.worker()
        node = await worker.node()
        await worker.complete(node, functions=[FUNCTION], children=[EagerAttemptRecord(node).nodes(*[b"a"] * count)])
        replies = await served.wait(dag.instance, dag.id(0))
        said = [failure.message for reply in replies for failure in reply.failure]
        assert len(said) == failures
        assert all("its result could not be taken" in message and "3" in message for message in said)
        assert sum((await served.status()).nodes[: pb.COMPLETED]) == (0 if failures else count)


@pytest.mark.parametrize(("length", "kept"), [(99, True), (100, True), (101, False)])
async def test_a_traceback_is_kept_up_to_its_bound_and_loses_its_middle_beyond(length: int, kept: bool) -> None:
    async with serving(max_traceback=100) as served:
        text = "b" * (length // 2) + "e" * (length - length // 2)
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        worker = await served.worker()
        await worker.fail(await worker.node(), traceback=text)
        found = (await served.failure(dag.instance, dag.id(0))).traceback
        assert (found == text) is kept
        assert found.startswith("b" * 49)
        assert found.endswith("e" * 49)
        assert kept or "1 characters are left out" in found


# --- calls and connections that are open at once ----------------------------------------------------------


async def test_open_calls() -> None:
    async with serving(max_streams=3) as served, AsyncExitStack() as stack:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        for _ in range(2):
            worker = RawWorker(served.stub)
            stack.push_async_callback(worker.vanish)
            await worker.connect()
        await served.status()  # the third
        third = RawWorker(served.stub)
        await third.connect()
        with refused(TOO_MUCH, "3 calls are open"):
            await served.status()
        await third.vanish()
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await served.status()
                    break


@pytest.mark.slow
async def test_watchers_of_its_health_who_need_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor, "HEALTH_WATCHERS", 2)
    async with serving(max_streams=1) as served:
        health: Any = health_pb2_grpc.HealthStub(served.channel)
        watchers = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        for watcher in watchers:
            await watcher.read()
        with refused(TOO_MUCH, "2 calls are open"):
            await health.Watch(health_pb2.HealthCheckRequest()).read()
        await health.Check(health_pb2.HealthCheckRequest())
        await served.status()  # theirs is no other's place
        watchers[0].cancel()
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await health.Watch(health_pb2.HealthCheckRequest()).read()
                    break


async def test_a_caller_that_waits_for_a_node_also_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(max_streams=2) as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        worker, other = await served.worker(), await served.worker()
        monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
        monkeypatch.setenv("DAGORAMA_PORT", f"{served.port}")
        waiting = asyncio.create_task(asyncio.to_thread(lambda: list(NodeWaiter({dag.id(0): dag.instance}).ended(10))))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await other.vanish()
        await worker.until(lambda: worker.given, 20)
        await worker.complete(await worker.node())
        assert [heard.node_id for heard in await waiting] == [dag.id(0)]


def test_open_calls_are_counted_to_the_bound() -> None:
    streams = CallLimiter(2)
    with streams.one():
        with streams.one():
            with pytest.raises(Overloaded, match="2 calls are open"), streams.one():
                pass
            assert streams.open == 2
        with streams.one():
            pass
    assert streams.open == 0


# --- memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("resident", "is_full"), [(999, False), (1000, False), (1001, True)])
def test_the_watermark(resident: int, is_full: bool) -> None:
    memory = MemoryGuard(1000, held=lambda: 500, resident=lambda: resident)
    if is_full:
        with pytest.raises(Overloaded, match="DAGORAMA_MAX_MEMORY"):
            memory.check()
    else:
        memory.check()


@pytest.mark.parametrize("held", [0, 1000 // IDLE_SHARE])
def test_a_broker_that_has_grown_and_holds_little_has_room_inside(held: int) -> None:
    MemoryGuard(1000, held=lambda: held, resident=lambda: 5000).check()
    with pytest.raises(Overloaded):
        MemoryGuard(1000, held=lambda: 1000 // IDLE_SHARE + 1, resident=lambda: 5000).check()


def test_the_default_is_a_share_of_what_there_is() -> None:
    assert MemoryGuard(0, held=lambda: 0).most == int(available() * SHARE)
    assert 1 << 20 < resident_bytes() < available()


async def test_above_the_watermark_submissions_wait_and_reports_go_through() -> None:
    """The broker in this process is larger than that already; what it holds then decides."""
    dag, late = Dag(), Dag()
    async with serving(max_memory=IDLE_SHARE * 100_000) as served:
        await submit(served.stub, dag.submission(b"a" * 200_000))
        with refused(TOO_MUCH, "memory limit reached"):
            await submit(served.stub, late.submission(b"b"))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await submit(served.stub, late.submission(b"b"))
        assert (RETRY_AFTER, "500") in [tuple(pair) for pair in refusal.value.trailing_metadata()]
        with refused(TOO_MUCH, "memory limit reached"):
            await served.original.CreateInstance(api_pb2.InstanceConfigurationMessage(identifier="0" * 32))
        worker = await served.worker()
        await worker.durable(await worker.complete(await worker.node()))
        await submit(served.stub, late.submission(b"b"))
        assert (await worker.node()).id == late.id(0)


async def test_a_client_waits_for_room_and_goes_on() -> None:
    async with serving(max_memory=IDLE_SHARE * 100_000) as served:
        dag, late = Dag(), Dag()
        await submit(served.stub, dag.submission(b"a" * 200_000))
        link = Connection(Settings("127.0.0.1", served.port))
        submitting = asyncio.create_task(asyncio.to_thread(link.submit, [late.submission(b"b")]))
        worker = await served.worker()
        node = await worker.node()
        await asyncio.sleep(0.2)
        assert not submitting.done()
        await worker.complete(node)
        await submitting
        assert await served.states(late.instance, late.id(0))


async def test_a_client_that_waits_in_vain_says_what_to_do() -> None:
    async with serving(max_memory=IDLE_SHARE * 100_000) as served:
        await submit(served.stub, Dag().submission(b"a" * 200_000))
        link = Connection(Settings("127.0.0.1", served.port))

        def submit_late() -> None:
            parts = Dag().submission(b"b"), pb.SubmitRequest()
            link._ask(lambda timeout: link.stub.SubmitStream(iter(parts), timeout=timeout), 2.0)

        with pytest.raises(BrokerOverloaded, match="add workers, submit smaller batches, or give") as error:
            await asyncio.to_thread(submit_late)
        assert error.value.retry_after == 0.5
        assert error.value.status == "RESOURCE_EXHAUSTED"


async def test_what_will_never_fit_is_not_tried_again() -> None:
    async with serving(max_nodes=1) as served:
        link = Connection(Settings("127.0.0.1", served.port))
        with pytest.raises(BrokerOverloaded, match="2 nodes in one call; 1 are allowed") as error:
            await asyncio.to_thread(link.submit, [Dag().submission(b"a", b"b")])
        assert error.value.retry_after is None
