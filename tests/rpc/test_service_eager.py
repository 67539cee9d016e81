"""Eager functions over the real wire: children that are there while their parent runs, and go with an attempt that
is aborted."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.far_store import distance
from tests.support.gate import gate, settled
from tests.support.raw import (
    FUNCTION,
    LEAF,
    Dag,
    EagerAttemptRecord,
    RawWorker,
    Served,
    children,
    envelope,
    refused,
    serving,
    submit,
)
from tests.support.records import dead
from tests.support.restarts import after, again, killed

__all__ = ["distance"]

EAGER = pb.Function(name="work:Task.eager", hash="hash-3", stream_children=True, retry=pb.Retry(max_attempts=2))


async def begin(served: Served, **hello: object) -> tuple[Dag, RawWorker, EagerAttemptRecord]:
    """An instance whose eager node runs."""
    dag = Dag()
    await submit(served.stub, dag.submission(b"parent", functions=[EAGER]))
    worker = await served.worker(**{"slots": 3, **hello})
    return dag, worker, EagerAttemptRecord(await worker.node())


def made(*nodes: pb.Children) -> pb.Results:
    return pb.Results(functions=[LEAF], children=nodes)


async def test_children_are_granted_while_their_parent_runs(served: Served) -> None:
    dag, worker, eager_attempt = await begin(served)
    await worker.durable(await worker.report(made(eager_attempt.nodes(b"x"))))
    child = await worker.node()
    assert (child.id, child.arguments) == (eager_attempt.id(0), envelope(b"x"))
    await worker.complete(child, value=b"of x")
    assert await served.value(dag.instance, eager_attempt.id(0)) == envelope(b"of x")
    assert await served.states(dag.instance, dag.id(0)) == [pb.CLAIMED]


async def test_they_are_acknowledged_when_they_are_durable_and_not_before(served: Served) -> None:
    _, worker, eager_attempt = await begin(served)
    with gate(served) as commits:
        sequence = await worker.report(made(eager_attempt.nodes(b"x")))
        await served.until(lambda _: commits.waiting)
        await settled()
        assert worker.acknowledged == 0
        assert not worker.given
        commits.let_through()
        await worker.durable(sequence)


async def test_a_child_may_need_one_that_has_left_memory_and_the_value_may_name_both(served: Served) -> None:
    dag, worker, eager_attempt = await begin(served)
    await worker.report(made(eager_attempt.nodes(b"x")))
    await worker.durable(await worker.complete(await worker.node(), value=b"of x"))
    await worker.report(made(eager_attempt.nodes(b"y", first=1, source_count=[1], source=[0])))
    child = await worker.node()
    assert list(child.values.values()) == [envelope(b"of x")]
    await worker.durable(await worker.complete(child, value=b"of y"))
    await worker.complete(eager_attempt.parent, ref_count=[2], ref=[0, 1])
    await served.value(dag.instance, dag.id(0))


async def test_an_instance_made_eagerly_may_end_and_get_more_nodes(served: Served) -> None:
    _, worker, eager_attempt = await begin(served)
    other = Dag()
    await worker.report(made(children(eager_attempt.parent, other.nodes(b"x", creates=True))))
    await worker.durable(await worker.complete(await worker.node(), value=b"of x"))
    assert other.instance not in served.broker.scheduler.graph.instances
    await worker.report(made(children(eager_attempt.parent, other.nodes(b"y", first=1, source_count=[1], source=[0]))))
    assert (await worker.node()).id == other.id(1)


async def test_the_same_report_again_makes_nothing(served: Served) -> None:
    dag, worker, eager_attempt = await begin(served)
    other = Dag()
    results = made(eager_attempt.nodes(b"x", b"y"), children(eager_attempt.parent, other.nodes(b"z", creates=True)))
    await worker.report(results)
    await worker.nodes(2)
    await worker.vanish()
    await served.until(lambda broker: not broker.sessions)
    parent = eager_attempt.parent
    await worker.connect(held_node=[parent.key], held_attempt=[parent.attempt], held_slot=[parent.slot])
    await worker.durable(await worker.report(results))
    assert not worker.refused
    assert sum((await served.status()).nodes[:5]) == 4
    assert await served.states(dag.instance, dag.id(0), eager_attempt.id(0)) == [pb.CLAIMED, pb.CLAIMED]


@pytest.mark.parametrize("how", ["fails", "dies", "is given back", "is cancelled", "is granted to another"])
async def test_unfinished_children_are_cancelled_with_the_attempt_and_their_workers_are_told(
    served: Served, how: str
) -> None:
    dag, worker, eager_attempt = await begin(served, slots=1)
    parent, helper = eager_attempt.parent, await served.worker(slots=2)
    await worker.report(made(eager_attempt.nodes(b"done", b"runs", b"waits", source_count=[0, 0, 1], source=[1])))
    done, runs = await helper.nodes(2)
    await helper.durable(await helper.complete(done))
    match how:
        case "fails":
            await worker.fail(parent)
        case "dies":
            await worker.say(deaths=[pb.SlotDeath(slot=0, running=[parent.attempt], cause="killed by SIGSEGV")])
        case "is given back":
            await worker.say(returns=[pb.Return(node=[parent.key], attempt=[parent.attempt])])
        case "is cancelled":
            await served.stub.Cancel(pb.CancelRequest(instance=dag.instance, node=[dag.id(0)]))
        case "is granted to another":
            await worker.vanish()
    await helper.until(lambda: any(runs.attempt in message.cancel for message in helper.messages))
    states = await served.wait(dag.instance, *map(eager_attempt.id, range(3)))
    found = {place: state for reply in states for place, state in zip(reply.index, reply.state, strict=True)}
    assert found == {0: pb.COMPLETED, 1: pb.CANCELLED, 2: pb.CANCELLED}
    failure = await served.failure(dag.instance, eager_attempt.id(2))
    assert (failure.node, failure.function) == (eager_attempt.id(1), LEAF.name)
    assert failure.message == "the run of work:Task.eager that made it was rolled back"
    keys = [done.key, runs.key, parent.key]
    assert dead(served.broker.store, keys) == {done.key, runs.key}


async def test_the_next_run_makes_its_own_children(served: Served) -> None:
    dag, worker, eager_attempt = await begin(served)
    await worker.report(made(eager_attempt.nodes(b"x")))
    child = await worker.node()
    await worker.fail(eager_attempt.parent)
    second = EagerAttemptRecord(await worker.node())
    assert second.parent.attempt > eager_attempt.parent.attempt
    await worker.report(made(second.nodes(b"x")))
    await worker.complete(second.parent, ref_count=[1], ref=[0])
    await worker.complete(await worker.node(), value=b"of x")
    await served.value(dag.instance, dag.id(0))
    await worker.complete(child, value=b"late")
    await worker.until(lambda: child.attempt in worker.refused)
    assert (await served.failure(dag.instance, eager_attempt.id(0))).node == eager_attempt.id(0)


async def test_children_of_an_attempt_that_is_not_the_workers_are_refused(served: Served) -> None:
    _, worker, eager_attempt = await begin(served)
    await worker.fail(eager_attempt.parent)
    await worker.report(made(eager_attempt.nodes(b"x")))
    await worker.until(lambda: eager_attempt.parent.attempt in worker.refused)
    assert sum((await served.status()).nodes[:5]) == 1


async def test_children_that_cannot_be_made_fail_their_parent_and_take_the_others_along(served: Served) -> None:
    dag, worker, eager_attempt = await begin(served)
    await worker.report(made(eager_attempt.nodes(b"x")))
    await worker.node()
    await worker.report(made(eager_attempt.nodes(b"y", first=1, source_count=[1], source=[-1], foreign=[bytes(16)])))
    second = await worker.node()
    assert (second.id, second.run) == (dag.id(0), 1)
    assert (await served.failure(dag.instance, eager_attempt.id(0))).node == eager_attempt.id(0)


async def test_a_stream_of_too_many_children_fails_their_node() -> None:
    async with serving(max_nodes=100) as served:
        _, worker, eager_attempt = await begin(served)
        for first in (0, 50, 100):
            await worker.report(made(eager_attempt.nodes(*[b"x"] * 50, first=first)))
        await served.until(lambda broker: any(node.failures for node in broker.scheduler.graph.nodes.values()))
        await served.broker.commits.settled()  # the children are cancelled by the next step
        assert sum((await served.status()).nodes[:5]) == 1


@pytest.mark.slow
async def test_a_reclaimed_attempt_keeps_its_children_after_a_restart(tmp_path: Path) -> None:
    async with killed(tmp_path) as served:
        dag, worker, eager_attempt = await begin(served)
        other = Dag()
        results = made(eager_attempt.nodes(b"x", b"y"), children(eager_attempt.parent, other.nodes(b"z", creates=True)))
        await worker.report(results)
        given = await worker.nodes(2)
        last = await served.worker()
        await last.complete(await last.node())
        await last.say(draining=True)
    async with after(tmp_path, reconnect_wait=2.0) as served:
        survivor = again(served, worker, eager_attempt.parent, *given)
        await survivor.connect()
        await survivor.durable(await survivor.report(results))  # its acknowledgement was lost
        assert not survivor.refused
        await survivor.complete(given[0], value=b"of x")
        await survivor.report(made(eager_attempt.nodes(b"later", first=2, source_count=[1], source=[0])))
        later = await survivor.node()
        assert later.id == eager_attempt.id(2)
        await survivor.complete(eager_attempt.parent, ref_count=[3], ref=[0, 1, 2])
        await survivor.complete(given[1], later)
        await served.value(dag.instance, dag.id(0))
        assert dead(served.broker.store, [node.key for node in given]) == set()


async def test_children_of_a_node_that_is_granted_again_after_a_restart_are_cancelled(tmp_path: Path) -> None:
    async with killed(tmp_path) as served:
        dag, worker, eager_attempt = await begin(served)
        await worker.report(made(eager_attempt.nodes(b"x", b"y")))
        done, _ = await worker.nodes(2)
        await worker.durable(await worker.complete(done))
    async with after(tmp_path, reconnect_wait=0.0) as served:
        other = await served.worker(slots=3)
        anew = await other.node()
        assert anew.id == dag.id(0)
        assert (await served.failure(dag.instance, eager_attempt.id(1))).node == eager_attempt.id(1)
        assert await served.value(dag.instance, eager_attempt.id(0)) == envelope(b"done")
        assert dead(served.broker.store, [done.key]) == {done.key}
        late = again(served, worker, eager_attempt.parent)
        await late.connect()
        await late.until(lambda: late.refused)
        await other.complete(anew)
        await served.value(dag.instance, dag.id(0))


async def test_a_function_that_is_not_eager_shows_nothing_before_its_end(served: Served) -> None:
    await submit(served.stub, Dag().submission(b"parent", functions=[FUNCTION]))
    worker = await served.worker(slots=2)
    await worker.report(made(EagerAttemptRecord(await worker.node()).nodes(b"x")))
    await settled()
    assert sum((await served.status()).nodes[:5]) == 1


async def test_children_of_an_unfinished_or_aborted_run_cannot_be_retried(served: Served) -> None:
    dag, worker, eager_attempt = await begin(served)
    await worker.report(made(eager_attempt.nodes(b"x")))
    child = await worker.node()
    await worker.fail(child, type="builtins.ValueError", final=True)
    await served.failure(dag.instance, eager_attempt.id(0))
    retry = pb.RetryRequest(instance=dag.instance, node=[eager_attempt.id(0)])
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "has not ended: retry when it has"):
        await served.stub.Retry(retry)
    await worker.fail(eager_attempt.parent, type="builtins.ValueError", final=True)
    await served.failure(dag.instance, dag.id(0))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "was rolled back: retry its parent"):
        await served.stub.Retry(retry)
    assert (await served.stub.Retry(pb.RetryRequest(instance=dag.instance, node=[dag.id(0)]))).queued == 1


async def test_children_of_an_aborted_run_are_shown(served: Served) -> None:
    dag, worker, eager_attempt = await begin(served)
    await worker.report(made(eager_attempt.nodes(b"x")))
    await worker.durable(await worker.complete(await worker.node()))
    listed = (await served.stub.ListNodes(pb.ListNodesRequest(instance=dag.instance))).nodes
    assert [node.from_aborted_attempt for node in listed] == [False, False]
    await worker.fail(eager_attempt.parent, type="builtins.ValueError", final=True)
    await served.failure(dag.instance, dag.id(0))
    listed = (await served.stub.ListNodes(pb.ListNodesRequest(instance=dag.instance))).nodes
    assert [(node.state, node.from_aborted_attempt) for node in listed] == [(pb.FAILED, False), (pb.COMPLETED, True)]
