"""Series: what the broker did in the last seconds, copied from counts that it has anyway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import series
from tests.support.raw import PATIENCE, Dag, Served, refused, serving, submit

QUEUES = [pb.Function(name=f"work:Task.f{number}", hash="h", queue=f"q{number}") for number in range(4)]
COUNTS = ("created", "completed", "failed", "cancelled")


@pytest.fixture(autouse=True)
def every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "RESPITE", 0)
    monkeypatch.setattr(series, "TOGETHER", 2)


async def read(served: Served, resolution: int = 0) -> pb.Series:
    return await served.stub.GetSeries(pb.GetSeriesRequest(resolution=resolution))


async def after(served: Served, seconds: int) -> None:
    """Wait until so many more seconds, which are short here, are in the series."""
    until = served.broker.series.second + seconds
    async with asyncio.timeout(PATIENCE):
        while served.broker.series.second < until:
            await asyncio.sleep(0.002)


async def some_work(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(*[b"a"] * 6, functions=QUEUES, function=[0, 0, 0, 1, 1, 2]))
    await after(served, 1)
    worker = await served.worker(slots=1)
    await worker.durable(await worker.complete(await worker.node()))
    await worker.durable(await worker.fail(await worker.node(), message="bad"))
    await worker.node()
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance, node=[dag.id(4), dag.id(5)]))
    await after(served, 1)


@pytest.mark.parametrize("resolution", [0, 1, 10, 60])
async def test_each_change_is_counted_in_one_interval(resolution: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "SECOND", 0.01)
    async with serving() as served:
        await some_work(served)
        await after(served, max(resolution, 1))
        found = await read(served, resolution)
        assert found.resolution == (resolution or 1)
        assert [sum(getattr(found, name)) for name in COUNTS] == [6, 1, 1, 2]
        assert (found.waiting[-1], found.queued[-1], found.running[-1]) == (0, 1, 1)
        lengths = {len(getattr(found, name)) for name in (*COUNTS, "waiting", "queued", "running")}
        assert lengths == {len(found.created)}
        assert 0 < found.oldest_queued < PATIENCE
        assert (found.end > 1e9, found.store_bytes) == (True, 0)


async def test_queues_that_hold_or_held_nodes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "SECOND", 0.01)
    async with serving() as served:
        await some_work(served)
        found = await read(served)
        queues = {each.queue: each for each in found.queues}
        assert set(queues) == {"q0", "q1", "q2"}
        assert [(each.queued[-1], each.running[-1]) for _, each in sorted(queues.items())] == [(0, 1), (1, 0), (0, 0)]
        assert (max(queues["q0"].queued), max(queues["q2"].queued)) == (3, 1)
        assert all(len(each.queued) == len(each.running) <= len(found.queued) for each in queues.values())
        assert (queues["q1"].oldest_queued > 0, queues["q0"].oldest_queued) == (True, 0)


async def test_a_quiet_queue_is_forgotten_and_small_ones_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "SECOND", 0.01)
    monkeypatch.setattr(series, "QUEUE_SECONDS", 20)
    monkeypatch.setattr(series, "MOST_QUEUES", 2)
    async with serving() as served:
        dag = Dag()
        await submit(served.stub, dag.submission(*[b"a"] * 6, functions=QUEUES, function=[0, 1, 1, 2, 2, 2]))
        await after(served, 2)
        found = await read(served)
        assert ([each.queue for each in found.queues], found.left_out) == (["q2", "q1"], 1)
        await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
        await after(served, 25)
        found = await read(served)
        assert (list(found.queues), found.left_out, found.oldest_queued) == ([], 0, 0)


async def test_a_ring_keeps_the_latest_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "SECOND", 0.005)
    monkeypatch.setattr(series, "LENGTHS", {1: 5, 10: 3, 60: 2})
    async with serving() as served:
        await after(served, 8)
        assert len((await read(served)).created) == 5


async def test_seconds_in_which_the_loop_stood_still_are_empty_points(served: Served) -> None:
    its = served.broker.series
    before = its.second
    await submit(served.stub, Dag().submission(b"a", b"b"))
    its.take(before + 4)
    found = await read(served)
    assert (list(found.created[-4:]), list(found.queued[-4:])) == ([0, 0, 0, 2], [0, 0, 0, 2])


async def test_the_size_of_a_store_in_files_is_told(tmp_path: Path) -> None:
    async with serving(store=f"sqlite:///{tmp_path}/store") as served:
        size = sum(file.stat().st_size for file in tmp_path.iterdir() if file.name in ("store", "store-wal"))
        assert (await read(served)).store_bytes == size


async def test_other_lengths_are_refused(served: Served) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "no points of 7 seconds are kept; choose one of 1, 10, 60"):
        await read(served, 7)
