"""A function that no node names any more leaves memory and the store, while the broker runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import functions
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.domain import Function
from dagorama_broker.model.rows import Changes, FunctionRow
from dagorama_broker.rpc import functions as messages_of_functions
from dagorama_broker.store import Store
from tests.support.raw import Dag, EagerAttemptRecord, Served, envelope, serving, submit
from tests.support.records import PLAIN, graph, node, restart

NOW: dict[str, Any] = {"retention": 0.0, "retention_failed": 0.0}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than three functions are many."""
    monkeypatch.setattr(functions, "MANY", 3)
    monkeypatch.setattr(functions, "AT_A_TIME", 2)
    monkeypatch.setattr(functions, "LATER", 0.01)
    monkeypatch.setattr(functions, "EVERY", 0.05)


def function(number: int, **fields: Any) -> pb.Function:
    return pb.Function(**{"name": f"work:f{number}", "hash": "h", **fields})


def names(broker: Broker) -> set[str]:
    assert {queue.function.name for queue in broker.scheduler.graph.queue_by_id.values()} == {
        of.name for of in broker.scheduler.graph.queues
    }
    return {of.name for of in broker.scheduler.graph.queues}


def stored(broker: Broker) -> set[str]:
    return {row.function.name for row in broker.store.live().functions}


async def once(served: Served, *functions: pb.Function) -> Dag:
    """An instance with a node of each function, cancelled."""
    dag = Dag()
    arguments = [b"a"] * len(functions)
    await submit(served.stub, dag.submission(*arguments, functions=functions, function=list(range(len(functions)))))
    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
    return dag


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store"


async def test_functions_of_removed_instances_and_of_no_node_at_all_are_dropped(place: str) -> None:
    async with serving(store=place, **NOW) as served:
        for number in range(0, 40, 4):
            await once(served, *(function(number + n) for n in range(4)))
        await submit(served.stub, Dag().submission(b"a", functions=[function(100 + n) for n in range(4)]))
        await served.until(lambda broker: len(names(broker)) <= 8)
        assert "work:f100" in names(served.broker)
        await served.broker.commits.wait_durable()
        assert stored(served.broker) == names(served.broker)


async def test_what_a_stored_node_names_stays_and_is_shown(place: str) -> None:
    async with serving(store=place) as served:
        kept = await once(served, function(0))
        for number in range(1, 20):
            await submit(served.stub, Dag().submission(b"a", functions=[function(0), function(number)]))
        await served.until(lambda broker: len(names(broker)) < 10)
        details = await served.stub.GetNode(pb.GetNodeRequest(instance=kept.instance, node=kept.id(0)))
        assert details.info.function.name == "work:f0"


async def test_a_dropped_function_may_come_again_and_takes_no_number_that_was_used(place: str) -> None:
    async with serving(store=place, **NOW) as served:
        await once(served, *(function(n) for n in range(8)))
        await served.until(lambda broker: not names(broker))
        used = served.broker.scheduler.graph.next_queue
        await served.broker.commits.wait_durable()
    if place == "memory://":
        return
    async with serving(store=place, **NOW) as served:
        assert served.broker.scheduler.graph.next_queue >= used
        dag = Dag()
        await submit(served.stub, dag.submission(b"a", functions=[function(3)]))
        worker = await served.worker()
        given = await worker.node()
        assert given.function.name == "work:f3"
        asking = asyncio.create_task(served.value(dag.instance, dag.id(0)))  # before the instance is removed
        await served.until(lambda broker: given.key in broker.watching)
        await worker.complete(given, value=b"again")
        assert await asking == envelope(b"again")


async def test_functions_of_staged_children_come_with_the_children() -> None:
    dag = Dag()
    async with serving(**NOW) as served:
        await submit(served.stub, dag.submission(b"parent", functions=[function(0)]))
        worker = await served.worker(slots=2)
        parent = await worker.node()
        eager_attempt = EagerAttemptRecord(parent)
        await worker.report(pb.Results(functions=[function(1)], children=[eager_attempt.nodes(b"x")]))
        await served.until(lambda broker: broker.scheduler.staged)
        for number in range(2, 12):
            await once(served, function(number, taint="GPU"))
        await served.until(lambda broker: len(names(broker)) <= 5)
        assert "work:f0" in names(served.broker)
        assert "work:f1" not in names(served.broker)
        await worker.complete(parent, ref_count=[1], ref=[0])
        child = await worker.node()
        assert child.function.name == "work:f1"


async def test_a_worker_that_refused_a_dropped_function_is_asked_again_when_it_comes_again() -> None:
    async with serving(**NOW) as served:
        worker = await served.worker()
        dag = Dag()
        await submit(served.stub, dag.submission(b"a", functions=[function(0)]))
        given = await worker.node()
        refusal = pb.Return(node=[given.key], attempt=[given.attempt], reason=pb.NOT_IMPORTABLE)
        await worker.say(returns=[refusal])
        (known,) = served.broker.scheduler.claims.workers.values()
        await served.until(lambda _: known.refuses)
        await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
        await once(served, *(function(n, taint="GPU") for n in range(1, 5)))
        await served.until(lambda broker: "work:f0" not in names(broker))
        assert not known.refuses
        await submit(served.stub, Dag().submission(b"b", functions=[function(0)]))
        assert (await worker.node()).function.name == "work:f0"


async def test_large_functions_are_dropped_though_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "MANY", 1_000)
    monkeypatch.setattr(functions, "LARGE", 100_000)
    async with serving(**NOW) as served:
        for number in range(10):
            await once(served, function(number, class_code="c" * 20_000))
        await served.until(lambda broker: broker.scheduler.graph.functions_size < 100_000)


def test_what_is_kept_by_the_messages_of_functions_is_bounded_in_bytes() -> None:
    for number in range(100):
        messages_of_functions.function_of(function(number, class_code=f"{number}" + "c" * 60_000))
    assert sum(map(len, messages_of_functions._functions)) <= messages_of_functions.BYTES_KEPT


# --- the stores -------------------------------------------------------------------------------------------


def test_a_store_says_which_functions_its_nodes_name_portion_by_portion(store: Store) -> None:
    changes = graph(*(node(key, function=key % 3 + 1) for key in range(1, 8)))
    changes.functions = [FunctionRow(id, Function(f"f{id}", "h", "q")) for id in range(1, 5)]
    store.commit(changes)
    named: set[int] = set()
    after: int | None = 0
    portions = 0
    while after is not None:
        some, after = store.functions_of(after, 2)
        assert some
        named |= some
        portions += 1
    assert named == {1, 2, 3}
    assert portions >= 4


def test_a_store_forgets_functions_and_never_gives_their_numbers_again(store: Store) -> None:
    store.commit(Changes(functions=[FunctionRow(1, PLAIN), FunctionRow(2, Function("other", "h", "q"))]))
    changes = Changes(functions_gone=[2])
    assert changes
    store.commit(changes)
    restart(store)
    live = store.live()
    assert [row.id for row in live.functions] == [1]
    assert live.next_function == 3
