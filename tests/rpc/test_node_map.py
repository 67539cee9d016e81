"""The map of an instance: its nodes as columns, with their states of now, in one message or in many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import node_map
from tests.support.raw import (
    FUNCTION,
    LEAF,
    PATIENCE,
    Dag,
    EagerAttemptRecord,
    Served,
    refused,
    results,
    serving,
    submit,
)


@pytest.fixture(params=["memory", "sqlite"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        yield served


class Seen(NamedTuple):
    """A node of a map."""

    ordinal: int
    state: int
    function: str
    worker: str
    failed_attempts: int
    has_ended: bool
    microseconds: int
    sources: tuple[int, ...]


async def maps(served: Served, dag: Dag, **asked: object) -> list[pb.NodeMap]:
    request = pb.GetMapRequest(instance=dag.instance, **asked)  # type: ignore[arg-type]  # any of its fields
    return [message async for message in served.stub.GetMap(request)]


def seen(messages: list[pb.NodeMap]) -> dict[int, Seen]:
    """All nodes of these messages by their keys."""
    found: dict[int, Seen] = {}
    for each in messages:
        sources = iter(each.source)
        keys = [
            key
            for first, size in zip(each.block_key, each.block_size, strict=True)
            for key in range(first, first + size)
        ]
        assert len(keys) == len(each.state) == len(each.function) == len(each.ended) == len(each.worker)
        assert len(each.block_key) == len(each.block_creator) == len(each.block_created)
        assert each.last == keys[-1]
        for place, key in enumerate(keys):
            worker = each.worker[place]
            found[key] = Seen(
                each.before + place + 1,
                each.state[place],
                each.functions[each.function[place]],
                each.workers[worker - 1] if worker else "",
                each.failed_attempts[place],
                each.ended[place] > 1e9,
                each.microseconds[place],
                tuple(islice(sources, each.source_count[place] if each.source_count else 0)),
            )
    return found


async def test_a_map_tells_the_states_of_now(served: Served) -> None:
    dag = Dag()
    functions = [FUNCTION, pb.Function(name="work:Task.again", hash="h", retry=pb.Retry(max_attempts=2, interval=900))]
    request = dag.submission(
        *[b"a"] * 5, functions=functions, function=[0, 1, 0, 0, 0], source_count=[0, 0, 0, 2, 1], source=[0, 1, 3]
    )
    await submit(served.stub, request)
    worker = await served.worker(name="host-1", slots=1)
    await worker.durable(await worker.complete(await worker.node(), microseconds=[700]))
    await worker.durable(await worker.fail(await worker.node(), message="bad"))
    runs = await worker.node()
    (message,) = await maps(served, dag, sources=True)
    keys = list(seen([message]))
    assert list(seen([message]).values()) == [
        Seen(1, pb.COMPLETED, FUNCTION.name, "host-1", 0, True, 700, ()),
        Seen(2, pb.BACKOFF, "work:Task.again", "", 1, False, 0, ()),
        Seen(3, pb.CLAIMED, FUNCTION.name, "host-1", 0, False, 0, ()),
        Seen(4, pb.WAITING, FUNCTION.name, "", 0, False, 0, (keys[0], keys[1])),
        Seen(5, pb.WAITING, FUNCTION.name, "", 0, False, 0, (keys[3],)),
    ]
    assert (list(message.running_key), message.nodes, message.before) == ([runs.key], 5, 0)
    assert message.running_since[0] > 1e9
    assert (list(message.block_creator), message.block_created[0] > 1e9) == ([0], True)
    assert not (await maps(served, dag))[0].source_count


async def test_children_name_their_creator_and_promises_when_their_run_ended(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker(name="host-1")
    parent = await worker.node()
    made = EagerAttemptRecord(parent)
    children = [made.nodes(b"x", b"y", function=1)]
    report = results(parent, functions=[FUNCTION, LEAF], children=children, ref_count=[1], ref=[0], microseconds=[90])
    await worker.durable(await worker.report(report))
    first = await worker.node()
    (message,) = await maps(served, dag)
    states = [node.state for node in seen([message]).values()]
    assert states[0] == pb.RESOLVING
    assert [node.function for node in seen([message]).values()] == [FUNCTION.name, LEAF.name, LEAF.name]
    assert list(message.block_creator) == [0, parent.key]
    assert (list(message.returned_key), message.ended[0]) == ([parent.key], 0)
    returned = message.returned_at[0]
    await worker.durable(await worker.complete(first))
    await worker.durable(await worker.complete(await worker.node()))
    (message,) = await maps(served, dag)
    assert set(message.state) == {pb.COMPLETED}
    assert (message.microseconds[0], list(message.returned_at)) == (90, [returned])
    assert message.ended[0] >= returned


async def test_a_map_goes_on_after_what_is_known(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    dag, other = Dag(), Dag()
    for number in range(4):  # blocks of two instances take turns
        await submit(served.stub, dag.submission(*[b"a"] * 3, first=3 * number, creates=not number))
        await submit(served.stub, other.submission(*[b"a"] * 2, first=2 * number, creates=not number))
    whole = seen(await maps(served, dag))
    assert [node.ordinal for node in whole.values()] == list(range(1, 13))
    monkeypatch.setattr(node_map, "PAGE", 5)
    pages = await maps(served, dag)
    assert [len(page.state) for page in pages] == [5, 5, 2]
    assert seen(pages) == whole
    assert {page.nodes for page in pages} == {12}
    keys = list(whole)
    for known in (1, 3, 4, 11):
        rest = await maps(served, dag, after=keys[known - 1])
        assert seen(rest) == dict(list(whole.items())[known:])
        assert rest[0].before == known
    some = await maps(served, dag, after=keys[1], limit=6)
    assert list(seen(some)) == keys[2:8]
    (none,) = await maps(served, dag, after=keys[-1])
    assert (none.before, none.last, none.nodes, none.state) == (12, keys[-1], 12, b"")


async def test_a_page_with_many_sources_is_split(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_map, "MOST_SOURCES", 4)
    dag = Dag()
    counts, sources = [0, 1, 2, 3, 4, 5], [0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4]
    await submit(served.stub, dag.submission(*[b"a"] * 6, source_count=counts, source=sources))
    pages = await maps(served, dag, sources=True)
    assert [list(page.source_count) for page in pages] == [[0, 1, 2], [3], [4], [4]]
    (whole,) = await maps(served, dag)
    keys = list(seen([whole]))
    assert [keys.index(key) for page in pages for key in page.source] == sources[
        :-1
    ]  # the last node has more than a page


async def test_a_node_that_is_retried_has_not_ended(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
    worker = await served.worker()
    await worker.durable(await worker.fail(await worker.node(), message="bad"))
    (message,) = await maps(served, dag)
    assert (list(message.state), all(message.ended)) == ([pb.FAILED, pb.FAILED], True)
    await worker.vanish()
    await served.stub.Retry(pb.RetryRequest(instance=dag.instance))
    (message,) = await maps(served, dag)
    assert (list(message.state), any(message.ended)) == ([pb.QUEUED, pb.WAITING], False)


async def test_nodes_that_end_while_a_map_is_made_have_ended_in_it(served: Served) -> None:
    dag, count = Dag(), 400
    await submit(served.stub, dag.submission(*[b"a"] * count))
    worker = await served.worker(slots=2)
    running = asyncio.create_task(worker.run(results))
    before = bytes(count)
    try:
        async with asyncio.timeout(PATIENCE):
            while set(before) != {pb.COMPLETED}:
                (message,) = await maps(served, dag)
                assert {pb.QUEUED, pb.CLAIMED, pb.COMPLETED}.issuperset(message.state)
                has_ended = [state == pb.COMPLETED for state in message.state]
                assert has_ended == [ended > 0 for ended in message.ended]
                assert all(now for now, then in zip(has_ended, before, strict=True) if then == pb.COMPLETED)
                before = message.state
    finally:
        running.cancel()


async def test_a_client_that_watches_first_and_then_reads_the_map_misses_nothing(served: Served) -> None:
    dag, count = Dag(), 200
    await submit(served.stub, dag.submission(*[b"a"] * count))
    worker = await served.worker(slots=2)
    running = asyncio.create_task(worker.run(results))
    try:
        replies = aiter(served.stub.WatchNodes(pb.WatchNodesRequest(instance=dag.instance), timeout=PATIENCE))
        first = await anext(replies)
        states = {key: node.state for key, node in seen(await maps(served, dag)).items()}
        async for message in replies:
            states.update(zip(message.key, message.state, strict=True))
    finally:
        running.cancel()
    assert len(states) == first.nodes == count
    assert set(states.values()) == {pb.COMPLETED}


async def test_an_unknown_instance_has_no_map(served: Served) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "not known"):
        await maps(served, Dag())
