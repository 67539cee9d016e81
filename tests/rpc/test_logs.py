"""Logs at the broker: taken from the worker that holds the attempt, kept with their instance, read while they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import Connection
from dagorama.client.logs import PAGE, Logs
from dagorama.settings import Settings as ClientSettings
from dagorama_broker.engine import logs
from dagorama_broker.errors import StoreError
from dagorama_broker.model.logs import LogOwner, LogPart
from dagorama_broker.rpc import logs as rpc_logs
from dagorama_broker.settings import Settings
from tests.support.raw import FUNCTION, MEMORY, PATIENCE, Dag, Given, Served, refused, serving, submit

STEP = pb.Function(name="work:Task.step", hash="h")


@pytest.fixture(params=["memory", "sqlite"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        yield served


def part(node: Given, text: str, sequence: int = 1, **fields: Any) -> pb.NodeLog:
    records = pb.LogRecords(record=[pb.LogRecord(time=5, text=text.encode())]).SerializeToString()
    made = {"number": node.run + 1, "first": 5, "last": 5, "size": len(text), "head": True, **fields}
    return pb.NodeLog(node=node.key, attempt=node.attempt, sequence=sequence, records=records, **made)


def texts(pieces: list[pb.LogPiece]) -> list[str]:
    return [record.text.decode() for each in pieces for record in pb.LogRecords.FromString(each.records).record]


async def read(served: Served, dag: Dag, **asked: Any) -> list[pb.LogPiece]:
    request = pb.GetLogsRequest(instance=dag.instance, **asked)
    return [each async for each in served.stub.GetLogs(request, timeout=PATIENCE)]


async def test_logs_come_with_the_result_and_are_read_with_their_node(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", functions=[FUNCTION, STEP], function=[0, 1]))
    worker = await served.worker()
    for text in ("one", "two"):
        node = await worker.node()
        await worker.complete(node, logs=[part(node, text, left_out=7)])
    pieces = await read(served, dag)
    assert texts(pieces) == ["one", "two"]
    assert [(each.node, each.attempt, each.left_out) for each in pieces] == [(dag.id(0), 1, 7), (dag.id(1), 1, 7)]
    assert [each.function for each in pieces] == [FUNCTION.name, STEP.name]
    assert texts(await read(served, dag, node=dag.id(1))) == ["two"]
    assert texts(await read(served, dag, function=STEP.name)) == ["two"]
    assert texts(await read(served, dag, after=pieces[0].id)) == ["two"]
    assert texts(await read(served, dag, attempt=2)) == []
    assert texts(await read(served, dag, since=1e9)) == []


async def test_each_attempt_has_its_own_logs(served: Served) -> None:
    dag = Dag()
    retried = pb.Function(name="work:Task.step", hash="h", retry=pb.Retry(max_attempts=2))
    await submit(served.stub, dag.submission(b"a", functions=[retried]))
    worker = await served.worker()
    first = await worker.node()
    failure = pb.Failure(node=first.key, attempt=first.attempt, type="E")
    await worker.report(pb.Results(failures=[failure], logs=[part(first, "first")]))
    second = await worker.node()
    await worker.complete(second, logs=[part(second, "second")])
    assert [(each.attempt, *texts([each])) for each in await read(served, dag)] == [(1, "first"), (2, "second")]
    assert texts(await read(served, dag, attempt=2)) == ["second"]


async def test_a_report_that_is_sent_again_adds_nothing(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    for _ in range(2):
        await worker.report(pb.Results(logs=[part(node, "live")]))
    await worker.complete(node, logs=[part(node, "last", 2)])
    assert texts(await read(served, dag)) == ["live", "last"]


async def test_a_worker_writes_no_logs_of_attempts_that_it_does_not_hold(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker, other = await served.worker(), None
    node = await worker.node()
    other = await served.worker()
    await other.durable(await other.report(pb.Results(logs=[part(node, "forged")])))
    await worker.durable(await worker.complete(node, logs=[part(node, "mine")]))
    await worker.durable(await worker.report(pb.Results(logs=[part(node, "too late", 2)])))
    assert texts(await read(served, dag)) == ["mine"]


async def test_the_last_words_of_a_cancelled_node_are_kept(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    await worker.durable(await worker.report(pb.Results(logs=[part(node, "cleaning up")])))
    assert texts(await read(served, dag)) == ["cleaning up"]


async def test_a_part_that_is_too_large_is_counted_as_left_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_logs, "LARGEST_PART", 100)
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    await worker.complete(node, logs=[part(node, "x" * 200), part(node, "small", 2)])
    pieces = await read(served, dag)
    assert [each.left_out for each in pieces] == [200, 0]
    assert texts(pieces) == ["small"]


# --- following --------------------------------------------------------------------------------------


async def test_logs_are_followed_to_the_end_of_the_instance(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b"))
    worker = await served.worker()
    pieces = aiter(served.stub.GetLogs(pb.GetLogsRequest(instance=dag.instance, follow=True), timeout=PATIENCE))
    first = await worker.node()
    await worker.report(pb.Results(logs=[part(first, "live")]))
    assert texts([await anext(pieces)]) == ["live"]
    await worker.complete(first, logs=[part(first, "done", 2)])
    second = await worker.node()
    await worker.complete(second, logs=[part(second, "last")])
    assert texts([each async for each in pieces]) == ["done", "last"]
    assert not served.broker.logs.followed


async def test_a_node_is_followed_over_its_attempts_and_no_further(served: Served) -> None:
    dag = Dag()
    retried = pb.Function(name="work:Task.step", hash="h", retry=pb.Retry(max_attempts=2))
    await submit(served.stub, dag.submission(b"a", b"b", functions=[retried]))
    worker = await served.worker(slots=2)
    first, other = await worker.nodes(2)
    request = pb.GetLogsRequest(instance=dag.instance, node=dag.id(0), follow=True)
    pieces = aiter(served.stub.GetLogs(request, timeout=PATIENCE))
    failure = pb.Failure(node=first.key, attempt=first.attempt, type="E")
    await worker.report(pb.Results(failures=[failure], logs=[part(first, "first"), part(other, "other")]))
    assert texts([await anext(pieces)]) == ["first"]
    second = await worker.node()
    await worker.complete(second, logs=[part(second, "second")])
    assert texts([each async for each in pieces]) == ["second"]


async def test_a_follower_is_told_that_the_broker_leaves(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    pieces = served.stub.GetLogs(pb.GetLogsRequest(instance=dag.instance, follow=True), timeout=PATIENCE)
    reading = asyncio.ensure_future(pieces.read())
    await served.until(lambda broker: broker.logs.followed)
    served.stop()
    with refused(grpc.StatusCode.UNAVAILABLE, "the broker is shutting down"):
        await reading


async def test_a_follower_that_does_not_read_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama_broker.rpc.status.PATIENCE", 0.1)
    dag = Dag()
    await submit(served.stub, dag.submission(*[b"a"] * 200))
    worker = await served.worker()
    pieces = served.stub.GetLogs(pb.GetLogsRequest(instance=dag.instance, follow=True))
    await served.until(lambda broker: broker.logs.followed)
    async with asyncio.timeout(PATIENCE):
        while served.broker.logs.followed:
            node = await worker.node()
            await worker.durable(await worker.complete(node, logs=[part(node, "x" * 200_000)]))
    assert served.broker.scheduler.nodes, "it was cut off before the instance had ended"
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "no reply was read for 0.1 seconds"):
        async for _ in pieces:
            pass


async def test_a_reader_may_take_its_time_over_what_is_there(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama_broker.rpc.status.PATIENCE", 5.0)
    dag, count = Dag(), 2 * PAGE + 1
    await submit(served.stub, dag.submission(*[b"a"] * count))
    worker = await served.worker()
    for number in range(count):
        node = await worker.node()
        await worker.durable(await worker.complete(node, logs=[part(node, f"{number} ".ljust(50_000, "x"))]))
    client = Connection(ClientSettings(host="127.0.0.1", port=served.port))
    for follow in (False, True):
        records = iter(Logs(client, pb.GetLogsRequest(instance=dag.instance, follow=follow)))
        found = [await asyncio.to_thread(next, records)]
        await served.until(lambda broker: not broker.logs.followed)  # the broker waits for nothing
        found += await asyncio.to_thread(list, records)
        assert [int(record.text.split()[0]) for record in found] == list(range(count))
    client.channel.close()


async def test_an_unknown_instance_or_node_is_refused(served: Served) -> None:
    dag = Dag()
    with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
        await read(served, dag)
    await submit(served.stub, dag.submission(b"a"))
    with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
        await read(served, dag, node=bytes(16))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "16 are expected"):
        await read(served, dag, node=b"short")


# --- keeping ----------------------------------------------------------------------------------------


def settings(folder: Path, **changed: Any) -> dict[str, Any]:
    return {"store": f"sqlite:///{folder}/store", "settings": Settings(port=0, reconnect_wait=0.0), **changed}


async def printed(served: Served, dag: Dag | None = None) -> Dag:
    """An instance that has ended and printed something."""
    dag = dag or Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    await worker.durable(await worker.complete(node, logs=[part(node, "printed")]))
    await worker.vanish()
    return dag


async def test_a_restart_keeps_logs(tmp_path: Path) -> None:
    async with serving(**settings(tmp_path)) as served:
        dag = await printed(served)
    async with serving(**settings(tmp_path)) as served:
        assert texts(await read(served, dag)) == ["printed"]


async def test_logs_go_with_their_instance(tmp_path: Path) -> None:
    async with serving(**settings(tmp_path, retention=0.01)) as served:
        dag = Dag()
        with served.broker.lookups.holds.on(dag.instance):  # it is not removed within
            await printed(served, dag)
            assert texts(await read(served, dag)) == ["printed"]
            assert await instances(served) == [dag.instance]
        async with asyncio.timeout(PATIENCE):
            while await instances(served):
                await asyncio.sleep(0.01)
        with refused(grpc.StatusCode.NOT_FOUND, "removed"):
            await read(served, dag)


async def test_logs_that_an_earlier_broker_has_left_of_a_removed_instance_go_at_the_start(tmp_path: Path) -> None:
    async with serving(**settings(tmp_path)) as served:
        kept = await printed(served)
        left = LogPart(LogOwner(bytes(16), kept.id(0), "f"), 1, 1, 1, True, 0, 1, 1, 1, b"")
        served.broker.logs.take(left)
        await served.broker.logs.written()
        assert left.owner.instance in await instances(served)
    async with serving(**settings(tmp_path)) as served:
        async with asyncio.timeout(PATIENCE):
            while left.owner.instance in await instances(served):
                await asyncio.sleep(0.01)
        assert texts(await read(served, kept)) == ["printed"]


async def instances(served: Served) -> list[bytes]:
    """The instances that have logs."""
    found: list[bytes] = await served.broker.logs._in_thread(served.broker.logs._file.instances, b"", 100)
    return found


async def test_a_broker_without_logs_makes_no_file(tmp_path: Path) -> None:
    async with serving(**settings(tmp_path)) as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        worker = await served.worker()
        await worker.durable(await worker.complete(await worker.node()))
        assert await read(served, dag) == []
    assert not list(tmp_path.glob("store.logs*"))


async def test_a_damaged_file_costs_logs_and_no_work(tmp_path: Path) -> None:
    (tmp_path / "store.logs").write_bytes(b"not a database" * 1_000)
    async with serving(**settings(tmp_path)) as served:
        dag = await printed(served)
        await served.broker.logs.written()
        (state,) = await served.states(dag.instance, dag.id(0))
        assert state == pb.COMPLETED
        again = await printed(served)
        assert texts(await read(served, again)) == ["printed"]
    assert (tmp_path / "store.logs.damaged").exists()


async def test_a_full_disk_drops_logs_with_a_count_and_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "RETRY", 0.01)
    async with serving(**settings(tmp_path)) as served:
        file = served.broker.logs._file
        with monkeypatch.context() as full:

            def add(parts: object) -> None:
                raise StoreError("store.logs: the disk is full")

            full.setattr(file, "add", add)
            dag = Dag()
            await submit(served.stub, dag.submission(b"a"))
            worker = await served.worker()
            node = await worker.node()
            for sequence in (1, 2, 3):
                await worker.durable(await worker.report(pb.Results(logs=[part(node, "lost", sequence)])))
                await served.broker.logs.written()
        await worker.durable(await worker.complete(node, logs=[part(node, "kept", 4)]))
        pieces = await read(served, dag)
        assert texts(pieces) == ["kept"]
        assert sum(each.left_out for each in pieces) == 3 * len("lost")
        assert served.broker.logs.bytes_dropped == 3 * len("lost")
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [each.getMessage() for each in warnings] == [
        "logs of nodes are dropped, the work goes on: store.logs: the disk is full"
    ]


async def test_a_slow_disk_bounds_what_waits(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs, "MOST_WAITING", 2_000)
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    parts = [part(node, "x" * 100, sequence) for sequence in range(1, 101)]
    await worker.report(pb.Results(logs=parts))
    await worker.complete(node, logs=[part(node, "end", 101)])
    pieces = await read(served, dag)
    kept = len(texts(pieces))
    assert 0 < kept < 20
    left_out = sum(each.left_out for each in pieces)
    assert left_out in ((101 - kept) * 100, (100 - kept) * 100 + 3)
    assert served.broker.logs.bytes_dropped == left_out


async def test_the_bound_is_a_setting(tmp_path: Path) -> None:
    async with serving(Settings(port=0, store=f"sqlite:///{tmp_path}/store", logs_max=1 << 20)) as served:
        assert served.broker.logs._file._most == 1 << 20
    assert MEMORY.logs_max == 1 << 30
