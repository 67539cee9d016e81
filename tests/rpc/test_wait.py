"""Waiting for nodes, by raw stubs: told when they end and it is durable, with all it takes to read the result."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MESSAGE_TARGET
from dagorama_broker.errors import StoreError
from tests.support.gate import gate, settled
from tests.support.raw import (
    FUNCTION,
    LEAF,
    PATIENCE,
    Dag,
    EagerAttemptRecord,
    RawWorker,
    Served,
    envelope,
    refused,
    results,
    serving,
    submit,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNKNOWN = grpc.StatusCode.NOT_FOUND


async def one_node(served: Served) -> tuple[Dag, RawWorker, Any]:
    """A submitted node in the hands of a worker."""
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    return dag, worker, await worker.node()


def nothing_is_left(served: Served) -> None:
    broker = served.broker
    assert not broker.watching._watches
    assert not broker.payloads.arguments.size
    assert all(key in broker.recent for key in broker.payloads.values.kept)


# --- being told -------------------------------------------------------------------------------------


async def test_a_wait_before_the_end_is_answered_at_the_end(served: Served) -> None:
    dag, worker, node = await one_node(served)
    waiting = asyncio.ensure_future(served.value(dag.instance, dag.id(0)))
    await settled()
    assert not waiting.done()
    await worker.complete(node, value=b"the value")
    assert await waiting == envelope(b"the value")
    nothing_is_left(served)


async def test_a_wait_after_the_end_is_answered_at_once(served: Served) -> None:
    dag, worker, node = await one_node(served)
    await worker.durable(await worker.complete(node, value=b"the value"))
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"the value")
    assert await served.states(dag.instance, dag.id(0)) == [pb.COMPLETED]


async def test_a_wait_during_the_commit_of_the_end_is_answered_after_it(served: Served) -> None:
    dag, worker, node = await one_node(served)
    with gate(served) as commits:
        early = asyncio.ensure_future(served.value(dag.instance, dag.id(0)))
        await settled()
        await worker.complete(node, value=b"the value")
        await served.until(lambda _: commits.waiting)
        late = asyncio.ensure_future(served.value(dag.instance, dag.id(0)))
        now = asyncio.ensure_future(served.states(dag.instance, dag.id(0)))
        await settled()
        assert not any(answer.done() for answer in (early, late, now))
        commits.let_through()
        assert await early == await late == envelope(b"the value")
        assert await now == [pb.COMPLETED]


async def test_all_who_wait_for_a_node_are_told(served: Served) -> None:
    dag, worker, node = await one_node(served)
    waiting = [asyncio.ensure_future(served.value(dag.instance, dag.id(0))) for _ in range(20)]
    await settled()
    await worker.complete(node)
    assert await asyncio.gather(*waiting) == [envelope(b"done")] * 20
    await settled()
    nothing_is_left(served)


async def test_a_waiter_that_hangs_up_leaves_nothing_behind(served: Served) -> None:
    dag, worker, node = await one_node(served)
    hasty = served.stub.Wait(pb.WaitRequest(instance=dag.instance, node=[dag.id(0)]), timeout=0.1)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        await anext(aiter(hasty))
    patient = asyncio.ensure_future(served.value(dag.instance, dag.id(0)))
    await settled()
    await worker.complete(node)
    await patient
    await settled()
    nothing_is_left(served)


async def test_now_says_how_each_node_stands_and_ends(served: Served) -> None:
    dag, retried = Dag(), pb.Function(name="r", retry=pb.Retry(max_attempts=2, interval=60))
    names = [b"completed", b"failed", b"resolving", b"in backoff", b"claimed", b"queued", b"waiting"]
    await submit(served.stub,
        dag.submission(
            *names, functions=[FUNCTION, retried], function=[0, 0, 0, 1, 0, 0, 0],
            source_count=[0] * 6 + [1], source=[5],
        )
    )  # fmt: skip
    worker = await served.worker(slots=5)
    completed, failed, resolving, backoff, _ = await worker.nodes(5)
    await worker.report(pb.Results(functions=[LEAF], children=[EagerAttemptRecord(resolving).nodes(b"x")]))
    await worker.say(draining=True)
    await worker.complete(resolving, completed, ref_count=[1, 0], ref=[0])
    await worker.fail(failed)
    await worker.durable(await worker.fail(backoff))
    assert await served.states(dag.instance, *(dag.id(counter) for counter in range(7))) == [
        pb.COMPLETED, pb.FAILED, pb.RESOLVING, pb.BACKOFF, pb.CLAIMED, pb.QUEUED, pb.WAITING,
    ]  # fmt: skip


async def test_now_brings_the_values_that_are_there(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b"))
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node(), value=b"of a"))
    replies = await served.wait(dag.instance, dag.id(0), dag.id(1), now=True)
    values = {id: value for reply in replies for id, value in zip(reply.value_node, reply.value, strict=True)}
    assert values == {dag.id(0): envelope(b"of a")}


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [False, True], ids=["wait", "now"])
async def test_a_wait_that_makes_no_sense_is_refused(served: Served, now: bool) -> None:
    dag, other = Dag(), Dag()
    await submit(served.stub, dag.submission(b"a"))
    await submit(served.stub, other.submission(b"a"))
    with refused(INVALID, "a wait must name at least one node"):
        await served.wait(dag.instance, now=now)
    with refused(INVALID, "5 bytes"):
        await served.wait(dag.instance, b"short", now=now)
    with refused(INVALID, "5 bytes"):
        await served.wait(b"short", dag.id(0), now=now)
    with refused(UNKNOWN, "instance"):
        await served.wait(os.urandom(16), Dag().id(0), now=now)
    with refused(UNKNOWN, dag.id(1).hex()):
        await served.wait(dag.instance, dag.id(0), dag.id(1), now=now)
    with refused(INVALID, "belongs to another instance"):
        await served.wait(dag.instance, dag.id(0), other.id(0), now=now)
    nothing = served.broker.watching._watches
    await settled()
    assert not nothing


async def test_an_ended_node_of_another_instance_is_refused(served: Served) -> None:
    dag, worker, node = await one_node(served)
    await worker.durable(await worker.complete(node))
    other = Dag()
    await submit(served.stub, other.submission(b"a"))
    with refused(INVALID, "belongs to another instance"):
        await served.wait(other.instance, dag.id(0))


# --- many -------------------------------------------------------------------------------------------


async def test_many_nodes_are_told_each_at_its_place_and_in_few_messages(served: Served) -> None:
    count, dag = 3000, Dag()
    await submit(served.stub, dag.submission(*[b"a"] * count, functions=[LEAF]))
    worker = await served.worker(slots=2)
    early = asyncio.ensure_future(served.wait(dag.instance, *(dag.id(counter) for counter in range(count))))
    running = asyncio.create_task(worker.run(lambda node: results(node, value=node.id)))
    replies = await early
    running.cancel()
    again = await served.wait(dag.instance, *(dag.id(counter) for counter in range(count)))
    for answer in (replies, again):
        assert sorted(index for reply in answer for index in reply.index) == list(range(count))
        assert {state for reply in answer for state in reply.state} == {pb.COMPLETED}
        values = {id: value for reply in answer for id, value in zip(reply.value_node, reply.value, strict=True)}
        assert values == {dag.id(counter): envelope(dag.id(counter)) for counter in range(count)}
    assert len(again) <= 20
    await settled()
    nothing_is_left(served)


async def test_a_node_asked_for_twice_is_told_at_both_places(served: Served) -> None:
    dag, worker, node = await one_node(served)
    waiting = asyncio.ensure_future(served.wait(dag.instance, dag.id(0), dag.id(0)))
    await settled()
    await worker.complete(node)
    for replies in (await waiting, await served.wait(dag.instance, dag.id(0), dag.id(0))):
        assert sorted(index for reply in replies for index in reply.index) == [0, 1]
        assert sum(len(reply.value) for reply in replies) == 1


async def test_a_fan_of_large_results_comes_in_pieces_with_the_end_last(served: Served) -> None:
    dag, worker, node = await one_node(served)
    count, eager_attempt = 200, EagerAttemptRecord(node)
    await worker.complete(
        node, functions=[LEAF], children=[eager_attempt.nodes(*[b"x"] * count)], ref_count=[count], ref=range(count)
    )
    running = asyncio.create_task(worker.run(lambda child: results(child, value=child.id * 3000)))
    replies = await served.wait(dag.instance, dag.id(0))
    running.cancel()
    assert all(reply.ByteSize() < 4 << 20 for reply in replies)
    assert [bool(reply.index) for reply in replies] == [False] * (len(replies) - 1) + [True]
    values = {id: value for reply in replies for id, value in zip(reply.value_node, reply.value, strict=True)}
    assert values.pop(dag.id(0)) == envelope(b"done")
    assert values == {eager_attempt.id(counter): envelope(eager_attempt.id(counter) * 3000) for counter in range(count)}


@pytest.mark.slow
async def test_a_value_passed_through_a_thousand_nodes_arrives(served: Served) -> None:
    links, dag = 1000, Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    for link in range(links):
        node = await worker.node()
        if link < links - 1:
            await worker.complete(
                node, value=b"passes on", functions=[FUNCTION], children=[EagerAttemptRecord(node).nodes(b"a")],
                ref_count=[1], ref=[0],
            )  # fmt: skip
        else:
            await worker.complete(node, value=b"the end")
    replies = await served.wait(dag.instance, dag.id(0))
    values = [value for reply in replies for value in reply.value]
    assert sorted(values) == sorted([envelope(b"passes on")] * (links - 1) + [envelope(b"the end")])


# --- failures ---------------------------------------------------------------------------------------


async def test_a_failure_comes_with_all_that_is_known_of_it(served: Served) -> None:
    dag, worker, node = await one_node(served)
    await worker.fail(node, type="builtins.KeyError", message="'x'", traceback="line 1\nline 2", exception=b"pickled")
    failure = await served.failure(dag.instance, dag.id(0))
    assert (failure.node, failure.function, failure.attempts) == (dag.id(0), FUNCTION.name, 1)
    assert (failure.type, failure.message) == ("builtins.KeyError", "'x'")
    assert (failure.traceback, failure.exception) == ("line 1\nline 2", b"pickled")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_failure_upstream_names_its_root_cause(served: Served, when: str) -> None:
    dag = Dag()
    await submit(served.stub,
        dag.submission(b"root cause", b"next", b"last", source_count=[0, 1, 1], source=[0, 1], function=[1, 0, 0],
                       functions=[FUNCTION, LEAF])
    )  # fmt: skip
    ids = [dag.id(counter) for counter in range(3)]
    waiting = asyncio.ensure_future(served.wait(dag.instance, *ids)) if when == "before" else None
    await settled()
    worker = await served.worker()
    await worker.durable(await worker.fail(await worker.node(), message="it was this one"))
    replies = await waiting if waiting else await served.wait(dag.instance, *ids)
    states = {index: state for reply in replies for index, state in zip(reply.index, reply.state, strict=True)}
    assert states == {0: pb.FAILED, 1: pb.FAILED, 2: pb.FAILED}
    failures = [failure for reply in replies for failure in reply.failure]
    assert [(failure.node, failure.function, failure.message) for failure in failures] == [
        (dag.id(0), LEAF.name, "it was this one")
    ] * 3


async def test_a_node_that_names_a_failed_one_fails_with_its_root_cause(served: Served) -> None:
    dag, worker, node = await one_node(served)
    eager_attempt = EagerAttemptRecord(node)
    await worker.complete(node, functions=[LEAF], children=[eager_attempt.nodes(b"x")], ref_count=[1], ref=[0])
    await worker.fail(await worker.node(), message="the child")
    failure = await served.failure(dag.instance, dag.id(0))
    assert (failure.node, failure.message) == (eager_attempt.id(0), "the child")


async def test_a_node_made_on_a_failed_source_has_failed(served: Served) -> None:
    dag, worker, node = await one_node(served)
    await worker.durable(await worker.fail(node, message="before"))
    more = dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0])
    for _ in range(2):
        await submit(served.stub, more)
        assert (await served.failure(dag.instance, dag.id(1))).message == "before"


# --- the broker goes --------------------------------------------------------------------------------


async def test_a_waiting_client_is_told_that_the_broker_leaves(served: Served) -> None:
    dag, _, _ = await one_node(served)
    waiting = asyncio.ensure_future(served.wait(dag.instance, dag.id(0)))
    await settled()
    served.stop()
    with refused(grpc.StatusCode.UNAVAILABLE, "shutting down"):
        await waiting


async def test_a_broker_that_cannot_write_stops_and_acknowledges_nothing() -> None:
    async def meet_a_full_disk() -> None:
        async with serving() as served:
            dag, worker, node = await one_node(served)
            waiting = asyncio.ensure_future(served.wait(dag.instance, dag.id(0)))
            await settled()

            def full(changes: object) -> None:
                raise StoreError("the disk is full")

            served.broker.store.commit = full  # type: ignore[method-assign]
            sequence = await worker.complete(node)
            with refused(grpc.StatusCode.UNAVAILABLE, "shutting down"):
                await waiting
            await worker.until(lambda: worker.ended)
            assert worker.draining
            assert worker.acknowledged < sequence
            with refused(grpc.StatusCode.UNAVAILABLE):
                await submit(served.stub, Dag().submission(b"b"))

    with pytest.raises(StoreError, match="disk is full"):
        await meet_a_full_disk()


# --- of several instances ----------------------------------------------------------------------------


async def test_nodes_of_several_instances_are_told_of_on_one_stream(served: Served) -> None:
    one, other = Dag(), Dag()
    for dag in (one, other):
        await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    first = await worker.node()
    await worker.durable(await worker.complete(first, value=b"of one"))
    request = pb.WaitRequest(
        node=[other.id(0), one.id(0)], instances=[one.instance, other.instance], instance_of=[1, 0]
    )
    replies: Any = served.stub.Wait(request)
    reply = await replies.read()
    assert (list(reply.value_node), list(reply.index)) == ([one.id(0)], [1])
    await worker.complete(await worker.node(), value=b"of the other")
    reply = await replies.read()
    assert (list(reply.value_node), list(reply.index)) == ([other.id(0)], [0])


@pytest.mark.parametrize(
    ("places", "text"),
    [([0], "do not match"), ([0, 2], "do not match"), ([], "do not match"), ([0, 1], "with two instances")],
)
async def test_instances_that_do_not_fit_the_nodes_are_refused(served: Served, places: list[int], text: str) -> None:
    dag, _, _ = await one_node(served)
    request = pb.WaitRequest(node=[dag.id(0)] * 2, instances=[dag.instance, os.urandom(16)], instance_of=places)
    with refused(INVALID, text):
        await served.stub.Wait(request).read()


async def test_a_node_of_another_instance_than_is_said_is_refused_ended_or_not(served: Served) -> None:
    dag, worker, node = await one_node(served)
    other = Dag()
    await submit(served.stub, other.submission(b"b"))
    request = pb.WaitRequest(node=[dag.id(0)], instances=[other.instance], instance_of=[0])
    with refused(INVALID, "belongs to another instance"):
        await served.stub.Wait(request).read()
    await worker.durable(await worker.complete(node))
    with refused(INVALID, "belongs to another instance"):
        await served.stub.Wait(request).read()


# --- values and ends in pieces --------------------------------------------------------------------------


def with_the_values_before_it(replies: list[pb.WaitReply], needed: dict[int, set[bytes]]) -> list[int]:
    """Places of nodes that ended with all their values, as heard by a client that lets go of values at each end."""
    had: set[bytes] = set()
    found = []
    for reply in replies:
        had.update(reply.value_node)
        found += [place for place in reply.index if needed[place] <= had]
        if reply.index:
            had = set()
    return found


@pytest.mark.parametrize("spare", [100, 400, 700, 1_000, 2_000])
async def test_ends_that_do_not_fit_beside_their_values_come_together_after_them(served: Served, spare: int) -> None:
    count, dag = 20, Dag()
    await submit(served.stub, dag.submission(*[b"a"] * count))
    worker = await served.worker()
    size = MESSAGE_TARGET // count - spare // count - 64
    for _ in range(count):
        await worker.durable(await worker.complete(await worker.node(), value=bytes(size)))
    replies = await served.wait(dag.instance, *(dag.id(place) for place in range(count)))
    needed = {place: {dag.id(place)} for place in range(count)}
    assert sorted(with_the_values_before_it(replies, needed)) == list(range(count))


async def test_a_value_that_two_nodes_share_comes_before_the_end_of_each(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"shared", b"first", b"second"))
    worker = await served.worker(slots=3)
    shared, first, second = sorted(await worker.nodes(3), key=lambda given: given.key)
    await worker.durable(await worker.complete(shared, value=b"value"))
    heard: list[pb.WaitReply] = []

    async def listen() -> None:
        request = pb.WaitRequest(instance=dag.instance, node=[dag.id(1), dag.id(2)])
        async for reply in served.stub.Wait(request, timeout=PATIENCE):
            heard.append(reply)

    listening = asyncio.ensure_future(listen())
    await served.until(lambda broker: {first.key, second.key} <= set(broker.watching._watches))
    for given in (first, second):
        await worker.durable(await worker.complete(given, foreign=[dag.id(0)], ref_count=[1], ref=[-1]))
        await served.until(lambda _: heard)
    await listening
    needed = {place: {dag.id(place + 1), dag.id(0)} for place in range(2)}
    assert sorted(with_the_values_before_it(heard, needed)) == [0, 1]
