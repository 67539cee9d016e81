"""A worker's session, by raw stubs: what it is given, what it may say, and what becomes of the nodes when it goes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.raw import (
    FUNCTION,
    LEAF,
    Brood,
    Dag,
    Given,
    RawWorker,
    Served,
    children,
    envelope,
    granted,
    refused,
    results,
    serving,
    submit,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_NOW = grpc.StatusCode.FAILED_PRECONDITION


async def settled() -> None:
    """Long enough for what should not happen to happen."""
    await asyncio.sleep(0.05)


class Gate:
    """Holds commits up until each is let through."""

    def __init__(self, served: Served) -> None:
        self._commit, self._passes = served.broker.store.commit, threading.Semaphore(0)
        self.waiting = 0
        served.broker.store.commit = self._held_up  # type: ignore[method-assign]
        # In its thread: the loop, which these tests live in, has to go on.
        served.broker.commits.thread.may_commit_outside = lambda changes: False  # type: ignore[method-assign]

    def _held_up(self, changes: Any) -> None:
        self.waiting += 1
        assert self._passes.acquire(timeout=10)
        self._commit(changes)

    def let_through(self, commits: int = 1) -> None:
        self._passes.release(commits)


@contextmanager
def gate(served: Served) -> Iterator[Gate]:
    gate = Gate(served)
    try:
        yield gate
    finally:
        gate.let_through(1000)


# --- hello ------------------------------------------------------------------------------------------


async def test_a_worker_is_welcomed_with_what_it_has_to_keep_to() -> None:
    async with serving(lease=20.0, heartbeat=4.0, large_from=12_345) as served:
        worker = await served.worker()
        assert worker.welcome is not None
        assert (worker.welcome.lease, worker.welcome.heartbeat, worker.welcome.large_from) == (20.0, 4.0, 12_345)
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
    await served.until(lambda broker: not broker.scheduler.dispatch.workers)


# --- nodes come -------------------------------------------------------------------------------------


async def test_a_node_comes_with_all_it_takes_to_run_it(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    node = await (await served.worker()).node()
    assert (node.id, node.instance, node.arguments, node.slot) == (dag.id(0), dag.instance, envelope(b"a"), 0)
    assert (node.function.name, node.function.hash, node.run) == (FUNCTION.name, FUNCTION.hash, 0)


async def test_a_grant_says_which_timeouts_it_has_and_which_of_them_are_final(served: Served) -> None:
    timed = pb.Function(name="work:Task.timed", timeout=2.0)
    final = pb.Function(name="work:Task.final", timeout=3.0, timeout_is_final=True)
    functions = [FUNCTION, timed, final]
    await submit(served.stub, Dag().submission(b"a", b"b", b"c", functions=functions, function=[0, 1, 2]))
    worker = await served.worker(slots=3)
    await worker.nodes(3)
    grants = [grant for message in worker.messages for grant in message.grants]
    told = [(list(grant.timeout), list(grant.timeout_is_final)) for grant in grants]
    assert told == [([], []), ([2.0], []), ([3.0], [True])]


async def test_a_node_comes_with_the_values_of_its_sources(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", b"join", source_count=[0, 0, 2], source=[0, 1]))
    worker = await served.worker(slots=2)
    first, second = await worker.nodes(2)
    await worker.complete(first, value=b"first")
    await worker.complete(second, value=b"second")
    join = await worker.node()
    assert join.sources == (first.key, second.key)
    assert [join.values[key] for key in join.sources] == [envelope(b"first"), envelope(b"second")]


async def test_a_node_comes_along_with_the_one_source_that_it_waits_for(served: Served) -> None:
    dag = Dag()
    columns: dict[str, Any] = {"source_count": [0, 0, 2, 1], "source": [0, 1, 2]}
    await submit(served.stub, dag.submission(b"a", b"b", b"join", b"after", **columns))
    worker = await served.worker()
    first = await worker.node()
    await worker.complete(first, value=b"first")
    second, join, after = await worker.nodes(3)
    assert (second.beside, join.beside, after.beside) == (0, second.key, join.key)
    assert join.values == {first.key: envelope(b"first")}
    await worker.report(results(second, join, after))
    assert await served.states(dag.instance, dag.id(2), dag.id(3)) == [pb.COMPLETED, pb.COMPLETED]


async def test_a_node_comes_with_the_values_that_its_sources_name(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"parent", b"after", source_count=[0, 1], source=[0]))
    worker = await served.worker()
    parent = await worker.node()
    brood = Brood(parent)
    await worker.complete(
        parent, value=b"names its children", functions=[LEAF], children=[brood.nodes(b"x", b"y")],
        ref_count=[2], ref=[1, 0],
    )  # fmt: skip
    for value in (b"of x", b"of y"):
        await worker.complete(await worker.node(), value=value)
    after = await worker.node()
    (source,) = after.sources
    assert after.values[source] == envelope(b"names its children")
    assert [after.values[key] for key in after.refs[source]] == [envelope(b"of y"), envelope(b"of x")]


async def test_nothing_is_handed_out_before_it_is_durable(served: Served) -> None:
    worker = await served.worker()
    with gate(served) as commits:
        submitting = asyncio.ensure_future(submit(served.stub, Dag().submission(b"a")))
        await served.until(lambda _: commits.waiting)
        await settled()
        assert not worker.given
        assert not submitting.done()
        commits.let_through()
        await worker.node()
        await submitting


@pytest.mark.slow
async def test_a_wide_fan_in_comes_in_pieces(served: Served) -> None:
    count, dag, joins = 100_000, Dag(), []

    async def parts() -> AsyncIterator[pb.SubmitRequest]:
        for first in range(0, count, 20_000):
            yield dag.submission(*[b"leaf"] * 20_000, first=first, creates=not first, functions=[LEAF])
        join = dag.nodes(b"join", first=count, source_count=[count], source=range(count))
        yield pb.SubmitRequest(functions=[FUNCTION], nodes=[join])
        yield pb.SubmitRequest()

    def outcome(node: Given) -> pb.Results:
        if node.sources:
            joins.append(node)
        return results(node, value=b"of a leaf, with some more bytes")

    await served.stub.SubmitStream(parts())
    worker = await served.worker(slots=2)
    running = asyncio.create_task(worker.run(outcome))
    await served.value(dag.instance, dag.id(count))
    running.cancel()
    (join,) = joins
    assert len(join.sources) == count
    assert {join.values[key] for key in join.sources} == {envelope(b"of a leaf, with some more bytes")}
    assert all(message.ByteSize() < 4 << 20 for message in worker.messages)
    assert sum(not grant.last for message in worker.messages for grant in message.grants) >= 3


async def test_the_largest_envelope_that_can_be_sent_reaches_its_worker_and_its_caller(served: Served) -> None:
    dag, large = Dag(), os.urandom((4 << 20) - 1000)
    await submit(served.stub, dag.submission(large, b"next", source_count=[0, 1], source=[0]))
    worker = await served.worker()
    node = await worker.node()
    assert node.arguments == envelope(large)
    await worker.complete(node, value=large)
    after = await worker.node()
    assert after.values[node.key] == envelope(large)
    assert await served.value(dag.instance, dag.id(0)) == envelope(large)
    assert all(message.ByteSize() < 4 << 20 for message in worker.messages)


async def test_five_values_of_a_mebibyte_reach_one_node(served: Served) -> None:
    dag, value = Dag(), os.urandom(1 << 20)
    await submit(served.stub,
        dag.submission(*[b"leaf"] * 5, b"join", source_count=[0, 0, 0, 0, 0, 5], source=range(5))
    )
    worker = await served.worker()
    for _ in range(5):
        await worker.complete(await worker.node(), value=value)
    join = await worker.node()
    assert [join.values[key] for key in join.sources] == [envelope(value)] * 5


async def test_five_thousand_nodes_take_few_messages_and_commits(served: Served) -> None:
    """At most 400 messages and 150 commits, whatever the machine: messages cost, not nodes."""
    dag, count = Dag(), 5000

    def outcome(node: Given) -> pb.Results:
        if node.function.name != FUNCTION.name or node.sources:
            return results(node, value=b"leaf")
        brood = Brood(node)
        made = brood.nodes(
            *[b"leaf"] * count, b"join", function=[0] * count + [1], source_count=[0] * count + [count],
            source=range(count),
        )  # fmt: skip
        return results(node, functions=[LEAF, FUNCTION], children=[made], ref_count=[1], ref=[count])

    worker = await served.worker(slots=2)
    running = asyncio.create_task(worker.run(outcome_of(outcome)))
    await submit(served.stub, dag.submission(b"entry"))
    await served.value(dag.instance, dag.id(0))
    status = await served.status()
    assert status.nodes[pb.COMPLETED] == count + 2
    assert status.messages_in + status.messages_out <= 400
    assert status.commits <= 150
    running.cancel()


def outcome_of(outcome: Any) -> Any:
    """Columns that say nothing of references are empty for all of a report or for none of it."""

    def with_references(node: Given) -> pb.Results:
        found: pb.Results = outcome(node)
        if not found.ref_count:
            found.ref_count.append(0)
        return found

    return with_references


# --- acknowledgements -------------------------------------------------------------------------------


async def test_a_report_is_acknowledged_when_it_is_durable_and_not_before(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    with gate(served) as commits:
        sequence = await worker.complete(node)
        await served.until(lambda _: commits.waiting)
        await settled()
        assert worker.acknowledged == 0
        commits.let_through()
        await worker.durable(sequence)


async def test_children_alone_are_not_acknowledged(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"parent"))
    worker = await served.worker()
    node = await worker.node()
    brood = Brood(node)
    await worker.report(pb.Results(functions=[LEAF], children=[brood.nodes(b"x")]))
    await worker.report(pb.Results(functions=[LEAF], children=[brood.nodes(b"y", first=1)]))
    await settled()
    assert worker.acknowledged == 0
    assert (await served.status()).nodes[pb.QUEUED] == 0
    await worker.durable(await worker.complete(node))
    assert sum((await served.status()).nodes[:5]) == 2


async def test_children_are_acknowledged_only_when_the_outcome_of_their_parent_is_durable(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"parent"))
    worker = await served.worker()
    node = await worker.node()
    with gate(served) as commits:
        one = asyncio.ensure_future(submit(served.stub, Dag().submission(b"one")))
        await served.until(lambda _: commits.waiting == 1)
        first = await worker.report(pb.Results(functions=[FUNCTION], children=[Brood(node).nodes(b"x")]))
        two = asyncio.ensure_future(submit(served.stub, Dag().submission(b"two")))
        await settled()
        commits.let_through()
        await served.until(lambda _: commits.waiting == 2)
        last = await worker.complete(node)
        await settled()
        commits.let_through()  # what was there when the children came, and not the outcome
        await asyncio.gather(one, two)
        await served.until(lambda _: commits.waiting == 3)
        await settled()
        assert worker.acknowledged < first
        commits.let_through()
        await worker.durable(last)


@pytest.mark.parametrize("how", ["it fails", "its child process ends", "it is given back"])
async def test_children_of_an_attempt_that_comes_to_nothing_hold_no_acknowledgement_back(
    served: Served, how: str
) -> None:
    await submit(served.stub, Dag().submission(b"parent", b"other"))
    worker = await served.worker(slots=2)
    parent, other = await worker.nodes(2)
    await worker.report(pb.Results(functions=[LEAF], children=[Brood(parent).nodes(b"x")]))
    if how == "it fails":
        await worker.fail(parent)
    elif how == "its child process ends":
        await worker.say(deaths=[pb.SlotDeath(slot=parent.slot, running=[parent.attempt], cause="a signal")])
    else:
        returned = pb.Return(node=[parent.key], attempt=[parent.attempt], reason=pb.INTERRUPTED)
        await worker.say(returns=[returned])
    await worker.durable(await worker.complete(other))
    assert sum((await served.status()).nodes[pb.QUEUED : pb.COMPLETED]) == (0 if how == "it fails" else 1)


# --- outcomes ---------------------------------------------------------------------------------------


async def test_children_become_visible_with_their_parents_outcome(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"parent"))
    worker = await served.worker()
    parent = await worker.node()
    brood = Brood(parent)
    await worker.report(pb.Results(functions=[LEAF], children=[brood.nodes(b"x")]))
    with refused(grpc.StatusCode.NOT_FOUND):
        await served.wait(dag.instance, brood.id(0), now=True)
    await worker.complete(parent, ref_count=[1], ref=[0])
    child = await worker.node()
    assert child.id == brood.id(0)
    assert await served.states(dag.instance, dag.id(0)) == [pb.RESOLVING]
    await worker.complete(child, value=b"leaf")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"done")


@pytest.mark.parametrize("how", ["it fails", "its worker vanishes", "its child process ends"])
async def test_no_child_of_an_attempt_that_came_to_nothing_ever_runs(served: Served, how: str) -> None:
    dag, retried = Dag(), pb.Function(name="work:Task.retried", retry=pb.Retry(max_attempts=2))
    await submit(served.stub, dag.submission(b"parent", functions=[retried]))
    worker = await served.worker()
    parent = await worker.node()
    lost = Brood(parent)
    await worker.report(pb.Results(functions=[LEAF], children=[lost.nodes(b"x", b"y")]))
    if how == "it fails":
        await worker.fail(parent)
    elif how == "its child process ends":
        await worker.say(deaths=[pb.SlotDeath(slot=0, running=[parent.attempt], cause="a signal")])
    else:
        await worker.vanish()
        worker = await served.worker()
    again = await worker.node()
    assert (again.key, again.id) == (parent.key, parent.id)
    assert again.attempt > parent.attempt
    kept = Brood(again)
    await worker.complete(again, functions=[LEAF], children=[kept.nodes(b"x")], ref_count=[1], ref=[0])
    child = await worker.node()
    assert child.id == kept.id(0)
    await worker.complete(child)
    await served.value(dag.instance, dag.id(0))
    with refused(grpc.StatusCode.NOT_FOUND):
        await served.wait(dag.instance, lost.id(0), now=True)


async def test_a_child_may_be_an_instance_of_its_own(served: Served) -> None:
    dag, other = Dag(), Dag()
    await submit(served.stub, dag.submission(b"parent"))
    worker = await served.worker()
    parent = await worker.node()
    made = children(parent, other.nodes(b"entry", creates=True))
    await worker.complete(
        parent, functions=[FUNCTION], children=[made], ref_count=[1], ref=[-1], foreign=[other.id(0)]
    )
    entry = await worker.node()
    assert (entry.instance, entry.id) == (other.instance, other.id(0))
    await worker.complete(entry, value=b"inner")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"done")
    assert await served.value(other.instance, other.id(0)) == envelope(b"inner")
    info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=other.instance))
    assert info.definition == "work:Task"


async def test_a_report_may_name_a_node_that_it_completes_itself(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"leaf", b"names it"))
    worker = await served.worker(slots=2)
    leaf, other = await worker.nodes(2)
    await worker.complete(leaf, other, ref_count=[0, 1], ref=[-1], foreign=[leaf.id])
    assert await served.states(dag.instance, dag.id(0), dag.id(1)) == [pb.COMPLETED, pb.COMPLETED]


async def test_a_result_may_name_a_node_that_has_left_memory(served: Served) -> None:
    dag, other = Dag(), Dag()
    await submit(served.stub, other.submission(b"leaf"))
    worker = await served.worker()
    await worker.complete(await worker.node(), value=b"long ago")
    await served.value(other.instance, other.id(0))
    await submit(served.stub, dag.submission(b"names it"))
    await worker.complete(await worker.node(), ref_count=[1], ref=[-1], foreign=[other.id(0)])
    (reply,) = await served.wait(dag.instance, dag.id(0))
    assert dict(zip(reply.value_node, reply.value, strict=True))[other.id(0)] == envelope(b"long ago")


BAD_RESULTS: dict[str, dict[str, Any]] = {
    "names a node that is not there": {"ref_count": [1], "ref": [-1], "foreign": [bytes(16)]},
    "names a child that it did not make": {"ref_count": [1], "ref": [3]},
    "names a large value that did not arrive": {"large": [sha256(b"never").digest()], "large_of": [0]},
}


@pytest.mark.parametrize("columns", BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
async def test_a_result_that_cannot_be_taken_fails_its_node_and_the_worker_lives(
    served: Served, columns: dict[str, Any]
) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"next"))
    worker = await served.worker()
    await worker.complete(await worker.node(), **columns)
    failure = await served.failure(dag.instance, dag.id(0))
    assert failure.type == "dagorama.errors.ResultRejected"
    assert failure.message
    await worker.complete(await worker.node())
    await served.value(dag.instance, dag.id(1))


async def test_a_result_that_names_a_node_which_waits_for_it_fails(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"waits", source_count=[0, 1], source=[0]))
    worker = await served.worker()
    await worker.complete(await worker.node(), ref_count=[1], ref=[-1], foreign=[dag.id(1)])
    failure = await served.failure(dag.instance, dag.id(1))
    assert failure.node == dag.id(0)
    assert "waits for it" in failure.message


BAD_CHILDREN: dict[str, dict[str, Any]] = {
    "with an unknown source": {"source_count": [1], "source": [-1], "foreign": [bytes(16)]},
    "in an instance that is not there": {"instance": bytes(16)},
    "with a large value that did not arrive": {"large": [sha256(b"never").digest()]},
}


@pytest.mark.parametrize("columns", BAD_CHILDREN.values(), ids=BAD_CHILDREN.keys())
async def test_children_that_cannot_be_made_fail_their_parent(served: Served, columns: dict[str, Any]) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"parent"))
    worker = await served.worker()
    parent = await worker.node()
    await worker.complete(parent, functions=[LEAF], children=[Brood(parent).nodes(b"x", **columns)])
    assert (await served.failure(dag.instance, dag.id(0))).type == "dagorama.errors.ResultRejected"
    assert not served.broker.scheduler.graph.nodes


async def test_children_under_ids_that_are_taken_fail_their_parent(served: Served) -> None:
    gone, dag = Dag(), Dag()
    await submit(served.stub, gone.submission(b"a"))
    worker = await served.worker()
    await worker.complete(await worker.node())
    await served.value(gone.instance, gone.id(0))
    await submit(served.stub, dag.submission(b"parent", b"parent"))
    for counter, its_instance in enumerate([dag, gone]):
        parent = await worker.node()
        taken = gone.nodes(b"x", instance=its_instance.instance, creates=its_instance is gone)
        await worker.complete(parent, functions=[LEAF], children=[children(parent, taken)])
        failure = await served.failure(dag.instance, dag.id(counter))
        assert "exists already" in failure.message


async def test_a_node_that_makes_too_many_children_fails() -> None:
    async with serving(max_nodes=100) as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"parent"))
        worker = await served.worker()
        parent = await worker.node()
        brood = Brood(parent)
        for first in range(0, 200, 50):
            await worker.report(pb.Results(functions=[LEAF], children=[brood.nodes(*[b"x"] * 50, first=first)]))
        await worker.complete(parent)
        failure = await served.failure(dag.instance, dag.id(0))
        assert "200 nodes" in failure.message


async def test_a_failure_is_kept_within_bounds(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    text = "start" + "\U0001f600" * 800_000 + "end"
    await worker.fail(await worker.node(), message="m" * 100_000, traceback=text, exception=bytes(10))
    failure = await served.failure(dag.instance, dag.id(0))
    assert (failure.function, failure.type, failure.attempts) == (FUNCTION.name, "builtins.ValueError", 1)
    assert failure.traceback.startswith("start")
    assert failure.traceback.endswith("end")
    assert "left out" in failure.traceback
    assert len(failure.message) < 70_000
    assert len(failure.traceback) < 270_000
    assert failure.exception == bytes(10)


async def test_a_failed_run_is_followed_by_another_as_its_policy_says(served: Served) -> None:
    retried = pb.Function(name="work:Task.retried", retry=pb.Retry(max_attempts=3, interval=0.05, base=1))
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", functions=[retried]))
    worker = await served.worker()
    for run in range(3):
        node = await worker.node()
        assert node.run == run
        await worker.fail(node, message=f"run {run}")
    failure = await served.failure(dag.instance, dag.id(0))
    assert (failure.message, failure.attempts) == ("run 2", 3)


async def test_a_process_that_ends_three_times_fails_the_node_that_ran_and_no_other(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"ends its process", b"waits", functions=[LEAF]))
    worker = await served.worker()
    for turn in range(3):
        node = await worker.node()
        unstarted = [other.attempt for other in worker.given]
        worker.given.clear()
        death = pb.SlotDeath(running=[node.attempt], unstarted=unstarted, cause=f"killed by SIGSEGV, {turn}")
        await worker.say(deaths=[death])
    failure = await served.failure(dag.instance, dag.id(0))
    assert failure.type == "dagorama.errors.ProcessDied"
    assert "3 times" in failure.message
    assert "SIGSEGV, 2" in failure.message
    other = await worker.node()
    await worker.complete(other)
    await served.value(dag.instance, dag.id(1))


# --- fencing ----------------------------------------------------------------------------------------


async def test_an_outcome_of_a_node_that_is_not_the_workers_is_refused_and_the_value_stays(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker, other = await served.worker(), await served.worker()
    await served.until(lambda _: worker.given or other.given)
    holder, stranger = (worker, other) if worker.given else (other, worker)
    node = await holder.node()
    never = node._replace(key=node.key + 100, attempt=node.attempt + 100)
    for claim in (node, never, node._replace(attempt=node.attempt + 1), node._replace(key=node.key + 1)):
        await stranger.durable(await stranger.complete(claim, value=b"wrong"))
        await stranger.durable(await stranger.fail(claim))
    assert set(stranger.refused) >= {node.attempt, never.attempt}
    assert await served.states(dag.instance, dag.id(0)) == [pb.CLAIMED]
    await holder.complete(node, value=b"right")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"right")
    for late in (holder, stranger):
        await late.durable(await late.complete(node, value=b"late"))
        await late.durable(await late.fail(node))
        assert node.attempt in late.refused
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"right")


async def test_a_later_attempt_is_the_only_one_that_counts(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    slow = await served.worker()
    node = await slow.node()
    returned = pb.Return(node=[node.key], attempt=[node.attempt])
    await slow.say(returns=[returned], draining=True)
    other = await served.worker()
    again = await other.node()
    await slow.durable(await slow.complete(node, value=b"of the older attempt"))
    assert slow.refused == [node.attempt]
    await other.complete(again, value=b"of the current one")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"of the current one")


async def test_children_for_an_attempt_that_is_not_the_workers_are_refused(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    stranger = await served.worker()
    brood = Brood(node)
    await stranger.report(pb.Results(functions=[LEAF], children=[brood.nodes(b"x")]))
    await stranger.until(lambda: stranger.refused)
    assert stranger.refused == [node.attempt]
    await worker.durable(await worker.complete(node))
    assert not served.broker.scheduler.graph.nodes


BAD_REPORTS: dict[str, pb.WorkerMessage] = {
    "that cannot be read": pb.WorkerMessage(reports=[pb.Report(sequence=1, body=b"\xff\xff\xff")]),
    "with columns of different lengths": pb.WorkerMessage(
        reports=[pb.Report(sequence=1, body=pb.Results(node=[1], attempt=[1]).SerializeToString())]
    ),
    "with references that do not add up": pb.WorkerMessage(
        reports=[
            pb.Report(
                sequence=1,
                body=pb.Results(
                    node=[1], attempt=[1], value=[b""], microseconds=[1], ref_count=[3], ref=[1]
                ).SerializeToString(),
            )
        ]
    ),
    "whose children have no origin": pb.WorkerMessage(
        reports=[
            pb.Report(
                sequence=1,
                body=pb.Results(children=[pb.Children(nodes=pb.Nodes(instance=bytes(16)))]).SerializeToString(),
            )
        ]
    ),
    "that returns columns of different lengths": pb.WorkerMessage(returns=[pb.Return(node=[1])]),
}


@pytest.mark.parametrize("message", BAD_REPORTS.values(), ids=BAD_REPORTS.keys())
async def test_a_report_that_makes_no_sense_ends_the_session_and_another_gets_the_node(
    served: Served, message: pb.WorkerMessage
) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    await worker.say(**{field.name: value for field, value in message.ListFields()})
    assert (await worker.end()).code() is INVALID
    other = await served.worker()
    again = await other.node()
    assert again.key == node.key
    await other.complete(again)
    await served.value(dag.instance, dag.id(0))


# --- returns and take-backs -------------------------------------------------------------------------


async def test_a_node_that_cannot_be_checked_is_shown_with_what_to_set(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    detail = "the arguments came unsigned: set DAGORAMA_SIGNING_KEYS"
    returned = pb.Return(node=[node.key], attempt=[node.attempt], reason=pb.UNCHECKABLE, detail=detail)
    await worker.say(returns=[returned])
    await served.until(lambda broker: not broker.scheduler.dispatch.claimed)
    await settled()
    assert not worker.given
    (unservable,) = (await served.status()).unservable
    assert f"it cannot check a signature: {detail}" in unservable.reason


async def test_an_id_that_no_signing_key_has_is_refused(served: Served) -> None:
    worker = RawWorker(served.stub, key_ids=[b"x" * 65])
    await worker.connect()
    assert "65" not in ((await worker.end()).details() or "")
    assert "a signing key has at most 64 bytes" in ((await worker.end()).details() or "")
    with refused(INVALID, "at most 64 bytes"):
        await submit(served.stub, Dag().submission(b"a", functions=[pb.Function(name="f", key_id=b"x" * 65)]))


async def test_a_node_given_back_with_a_reason_is_not_offered_to_that_worker_again(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    returned = pb.Return(
        node=[node.key], attempt=[node.attempt], reason=pb.NOT_IMPORTABLE, detail="No module named 'work'"
    )
    await worker.say(returns=[returned])
    await served.until(lambda broker: not broker.scheduler.dispatch.claimed)
    await settled()
    assert not worker.given
    (unservable,) = (await served.status()).unservable
    assert "No module named 'work'" in unservable.reason
    able = await served.worker()
    again = await able.node()
    assert again.run == 0
    await able.complete(again)
    await served.value(dag.instance, dag.id(0))


async def test_what_waits_behind_a_long_run_is_taken_back_and_handed_to_an_idle_worker(served: Served) -> None:
    dag = Dag()
    worker = await served.worker()
    await submit(served.stub, dag.submission(b"warm up", functions=[LEAF]))
    await worker.complete(await worker.node())
    await submit(served.stub, dag.submission(*[b"leaf"] * 10, first=1, creates=False, functions=[LEAF]))
    held = await worker.nodes(10)
    idle = await served.worker()
    await worker.until(lambda: worker.taken_back)
    assert set(worker.taken_back) == {node.attempt for node in held[1:]}
    back = [node for node in held if node.attempt in worker.taken_back]
    returned = pb.Return(node=[node.key for node in back], attempt=[node.attempt for node in back])
    await worker.say(returns=[returned])
    given = await idle.nodes(1)
    assert given[0].key == held[1].key
    assert given[0].attempt not in {node.attempt for node in held}


async def test_a_worker_is_told_to_return_a_node_after_it_was_given_it(served: Served) -> None:
    """In one message or in order: what is taken back has come before."""
    worker = await served.worker()
    for _ in range(20):
        dag = Dag()
        await submit(served.stub, dag.submission(*[b"leaf"] * 8, functions=[LEAF]))
        while await served.states(dag.instance, dag.id(7)) != [pb.COMPLETED]:
            await worker.until(lambda: worker.given)
            given, worker.given = worker.given, []
            await worker.complete(*given)
    known: set[int] = set()
    for message in worker.messages:
        known |= {attempt for grant in message.grants for attempt in grant.attempt}
        assert known >= {attempt for taken in message.take_back for attempt in taken.attempt}


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
    await served.until(lambda broker: not broker.scheduler.dispatch.workers and not broker.sessions)


async def test_a_worker_that_reconnects_keeps_what_nobody_else_was_given(served: Served) -> None:
    dag, worker, node = await granted(served)
    await worker.connect(held_node=[node.key], held_attempt=[node.attempt], held_slot=[0])
    await settled()
    assert not worker.given
    assert not worker.refused
    await worker.complete(node, value=b"of the first attempt")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"of the first attempt")


async def test_a_worker_that_reconnects_too_late_is_told_what_is_not_its_any_more(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    await worker.vanish()
    await (await served.worker()).node()
    await worker.connect(held_node=[node.key, 77], held_attempt=[node.attempt, 78], held_slot=[0, 0])
    await worker.until(lambda: len(worker.refused) == 2)
    assert worker.refused == [node.attempt, 78]


async def test_a_worker_that_connects_anew_ends_its_earlier_stream(served: Served) -> None:
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
    await worker.complete(parent, functions=[LEAF], children=[Brood(parent).nodes(b"x")])
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
