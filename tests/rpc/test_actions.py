"""The record of actions: what was done, by whom, on how many nodes, and nothing that has changed nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.cli.credentials import new_token, record_of
from tests.support.raw import FUNCTION, KEY, LEAF, Dag, Served, serving, signed, submit


@pytest.fixture(params=["memory", "sqlite"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        yield served


class Told(NamedTuple):
    action: str
    target: str
    nodes: int
    instance: bytes = b""
    by: str = ""


async def actions(served: Served, metadata: Sequence[tuple[str, str]] = ()) -> list[Told]:
    """All actions, the first one first."""
    reply = await served.stub.ListActions(pb.ListActionsRequest(), metadata=metadata)
    assert [each.number for each in reply.actions] == list(range(len(reply.actions), 0, -1))
    assert (reply.total, reply.more) == (len(reply.actions), 0)
    assert all(each.time > 1e9 for each in reply.actions)
    return [Told(each.action, each.target, each.count, each.instance, each.by) for each in reversed(reply.actions)]


async def test_actions_on_an_instance_are_recorded_with_their_nodes(served: Served) -> None:
    dag, definition = Dag(), "work:Task"
    await submit(served.stub, dag.submission(*[b"a"] * 4, source_count=[0, 1, 0, 0], source=[0]))
    worker = await served.worker(slots=1)
    await worker.durable(await worker.fail(await worker.node(), message="bad"))
    await worker.vanish()
    await served.stub.Retry(pb.RetryRequest(instance=dag.instance))
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance, node=[dag.id(3)]))
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance, node=[dag.id(3)]))
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    await served.stub.Delete(pb.DeleteRequest(instance=dag.instance))
    assert await actions(served) == [
        Told("retry", definition, 2, dag.instance),
        Told("cancel", definition, 1, dag.instance),
        Told("cancel", definition, 3, dag.instance),
        Told("delete", definition, 4, dag.instance),
    ]


async def test_a_cancellation_in_slices_is_one_action(served: Served) -> None:
    dag, count = Dag(), served.broker.scheduler.limits.step + 10
    await submit(served.stub, dag.submission(*[b"a"] * count))
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    assert await actions(served) == [Told("cancel", "work:Task", count, dag.instance)]


async def test_actions_on_queues_workers_and_functions_are_recorded(served: Served) -> None:
    queue = FUNCTION.name
    await submit(served.stub, Dag().submission(b"a", b"b"))
    for resume in (False, False, True, True):
        await served.stub.PauseQueue(pb.PauseQueueRequest(queue=queue, resume=resume))
    rebinding = signed(FUNCTION.name, FUNCTION.hash, hash="hash-new", key=KEY)
    request = pb.RebindRequest(function=FUNCTION.name, hash="hash-new", from_hash=[FUNCTION.hash], look=True)
    await served.stub.Rebind(request)
    request.look = False
    request.rebinding.CopyFrom(rebinding)
    await served.stub.Rebind(request)
    await submit(served.stub, Dag().submission(b"c", functions=[LEAF]))
    worker = await served.worker(name="host-1", slots=1)
    await worker.node()
    for _ in range(2):
        await served.stub.DrainWorker(pb.DrainWorkerRequest(worker=worker.hello.worker))
    assert await actions(served) == [
        Told("pause", queue, 2),
        Told("resume", queue, 2),
        Told("rebind", FUNCTION.name, 2),
        Told("drain", "host-1", 1),
    ]


async def test_actions_outlive_a_restart_and_say_who_acted(tmp_path: Path) -> None:
    token, store = new_token(), f"sqlite:///{tmp_path}/store"
    file = tmp_path / "tokens.toml"
    file.write_text(record_of(token, "admin", name="ada"))
    file.chmod(0o600)
    for _ in range(2):
        async with serving(store=store, tokens=str(file)) as served:
            bearer = [("authorization", f"Bearer {token}")]
            await served.stub.PauseQueue(pb.PauseQueueRequest(queue="q"), metadata=bearer)
            assert await actions(served, bearer) == [Told("pause", "q", 0, by="ada")]


async def test_actions_are_listed_page_by_page(served: Served) -> None:
    for number in range(5):
        await served.stub.PauseQueue(pb.PauseQueueRequest(queue=f"q{number}"))
    request, found = pb.ListActionsRequest(limit=2), list[str]()
    while True:
        reply = await served.stub.ListActions(request)
        found += [each.target for each in reply.actions]
        assert reply.total == (0 if request.before else 5)
        if not reply.more:
            break
        request.before = reply.more
    assert found == ["q4", "q3", "q2", "q1", "q0"]
