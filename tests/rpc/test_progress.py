"""Watching an instance: the counts are complete, the last one is final, and a watcher costs the work nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import progress
from dagorama_broker.rpc import progress as messages
from tests.support.raw import FUNCTION, PATIENCE, Dag, EagerAttemptRecord, Served, refused, results, serving, submit

STEP = pb.Function(name="work:Task.step", hash="h")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.01)


@pytest.fixture(params=["memory", "sqlite"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        yield served


async def now(served: Served, dag: Dag) -> pb.Progress:
    (reply,) = [each async for each in served.stub.Watch(pb.WatchRequest(instance=dag.instance, now=True))]
    return reply


def watch(served: Served, dag: Dag) -> Any:
    return served.stub.Watch(pb.WatchRequest(instance=dag.instance))


def counts(reply: pb.Progress) -> dict[str, dict[str, int]]:
    """By function and state, without zeros."""
    return {
        its.function.rpartition(".")[2]: {
            name: its.nodes[state] for name, state in pb.NodeState.items() if its.nodes[state]
        }
        for its in reply.functions
    }


async def until(replies: Any, expected: dict[str, dict[str, int]]) -> pb.Progress:
    async with asyncio.timeout(PATIENCE):
        async for reply in replies:
            if counts(reply) == expected:
                found: pb.Progress = reply
                return found
    raise AssertionError(f"the watch ended with {counts(reply)}")


async def test_nodes_are_counted_by_function_and_state(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(
        *[b"a"] * 4, functions=[FUNCTION, STEP], function=[0, 1, 1, 1], source_count=[0, 0, 0, 1], source=[0],
    ))  # fmt: skip
    assert counts(await now(served, dag)) == {"entrypoint": {"QUEUED": 1}, "step": {"QUEUED": 2, "WAITING": 1}}
    worker = await served.worker()
    await worker.durable(await worker.report(results(await worker.node(), microseconds=[1_500_000])))
    await worker.durable(await worker.fail(await worker.node()))
    reply = await now(served, dag)
    assert counts(reply)["entrypoint"] == {"COMPLETED": 1}
    assert counts(reply)["step"]["FAILED"] == 1
    assert sum(counts(reply)["step"].values()) == 3
    assert (reply.failed, reply.ended, reply.definition) == (True, False, "work:Task")
    (entry, _) = reply.functions
    assert (entry.timed, entry.run_seconds, entry.longest_seconds) == (1, 1.5, 1.5)


async def test_a_watch_follows_an_instance_to_its_end(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
    replies = watch(served, dag)
    await until(replies, {"entrypoint": {"QUEUED": 1, "WAITING": 1}})
    worker = await served.worker()
    first = await worker.node()
    await until(replies, {"entrypoint": {"CLAIMED": 1, "WAITING": 1}})
    await worker.complete(first)
    await worker.complete(await worker.node())
    reply = await until(replies, {"entrypoint": {"COMPLETED": 2}})
    assert reply.ended
    assert reply.ended_at >= reply.created > 1e9
    assert [each async for each in replies] == []


async def test_children_are_counted_when_they_are_created(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"parent"))
    replies = watch(served, dag)
    worker = await served.worker()
    parent = await worker.node()
    report = results(parent, children=[EagerAttemptRecord(parent).nodes(b"x", b"y")], ref_count=[1], ref=[1])
    report.functions.append(STEP)
    await worker.report(report)
    async for reply in replies:
        if "step" in counts(reply):
            break
    assert counts(reply)["entrypoint"] == {"RESOLVING": 1}
    assert sum(counts(reply)["step"].values()) == 2
    for _ in range(2):
        await worker.complete(await worker.node())
    assert (await until(replies, {"entrypoint": {"COMPLETED": 1}, "step": {"COMPLETED": 2}})).ended


async def test_an_instance_that_has_ended_is_told_once(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node()))
    (reply,) = [each async for each in watch(served, dag)]
    assert (counts(reply), reply.ended) == ({"entrypoint": {"COMPLETED": 1}}, True)


async def test_all_who_watch_an_instance_share_its_counts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    dag, reads = Dag(), 0
    await submit(served.stub, dag.submission(b"a"))
    view = served.broker.store.view
    count = view.counts

    def counted(instance: bytes) -> Any:
        nonlocal reads
        reads += 1
        return count(instance)

    monkeypatch.setattr(view, "counts", counted)
    watches = [watch(served, dag) for _ in range(20)]
    for replies in watches:
        await until(replies, {"entrypoint": {"QUEUED": 1}})
    assert reads == 1
    worker = await served.worker()
    await worker.complete(await worker.node())
    for replies in watches:
        assert (await until(replies, {"entrypoint": {"COMPLETED": 1}})).ended
    assert reads < 20


async def test_nothing_is_read_while_nothing_changes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    slept, asked = asyncio.Event(), Dag()
    await submit(served.stub, asked.submission(b"a"))
    replies = watch(served, asked)
    await until(replies, {"entrypoint": {"QUEUED": 1}})
    view = served.broker.store.view
    monkeypatch.setattr(view, "counts", lambda instance: pytest.fail("nothing has changed"))
    naps = 0

    async def nap(seconds: float, sleep: Any = asyncio.sleep) -> None:
        nonlocal naps
        naps += seconds == progress.INTERVAL
        if naps > 5:
            slept.set()
        await sleep(seconds)

    monkeypatch.setattr("dagorama_broker.engine.progress.asyncio.sleep", nap)
    async with asyncio.timeout(PATIENCE):
        await slept.wait()
    replies.cancel()


async def test_a_watch_that_is_not_read_is_disconnected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama_broker.rpc.status.PATIENCE", 0.1)
    monkeypatch.setattr(messages, "progress_message", lambda progress: pb.Progress(definition="x" * (1 << 20)))
    dag = Dag()
    await submit(served.stub, dag.submission(*[b"a"] * 2_000))
    replies = watch(served, dag)
    await replies.read()
    worker = await served.worker()
    async with asyncio.timeout(PATIENCE):
        while served.broker.progress.watched:  # each of these is another state
            await worker.durable(await worker.complete(await worker.node()))
    assert served.broker.scheduler.nodes, "it was cut off before the instance had ended"
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "no reply was read for 0.1 seconds"):
        while await replies.read() is not grpc.aio.EOF:
            pass


async def test_an_unknown_instance_is_refused(served: Served) -> None:
    for request in (pb.WatchRequest(instance=bytes(16)), pb.WatchRequest(instance=bytes(16), now=True)):
        with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
            await served.stub.Watch(request).read()


async def test_a_watcher_is_told_that_the_broker_leaves(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    replies = watch(served, dag)
    await replies.read()
    served.stop()
    with refused(grpc.StatusCode.UNAVAILABLE, "the broker is shutting down"):
        await replies.read()


async def test_many_functions_are_cut_short_and_it_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_FUNCTIONS", 2)
    dag, functions = Dag(), [pb.Function(name=f"work:Task.f{number}", hash="h") for number in range(5)]
    await submit(served.stub, dag.submission(*[b"a"] * 5, functions=functions, function=list(range(5))))
    reply = await now(served, dag)
    assert (list(counts(reply)), reply.left_out) == (["f0", "f1"], 3)
