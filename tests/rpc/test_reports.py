"""What a worker reports, by raw stubs: acknowledgements, outcomes, and attempts that are not its own."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.gate import gate, settled
from tests.support.local_calls import transport
from tests.support.raw import (
    FUNCTION,
    LEAF,
    Dag,
    EagerAttemptRecord,
    Served,
    children,
    envelope,
    refused,
    serving,
    submit,
)

__all__ = ["transport"]

INVALID = grpc.StatusCode.INVALID_ARGUMENT


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
    eager_attempt = EagerAttemptRecord(node)
    await worker.report(pb.Results(functions=[LEAF], children=[eager_attempt.nodes(b"x")]))
    await worker.report(pb.Results(functions=[LEAF], children=[eager_attempt.nodes(b"y", first=1)]))
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
        first = await worker.report(pb.Results(functions=[FUNCTION], children=[EagerAttemptRecord(node).nodes(b"x")]))
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
async def test_children_of_an_aborted_attempt_delay_no_acknowledgement(served: Served, how: str) -> None:
    await submit(served.stub, Dag().submission(b"parent", b"other"))
    worker = await served.worker(slots=2)
    parent, other = await worker.nodes(2)
    await worker.report(pb.Results(functions=[LEAF], children=[EagerAttemptRecord(parent).nodes(b"x")]))
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
    eager_attempt = EagerAttemptRecord(parent)
    await worker.report(pb.Results(functions=[LEAF], children=[eager_attempt.nodes(b"x")]))
    with refused(grpc.StatusCode.NOT_FOUND):
        await served.wait(dag.instance, eager_attempt.id(0), now=True)
    await worker.complete(parent, ref_count=[1], ref=[0])
    child = await worker.node()
    assert child.id == eager_attempt.id(0)
    assert await served.states(dag.instance, dag.id(0)) == [pb.RESOLVING]
    await worker.complete(child, value=b"leaf")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"done")


@pytest.mark.parametrize("how", ["it fails", "its worker vanishes", "its child process ends"])
async def test_no_child_of_an_aborted_attempt_ever_runs(served: Served, how: str) -> None:
    dag, retried = Dag(), pb.Function(name="work:Task.retried", retry=pb.Retry(max_attempts=2))
    await submit(served.stub, dag.submission(b"parent", functions=[retried]))
    worker = await served.worker()
    parent = await worker.node()
    lost = EagerAttemptRecord(parent)
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
    kept = EagerAttemptRecord(again)
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
    await worker.complete(parent, functions=[FUNCTION], children=[made], ref_count=[1], ref=[-1], foreign=[other.id(0)])
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
    await worker.durable(await worker.complete(leaf, other, ref_count=[0, 1], ref=[-1], foreign=[leaf.id]))
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
    "without an origin": {"origin": b""},
    "with an empty key": {"keys": [""], "key": [1]},
    "with a key that no store can hold": {"keys": ["a\0"], "key": [1]},
    "of a function that the report does not have": {"function": [1]},
}


@pytest.mark.parametrize("columns", BAD_CHILDREN.values(), ids=BAD_CHILDREN.keys())
async def test_children_that_cannot_be_made_fail_their_parent(served: Served, columns: dict[str, Any]) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"parent"))
    worker = await served.worker()
    parent = await worker.node()
    await worker.complete(parent, functions=[LEAF], children=[EagerAttemptRecord(parent).nodes(b"x", **columns)])
    assert (await served.failure(dag.instance, dag.id(0))).type == "dagorama.errors.ResultRejected"
    assert not served.broker.scheduler.graph.nodes


@pytest.mark.parametrize("marks", [{"labels": {"a": "b\0"}}, {"fair": "a\0"}, {"name": "a\0"}])
async def test_a_started_instance_with_marks_that_no_store_can_hold_fails_the_node_that_starts_it(
    served: Served, marks: dict[str, Any]
) -> None:
    dag, started = Dag(), Dag()
    await submit(served.stub, dag.submission(b"parent", b"next"))
    worker = await served.worker()
    parent = await worker.node()
    block = started.nodes(b"x")
    block.creates.MergeFrom(pb.NewInstance(**marks))
    await worker.complete(parent, functions=[LEAF], children=[children(parent, block)])
    assert "NUL" in (await served.failure(dag.instance, dag.id(0))).message
    await worker.complete(await worker.node())
    await served.value(dag.instance, dag.id(1))


@pytest.mark.parametrize("option", [{"queue": "a\0"}, {"taint": "t" * 5000}, {"retry": pb.Retry()}])
async def test_a_function_that_is_refused_fails_the_nodes_that_call_it_and_no_others(
    served: Served, option: dict[str, Any]
) -> None:
    dag, refused_function = Dag(), pb.Function(name="work:Task.refused", **option)
    await submit(served.stub, dag.submission(b"bad", b"good"))
    worker = await served.worker(slots=2)
    bad, good = await worker.nodes(2)
    made_by_good = EagerAttemptRecord(good)
    blocks = [EagerAttemptRecord(bad).nodes(b"x"), made_by_good.nodes(b"y", function=[1])]
    await worker.report(pb.Results(functions=[refused_function, LEAF], children=blocks))
    assert (await served.failure(dag.instance, dag.id(0))).type == "dagorama.errors.ResultRejected"
    await worker.complete(good)
    leaf = await worker.node()
    assert leaf.id == made_by_good.id(0)
    await worker.complete(leaf)
    await served.value(dag.instance, dag.id(1))


async def test_children_that_cannot_be_read_end_no_session_if_the_worker_no_longer_holds_their_parent(
    served: Served,
) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"parent"))
    holder, other = await served.worker(), await served.worker()
    parent = await holder.node()
    block = EagerAttemptRecord(parent).nodes(b"x", keys=[""], key=[1])
    await other.report(pb.Results(functions=[LEAF], children=[block]))
    await other.until(lambda: other.refused)
    assert other.refused == [parent.attempt]
    await holder.durable(await holder.complete(parent))


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
        eager_attempt = EagerAttemptRecord(parent)
        for first in range(0, 200, 50):
            await worker.report(pb.Results(functions=[LEAF], children=[eager_attempt.nodes(*[b"x"] * 50, first=first)]))
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
    eager_attempt = EagerAttemptRecord(node)
    await stranger.report(pb.Results(functions=[LEAF], children=[eager_attempt.nodes(b"x")]))
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
