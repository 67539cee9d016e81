"""A worker's session, by raw stubs: how it begins, and what becomes of its nodes when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.worker_session import BREATH
from tests.support.gate import settled
from tests.support.local_calls import transport
from tests.support.raw import (
    LEAF,
    Dag,
    EagerAttemptRecord,
    RawWorker,
    Served,
    envelope,
    granted,
    refused,
    serving,
    submit,
)

__all__ = ["transport"]

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_NOW = grpc.StatusCode.FAILED_PRECONDITION


# --- hello ------------------------------------------------------------------------------------------


async def test_a_worker_is_welcomed_with_what_it_has_to_keep_to() -> None:
    async with serving(lease=20.0, heartbeat=4.0, large_value_threshold=12_345) as served:
        worker = await served.worker()
        assert worker.welcome is not None
        assert (worker.welcome.lease, worker.welcome.heartbeat, worker.welcome.large_value_threshold) == (
            20.0,
            4.0,
            12_345,
        )
        assert worker.welcome.epoch == 1


BAD_HELLOS: dict[str, dict[str, Any]] = {
    "another protocol": {"protocol": 2},
    "no slots": {"slots": 0},
    "too many slots": {"slots": 100_000},
    "a short id": {"worker": b"short"},
    "columns of different lengths": {"held_node": [1], "held_attempt": [1, 2], "held_slot": [0]},
    "a tolerance without end": {"tolerations": ["t" * 5000]},
}


@pytest.mark.parametrize("hello", BAD_HELLOS.values(), ids=BAD_HELLOS.keys())
async def test_a_hello_that_cannot_be_is_refused(served: Served, hello: dict[str, Any]) -> None:
    worker = await served.worker(**hello)
    assert (await worker.end()).code() is INVALID
    assert not (await served.status()).workers


async def test_a_worker_that_does_not_say_hello_is_refused(served: Served) -> None:
    async def no_hello() -> AsyncIterator[pb.WorkerMessage]:
        yield pb.WorkerMessage(heartbeat=True)

    with refused(INVALID, "hello"):
        async for _ in served.stub.Work(no_hello()):
            pass


async def test_a_second_hello_ends_the_session(served: Served) -> None:
    worker = await served.worker()
    await worker.say(hello=worker.hello)
    assert (await worker.end()).code() is INVALID
    await served.until(lambda broker: not broker.scheduler.claims.workers)


# --- coming and going -------------------------------------------------------------------------------


async def test_a_worker_that_vanishes_gives_its_nodes_back_at_once(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker, other = await served.worker(), None
    node = await worker.node()
    await worker.vanish()
    other = await served.worker()
    again = await other.node()
    assert (again.key, again.run) == (node.key, 0)
    assert len((await served.status()).workers) == 1


async def test_a_worker_that_hangs_up_in_order_leaves_with_ok(served: Served) -> None:
    worker = await served.worker()
    await worker._call.done_writing()
    await worker.until(lambda: worker.ended)
    assert worker.ended == "closed by the broker"
    await served.until(lambda broker: not broker.scheduler.claims.workers and not broker.sessions)


async def test_a_worker_that_reconnects_keeps_nodes_that_no_other_worker_was_given(served: Served) -> None:
    dag, worker, node = await granted(served)
    await worker.connect(held_node=[node.key], held_attempt=[node.attempt], held_slot=[0])
    await settled()
    assert not worker.given
    assert not worker.refused
    await worker.complete(node, value=b"of the first attempt")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"of the first attempt")


async def test_a_worker_that_reconnects_too_late_is_told_which_nodes_it_has_lost(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    await worker.vanish()
    await (await served.worker()).node()
    await worker.connect(held_node=[node.key, 77], held_attempt=[node.attempt, 78], held_slot=[0, 0])
    await worker.until(lambda: len(worker.refused) == 2)
    assert worker.refused == [node.attempt, 78]


async def test_a_worker_that_reconnects_ends_its_earlier_stream(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    anew = RawWorker(served.stub, **worker.identity, held_node=[node.key], held_attempt=[node.attempt],
                     held_slot=[0])  # fmt: skip
    served.workers.append(anew)
    await anew.connect()
    assert (await worker.end()).code() is NOT_NOW
    assert len(served.broker.sessions) == 1
    await anew.complete(node)
    await served.value(dag.instance, dag.id(0))


async def test_a_silent_worker_is_given_up_after_its_lease_and_told_when_it_speaks() -> None:
    async with serving(lease=0.3, heartbeat=0.1) as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        silent = await served.worker()
        node = await silent.node()
        lively = await served.worker()
        async with asyncio.timeout(5):
            while not lively.given:
                await lively.say(heartbeat=True)
                await asyncio.sleep(0.05)
        again = await lively.node()
        assert (again.key, again.attempt > node.attempt) == (node.key, True)
        await silent.complete(node, value=b"late")
        assert (await silent.end()).code() is NOT_NOW
        await silent.connect(held_node=[node.key], held_attempt=[node.attempt], held_slot=[0])
        await silent.until(lambda: silent.refused)
        await lively.complete(again, value=b"in time")
        assert await served.value(dag.instance, dag.id(0)) == envelope(b"in time")


async def test_heartbeats_keep_a_worker_that_has_nothing_to_say() -> None:
    async with serving(lease=0.2, heartbeat=0.05) as served:
        worker = await served.worker()
        for _ in range(12):
            await worker.say(heartbeat=True)
            await asyncio.sleep(0.05)
        assert len((await served.status()).workers) == 1
        assert worker.ended is None


async def test_a_draining_worker_gets_nothing_more_and_finishes_what_it_holds(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b"))
    worker = await served.worker()
    node = await worker.node()
    await worker.say(draining=True)
    await worker.durable(await worker.complete(node))
    await settled()
    assert not worker.given
    assert await served.states(dag.instance, dag.id(0), dag.id(1)) == [pb.COMPLETED, pb.QUEUED]


async def test_an_idle_worker_that_wants_to_leave_then_is_told_so(served: Served) -> None:
    worker = await served.worker(until=pb.IDLE)
    await worker.until(lambda: worker.done)


async def test_a_worker_that_stays_until_drained_waits_for_what_may_still_come(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"parent"))
    worker = await served.worker()
    parent = await worker.node()
    waiting = await served.worker(until=pb.DRAINED)
    idle = await served.worker(until=pb.IDLE)
    await idle.until(lambda: idle.done)
    await settled()
    assert not waiting.done
    await worker.say(draining=True)
    await worker.complete(parent, functions=[LEAF], children=[EagerAttemptRecord(parent).nodes(b"x")])
    await waiting.complete(await waiting.node())
    await waiting.until(lambda: waiting.done)


async def test_workers_are_told_that_the_broker_leaves(served: Served) -> None:
    worker = await served.worker()
    served.stop()
    await worker.until(lambda: worker.ended)
    assert worker.draining
    assert worker.ended == "closed by the broker"


async def test_a_slot_that_is_gone_for_good_gives_back_what_it_held_and_is_granted_nothing_more(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b"))
    worker = await served.worker(slots=2)
    first, second = sorted(await worker.nodes(2), key=lambda node: node.slot)
    await worker.say(closed_slots=[0])
    await worker.complete(second)
    again = await worker.node()
    assert (again.key, again.slot) == (first.key, 1)
    assert (await served.status()).workers[0].slots == 1
    await worker.complete(again)
    await served.value(dag.instance, again.id)


async def test_a_slot_that_a_worker_does_not_have_cannot_be_closed(served: Served) -> None:
    worker = await served.worker(slots=2)
    await worker.say(closed_slots=[2])
    assert (await worker.end()).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_messages_are_gathered_for_a_moment_over_grpc_only(served: Served, transport: str) -> None:
    await served.worker()
    (session,) = served.broker.sessions.values()
    assert session._breath == (BREATH if transport == "grpc" else 0)
