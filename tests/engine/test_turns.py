"""Large calls are made in slices: others have their turn in between, and all is made or nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.loading import named_by
from dagorama_broker.rpc.messages import blocks_of
from tests.support.raw import FUNCTION, PATIENCE, Dag, EagerAttemptRecord, Served, refused, results, serving, submit

#: Nodes of a call, and of a slice.
MANY, STEP = 400, 5
#: Nodes of a call that takes longer than another's way through the network, however busy the machine is.
LONG = 4_000


@pytest.fixture
async def sliced(served: Served) -> Served:
    small_steps(served)
    return served


def small_steps(served: Served) -> None:
    scheduler = served.broker.scheduler
    scheduler.limits = replace(scheduler.limits, step=STEP, large=STEP)


def fan(dag: Dag, **columns: Any) -> pb.SubmitRequest:
    """A call with many nodes and one that waits for all of them."""
    counts = [0] * MANY + [MANY]
    request: pb.SubmitRequest = dag.submission(
        *[b"a"] * MANY, b"sum", source_count=counts, source=range(MANY), **columns
    )
    return request


async def parts(request: pb.SubmitRequest) -> AsyncIterator[pb.SubmitRequest]:
    yield request
    yield pb.SubmitRequest()


async def as_soon_as(is_so: Callable[[], bool]) -> None:
    """Look after each turn of the loop, which the broker shares."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            await asyncio.sleep(0)


def nothing_is_left(served: Served) -> bool:
    graph = served.broker.scheduler.graph
    return not (graph.nodes or graph.instances or graph.reserved or graph.drafted or graph.starting)


# --- all of it --------------------------------------------------------------------------------------------


async def test_a_large_call_takes_several_commits_and_all_of_it_is_made(sliced: Served) -> None:
    dag, before = Dag(), sliced.broker.commits.count
    await sliced.stub.SubmitStream(parts(fan(dag)))
    assert sliced.broker.commits.count - before >= MANY // STEP
    assert set(await sliced.states(dag.instance, dag.id(0), dag.id(MANY - 1))) == {pb.QUEUED}
    assert await sliced.states(dag.instance, dag.id(MANY)) == [pb.WAITING]
    assert (await sliced.status()).nodes[pb.QUEUED] == MANY


async def test_a_large_call_is_made_once_however_often_it_is_sent(sliced: Served) -> None:
    request = fan(Dag())
    await asyncio.gather(submit(sliced.stub, request), submit(sliced.stub, request))
    await submit(sliced.stub, request)
    assert sum((await sliced.status()).nodes) == MANY + 1


async def test_nodes_may_be_added_to_an_instance_that_has_ended(sliced: Served) -> None:
    dag = Dag()
    await submit(sliced.stub, dag.submission(b"first"))
    worker = await sliced.worker()
    await worker.report(results(await worker.node()))
    await sliced.value(dag.instance, dag.id(0))
    await submit(sliced.stub, dag.submission(
        *[b"a"] * MANY, first=1, creates=False, source_count=[1] + [0] * (MANY - 1), source=[0],
    ))  # fmt: skip
    assert set(await sliced.states(dag.instance, dag.id(0), dag.id(MANY))) <= {pb.COMPLETED, pb.QUEUED, pb.CLAIMED}


async def test_children_in_many_slices_come_with_their_parent(sliced: Served) -> None:
    dag = Dag()
    await submit(sliced.stub, dag.submission(b"parent"))
    worker = await sliced.worker()
    parent = await worker.node()
    eager_attempt = EagerAttemptRecord(parent)
    made = eager_attempt.nodes(*[b"c"] * MANY)
    await worker.report(results(
        parent, functions=[FUNCTION], children=[made], ref=[MANY - 1], ref_count=[1],
    ))  # fmt: skip
    await sliced.until(lambda broker: len(broker.scheduler.graph.nodes) == MANY + 1)
    assert await sliced.states(dag.instance, dag.id(0)) == [pb.RESOLVING]


async def test_a_submission_is_durable_when_it_is_answered(tmp_path: Any) -> None:
    store, dag = f"sqlite:///{tmp_path}/store.db", Dag()
    async with serving(store=store, port=0, reconnect_wait=0.2) as served:
        small_steps(served)
        await submit(served.stub, fan(dag))
    async with serving(store=store, port=0, reconnect_wait=0.2) as served:
        assert (await served.status()).nodes[pb.QUEUED] == MANY


# --- or nothing -------------------------------------------------------------------------------------------


async def test_a_large_call_that_is_refused_leaves_nothing(sliced: Served) -> None:
    dag = Dag()
    request = fan(dag)
    request.nodes.append(dag.nodes(b"b", first=MANY + 1, source_count=[1], source=[-1], foreign=[b"x" * 16]))
    with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
        await submit(sliced.stub, request)
    await sliced.until(lambda _: nothing_is_left(sliced))
    await submit(sliced.stub, fan(dag))


