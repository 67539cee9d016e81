"""Watching the nodes of an instance: which have changed since the message before, for each watcher at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import node_changes as feed
from dagorama_broker.rpc import node_changes as messages
from tests.support.raw import (
    FUNCTION,
    PATIENCE,
    Dag,
    EagerAttemptRecord,
    RawWorker,
    Served,
    refused,
    results,
    serving,
    submit,
)

RETRYING = pb.Function(name="work:Task.again", hash="h", retry=pb.Retry(max_attempts=2, interval=900))


@pytest.fixture(params=["memory", "sqlite"])
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    monkeypatch.setattr(messages, "INTERVAL", 0.01)
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        yield served


async def watch(served: Served, dag: Dag, nodes: int) -> Any:
    """A watcher that gets all changes from now on."""
    replies: Any = served.stub.WatchNodes(pb.WatchNodesRequest(instance=dag.instance))
    first = await replies.read()
    assert (list(first.key), first.nodes, first.ended) == ([], nodes, False)
    return replies


async def until(replies: Any, expected: dict[int, int]) -> pb.NodeChanges:
    """Read until these are the last states that were told of all nodes; return the last message."""
    states: dict[int, int] = {}
    async with asyncio.timeout(PATIENCE):
        while (message := await replies.read()) is not grpc.aio.EOF:
            assert len(set(message.key)) == len(message.key) == len(message.state)
            states.update(zip(message.key, message.state, strict=True))
            if states == expected:
                found: pb.NodeChanges = message
                return found
    raise AssertionError(f"the watch ended with {states}")


async def the_rest(replies: Any) -> list[pb.NodeChanges]:
    found = []
    async with asyncio.timeout(PATIENCE):
        while (message := await replies.read()) is not grpc.aio.EOF:
            found.append(message)
    return found


async def test_changes_are_told_as_they_happen(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", functions=[FUNCTION, RETRYING], function=[0, 1]))
    replies = await watch(served, dag, 2)
    worker = await served.worker(slots=1)
    one = await worker.node()
    await until(replies, {one.key: pb.CLAIMED})
    made = EagerAttemptRecord(one)
    report = results(one, functions=[FUNCTION], children=[made.nodes(b"child")], ref_count=[1], ref=[0])
    await worker.durable(await worker.report(report))
    two = await worker.node()
    child = two.key + 1
    message = await until(replies, {one.key: pb.RESOLVING, child: pb.QUEUED, two.key: pb.CLAIMED})
    assert message.nodes == 3
    await worker.durable(await worker.fail(two, message="bad"))
    given = await worker.node()
    assert given.key == child
    await until(replies, {two.key: pb.BACKOFF, child: pb.CLAIMED})
    await worker.durable(await worker.complete(given))
    await until(replies, {child: pb.COMPLETED, one.key: pb.COMPLETED})
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    last = (await the_rest(replies))[-1]
    assert (last.ended, last.failed, last.ended_at > 1e9, last.nodes) == (True, True, True, 3)
    assert dict(zip(last.key, last.state, strict=True)) == {two.key: pb.CANCELLED}


async def complete(worker: RawWorker, count: int) -> set[int]:
    """Complete this many nodes; return their keys."""
    keys = set()
    for _ in range(count):
        node = await worker.node()
        await worker.durable(await worker.complete(node))
        keys.add(node.key)
    return keys


async def test_each_watcher_gets_every_change(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_NODES", 3)
    dag, other = Dag(), Dag()
    await submit(served.stub, dag.submission(*[b"a"] * 10))
    await submit(served.stub, other.submission(b"b"))
    first = await watch(served, dag, 10)
    worker = await served.worker(slots=1)
    early = await complete(worker, 4)
    second = await watch(served, dag, 10)
    expected = early | await complete(worker, 6)
    for replies, least in ((first, expected), (second, expected - early)):
        told = await the_rest(replies)
        states = {key: state for each in told for key, state in zip(each.key, each.state, strict=True)}
        assert least <= states.keys() <= expected
        assert {states[key] for key in least} == {pb.COMPLETED}
        assert max(len(each.key) for each in told) <= 3
        assert [each.ended for each in told] == [False] * (len(told) - 1) + [True]


async def test_a_node_that_is_retried_is_told_again(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b"))
    worker = await served.worker(slots=1)
    bad = await worker.node()
    await worker.durable(await worker.fail(bad, message="bad"))
    other = await worker.node()
    replies = await watch(served, dag, 2)
    await served.stub.Retry(pb.RetryRequest(instance=dag.instance))
    message = await replies.read()
    assert dict(zip(message.key, message.state, strict=True))[bad.key] in (pb.QUEUED, pb.CLAIMED)
    await worker.durable(await worker.complete(other))
    await worker.durable(await worker.complete(await worker.node()))
    last = (await the_rest(replies))[-1]
    assert (last.ended, last.failed) == (True, False)


async def test_too_many_changes_are_dropped_and_the_watcher_learns_that(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_KEPT", 5)
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    replies = await watch(served, dag, 1)
    await submit(served.stub, dag.submission(*[b"b"] * 20, first=1, creates=False))
    message = await replies.read()
    assert (list(message.key), message.incomplete, message.nodes) == ([], True, 21)
    worker = await served.worker(slots=1)
    await until(replies, {(await worker.node()).key: pb.CLAIMED})
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    (last,) = await the_rest(replies)
    assert (last.incomplete, last.ended) == (True, True)


async def test_an_ended_instance_says_so_at_once(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node()))
    first, last = await the_rest(served.stub.WatchNodes(pb.WatchNodesRequest(instance=dag.instance)))
    assert (first.nodes, first.ended, last.nodes, last.ended, last.failed) == (1, False, 1, True, False)


async def test_an_unknown_instance_is_refused(served: Served) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "not known"):
        await watch(served, Dag(), 0)


async def test_nothing_is_noted_when_no_watcher_is_left(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    replies = await watch(served, dag, 1)
    assert served.broker.feeds.nodes.has_readers
    replies.cancel()
    await served.until(lambda broker: not broker.feeds.nodes.has_readers)
