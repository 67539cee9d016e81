"""Adopt over the wire: what status says, what is answered, what a worker gets then, what a restart finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.settings import Settings

from .raw import FUNCTION, Dag, RawWorker, Served, envelope, refused, serving

NAME, OLD, NEW = FUNCTION.name, FUNCTION.hash, "hash-new"


async def other_code(served: Served, hash: str = NEW, **hello: Any) -> RawWorker:
    """A worker that has other code, and has said so of the first node it got."""
    worker = await served.worker(**hello)
    node = await worker.node()
    await worker.say(returns=[pb.Return(
        node=[node.key], attempt=[node.attempt], reason=pb.CODE_MISMATCH, detail="it was changed", hash=hash,
    )])  # fmt: skip
    await served.until(lambda broker: any(w.refuses for w in broker.scheduler.dispatch.workers.values()))
    return worker


async def adopt(served: Served, hash: str = "", made_with: tuple[str, ...] = ()) -> tuple[int, str]:
    reply = await served.stub.Adopt(pb.AdoptRequest(function=NAME, hash=hash, **{"from": made_with}))
    return reply.adopted, reply.hash


def grant_of(worker: RawWorker) -> pb.GrantBody:
    """What the worker was sent last."""
    (grant,) = worker.messages[-1].grants
    return pb.GrantBody.FromString(grant.body)


async def test_status_says_what_code_there_is_instead_and_it_can_be_had_to_run_them() -> None:
    async with serving() as served:
        dag = Dag()
        await served.stub.Submit(dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
        worker = await other_code(served)
        (unservable,) = (await served.status()).unservable
        assert (unservable.function.hash, list(unservable.deployed)) == (OLD, [NEW])
        assert await adopt(served) == (2, NEW)
        node = await worker.node()
        assert (node.function.name, node.function.hash) == (NAME, NEW)
        assert list(grant_of(worker).made_with) == [OLD]
        await worker.complete(node)
        await worker.complete(await worker.node())
        assert await served.value(dag.instance, dag.id(1)) == envelope(b"done")
        assert not (await served.status()).unservable


async def test_nodes_of_the_new_code_beside_them_have_no_other_code_that_they_were_made_with() -> None:
    async with serving() as served:
        dag = Dag()
        new = pb.Function(name=NAME, hash=NEW, is_async=True)
        old = pb.Function(name=NAME, hash=OLD, is_async=True)
        await served.stub.Submit(dag.submission(b"a", b"b", b"c", function=[1, 0, 1], functions=[old, new]))
        assert await adopt(served, NEW, (OLD,)) == (1, NEW)
        worker = await served.worker()
        assert [node.arguments[2:] for node in await worker.nodes(3)] == [b"a", b"b", b"c"]
        assert list(grant_of(worker).made_with) == ["", OLD, ""]


async def test_an_adoption_outlives_a_restart(tmp_path: Path) -> None:
    settings = Settings(port=0, store=f"sqlite:///{tmp_path}/broker.sqlite3", reconnect_wait=0.2)
    async with serving(settings) as served:
        await served.stub.Submit(Dag().submission(b"a"))
        assert await adopt(served, NEW, (OLD,)) == (1, NEW)
    async with serving(settings) as served:
        worker = await served.worker()
        assert (await worker.node()).function.hash == NEW
        assert list(grant_of(worker).made_with) == [OLD]


async def test_where_workers_have_different_code_it_is_refused_and_both_are_named() -> None:
    async with serving() as served:
        await served.stub.Submit(Dag().submission(b"a"))
        await other_code(served, "hash-1a")
        await other_code(served, "hash-1b")
        await served.until(lambda broker: len(broker.scheduler.dispatch.unservable()) == 1)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "name one of hash-1a, hash-1b"):
            await adopt(served)
        assert await adopt(served, "hash-1b") == (1, "hash-1b")


@pytest.mark.parametrize(
    ("function", "status"),
    [("", grpc.StatusCode.INVALID_ARGUMENT), ("work:Task.unknown", grpc.StatusCode.NOT_FOUND)],
)
async def test_what_is_not_there_is_refused(function: str, status: grpc.StatusCode) -> None:
    async with serving() as served:
        with refused(status):
            await served.stub.Adopt(pb.AdoptRequest(function=function))
