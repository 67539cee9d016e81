"""Cached values over the wire: keys, hits and proofs in reports, columns that do not fit, lists, clearing, removal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import FIRST_FOUND
from dagorama_broker.scheduler.hits import FOUND_HEAD
from tests.support.raw import Dag, Given, RawWorker, Served, refused, results, serving, submit

KEY = b"k" * 32
#: A signature of a cache key, of a worker or of a caller, and one with another signing key.
SIGNED, OTHERWISE = b"signkey1" + bytes(32), b"signkey2" + bytes(32)
CACHED = pb.Function(name="work:Task.cached", hash="hash-c", cached=True)
COMPLETED = pb.NodeState.COMPLETED


async def looked_up(served: Served, worker: RawWorker) -> tuple[Dag, Given]:
    """Return a new node after its key was looked up."""
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", functions=(CACHED,)))
    node = await worker.node()
    returned = pb.Return(node=[node.key], attempt=[node.attempt], reason=pb.CACHE_KEY, cache_key=[KEY])
    await worker.say(returns=[returned])
    return dag, await worker.node()


async def computed(served: Served, worker: RawWorker) -> Dag:
    dag, node = await looked_up(served, worker)
    sent = await worker.complete(node, cached=[0], cache_key=[KEY], cache_proof=[SIGNED])
    await worker.durable(sent)
    return dag


def hit(node: Given, of: bytes) -> pb.Results:
    return results(node, ref_count=[1], ref=[-1], foreign=[of], hits=[0])


async def test_a_later_node_has_the_value_of_the_first_also_after_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        first = await computed(served, await served.worker())
    async with serving(store=store) as served:
        worker = await served.worker()
        second, node = await looked_up(served, worker)
        await worker.durable(await worker.report(hit(node, first.id(0))))
        details = await served.stub.GetNode(pb.GetNodeRequest(instance=second.instance, node=second.id(0)))
        assert details.info.state == COMPLETED
        assert (details.info.cached.node, details.info.cached.instance) == (first.id(0), first.instance)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, ", which it has from the cache or"):
            await served.stub.Delete(pb.DeleteRequest(instance=first.instance))


async def test_a_key_that_the_caller_announces_is_looked_up_before_the_node_is_granted() -> None:
    async with serving() as served:
        worker = await served.worker()
        first, second = await computed(served, worker), Dag()
        announced = {"cached": [0], "cache_key": [KEY], "cache_announcement": [OTHERWISE]}
        await submit(served.stub, second.submission(b"a", functions=(CACHED,), **announced))
        await worker.node()
        body = pb.GrantBody.FromString(worker.messages[-1].grants[-1].body)
        assert [found.node for found in body.found] == [first.id(0)]
        assert (list(body.cache), list(body.announced_key)) == ([FIRST_FOUND], [KEY])


async def test_a_node_whose_value_is_cached_under_its_key_completes_without_a_worker(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        first, second = await computed(served, await served.worker()), Dag()
    async with serving(store=store) as served:  # which has no worker
        announced = {"cached": [0], "cache_key": [KEY], "cache_announcement": [SIGNED]}
        await submit(served.stub, second.submission(b"a", functions=(CACHED,), **announced))
        (reply,) = await served.wait(second.instance, second.id(0))
        values = dict(zip(reply.value_node, reply.value, strict=True))
        assert values.keys() == {first.id(0), second.id(0)}, "the value that it names is sent along"
        assert values[second.id(0)] == b"".join(
            (FOUND_HEAD, KEY, second.instance, SIGNED, first.instance, first.id(0), SIGNED)
        )
        details = await served.stub.GetNode(pb.GetNodeRequest(instance=second.instance, node=second.id(0)))
        assert (details.info.cached.node, details.info.worker) == (first.id(0), "")
        assert (await served.stub.ListCache(pb.ListCacheRequest())).hits == 1
        with refused(grpc.StatusCode.FAILED_PRECONDITION, ", which it has from the cache or"):
            await served.stub.Delete(pb.DeleteRequest(instance=first.instance))


@pytest.mark.parametrize(
    "columns",
    [
        {"cached": [0]},
        {"cache_key": [KEY]},
        {"cache_announcement": [SIGNED]},
        {"cached": [0], "cache_key": [KEY]},
        {"cached": [0], "cache_key": [b"short"], "cache_announcement": [SIGNED]},
        {"cached": [0], "cache_key": [KEY], "cache_announcement": [b"short"]},
        {"cached": [1], "cache_key": [KEY], "cache_announcement": [SIGNED]},
        {"cached": [0, 0], "cache_key": [KEY, KEY], "cache_announcement": [SIGNED, SIGNED]},
    ],
)
async def test_announced_keys_that_do_not_fit_are_refused(columns: dict[str, Any]) -> None:
    async with serving() as served:
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            await submit(served.stub, Dag().submission(b"a", functions=(CACHED,), **columns))


async def test_a_value_whose_instance_is_removed_before_it_is_named_is_a_miss() -> None:
    async with serving() as served:
        worker = await served.worker()
        first = await computed(served, worker)
        second, node = await looked_up(served, worker)
        await served.stub.Delete(pb.DeleteRequest(instance=first.instance))
        await worker.report(hit(node, first.id(0)))
        again = await worker.node()
        assert again.id == second.id(0)
        await worker.durable(await worker.complete(again))
        assert await served.states(second.instance, second.id(0)) == [COMPLETED]


async def test_values_are_listed_and_cleared() -> None:
    async with serving() as served:
        await computed(served, await served.worker())
        reply = await served.stub.ListCache(pb.ListCacheRequest())
        assert [(each.function, each.values) for each in reply.functions] == [(CACHED.name, 1)]
        assert (reply.hits, reply.misses) == (0, 1)
        for function, values in (("other", 0), (CACHED.name, 1), (CACHED.name, 0)):
            cleared = await served.stub.ClearCache(pb.ClearCacheRequest(function=function))
            assert cleared.values == values
        (action,) = (await served.stub.ListActions(pb.ListActionsRequest())).actions
        assert (action.action, action.target, action.count) == ("clear cache", CACHED.name, 1)
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            await served.stub.ClearCache(pb.ClearCacheRequest())


@pytest.mark.parametrize(
    "columns",
    [
        {"cached": [0]},
        {"cached": [1], "cache_key": [KEY], "cache_proof": [b"p"]},
        {"cached": [0], "cache_key": [b"short"], "cache_proof": [b"p"]},
        {"cached": [0], "cache_key": [KEY], "cache_proof": [bytes(129)]},
        {"cached": [0], "cache_key": [KEY], "cache_proof": [b""]},
        {"hits": [1]},
    ],
)
async def test_columns_that_do_not_fit_end_the_session(columns: dict[str, Any]) -> None:
    async with serving() as served:
        worker = await served.worker()
        _, node = await looked_up(served, worker)
        await worker.complete(node, **columns)
        assert (await worker.end()).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, KEY]])
async def test_keys_that_do_not_fit_end_the_session(keys: list[bytes]) -> None:
    async with serving() as served:
        worker, dag = await served.worker(), Dag()
        await submit(served.stub, dag.submission(b"a", functions=(CACHED,)))
        node = await worker.node()
        returned = pb.Return(node=[node.key], attempt=[node.attempt], reason=pb.CACHE_KEY, cache_key=keys)
        await worker.say(returns=[returned])
        assert (await worker.end()).code() is grpc.StatusCode.INVALID_ARGUMENT
