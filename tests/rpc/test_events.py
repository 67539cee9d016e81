"""Following an instance event by event: complete for a reader that keeps up, and a gap for one that does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import events as feed
from dagorama_broker.model.domain import State
from dagorama_broker.rpc import events as messages
from tests.support.gate import gate
from tests.support.raw import FUNCTION, PATIENCE, Dag, EagerAttemptRecord, Served, refused, results, serving, submit

RETRYING = pb.Function(name="work:Task.again", hash="h", retry=pb.Retry(max_attempts=2))


@pytest.fixture(params=["memory", "sqlite"])
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    monkeypatch.setattr(messages, "INTERVAL", 0.01)
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        yield served


async def follow(served: Served, dag: Dag) -> Any:
    """A reader that gets all that happens from now on."""
    replies: Any = served.stub.Events(pb.EventsRequest(instance=dag.instance))
    assert not (await replies.read()).events
    return replies


async def the_rest(replies: Any) -> list[pb.EventBatch]:
    batches = []
    async with asyncio.timeout(PATIENCE):
        while (batch := await replies.read()) is not grpc.aio.EOF:
            batches.append(batch)
    return batches


def told(batches: list[pb.EventBatch]) -> list[tuple[str, str, int]]:
    """What happened to which function's node."""
    return [
        (pb.EventKind.Name(event.kind).removeprefix("EVENT_"), batch.functions[event.function], event.attempt)
        for batch in batches
        for event in batch.events
    ]


async def test_all_that_happens_to_nodes_is_told_in_order(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", functions=[RETRYING]))
    replies = await follow(served, dag)
    worker = await served.worker()
    node = await worker.node()
    await worker.durable(await worker.fail(node, message="not yet"))
    node = await worker.node()
    made = EagerAttemptRecord(node)
    report = results(node, functions=[FUNCTION], children=[made.nodes(b"child")])
    await worker.durable(await worker.report(report))
    await worker.durable(await worker.fail(await worker.node(), message="no such file"))
    batches = await the_rest(replies)
    again, child = RETRYING.name, FUNCTION.name
    assert told(batches) == [
        ("STARTED", again, 1), ("RETRIED", again, 1), ("STARTED", again, 2),
        ("CREATED", child, 0), ("COMPLETED", again, 0), ("STARTED", child, 1), ("FAILED", child, 0),
    ]  # fmt: skip
    events = [event for batch in batches for event in batch.events]
    assert [event.reason for event in events if event.reason] == ["ValueError: not yet", "ValueError: no such file"]
    assert {event.node for event in events} == {dag.id(0), made.id(0)}
    assert (batches[-1].ended, batches[-1].failed, batches[-1].ended_at > 1e9) == (True, True, True)


async def test_a_run_that_fails_before_the_commit_of_its_node_is_told_with_its_number(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", functions=[FUNCTION]))
    replies = await follow(served, dag)
    worker = await served.worker(slots=2)
    first = await worker.node()
    with gate(served) as commits:
        more = dag.submission(b"b", first=1, creates=False, functions=[RETRYING])
        submitting = asyncio.ensure_future(submit(served.stub, more))
        await worker.fail(await worker.node(), message="early")
        await served.until(lambda broker: not broker.scheduler.counts[State.CLAIMED] > 1)
        commits.let_through(1000)
        await submitting
        await worker.complete(await worker.node())
        await worker.durable(await worker.complete(first))
    again = [each for each in told(await the_rest(replies)) if each[1] == RETRYING.name]
    assert again[1:4] == [("STARTED", RETRYING.name, 1), ("RETRIED", RETRYING.name, 1), ("STARTED", RETRYING.name, 2)]


async def test_cancelled_nodes_and_nodes_that_fail_because_of_others_are_told(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", b"c", source_count=[0, 1, 0], source=[0]))
    replies = await follow(served, dag)
    worker = await served.worker()
    await worker.durable(await worker.fail(await worker.node(), message="bad"))
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    batches = await the_rest(replies)
    kinds = [kind for kind, _, _ in told(batches) if kind != "STARTED"]
    assert sorted(kinds) == ["CANCELLED", "FAILED", "FAILED"]
    reasons = {event.node: event.reason for batch in batches for event in batch.events if event.kind == pb.EVENT_FAILED}
    assert reasons == {dag.id(0): "ValueError: bad", dag.id(1): "ValueError: bad"}


async def test_an_instance_that_has_ended_says_so_at_once(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node()))
    batches = await the_rest(await follow(served, dag))
    assert [(batch.ended, batch.failed) for batch in batches] == [(True, False)]


async def test_an_unknown_instance_is_refused(served: Served) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "not known"):
        await follow(served, Dag())


async def test_other_instances_are_not_told(served: Served) -> None:
    dag, other = Dag(), Dag()
    await submit(served.stub, dag.submission(b"a"))
    replies = await follow(served, dag)
    await submit(served.stub, other.submission(b"b"))
    worker = await served.worker()
    for _ in range(2):
        await worker.durable(await worker.complete(await worker.node()))
    nodes = {event.node for batch in await the_rest(replies) for event in batch.events}
    assert nodes == {dag.id(0)}


async def test_a_reader_that_is_too_slow_is_told_how_much_it_has_lost(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_KEPT", 5)
    monkeypatch.setattr(messages, "INTERVAL", 1.0)
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    replies = await follow(served, dag)
    await submit(served.stub, dag.submission(*[b"b"] * 20, first=1, creates=False))
    worker = await served.worker(slots=1)
    for _ in range(21):
        await worker.durable(await worker.complete(await worker.node()))
    batches = await the_rest(replies)
    lost = sum(batch.lost for batch in batches)
    assert lost >= 15
    assert lost + sum(len(batch.events) for batch in batches) == 20 + 21 + 21
    assert batches[-1].ended


async def test_nothing_is_noted_when_no_reader_is_left(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    replies = await follow(served, dag)
    assert served.broker.feeds.events.has_readers
    replies.cancel()
    await served.until(lambda broker: not broker.feeds.events.has_readers)
