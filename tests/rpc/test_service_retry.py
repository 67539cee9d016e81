"""Retry over the wire: what is answered, what runs then, what waiters are told, what a restart finds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.errors import Unavailable
from dagorama_broker.rpc.wait import wait_replies
from dagorama_broker.settings import Settings
from tests.support.far_store import distance
from tests.support.raw import FUNCTION, KEY, LEAF, Dag, RawWorker, Served, envelope, refused, serving, signed, submit

__all__ = ["distance"]


async def failed(served: Served, worker: RawWorker) -> Dag:
    """An instance whose first node failed, and with it the two that waited for it in turn."""
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", b"c", source_count=[0, 1, 1], source=[0, 1]))
    await worker.fail(await worker.node(), message="no such file")
    assert (await served.failure(dag.instance, dag.id(2))).message == "no such file"
    return dag


async def retry(served: Served, dag: Dag, *counters: int) -> tuple[int, int]:
    reply = await served.stub.Retry(pb.RetryRequest(instance=dag.instance, node=map(dag.id, counters)))
    return reply.queued, reply.waiting


async def run_all(served: Served, worker: RawWorker, count: int) -> list[bytes]:
    """Complete nodes as they come; their arguments."""
    ran = []
    for _ in range(count):
        node = await worker.node()
        ran.append(node.arguments[2:])
        await worker.durable(await worker.complete(node))
    return ran


@pytest.mark.parametrize("counters", [(), (0,), (2,), (1, 2)], ids=["all", "the root cause", "a descendant", "two"])
async def test_what_failed_runs_again_and_what_waited_for_it_after_it(counters: tuple[int, ...]) -> None:
    async with serving() as served:
        worker = await served.worker()
        dag = await failed(served, worker)
        assert await retry(served, dag, *counters) == (1, 2)
        assert await retry(served, dag, *counters) == (0, 0)
        assert await run_all(served, worker, 3) == [b"a", b"b", b"c"]
        assert await served.value(dag.instance, dag.id(2)) == envelope(b"done")
        info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
        assert (info.ended, info.failed, info.unfinished) == (True, False, 0)
        assert await retry(served, dag, *counters) == (0, 0)


async def test_a_wait_after_the_retry_gets_only_the_new_end() -> None:
    async with serving() as served:
        worker = await served.worker()
        dag = await failed(served, worker)
        await retry(served, dag)
        waiting = asyncio.create_task(served.value(dag.instance, dag.id(2)))
        assert await served.states(dag.instance, dag.id(1)) == [pb.WAITING]
        await run_all(served, worker, 3)
        assert await waiting == envelope(b"done")


async def test_a_retry_outlives_a_restart(tmp_path: Path) -> None:
    settings = Settings(port=0, store=f"sqlite:///{tmp_path}/broker.sqlite3", reconnect_wait=0.2)
    async with serving(settings) as served:
        worker = await served.worker()
        dag = await failed(served, worker)
        await worker.say(draining=True)
        await served.until(lambda broker: not any(w.pool for w in broker.scheduler.claims.workers.values()))
        assert await retry(served, dag) == (1, 2)
    async with serving(settings) as served:
        assert await served.states(dag.instance, *map(dag.id, range(3))) == [pb.QUEUED, pb.WAITING, pb.WAITING]
        assert await run_all(served, await served.worker(), 3) == [b"a", b"b", b"c"]
        assert await served.value(dag.instance, dag.id(2)) == envelope(b"done")


async def test_after_a_restart_what_failed_before_it_runs_again(tmp_path: Path) -> None:
    settings = Settings(port=0, store=f"sqlite:///{tmp_path}/broker.sqlite3", reconnect_wait=0.2)
    async with serving(settings) as served:
        dag = await failed(served, await served.worker())
    async with serving(settings) as served:
        assert await retry(served, dag, 1) == (1, 2)
        assert (await served.status()).nodes[pb.QUEUED] == 1
        assert await run_all(served, await served.worker(), 3) == [b"a", b"b", b"c"]


async def test_what_was_cancelled_is_not_run_again() -> None:
    async with serving() as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
        for counters in ((), (0,)):
            with refused(grpc.StatusCode.FAILED_PRECONDITION, "cancelled nodes cannot be retried"):
                await retry(served, dag, *counters)


async def test_a_failure_that_an_unfinished_node_takes_for_a_value_stays() -> None:
    async with serving() as served:
        dag = Dag()
        worker = await served.worker(slots=2)
        await submit(served.stub, dag.submission(
            b"a", b"b", b"join", source_count=[0, 0, 2], source=[0, 1], tolerant=[0, 1], functions=[LEAF],
        ))  # fmt: skip
        await worker.durable(await worker.fail(await worker.node()))
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "takes the failure as a value"):
            await retry(served, dag, 0)
        assert await served.states(dag.instance, dag.id(0)) == [pb.FAILED]


async def test_a_node_of_the_instance_may_be_added_after_a_retry_and_the_same_submission_sent_again() -> None:
    async with serving() as served:
        worker = await served.worker()
        dag = await failed(served, worker)
        await retry(served, dag)
        again = dag.submission(b"a", b"b", b"c", source_count=[0, 1, 1], source=[0, 1])
        await submit(served.stub, again)
        more = pb.SubmitRequest(functions=[LEAF], nodes=[dag.nodes(b"d", first=3, source_count=[1], source=[2])])
        await submit(served.stub, more)
        assert await run_all(served, worker, 4) == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (pb.RetryRequest(instance=b"short"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.RetryRequest(instance=bytes(16)), grpc.StatusCode.NOT_FOUND),
        (pb.RetryRequest(instance=bytes(16), node=[b"short"]), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["malformed", "unknown instance", "malformed node"],
)
async def test_retrying_an_unknown_instance_or_node_is_refused(
    request_: pb.RetryRequest, status: grpc.StatusCode
) -> None:
    async with serving() as served:
        with refused(status):
            await served.stub.Retry(request_)


async def test_a_node_that_is_unknown_or_of_another_instance_is_refused_and_no_other_runs() -> None:
    async with serving() as served:
        worker = await served.worker()
        dag, other = await failed(served, worker), await failed(served, worker)
        with refused(grpc.StatusCode.NOT_FOUND, "is not known to this broker"):
            await retry(served, dag, 0, 99)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "belongs to another instance"):
            ids = [dag.id(0), other.id(0)]
            await served.stub.Retry(pb.RetryRequest(instance=dag.instance, node=ids))
        assert await served.states(dag.instance, dag.id(0)) == [pb.FAILED]


async def test_a_wait_that_was_about_to_get_a_retried_failure_is_told_to_wait_again() -> None:
    async with serving() as served:
        worker = await served.worker(slots=2)
        dag = Dag()
        await submit(served.stub, dag.submission(b"a", b"b"))
        first, second = await worker.nodes(2)
        request = pb.WaitRequest(instance=dag.instance, node=[dag.id(0), dag.id(1)])
        replies = wait_replies(served.broker, request)
        hearing = asyncio.ensure_future(anext(replies))
        await served.until(lambda broker: second.key in broker.watching)
        await worker.complete(first)
        assert list((await hearing).index) == [0]
        await worker.durable(await worker.fail(second))
        assert await retry(served, dag, 1) == (1, 0)
        with pytest.raises(Unavailable, match="retried just now: wait again"):
            await anext(replies)


async def test_a_node_that_names_what_is_retried_while_it_is_looked_up_gets_its_value() -> None:
    """What was read as failed has run again by the time that the node is made."""
    async with serving() as served:
        worker = await served.worker()
        dag = await failed(served, worker)
        broker, gate = served.broker, threading.Event()
        (found,) = broker.store.find([dag.id(0)]).values()
        read = broker.store.failed([found.key])
        blocked = asyncio.ensure_future(broker.commits.in_store(gate.wait))
        more = pb.SubmitRequest(functions=[LEAF], nodes=[dag.nodes(b"d", first=3, source_count=[1], source=[0])])
        submitted = asyncio.ensure_future(submit(served.stub, more))
        await served.until(lambda broker: broker.commits.thread._work_queue.qsize() > 0)
        now, scheduler = broker.see_time(), broker.scheduler
        scheduler.retry(read, now)
        scheduler.tick(now)
        (node,) = scheduler.claims.claimed.values()
        assert node.slot is not None
        scheduler.complete(node.slot.worker, node.key, node.attempt, envelope(b"new"), 100_000, (), (), {}, (), now)
        gate.set()
        await asyncio.gather(submitted, blocked)
        assert [node.values[found.key] for node in await worker.nodes(1)] == [envelope(b"new")]
        assert (await served.states(dag.instance, dag.id(3)))[0] not in (pb.FAILED, pb.CANCELLED)
        await worker.vanish()
        await run_all(served, await served.worker(), 3)
        assert await served.value(dag.instance, dag.id(3)) == envelope(b"done")


# --- downstream -----------------------------------------------------------------------------------------


async def reported(served: Served, worker: RawWorker) -> Dag:
    """Node 1 has completed with the failure of 0 as a value, and 2 on the value of 1."""
    dag = Dag()
    await submit(served.stub, dag.submission(
        b"a", b"report", b"after", source_count=[0, 1, 1], source=[0, 1], tolerant=[0], functions=[LEAF],
    ))  # fmt: skip
    await worker.fail(await worker.node())
    assert await run_all(served, worker, 2) == [b"report", b"after"]
    assert await served.value(dag.instance, dag.id(2)) == envelope(b"done")
    return dag


async def info(served: Served, dag: Dag) -> pb.InstanceInfo:
    return await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))


async def test_nodes_that_used_a_failure_are_counted_at_its_retry_and_marked_until_they_run_again(
    tmp_path: Path,
) -> None:
    settings = Settings(port=0, store=f"sqlite:///{tmp_path}/broker.sqlite3", reconnect_wait=0.2)
    async with serving(settings) as served:
        worker = await served.worker()
        dag = await reported(served, worker)
        assert (await info(served, dag)).used_failures == 0
        reply = await served.stub.Retry(pb.RetryRequest(instance=dag.instance))
        assert (reply.queued, reply.waiting, reply.used_failures) == (1, 0, 1)
        assert await run_all(served, worker, 1) == [b"a"]
    async with serving(settings) as served:
        assert (await info(served, dag)).used_failures == 1
        listed = await served.stub.ListNodes(pb.ListNodesRequest(instance=dag.instance))
        assert [node.used_failure for node in listed.nodes] == [False, True, False]
        reply = await served.stub.Retry(pb.RetryRequest(instance=dag.instance, downstream=True))
        assert (reply.queued, reply.waiting, reply.completed, reply.used_failures) == (1, 1, 2, 0)
        assert await run_all(served, await served.worker(), 2) == [b"report", b"after"]
        found = await info(served, dag)
        assert (found.ended, found.failed, found.used_failures) == (True, False, 0)


@pytest.mark.parametrize("counter", [0, 1], ids=["the failed node", "the one that was given its failure"])
async def test_a_named_node_is_enough_to_rerun_what_has_used_its_failure_later(counter: int) -> None:
    async with serving() as served:
        worker = await served.worker()
        dag = await reported(served, worker)
        await retry(served, dag)
        await run_all(served, worker, 1)
        request = pb.RetryRequest(instance=dag.instance, node=[dag.id(counter)], downstream=True)
        assert (await served.stub.Retry(request)).completed == 2
        assert (await served.stub.Retry(request)).completed == 0
        assert await run_all(served, worker, 2) == [b"report", b"after"]


@pytest.mark.parametrize("downstream", [False, True])
async def test_what_ends_while_a_retry_is_read_is_not_missed(downstream: bool) -> None:
    async with serving() as served:
        worker = await served.worker()
        dag = Dag()
        await submit(served.stub, dag.submission(
            b"a", b"report", source_count=[0, 1], source=[0], tolerant=[0], functions=[LEAF],
        ))  # fmt: skip
        await worker.fail(await worker.node())
        report = await worker.node()
        gate, entered, read = threading.Event(), threading.Event(), served.broker.store.edges

        def read_slowly(*asked: Any) -> object:
            found = read(*asked)
            entered.set()
            gate.wait()
            return found

        served.broker.store.edges = read_slowly  # type: ignore[method-assign, assignment]
        asked = asyncio.ensure_future(served.stub.Retry(pb.RetryRequest(instance=dag.instance, downstream=downstream)))
        await asyncio.to_thread(entered.wait)
        await worker.complete(report)
        await served.until(lambda broker: broker.scheduler.graph.find(dag.id(1)) is None)
        gate.set()
        reply = await asked
        assert (reply.queued, reply.completed, reply.used_failures) == (1, int(downstream), int(not downstream))


async def test_a_wait_after_a_retry_downstream_gets_only_the_new_value() -> None:
    """Although the old one was among those that had just been recorded."""
    async with serving() as served:
        worker = await served.worker()
        dag = await reported(served, worker)
        await served.stub.Retry(pb.RetryRequest(instance=dag.instance, downstream=True))
        assert (await served.states(dag.instance, dag.id(2)))[0] == pb.WAITING
        waiting = asyncio.create_task(served.value(dag.instance, dag.id(2)))
        await worker.complete(await worker.node())
        await worker.complete(await worker.node())
        await worker.complete(await worker.node(), value=b"anew")
        assert await waiting == envelope(b"anew")
        assert await served.value(dag.instance, dag.id(2)) == envelope(b"anew")


async def test_a_wait_that_has_seen_a_value_which_is_dropped_is_told_to_wait_again() -> None:
    async with serving() as served:
        worker = await served.worker()
        dag, gate, entered = await reported(served, worker), threading.Event(), threading.Event()
        broker = served.broker
        broker.forget({1})
        replies = wait_replies(broker, pb.WaitRequest(instance=dag.instance, node=[dag.id(2)]))
        read = broker.store.find

        def find_slowly(ids: Sequence[bytes]) -> object:
            found = read(ids)
            entered.set()
            gate.wait()
            return found

        broker.store.find = find_slowly  # type: ignore[method-assign, assignment]
        hearing = asyncio.ensure_future(anext(replies))
        await asyncio.to_thread(entered.wait)
        broker.scheduler.reruns += 1
        gate.set()
        with pytest.raises(Unavailable, match="retried just now: wait again"):
            await hearing


async def test_a_retry_says_which_functions_no_connected_worker_may_run() -> None:
    async with serving() as served:
        worker = await served.worker()
        dag = await failed(served, worker)
        request = pb.RetryRequest(instance=dag.instance, patience=10.0)
        asked = asyncio.ensure_future(served.stub.Retry(request))
        node = await worker.node()
        await worker.say(returns=[
            pb.Return(node=[node.key], attempt=[node.attempt], reason=pb.CODE_MISMATCH, hash="h2", detail="changed"),
        ])  # fmt: skip
        (found,) = (await asked).unschedulable
        assert (found.function.name, found.queued, list(found.deployed)) == (node.function.name, 1, ["h2"])
        assert "it has other code" in found.reason


async def test_with_new_code_what_runs_again_is_run_by_the_code_that_a_worker_says_it_has() -> None:
    async with serving() as served:
        worker = await served.worker(key_ids=[KEY])
        dag, other = await failed(served, worker), await failed(served, worker)
        rebinding = signed(FUNCTION.name, FUNCTION.hash, instance=dag.instance)
        reply = await served.stub.Retry(pb.RetryRequest(instance=dag.instance, new_code=True, rebindings=[rebinding]))
        assert (reply.queued, reply.waiting, reply.rebound) == (1, 2, 3)
        node = await worker.node()
        assert node.function.hash == ""
        await worker.say(returns=[
            pb.Return(node=[node.key], attempt=[node.attempt], reason=pb.CODE_MISMATCH, hash="h2"),
        ])  # fmt: skip
        nodes = []
        for _ in range(3):
            nodes.append(await worker.node())
            await worker.complete(nodes[-1])
        assert [node.function.hash for node in nodes] == ["h2"] * 3
        assert [node.made_with for node in nodes] == [FUNCTION.hash] * 3
        assert [node.rebinding for node in nodes] == [rebinding] * 3
        assert await retry(served, other) == (1, 2)
        assert (await worker.node()).function.hash == FUNCTION.hash


async def look(served: Served, dag: Dag, *counters: int, downstream: bool = False) -> dict[str, list[str]]:
    reply = await served.stub.Retry(pb.RetryRequest(
        instance=dag.instance, node=map(dag.id, counters), new_code=True, look=True, downstream=downstream
    ))  # fmt: skip
    return {found.function: list(found.made_with) for found in reply.rebindable}


async def test_what_a_retry_with_new_code_needs_signed_is_told_and_nothing_has_changed() -> None:
    async with serving() as served:
        worker = await served.worker(key_ids=[KEY])
        functions = [FUNCTION, LEAF, pb.Function(name=LEAF.name, hash="hash-3", class_code="leaf=hash-3")]
        dag = Dag()
        await submit(served.stub, dag.submission(
            b"a", b"b", b"c", b"d", function=[0, 1, 2, 1], functions=functions,
            source_count=[0, 1, 1, 0], source=[0, 1],
        ))  # fmt: skip
        await worker.fail(await worker.node(), message="no such file")
        await served.failure(dag.instance, dag.id(2))
        everything = {FUNCTION.name: ["hash-1"], LEAF.name: ["hash-2", "hash-3 leaf=hash-3"]}
        assert await look(served, dag) == everything
        assert await look(served, dag, 0) == everything
        assert (await served.status()).nodes[pb.FAILED] == 3
        await worker.complete(await worker.node())
        await served.value(dag.instance, dag.id(3))
        assert await look(served, dag) == everything
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "nothing in it failed"):
            fresh = Dag()
            await submit(served.stub, fresh.submission(b"a"))
            await served.stub.Cancel(pb.CancelRequest(instance=fresh.instance))
            await look(served, fresh)


async def test_what_a_retry_downstream_has_wait_again_is_to_be_signed_too() -> None:
    async with serving() as served:
        worker = await served.worker(key_ids=[KEY])
        dag = Dag()
        await submit(served.stub, dag.submission(
            b"a", b"b", b"c", function=[0, 1, 1], functions=[FUNCTION, LEAF],
            source_count=[0, 0, 2], source=[0, 1], tolerant=[0, 1],
        ))  # fmt: skip
        await worker.fail(await worker.node(), message="no such file")
        await served.failure(dag.instance, dag.id(0))
        assert await look(served, dag, 0, downstream=True) == {FUNCTION.name: ["hash-1"], LEAF.name: ["hash-2"]}


@pytest.mark.parametrize(
    ("rebindings", "text"),
    [
        ([], "needs a signature that allows it"),
        ([signed(FUNCTION.name, "another hash")], "sign it again"),
        ([signed(LEAF.name, FUNCTION.hash)], "sign it again"),
        ([signed(FUNCTION.name, FUNCTION.hash, instance=bytes(16))], "needs a signature that allows it"),
    ],
    ids=["unsigned", "for other code", "for another function", "for another instance"],
)
async def test_a_retry_with_new_code_that_is_not_signed_for_is_refused_and_nothing_has_changed(
    rebindings: Sequence[pb.SignedRebinding], text: str
) -> None:
    async with serving() as served:
        worker = await served.worker(key_ids=[KEY])
        dag = await failed(served, worker)
        request = pb.RetryRequest(instance=dag.instance, new_code=True, rebindings=rebindings)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, text):
            await served.stub.Retry(request)
        assert (await served.status()).nodes[pb.FAILED] == 3
        assert await retry(served, dag) == (1, 2)


async def test_a_retry_takes_no_rebinding_for_code_of_one_hash() -> None:
    async with serving() as served:
        worker = await served.worker(key_ids=[KEY])
        dag = await failed(served, worker)
        rebindings = [signed(FUNCTION.name, FUNCTION.hash, hash="h2")]
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "for the code that is deployed"):
            await served.stub.Retry(pb.RetryRequest(instance=dag.instance, new_code=True, rebindings=rebindings))


async def test_new_code_is_for_the_instance_of_the_call_alone() -> None:
    """What it failed because of runs again wherever it is, by the code that it was made with."""
    async with serving() as served:
        worker = await served.worker(key_ids=[KEY], slots=2)
        first, second = Dag(), Dag()
        await submit(served.stub, first.submission(b"a"))
        await submit(served.stub, second.submission(b"b"))
        node = await worker.node()
        other = await worker.node()
        await worker.complete(other, ref_count=[1], ref=[-1], foreign=[first.id(0)])
        await worker.fail(node, message="no such file")
        await served.failure(second.instance, second.id(0))
        assert await look(served, second) == {FUNCTION.name: [FUNCTION.hash]}
        rebinding = signed(FUNCTION.name, FUNCTION.hash, instance=second.instance)
        reply = await served.stub.Retry(
            pb.RetryRequest(instance=second.instance, new_code=True, rebindings=[rebinding])
        )
        assert (reply.queued, reply.waiting, reply.rebound) == (1, 1, 0)
        assert (await worker.node()).function.hash == FUNCTION.hash


async def test_rebinding_may_be_kept_to_one_instance() -> None:
    async with serving() as served:
        first, second = Dag(), Dag()
        for dag in (first, second):
            await submit(served.stub, dag.submission(b"a"))
        rebinding = signed(FUNCTION.name, FUNCTION.hash, hash="h2", instance=first.instance)
        request = pb.RebindRequest(function=FUNCTION.name, hash="h2", instance=first.instance, rebinding=rebinding)
        request.from_hash.append(FUNCTION.hash)
        assert (await served.stub.Rebind(request)).rebound == 1
