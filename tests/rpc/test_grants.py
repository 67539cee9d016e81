"""Nodes that a worker is granted, gives back or has taken back, by raw stubs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.ahead import MOST_SOURCES
from dagorama_broker.engine.worker_session import PendingMessage
from dagorama_broker.rpc.work_messages import messages
from dagorama_broker.scheduler import Granted
from tests.support.gate import gate, settled
from tests.support.local_calls import transport
from tests.support.raw import (
    FUNCTION,
    LEAF,
    Dag,
    EagerAttemptRecord,
    Given,
    RawWorker,
    Served,
    envelope,
    read_grant,
    refused,
    results,
    submit,
)

__all__ = ["transport"]

INVALID = grpc.StatusCode.INVALID_ARGUMENT


# --- nodes come -------------------------------------------------------------------------------------


async def test_a_node_comes_with_all_it_takes_to_run_it(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    node = await (await served.worker()).node()
    assert (node.id, node.instance, node.arguments, node.slot) == (dag.id(0), dag.instance, envelope(b"a"), 0)
    assert (node.function.name, node.function.hash, node.run) == (FUNCTION.name, FUNCTION.hash, 0)


async def test_a_grant_says_which_timeouts_it_has_and_which_of_them_are_final(served: Served) -> None:
    timed = pb.Function(name="work:Task.timed", timeout=2.0)
    final = pb.Function(name="work:Task.final", timeout=3.0, timeout_is_final=True)
    functions = [FUNCTION, timed, final]
    await submit(served.stub, Dag().submission(b"a", b"b", b"c", functions=functions, function=[0, 1, 2]))
    worker = await served.worker(slots=3)
    await worker.nodes(3)
    grants = [grant for message in worker.messages for grant in message.grants]
    told = [(list(grant.timeout), list(grant.timeout_is_final)) for grant in grants]
    assert told == [([], []), ([2.0], []), ([3.0], [True])]


async def test_a_node_comes_with_the_values_of_its_sources(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", b"join", source_count=[0, 0, 2], source=[0, 1]))
    worker = await served.worker(slots=2)
    first, second = await worker.nodes(2)
    await worker.complete(first, value=b"first")
    await worker.complete(second, value=b"second")
    join = await worker.node()
    assert join.sources == (first.key, second.key)
    assert [join.values[key] for key in join.sources] == [envelope(b"first"), envelope(b"second")]


async def test_a_node_comes_along_with_the_one_source_that_it_waits_for(served: Served) -> None:
    dag = Dag()
    columns: dict[str, Any] = {"source_count": [0, 0, 2, 1], "source": [0, 1, 2]}
    await submit(served.stub, dag.submission(b"a", b"b", b"join", b"after", **columns))
    worker = await served.worker()
    first = await worker.node()
    await worker.complete(first, value=b"first")
    second, join, after = await worker.nodes(3)
    assert (second.beside, join.beside, after.beside) == ((), (second.key,), (join.key,))
    assert join.values == {first.key: envelope(b"first")}
    await worker.durable(await worker.report(results(second, join, after)))
    assert await served.states(dag.instance, dag.id(2), dag.id(3)) == [pb.COMPLETED, pb.COMPLETED]


async def test_a_node_comes_along_with_several_sources_if_the_worker_says_that_it_can(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"first"))
    worker = await served.worker(fuses_joins=True)
    await worker.complete(await worker.node())
    columns: dict[str, Any] = {"source_count": [0, 0, 0, 3, 0, 2], "source": [0, 1, 2, 3, 4]}
    await submit(served.stub, Dag().submission(b"a", b"b", b"c", b"join", b"d", b"top", **columns))
    a, b, c, join, d, top = await worker.nodes(6)
    assert [node.beside for node in (a, b, c, d)] == [()] * 4
    assert (join.beside, top.beside) == ((a.key, b.key, c.key), (join.key, d.key))


async def test_a_node_comes_with_the_values_that_its_sources_name(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"parent", b"after", source_count=[0, 1], source=[0]))
    worker = await served.worker()
    parent = await worker.node()
    eager_attempt = EagerAttemptRecord(parent)
    await worker.complete(
        parent, value=b"names its children", functions=[LEAF], children=[eager_attempt.nodes(b"x", b"y")],
        ref_count=[2], ref=[1, 0],
    )  # fmt: skip
    for value in (b"of x", b"of y"):
        await worker.complete(await worker.node(), value=value)
    after = await worker.node()
    (source,) = after.sources
    assert after.values[source] == envelope(b"names its children")
    assert [after.values[key] for key in after.refs[source]] == [envelope(b"of y"), envelope(b"of x")]


async def test_nodes_of_a_client_are_handed_out_before_they_are_durable_and_acknowledged_after(served: Served) -> None:
    worker = await served.worker()
    with gate(served) as commits:
        submitting = asyncio.ensure_future(submit(served.stub, Dag().submission(b"a")))
        await worker.node()
        await served.until(lambda _: commits.waiting)
        assert not submitting.done()
        commits.let_through()
        await submitting


async def test_a_result_before_the_commit_of_its_node_is_recorded_after_it(served: Served) -> None:
    worker, dag = await served.worker(), Dag()
    with gate(served) as commits:
        submitting = asyncio.ensure_future(submit(served.stub, dag.submission(b"a")))
        reported = await worker.complete(await worker.node(), value=b"early")
        await settled()
        assert worker.acknowledged < reported
        commits.let_through()
        await submitting
        await served.until(lambda _: commits.waiting)
        assert worker.acknowledged < reported
        commits.let_through()
        await worker.durable(reported)
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"early")


async def test_a_dependent_is_handed_out_before_the_result_of_its_source_is_durable(served: Served) -> None:
    worker = await served.worker()
    slow, dag = pb.Function(name="work:Task.slow", timeout=60.0), Dag()
    request = dag.submission(b"source", b"dependent", functions=[slow], source_count=[0, 1], source=[0])
    await submit(served.stub, request)
    source = await worker.node()
    with gate(served) as commits:
        reported = await worker.complete(source, value=b"early")
        dependent = await worker.node()
        await served.until(lambda _: commits.waiting)
        assert worker.acknowledged < reported
        assert dependent.values[source.key] == envelope(b"early")
        commits.let_through()


async def test_a_value_that_is_neither_kept_nor_durable_is_sent_after_its_commit(served: Served) -> None:
    """A wide node is granted with its last source and told after their commit, while the source may have run."""
    worker, dag, wide = await served.worker(), Dag(), MOST_SOURCES + 1
    running = asyncio.create_task(worker.run(partial(results, value=b"of a leaf")))
    await submit(served.stub, dag.submission(*[b"leaf"] * wide, functions=[LEAF]))
    for number in range(wide):
        await served.value(dag.instance, dag.id(number))
    running.cancel()
    columns: dict[str, Any] = {"source_count": [0, wide + 1], "source": [wide, *range(wide)], "functions": [LEAF]}
    with gate(served) as commits:
        submitting = asyncio.ensure_future(
            submit(served.stub, dag.submission(b"last", b"wide", first=wide, creates=False, **columns))
        )
        last = await worker.node()
        await worker.complete(last, value=b"of the last")
        await served.until(lambda broker: last.key not in broker.scheduler.nodes)
        node = served.broker.scheduler.node(dag.id(wide + 1))
        assert node is not None
        assert node.slot is not None
        news = PendingMessage(granted=[Granted(node.slot, node, node.attempt)])
        writing = asyncio.ensure_future(_bodies(messages(served.broker, news)))
        await settled()
        assert not writing.done()
        commits.let_through(2)
        await submitting
        (given,) = read_grant(0, await writing)
    assert given.values[last.key] == envelope(b"of the last")
    assert len(given.values) == wide + 1


async def _bodies(told: AsyncIterator[pb.BrokerMessage]) -> bytes:
    return b"".join([grant.body async for message in told for grant in message.grants])


async def test_the_children_of_a_result_are_not_handed_out_before_it_is_durable(served: Served) -> None:
    worker, child = await served.worker(), Dag()
    await submit(served.stub, Dag().submission(b"parent"))
    parent = await worker.node()
    child.instance = parent.instance
    children = pb.Children(node=parent.key, attempt=parent.attempt, nodes=child.nodes(b"child"))
    with gate(served) as commits:
        await worker.complete(parent, children=[children], functions=[LEAF])
        await served.until(lambda _: commits.waiting)
        await settled()
        assert not worker.given
        commits.let_through()
        assert (await worker.node()).id == child.id(0)


async def test_a_node_whose_source_has_the_value_of_another_waits_for_the_commit(served: Served) -> None:
    """After a crash the rule for late results would not see that the other one ran again."""
    worker, dag = await served.worker(slots=2), Dag()
    slow = pb.Function(name="work:Task.slow", timeout=60.0)
    names = [b"source", b"other", b"dependent"]
    request = dag.submission(*names, functions=[slow], source_count=[0, 0, 1], source=[0])
    await submit(served.stub, request)
    source, other = await worker.nodes(2)
    await worker.durable(await worker.complete(source, ref_count=[1], ref=[-1], foreign=[dag.id(1)]))
    with gate(served) as commits:
        await worker.complete(other, value=b"of the other")
        await served.until(lambda _: commits.waiting)
        await settled()
        assert not worker.given
        commits.let_through()
        assert (await worker.node()).id == dag.id(2)


@pytest.mark.slow
async def test_a_wide_fan_in_comes_in_pieces(served: Served) -> None:
    count, dag, joins, value = (
        10_000,
        Dag(),
        [],
        b"of a leaf, so large that they fill messages. " * 16,
    )

    async def parts() -> AsyncIterator[pb.SubmitRequest]:
        for first in range(0, count, 5_000):
            yield dag.submission(*[b"leaf"] * 5_000, first=first, creates=not first, functions=[LEAF])
        join = dag.nodes(b"join", first=count, source_count=[count], source=range(count))
        yield pb.SubmitRequest(functions=[FUNCTION], nodes=[join])
        yield pb.SubmitRequest()

    def outcome(node: Given) -> pb.Results:
        if node.sources:
            joins.append(node)
        return results(node, value=value)

    await served.stub.SubmitStream(parts())
    worker = await served.worker(slots=2)
    running = asyncio.create_task(worker.run(outcome))
    await served.value(dag.instance, dag.id(count))
    running.cancel()
    (join,) = joins
    assert len(join.sources) == count
    assert {join.values[key] for key in join.sources} == {envelope(value)}
    assert all(message.ByteSize() < 4 << 20 for message in worker.messages)
    assert sum(not grant.last for message in worker.messages for grant in message.grants) >= 3


async def test_the_largest_envelope_that_can_be_sent_reaches_its_worker_and_its_caller(served: Served) -> None:
    dag, large = Dag(), os.urandom((4 << 20) - 1000)
    await submit(served.stub, dag.submission(large, b"next", source_count=[0, 1], source=[0]))
    worker = await served.worker()
    node = await worker.node()
    assert node.arguments == envelope(large)
    await worker.complete(node, value=large)
    after = await worker.node()
    assert after.values[node.key] == envelope(large)
    assert await served.value(dag.instance, dag.id(0)) == envelope(large)
    assert all(message.ByteSize() < 4 << 20 for message in worker.messages)


async def test_five_values_of_a_mebibyte_reach_one_node(served: Served) -> None:
    dag, value = Dag(), os.urandom(1 << 20)
    await submit(served.stub, dag.submission(*[b"leaf"] * 5, b"join", source_count=[0, 0, 0, 0, 0, 5], source=range(5)))
    worker = await served.worker()
    for _ in range(5):
        await worker.complete(await worker.node(), value=value)
    join = await worker.node()
    assert [join.values[key] for key in join.sources] == [envelope(value)] * 5


async def test_five_thousand_nodes_take_few_messages_and_commits(served: Served) -> None:
    """At most 400 messages and 150 commits, whatever the machine: messages cost, not nodes."""
    dag, count = Dag(), 5000

    def outcome(node: Given) -> pb.Results:
        if node.function.name != FUNCTION.name or node.sources:
            return results(node, value=b"leaf")
        eager_attempt = EagerAttemptRecord(node)
        made = eager_attempt.nodes(
            *[b"leaf"] * count, b"join", function=[0] * count + [1], source_count=[0] * count + [count],
            source=range(count),
        )  # fmt: skip
        return results(node, functions=[LEAF, FUNCTION], children=[made], ref_count=[1], ref=[count])

    worker = await served.worker(slots=2)
    running = asyncio.create_task(worker.run(outcome_of(outcome)))
    await submit(served.stub, dag.submission(b"entry"))
    await served.value(dag.instance, dag.id(0))
    status = await served.status()
    assert status.nodes[pb.COMPLETED] == count + 2
    assert status.messages_in + status.messages_out <= 400
    assert status.commits <= 150
    running.cancel()


def outcome_of(outcome: Any) -> Any:
    """Columns that say nothing of references are empty for all of a report or for none of it."""

    def with_references(node: Given) -> pb.Results:
        found: pb.Results = outcome(node)
        if not found.ref_count:
            found.ref_count.append(0)
        return found

    return with_references


# --- returns and take-backs -------------------------------------------------------------------------


async def test_a_node_that_cannot_be_checked_is_shown_with_what_to_set(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    detail = "the arguments came unsigned: set DAGORAMA_SIGNING_KEYS"
    returned = pb.Return(node=[node.key], attempt=[node.attempt], reason=pb.UNCHECKABLE, detail=detail)
    await worker.say(returns=[returned])
    await served.until(lambda broker: not broker.scheduler.claims.claimed)
    await settled()
    assert not worker.given
    (unservable,) = (await served.status()).unschedulable
    assert f"it cannot check a signature: {detail}" in unservable.reason


async def test_an_id_that_no_signing_key_has_is_refused(served: Served) -> None:
    worker = RawWorker(served.stub, key_ids=[b"x" * 65])
    await worker.connect()
    assert "65" not in ((await worker.end()).details() or "")
    assert "a signing key has at most 64 bytes" in ((await worker.end()).details() or "")
    with refused(INVALID, "at most 64 bytes"):
        await submit(served.stub, Dag().submission(b"a", functions=[pb.Function(name="f", key_id=b"x" * 65)]))


async def test_a_node_given_back_with_a_reason_is_not_offered_to_that_worker_again(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    returned = pb.Return(
        node=[node.key], attempt=[node.attempt], reason=pb.NOT_IMPORTABLE, detail="No module named 'work'"
    )
    await worker.say(returns=[returned])
    await served.until(lambda broker: not broker.scheduler.claims.claimed)
    await settled()
    assert not worker.given
    (unservable,) = (await served.status()).unschedulable
    assert "No module named 'work'" in unservable.reason
    able = await served.worker()
    again = await able.node()
    assert again.run == 0
    await able.complete(again)
    await served.value(dag.instance, dag.id(0))


async def test_what_waits_behind_a_long_run_is_taken_back_and_handed_to_an_idle_worker(served: Served) -> None:
    dag = Dag()
    worker = await served.worker()
    await submit(served.stub, dag.submission(b"warm up", functions=[LEAF]))
    await worker.complete(await worker.node())
    await submit(served.stub, dag.submission(*[b"leaf"] * 10, first=1, creates=False, functions=[LEAF]))
    held = await worker.nodes(10)
    idle = await served.worker()
    await worker.until(lambda: worker.taken_back)
    assert set(worker.taken_back) == {node.attempt for node in held[1:]}
    back = [node for node in held if node.attempt in worker.taken_back]
    returned = pb.Return(node=[node.key for node in back], attempt=[node.attempt for node in back])
    await worker.say(returns=[returned])
    given = await idle.nodes(1)
    assert given[0].key == held[1].key
    assert given[0].attempt not in {node.attempt for node in held}


async def test_a_worker_is_told_to_return_a_node_after_it_was_given_it(served: Served) -> None:
    """In one message or in order: what is taken back has come before."""
    worker = await served.worker()
    for _ in range(20):
        dag = Dag()
        await submit(served.stub, dag.submission(*[b"leaf"] * 8, functions=[LEAF]))
        while await served.states(dag.instance, dag.id(7)) != [pb.COMPLETED]:
            await worker.until(lambda: worker.given)
            given, worker.given = worker.given, []
            await worker.complete(*given)
    known: set[int] = set()
    for message in worker.messages:
        known |= {attempt for grant in message.grants for attempt in grant.attempt}
        assert known >= {attempt for taken in message.take_back for attempt in taken.attempt}