async def test_a_caller_that_hangs_up_leaves_all_or_nothing(sliced: Served) -> None:
    dag = Dag()
    call = asyncio.ensure_future(submit(sliced.stub, fan(dag)))
    await as_soon_as(lambda: bool(sliced.broker.scheduler.graph.reserved))
    call.cancel()
    await sliced.until(lambda broker: not broker.scheduler.graph.reserved and not broker.drafts.lock.locked())
    await submit(sliced.stub, fan(dag))
    assert sum((await sliced.status()).nodes) == MANY + 1


async def test_children_of_a_worker_that_is_lost_meanwhile_are_not_made(sliced: Served) -> None:
    dag = Dag()
    await submit(sliced.stub, dag.submission(b"parent"))
    worker = await sliced.worker()
    parent = await worker.node()
    made = EagerAttemptRecord(parent).nodes(*[b"c"] * LONG)
    await worker.report(results(parent, functions=[FUNCTION], children=[made]))
    await as_soon_as(lambda: bool(sliced.broker.scheduler.graph.reserved))
    await worker.vanish()
    await sliced.until(lambda broker: not broker.scheduler.graph.reserved and len(broker.scheduler.graph.nodes) == 1)
    assert await sliced.states(dag.instance, dag.id(0)) == [pb.QUEUED]


# --- in turns ---------------------------------------------------------------------------------------------


async def test_a_small_call_is_answered_while_a_large_one_is_made(sliced: Served) -> None:
    large = asyncio.ensure_future(submit(sliced.stub, Dag().submission(*[b"a"] * LONG)))
    await as_soon_as(lambda: bool(sliced.broker.scheduler.graph.reserved))
    await submit(sliced.stub, Dag().submission(b"small"))
    assert not large.done()
    await large


async def test_cancelling_many_counts_all_of_them_and_others_have_their_turn(sliced: Served) -> None:
    dag = Dag()
    chain = dag.submission(*[b"a"] * LONG, source_count=[0] + [1] * (LONG - 1), source=range(LONG - 1))
    await submit(sliced.stub, chain)
    cancelling = asyncio.ensure_future(sliced.stub.Cancel(pb.CancelRequest(instance=dag.instance)))
    await as_soon_as(lambda: bool(sliced.broker.scheduler.graph.unnotified))
    await submit(sliced.stub, Dag().submission(b"small"))
    assert not cancelling.done()
    assert (await cancelling).cancelled == LONG
    assert set(await sliced.states(dag.instance, *map(dag.id, range(LONG)))) == {pb.CANCELLED}


async def test_what_failed_in_many_steps_is_retried_as_a_whole(sliced: Served) -> None:
    dag = Dag()
    fan_out = dag.submission(*[b"a"] * MANY, source_count=[0] + [1] * (MANY - 1), source=[0] * (MANY - 1))
    await submit(sliced.stub, fan_out)
    worker = await sliced.worker()
    node = await worker.node()
    failure = pb.Failure(node=node.key, attempt=node.attempt, type="ValueError", message="boom")
    await worker.report(pb.Results(failures=[failure]))
    await as_soon_as(lambda: bool(sliced.broker.scheduler.graph.unnotified))
    reply = await sliced.stub.Retry(pb.RetryRequest(instance=dag.instance))
    assert reply.queued + reply.waiting == MANY


# --- linear -----------------------------------------------------------------------------------------------


def serialized(request: pb.SubmitRequest) -> int:
    """How many messages are serialized when a submission is read."""
    count = 0

    def note(frame: object, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "c_call" and argument.__name__ == "SerializeToString"

    sys.setprofile(note)
    try:
        blocks_of([request])
    finally:
        sys.setprofile(None)
    return count


def test_a_message_costs_as_much_as_it_has_runs_and_functions_not_their_product() -> None:
    runs = [Dag().nodes(b"a", creates=True) for _ in range(200)]
    functions = [pb.Function(name=f"f{number}") for number in range(200)]
    assert serialized(pb.SubmitRequest(functions=functions, nodes=runs)) <= 3 * (len(runs) + len(functions))


def test_sources_in_runs_of_the_same_call_are_not_looked_up() -> None:
    dag = Dag()
    runs = [dag.nodes(b"a", first=2 * number, creates=not number) for number in range(500)]
    runs += [dag.nodes(b"b", first=1_001, source_count=[2], source=[998, 999])]
    found = blocks_of([pb.SubmitRequest(functions=[FUNCTION], nodes=runs)])
    assert named_by(found) == {dag.id(999)}
