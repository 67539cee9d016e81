"""GetStack at the broker: it asks the worker that holds the node, and waits for a bounded time."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.raw import PATIENCE, Dag, RawWorker, Served, refused, submit


async def running(served: Served, **hello: Any) -> tuple[Dag, RawWorker]:
    """A node that a worker holds."""
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker(**{"shows_stacks": True, **hello})
    await worker.until(lambda: worker.given)
    return dag, worker


def asked(served: Served, dag: Dag) -> asyncio.Future[pb.NodeStack]:
    request = pb.GetStackRequest(instance=dag.instance, node=dag.id(0))
    return asyncio.ensure_future(served.stub.GetStack(request, timeout=PATIENCE))


async def question(worker: RawWorker) -> pb.StackRequest:
    def found() -> list[pb.StackRequest]:
        return [request for message in worker.messages for request in message.stacks]

    await worker.until(found)
    return found()[-1]


async def test_the_worker_that_holds_the_node_is_asked(served: Served) -> None:
    dag, worker = await running(served)
    answer = asked(served, dag)
    request = await question(worker)
    assert request.attempt == worker.given[0].attempt
    await worker.say(stacks=[pb.StackReply(number=request.number, stack="here", note="a note")])
    found = await answer
    assert (found.stack, found.note, found.worker, found.attempt) == ("here", "a note", "raw", 1)
    assert found.function == worker.given[0].function.name


async def test_another_worker_cannot_answer(served: Served) -> None:
    dag, worker = await running(served)
    answer, other = asked(served, dag), await served.worker(shows_stacks=True)
    request = await question(worker)
    await other.say(stacks=[pb.StackReply(number=request.number, stack="forged")])
    await other.durable(await other.report(pb.Results()))
    await worker.say(stacks=[pb.StackReply(number=request.number, stack="true")])
    assert (await answer).stack == "true"
    await worker.say(stacks=[pb.StackReply(number=request.number, stack="late")])
    await worker.durable(await worker.report(pb.Results()))


async def test_a_problem_of_the_worker_is_the_answer(served: Served) -> None:
    dag, worker = await running(served)
    answer = asked(served, dag)
    request = await question(worker)
    await worker.say(stacks=[pb.StackReply(number=request.number, problem="the node has ended meanwhile")])
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "the node has ended meanwhile"):
        await answer


async def test_a_worker_that_is_lost_or_silent_is_not_waited_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag, worker = await running(served)
    answer = asked(served, dag)
    await question(worker)
    await worker.vanish()
    with refused(grpc.StatusCode.UNAVAILABLE, "was lost before it answered"):
        await answer
    monkeypatch.setattr("dagorama_broker.engine.stacks.PATIENCE", 0.01)
    dag, worker = await running(served, slots=2)
    with refused(grpc.StatusCode.UNAVAILABLE, "has not answered within"):
        await asked(served, dag)


async def test_a_worker_that_is_too_old_is_named(served: Served) -> None:
    dag, _ = await running(served, shows_stacks=False, name="old:1")
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "'old:1' cannot show stacks: it runs an older version"):
        await asked(served, dag)


async def test_only_a_running_node_has_a_stack(served: Served) -> None:
    dag = Dag()
    with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
        await asked(served, dag)
    await submit(served.stub, dag.submission(b"a"))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "is QUEUED: only a running node has a stack"):
        await asked(served, dag)
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node()))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "has ended: only a running node has a stack"):
        await asked(served, dag)
