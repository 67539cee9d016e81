"""IDs that a store certainly lacks are known without asking it, and its own IDs are never taken for such."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from random import Random
from typing import Any, cast

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import used_ids
from dagorama_broker.engine.used_ids import UsedIds
from tests.support.far_store import FarStore, distance
from tests.support.raw import LEAF, Dag, Served, envelope, refused, serving, submit

__all__ = ["distance"]
far = pytest.mark.parametrize("distance", ["far"], indirect=True)
near = pytest.mark.parametrize("distance", ["near"], indirect=True)


@near
def test_a_used_id_is_never_taken_for_an_unused_one_however_many_there_are() -> None:
    """The IDs fill three tables. Unused ones are taken for used ones so rarely that few questions are wasted."""
    random, used = Random(1), UsedIds()
    ids = [random.randbytes(12 + 4 * (number % 2)) for number in range(250_000)]
    used.update(ids)
    assert all(id in used for id in ids)
    mistaken = sum(random.randbytes(16) in used for _ in range(20_000))
    assert mistaken < 20_000 * 0.03
    assert len(used) <= 4 * len(ids)


async def known(served: Served) -> FarStore:
    """Return the store after the broker has learned what is in it."""
    await served.until(lambda broker: broker.loading.looks.used.is_complete)
    return cast("FarStore", served.broker.store)


@far
async def test_new_nodes_of_clients_and_workers_ask_the_store_nothing() -> None:
    async with serving() as served:
        store = await known(served)
        worker = await served.worker()
        for _ in range(20):
            parent, child = Dag(), Dag()
            await submit(served.stub, parent.submission(b"a", functions=[LEAF]))
            node = await worker.node()
            child.instance = parent.instance
            children = pb.Children(node=node.key, attempt=node.attempt, nodes=child.nodes(b"b"))
            await worker.durable(await worker.complete(node, value=b"done", children=[children], functions=[LEAF]))
            await worker.durable(await worker.complete(await worker.node(), value=b"of the child"))
            assert await served.value(parent.instance, child.id(0)) == envelope(b"of the child")
        assert store.looks == 0


@far
async def test_what_was_committed_since_the_start_is_recognized() -> None:
    async with serving() as served:
        store = await known(served)
        dag = Dag()
        request = dag.submission(b"a")
        await submit(served.stub, request)
        await submit(served.stub, request)
        assert sum((await served.status()).nodes) == 1
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            await submit(served.stub, dag.submission(b"other"))
        assert store.looks == 2


@far
async def test_what_an_earlier_broker_stored_is_recognized(tmp_path: Path) -> None:
    url, dag = f"sqlite:///{tmp_path}/store.db", Dag()
    async with serving(store=url) as served:
        await submit(served.stub, dag.submission(b"a"))
    async with serving(store=url) as served:
        await known(served)
        await submit(served.stub, dag.submission(b"a"))
        assert sum((await served.status()).nodes) == 1
        other = Dag()
        other.origin = dag.origin
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            await submit(served.stub, other.submission(b"a"))


def asked_whether_new(served: Served, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that gets each instance about which the store is asked whether it is new."""
    store, asked = served.broker.store, list[bytes]()
    is_new = store.is_new

    def noting(instance: bytes, origin: bytes) -> bool:
        asked.append(instance)
        return is_new(instance, origin)

    monkeypatch.setattr(store, "is_new", noting)
    return asked


@near
async def test_a_near_store_is_asked_only_about_ids_that_it_may_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serving(store=f"sqlite:///{tmp_path}/store.db") as served:
        await served.until(lambda broker: broker.loading.looks.used.is_complete)
        asked, dag = asked_whether_new(served, monkeypatch), Dag()
        await submit(served.stub, dag.submission(b"a"))
        assert asked == []
        await served.until(lambda broker: not broker.commits.in_flight)
        other = Dag()
        other.instance = dag.instance
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            await submit(served.stub, other.submission(b"b"))
        assert sum((await served.status()).nodes) == 1


@near
async def test_a_large_near_store_is_asked_because_its_ids_are_not_read_at_each_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(used_ids, "MOST_NEAR", 3)
    url = f"sqlite:///{tmp_path}/store.db"
    async with serving(store=url) as served:
        for _ in range(2):  # an instance and an origin each
            await submit(served.stub, Dag().submission(b"a"))
    async with serving(store=url) as served:
        used = served.broker.loading.looks.used
        await used.fill(served.broker.commits)
        assert not used.is_complete
        assert used._note not in served.broker.commits.observers
        asked = asked_whether_new(served, monkeypatch)
        await submit(served.stub, (dag := Dag()).submission(b"a"))
        assert asked == [dag.instance]


@pytest.mark.parametrize("distance", ["asked"], indirect=True)
async def test_what_is_being_committed_while_the_ids_are_read_is_recognized() -> None:
    async with serving() as served:
        entered, gate, commit = threading.Event(), threading.Event(), served.broker.store.commit

        def slowly(changes: Any) -> None:
            entered.set()
            gate.wait()
            commit(changes)

        served.broker.store.commit = slowly  # type: ignore[method-assign]  # it waits
        request = Dag().submission(b"a")
        submitted = asyncio.create_task(submit(served.stub, request))
        await asyncio.to_thread(entered.wait)
        await served.broker.loading.looks.used.fill(served.broker.commits)
        repeated = asyncio.create_task(submit(served.stub, request))
        gate.set()
        await asyncio.gather(submitted, repeated)
        await submit(served.stub, request)
        assert sum((await served.status()).nodes) == 1
