"""A commit waits for results that are due in a moment, if all its waiters wait for these results anyway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.gathering import Patience, may_join
from dagorama_broker.model.rows import Changes
from tests.support.raw import LEAF, PATIENCE, Dag, RawWorker, Served, answers_of, envelope, serving, submit

#: Longer than a test waits for anything.
LONG = Patience(seconds=10 * PATIENCE)


@asynccontextmanager
async def measured(patience: Patience = LONG) -> AsyncIterator[tuple[Served, RawWorker, list[Changes]]]:
    """A broker that knows that a function is short, its worker, and the list of its later commits."""
    async with serving() as served:
        worker = await served.worker()
        await submit(served.stub, Dag().submission(b"first"))
        await worker.durable(await worker.complete(await worker.node(), microseconds=[10]))
        served.broker.patience = patience
        with served.broker.commits.observed() as commits:
            yield served, worker, commits


def both(dag: Dag, request: pb.SubmitRequest | None = None) -> pb.Requests:
    """The submission of an instance, and the wait for its value, in one message."""
    wait = pb.WaitRequest(instance=dag.instance, node=[dag.id(0)])
    submitted = pb.Request(number=1, submit=request or dag.submission(b"a"))
    return pb.Requests(request=[submitted, pb.Request(number=2, wait=wait)])


async def test_the_nodes_of_a_caller_who_waits_are_committed_together_with_their_results() -> None:
    async with measured() as (served, worker, commits):
        dag, talk = Dag(), served.stub.Exchange()
        await talk.write(both(dag))
        await worker.complete(await worker.node(), value=b"value", microseconds=[10])
        submitted, waited = sorted(await answers_of(talk), key=lambda answer: answer.number)
        assert submitted == pb.Response(number=1, done=True)
        assert list(waited.wait.value) == [envelope(b"value")]
        (commit,) = [changes for changes in commits if changes.nodes]
        assert (len(commit.nodes), len(commit.outcomes), len(commit.instance_ends)) == (1, 1, 1)
        talk.cancel()


async def test_a_caller_who_waits_for_the_commit_alone_does_not_wait_for_results() -> None:
    async with measured() as (served, worker, commits):
        await asyncio.wait_for(submit(served.stub, Dag().submission(b"a")), PATIENCE)
        assert [len(changes.outcomes) for changes in commits if changes.nodes] == [0]
        await worker.node()


async def test_a_caller_who_comes_later_and_waits_for_the_commit_alone_ends_the_wait_of_all() -> None:
    async with measured() as (served, worker, commits):
        talk = served.stub.Exchange()
        await talk.write(both(Dag()))
        await worker.node()
        await asyncio.wait_for(submit(served.stub, Dag().submission(b"b")), PATIENCE)
        assert [answer.number for answer in await answers_of(talk)] == [1]
        assert [len(changes.nodes) for changes in commits if changes.nodes] == [2]
        talk.cancel()


async def test_a_commit_waits_a_moment_only_for_a_worker_that_does_not_answer() -> None:
    async with measured(Patience()) as (served, worker, _):
        talk = served.stub.Exchange()
        await talk.write(both(Dag()))
        assert [answer.number for answer in await answers_of(talk)] == [1]
        await worker.node()
        talk.cancel()


async def test_a_function_that_runs_for_longer_is_not_waited_for() -> None:
    async with measured(Patience(10 * PATIENCE, short_us=5.0)) as (served, worker, _):
        talk = served.stub.Exchange()
        await talk.write(both(Dag()))
        assert [answer.number for answer in await answers_of(talk)] == [1]
        await worker.node()
        talk.cancel()


async def test_children_of_a_result_are_granted_after_the_commit_that_holds_both() -> None:
    async with measured() as (served, worker, commits):
        parent, child, talk = Dag(), Dag(), served.stub.Exchange()
        await talk.write(both(parent))
        node = await worker.node()
        child.instance = parent.instance
        children = pb.Children(node=node.key, attempt=node.attempt, nodes=child.nodes(b"b"))
        await worker.complete(node, value=b"parent", children=[children], functions=[LEAF], microseconds=[10])
        assert {answer.number for answer in await answers_of(talk)} == {1, 2}
        made = await worker.node()
        assert [len(changes.nodes) for changes in commits if changes.nodes] == [2]
        await worker.durable(await worker.complete(made, value=b"child"))
        assert await served.value(parent.instance, child.id(0)) == envelope(b"child")
        talk.cancel()


async def test_a_broker_that_stops_while_a_commit_waits_makes_it_first() -> None:
    dag = Dag()
    async with measured() as (served, worker, commits):
        talk = served.stub.Exchange()
        await talk.write(both(dag))
        await worker.node()
        await talk.done_writing()
        served.stop()
        answers = [answer async for message in talk for answer in message.response]
        assert pb.Response(number=1, done=True) in answers
        assert [len(changes.nodes) for changes in commits if changes.nodes] == [1]
        talk.cancel()


@pytest.mark.parametrize("table", ["retried", "removed", "workers_joined", "paused", "actions", "drafts"])
def test_rows_whose_order_matters_are_left_for_the_next_commit(table: str) -> None:
    changes = Changes()
    assert may_join(changes)
    getattr(changes, table).append(object())
    assert not may_join(changes)
