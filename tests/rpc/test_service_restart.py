"""A broker dies and another goes on with its store: what was acknowledged is there, what ran may go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.gate import settled
from tests.support.raw import FUNCTION, LEAF, Dag, EagerAttemptRecord, envelope, refused, serving, submit
from tests.support.restarts import after, again, killed, url

EXISTS = grpc.StatusCode.ALREADY_EXISTS
#: Seconds between two attempts, in which a broker must be replaced on a busy machine.
PAUSE = 3.0


async def test_a_broker_that_leaves_counts_no_loss_and_its_workers_go_on_with_what_they_hold(tmp_path: Path) -> None:
    dag, store = Dag(), url(tmp_path)
    async with serving(store=store) as served:
        await submit(served.stub, dag.submission(b"a"))
        worker = await served.worker()
        node = await worker.node()
        served.stop()
        await worker.until(lambda: worker.ended)
    async with serving(store=store) as served:
        returning = again(served, worker, node)
        await returning.connect()
        info = await served.stub.ListNodes(pb.ListNodesRequest(instance=dag.instance))
        assert [each.worker_losses for each in info.nodes] == [0]
        await returning.complete(node, value=b"its own")
        assert await served.value(dag.instance, dag.id(0)) == envelope(b"its own")


# --- what clients know -------------------------------------------------------------------------------


async def test_an_acknowledged_submission_is_there_and_the_same_again_has_no_second_effect(tmp_path: Path) -> None:
    live, ended = Dag(), Dag()
    async with killed(tmp_path) as served:
        for dag in (ended, live):
            await submit(served.stub, dag.submission(b"a"))
        worker = await served.worker()
        await worker.durable(await worker.complete(await worker.node(), value=b"before"))
        await worker.say(draining=True)
    async with after(tmp_path, reconnect_wait=0.0) as served:
        assert served.epoch == 2
        assert await served.states(live.instance, live.id(0)) == [pb.QUEUED]
        assert await served.value(ended.instance, ended.id(0)) == envelope(b"before")
        for dag in (ended, live):
            await submit(served.stub, dag.submission(b"a"))
            with refused(EXISTS):
                await submit(served.stub, dag.submission(b"other"))
        assert sum((await served.status()).nodes) == 1


async def test_a_wait_across_a_restart_is_answered_by_the_next_broker(tmp_path: Path) -> None:
    dag = Dag()
    async with killed(tmp_path) as served:
        await submit(served.stub, dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
        waiting = asyncio.ensure_future(served.wait(dag.instance, dag.id(1)))
        await settled()
    with refused(grpc.StatusCode.UNAVAILABLE):
        await waiting
    async with after(tmp_path) as served:
        waiting = asyncio.ensure_future(served.wait(dag.instance, dag.id(1)))
        worker = await served.worker()
        for value in (b"of a", b"of b"):
            await worker.complete(await worker.node(), value=value)
        (reply,) = await waiting
        assert list(reply.value) == [envelope(b"of b")]


# --- what workers hold --------------------------------------------------------------------------------


async def test_a_surviving_worker_goes_on_with_what_it_holds(tmp_path: Path) -> None:
    dag = Dag()
    async with killed(tmp_path) as served:
        await submit(served.stub, dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
        worker = await served.worker()
        node = await worker.node()
    async with after(tmp_path) as served:
        idle = await served.worker()
        survivor = again(served, worker, node)
        await survivor.connect()
        await settled()
        assert not survivor.refused
        assert not survivor.given
        assert not idle.given
        await survivor.complete(node, value=b"begun before, ended after")
        assert await served.value(dag.instance, dag.id(0)) == envelope(b"begun before, ended after")
        for next in (idle, survivor):
            if next.given:
                await next.complete(await next.node())
        await served.until(lambda broker: broker.scheduler.claims.claimed or not broker.scheduler.graph.nodes)


async def test_nothing_is_handed_out_until_the_workers_on_record_are_back(tmp_path: Path) -> None:
    async with killed(tmp_path) as served:
        await submit(served.stub, Dag().submission(b"a", b"b"))
        worker = await served.worker()
        node = await worker.node()
    async with after(tmp_path, reconnect_wait=60.0) as served:
        other = await served.worker()
        await settled()
        assert not other.given
        survivor = again(served, worker, node)
        await survivor.connect()
        assert (await other.node()).key != node.key


async def test_after_the_wait_unclaimed_nodes_are_granted_and_a_late_claim_is_refused(tmp_path: Path) -> None:
    dag = Dag()
    async with killed(tmp_path) as served:
        await submit(served.stub, dag.submission(b"a"))
        worker = await served.worker()
        node = await worker.node()
    async with after(tmp_path, reconnect_wait=0.2) as served:
        other = await served.worker()
        taken = await other.node()
        assert taken.key == node.key
        assert taken.attempt > node.attempt
        late = again(served, worker, node)
        await late.connect()
        await late.until(lambda: late.refused)
        await late.durable(await late.complete(node, value=b"late"))
        await other.complete(taken, value=b"in time")
        assert await served.value(dag.instance, dag.id(0)) == envelope(b"in time")


async def test_attempts_are_never_used_twice(tmp_path: Path) -> None:
    attempts = set()
    async with killed(tmp_path) as served:
        await submit(served.stub, Dag().submission(*[b"a"] * 10, functions=[FUNCTION]))
        worker = await served.worker(slots=4)
        attempts |= {node.attempt for node in await worker.nodes(4)}
    async with after(tmp_path, reconnect_wait=0.0) as served:
        worker = await served.worker(slots=4)
        later = {node.attempt for node in await worker.nodes(4)}
        assert min(later) > max(attempts)


async def test_children_that_were_not_acknowledged_are_told_again_and_made_once(tmp_path: Path) -> None:
    dag = Dag()
    async with killed(tmp_path) as served:
        await submit(served.stub, dag.submission(b"parent"))
        worker = await served.worker()
        parent = await worker.node()
        eager_attempt = EagerAttemptRecord(parent)
        staged = pb.Results(functions=[LEAF], children=[eager_attempt.nodes(b"x")])
        await worker.report(staged)
        await settled()
        assert worker.acknowledged == 0
    async with after(tmp_path) as served:
        assert sum((await served.status()).nodes) == 1
        survivor = again(served, worker, parent)
        await survivor.connect()
        await survivor.report(staged)
        await survivor.complete(parent, ref_count=[1], ref=[0])
        child = await survivor.node()
        assert child.id == eager_attempt.id(0)
        await survivor.complete(child)
        await served.value(dag.instance, dag.id(0))


async def test_an_outcome_whose_acknowledgement_was_lost_is_told_again_and_counts_once(tmp_path: Path) -> None:
    dag = Dag()
    async with killed(tmp_path) as served:
        await submit(served.stub, dag.submission(b"parent"))
        worker = await served.worker()
        parent = await worker.node()
        eager_attempt = EagerAttemptRecord(parent)
        report: dict[str, Any] = {
            "functions": [LEAF],
            "children": [eager_attempt.nodes(b"x")],
            "ref_count": [1],
            "ref": [0],
        }
        await worker.durable(await worker.complete(parent, **report))
        child = await worker.node()
    async with after(tmp_path) as served:
        survivor = again(served, worker, parent, child)
        await survivor.connect()
        await survivor.durable(await survivor.complete(parent, **report))
        assert set(survivor.refused) == {parent.attempt}
        await survivor.complete(child, value=b"once")
        await served.value(dag.instance, dag.id(0))
        assert (await served.status()).nodes[pb.COMPLETED] == 2


# --- what the graph knows -----------------------------------------------------------------------------


async def test_a_graph_goes_on_where_it_was(tmp_path: Path) -> None:
    dag, retried = Dag(), pb.Function(name="work:r", retry=pb.Retry(max_attempts=3, interval=PAUSE, base=1))
    names = [b"completed", b"failed", b"resolving", b"in backoff", b"queued", b"waiting", b"fails with its source"]
    async with killed(tmp_path) as served:
        await submit(served.stub,
            dag.submission(
                *names, functions=[FUNCTION, retried], function=[0, 0, 0, 1, 0, 0, 0],
                source_count=[0] * 5 + [2, 1], source=[0, 4, 1],
            )
        )  # fmt: skip
        worker = await served.worker(slots=4)
        completed, failed, resolving, backoff = await worker.nodes(4)
        await worker.say(draining=True)
        await worker.report(pb.Results(functions=[LEAF], children=[EagerAttemptRecord(resolving).nodes(b"child")]))
        await worker.complete(resolving, completed, value=b"kept", ref_count=[1, 0], ref=[0])
        await worker.fail(failed, message="was recorded")
        failed_at = time.monotonic()
        await worker.durable(await worker.fail(backoff, message="the first run"))
    async with after(tmp_path, reconnect_wait=0.0) as served:
        ids = [dag.id(counter) for counter in range(7)]
        assert await served.states(dag.instance, *ids) == [
            pb.COMPLETED, pb.FAILED, pb.RESOLVING, pb.BACKOFF, pb.QUEUED, pb.WAITING, pb.FAILED,
        ]  # fmt: skip
        failure = await served.failure(dag.instance, dag.id(6))
        assert (failure.node, failure.message) == (dag.id(1), "was recorded")
        worker = await served.worker(slots=1)
        queued = await worker.node()
        assert (queued.id, queued.function.name) == (dag.id(4), FUNCTION.name)
        await worker.complete(queued, value=b"of the queued")
        waiting = await worker.node()
        assert waiting.id == dag.id(5)
        assert [waiting.values[key] for key in waiting.sources] == [envelope(b"kept"), envelope(b"of the queued")]
        assert [waiting.ids[key] for key in waiting.sources] == [dag.id(0), dag.id(4)]
        await worker.complete(waiting)
        child = await worker.node()
        await worker.complete(child, value=b"of the child")
        assert await served.value(dag.instance, dag.id(2)) == envelope(b"kept")
        second_run = await worker.node()
        assert (second_run.id, second_run.run) == (dag.id(3), 1)
        assert time.monotonic() - failed_at >= PAUSE
        await worker.complete(second_run)
        await served.value(dag.instance, dag.id(3))
        await served.until(lambda broker: not broker.scheduler.graph.instances)


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_older_instances_go_first_after_a_restart_too(tmp_path: Path, how: str) -> None:
    dags = [Dag() for _ in range(5)]
    leaves = [pb.Function(name=f"work:{letter}") for letter in "edcba"]
    place = serving(store=url(tmp_path / "found")) if how == "stopped" else killed(tmp_path)
    async with place as served:
        for dag, function in zip(dags, leaves, strict=True):
            await submit(served.stub, dag.submission(b"1", b"2", functions=[function]))
    async with after(tmp_path, reconnect_wait=0.0) as served:
        worker, order = await served.worker(), []
        for _ in range(10):
            node = await worker.node()
            order.append(node.id)
            await worker.complete(node)
        assert order == [dag.id(counter) for dag in dags for counter in range(2)]


async def test_nodes_made_after_a_restart_may_name_those_made_before(tmp_path: Path) -> None:
    dag = Dag()
    async with killed(tmp_path) as served:
        await submit(served.stub, dag.submission(b"ended", b"live"))
        worker = await served.worker()
        await worker.durable(await worker.complete(await worker.node(), value=b"before"))
        await worker.say(draining=True)
    async with after(tmp_path, reconnect_wait=0.0) as served:
        join = dag.submission(b"join", first=2, creates=False, source_count=[2], source=[0, 1])
        await submit(served.stub, join)
        worker = await served.worker()
        await worker.complete(await worker.node(), value=b"after")
        node = await worker.node()
        assert [node.values[key] for key in node.sources] == [envelope(b"before"), envelope(b"after")]


async def test_a_broker_that_was_stopped_cleanly_does_not_wait_at_its_next_start(tmp_path: Path) -> None:
    async with serving(store=url(tmp_path)) as served:
        await submit(served.stub, Dag().submission(b"a"))
        worker = await served.worker()
        node = await worker.node()
    async with serving(store=url(tmp_path), reconnect_wait=60.0) as served:
        assert served.broker.scheduler.dispatch_paused_until is None
        taken = await (await served.worker()).node()
        assert (taken.key, taken.run) == (node.key, 0)
