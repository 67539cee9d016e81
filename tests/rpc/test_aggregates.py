"""Failed nodes grouped by their errors, and the graph of an instance with one vertex for each function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine import failure_groups
from dagorama_broker.engine import shape as shape_module
from dagorama_broker.rpc import aggregates
from dagorama_broker.settings import Settings
from tests.support.raw import (
    FUNCTION,
    LEAF,
    Dag,
    RawWorker,
    Served,
    children,
    refused,
    results,
    serving,
    submit,
)

TRACEBACK = """Traceback (most recent call last):
  File "/app/flow.py", line 3, in measure
    return inner(number)
  File "/app/flow.py", line 9, in inner
    raise ValueError(number)
ValueError: 9
"""


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/broker.sqlite3"
    return Settings(port=0, store=url, reconnect_wait=0.2)


async def failures(served: Served, **asked: Any) -> pb.ListFailuresReply:
    return await served.stub.ListFailures(pb.ListFailuresRequest(**asked))


async def failing(served: Served, worker: RawWorker, *messages: str, **failure: str) -> Dag:
    """An instance whose first nodes fail with these messages, and whose last node depends on all of them."""
    dag, count = Dag(), len(messages)
    await submit(served.stub, dag.submission(
        *[b"a"] * count, b"z", functions=[FUNCTION, LEAF], function=[0] * count + [1],
        source_count=[0] * count + [count], source=list(range(count)),
    ))  # fmt: skip
    for message in messages:
        await worker.durable(await worker.fail(await worker.node(), message=message, **failure))
    return dag


async def test_failures_that_differ_in_details_are_one_group_with_the_nodes_that_they_caused(
    settings: Settings,
) -> None:
    async with serving(settings) as served:
        worker = await served.worker()
        messages = [f"row {n} of 'file-{n}.csv'\nand more" for n in (1, 22, 333)]
        dag = await failing(served, worker, *messages, traceback=TRACEBACK)
        reply = await failures(served, instance=dag.instance)
        (group,) = reply.groups
        assert (reply.nodes, reply.downstream, reply.left_out, reply.more) == (3, 1, 0, False)
        assert (group.function, group.type) == (FUNCTION.name, "builtins.ValueError")
        assert (group.message, group.nodes, group.downstream, group.instances) == ("row … of …", 3, 1, 1)
        assert group.example == pb.NodeName(node=dag.id(2), instance=dag.instance, ordinal=3)
        assert group.example_message == "row 333 of 'file-333.csv'"
        assert group.raised_at == 'File "/app/flow.py", line 9, in inner\nraise ValueError(number)'
        assert group.last >= group.first > 1e9


async def test_failures_of_other_functions_types_and_messages_are_other_groups(settings: Settings) -> None:
    async with serving(settings) as served:
        worker = await served.worker()
        first = await failing(served, worker, "no such file", "no such file", "no such user")
        second = await failing(served, worker, "no such file", type="builtins.OSError")
        await submit(served.stub, Dag().submission(b"a", functions=[LEAF]))
        await worker.durable(await worker.fail(await worker.node(), message="no such file"))
        reply = await failures(served)
        found = {(group.function, group.type, group.message): group.nodes for group in reply.groups}
        assert found == {
            (FUNCTION.name, "builtins.ValueError", "no such file"): 2,
            (FUNCTION.name, "builtins.ValueError", "no such user"): 1,
            (FUNCTION.name, "builtins.OSError", "no such file"): 1,
            (LEAF.name, "builtins.ValueError", "no such file"): 1,
        }
        assert reply.groups[0].nodes == 2, "the largest comes first"
        assert [group.nodes for group in (await failures(served, instance=second.instance)).groups] == [1]
        assert (await failures(served, limit=1)).left_out == 3
        assert not (await failures(served, definition="work:Other")).groups
        assert len((await failures(served, definition="work:Task")).groups) == 4
        assert not (await failures(served, definition="work:Other", instance=first.instance)).groups
        with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
            await failures(served, instance=bytes(16))


async def test_a_failure_with_unusual_texts_is_grouped_like_any_other(settings: Settings) -> None:
    async with serving(settings) as served:
        worker = await served.worker()
        awkward = 'quotes", "and \\ back\\slashes\x1f ü…\U0001f600 ' + "é" * 400
        long_type = "module." + "T" * 900
        dag = await failing(served, worker, awkward, awkward)
        other = await failing(served, worker, "", type=long_type)
        (group,) = (await failures(served, instance=dag.instance)).groups
        assert group.nodes == 2
        assert group.message.startswith('quotes", "and \\ back\\slashes  ü…\U0001f600 é')
        (group,) = (await failures(served, instance=other.instance)).groups
        assert (group.type, group.message) == (long_type, "")


async def test_a_failed_node_that_was_retried_is_no_failure(settings: Settings) -> None:
    async with serving(settings) as served:
        worker = await served.worker()
        dag = await failing(served, worker, "no")
        await served.stub.Retry(pb.RetryRequest(instance=dag.instance))
        assert not (await failures(served)).groups
        for _ in range(2):
            await worker.durable(await worker.complete(await worker.node()))
        assert not (await failures(served, instance=dag.instance)).groups


async def test_failures_are_read_page_by_page_up_to_a_number(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_groups, "PAGE", 1)
    monkeypatch.setattr(failure_groups, "INSTANCES", 1)
    async with serving(settings) as served:
        worker = await served.worker()
        first = await failing(served, worker, "old 1", "old 2", "old 3")
        await failing(served, worker, "new 1", "new 2")
        reply = await failures(served)
        assert {group.message: group.nodes for group in reply.groups} == {"old …": 3, "new …": 2}
        assert (reply.nodes, reply.downstream, reply.more) == (5, 2, False)
        monkeypatch.setattr(failure_groups, "LOOKED_AT", 3)
        reply = await failures(served)
        assert {group.message: group.nodes for group in reply.groups} == {"new …": 2, "old 1": 1}
        assert reply.more
        assert not (await failures(served, instance=first.instance, limit=1)).left_out
        monkeypatch.setattr(failure_groups, "INSTANCES_LOOKED_AT", 1)
        reply = await failures(served)
        assert ([group.message for group in reply.groups], reply.more) == (["new …"], True)


async def test_readers_do_not_see_the_place_in_the_traceback() -> None:
    async with serving() as served:
        worker = await served.worker()
        await failing(served, worker, "no", traceback=TRACEBACK)
        for is_reader in (False, True):
            reply = await aggregates.list_failures(served.broker, pb.ListFailuresRequest(), is_reader)
            assert bool(reply.groups[0].raised_at) is not is_reader


async def test_cancelled_nodes_are_no_failures(settings: Settings) -> None:
    async with serving(settings) as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
        await served.stub.Cancel(pb.CancelRequest(instance=dag.instance))
        assert (await failures(served)) == pb.ListFailuresReply()


@pytest.mark.parametrize("page", [1, 2_000])
async def test_the_shape_counts_values_and_created_nodes_between_functions(
    settings: Settings, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape_module, "PAGE", page)
    async with serving(settings) as served:
        worker, dag = await served.worker(), Dag()
        await submit(served.stub, dag.submission(b"a"))
        parent = await worker.node()
        nodes = pb.Nodes(
            instance=dag.instance, origin=bytes(12), function=[0, 0, 1],
            arguments=dag.nodes(b"1", b"2", b"3").arguments,
            source_count=[0, 0, 2], source=[0, 1],
        )  # fmt: skip
        total = pb.Function(name="work:Task.total", hash="hash-3")
        report = results(parent, functions=[LEAF, total], children=[children(parent, nodes)])
        await worker.durable(await worker.report(report))
        shape = await served.stub.GetShape(pb.GetShapeRequest(instance=dag.instance))
        assert [each.function for each in shape.functions] == [FUNCTION.name, LEAF.name, total.name]
        assert [sum(each.nodes) for each in shape.functions] == [1, 2, 1]
        assert list(shape.edges) == [
            pb.FunctionEdge(source=0, target=1, created=2),
            pb.FunctionEdge(source=0, target=2, created=1),
            pb.FunctionEdge(source=1, target=2, values=2),
        ]
        assert (shape.nodes, shape.counted, shape.ended, shape.definition) == (4, 4, False, "work:Task")
        monkeypatch.setattr(shape_module, "LOOKED_AT", 2)
        cut = await served.stub.GetShape(pb.GetShapeRequest(instance=dag.instance))
        assert cut.counted == (2 if page == 1 else 4)
        with refused(grpc.StatusCode.NOT_FOUND, "is not known"):
            await served.stub.GetShape(pb.GetShapeRequest(instance=bytes(16)))
