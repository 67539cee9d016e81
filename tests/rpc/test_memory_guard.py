"""Memory is reserved for what things become: what would not fit is refused before it is there, with a sentence."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.errors import Overloaded, ResourceExhausted
from dagorama_broker.rpc import costs
from dagorama_broker.rpc.limits import share
from dagorama_broker.rpc.memory_guard import ASK_FOR, SMALL, MemoryGuard
from dagorama_broker.rpc.wire import FEW, FORMS, has_too_many_parts
from dagorama_broker.rpc.wire import SMALL as SMALL_MESSAGE
from tests.support.raw import (
    FUNCTION,
    LEAF,
    PATIENCE,
    Dag,
    EagerAttemptRecord,
    Served,
    answers_of,
    children,
    refused,
    serving,
    submit,
)

TOO_MUCH = grpc.StatusCode.RESOURCE_EXHAUSTED
MALFORMED = grpc.StatusCode.INVALID_ARGUMENT
MIB = 1 << 20
SUBMIT, TALK, WORK = (f"/dagorama.v1.Broker/{call}" for call in ("SubmitStream", "Exchange", "Work"))


# --- the account ----------------------------------------------------------------------------------------


def room(most: int = 1000, held: int = 0, resident: int = 0) -> MemoryGuard:
    return MemoryGuard(most, held=lambda: held, resident=lambda: resident)


def test_what_is_reserved_is_given_back_when_the_call_ends() -> None:
    memory = room()
    with memory.hold(400, "one") as reservation:
        reservation.add(100)
        assert memory.reserved == 500
    assert memory.reserved == 0


def test_what_others_hold_and_have_reserved_counts() -> None:
    memory = room(held=500)
    with memory.hold(300, "one"):
        with pytest.raises(Overloaded, match="DAGORAMA_MAX_MEMORY"):
            memory.hold(300, "other")
        with memory.hold(200, "other"):
            assert memory.reserved == 500


def test_one_call_is_told_at_once_that_it_will_never_fit() -> None:
    with pytest.raises(ResourceExhausted, match="send several smaller calls") as refusal:
        room().hold(share(1000) + 1)
    assert not isinstance(refusal.value, Overloaded), "there is no use in trying again"
    with room().hold(share(1000)) as reservation, pytest.raises(ResourceExhausted, match="several smaller"):
        reservation.add(1)


def test_one_caller_leaves_some_to_others() -> None:
    memory = room()
    with memory.hold(700, "one"):
        with pytest.raises(Overloaded, match="its share of DAGORAMA_MAX_MEMORY"):
            memory.hold(100, "one")
        with memory.hold(100, "other"):
            pass


def test_what_is_small_is_given_in_any_case_and_counted() -> None:
    memory = room(held=5000, resident=5000)
    with memory.hold(SMALL, is_small_ok=True):
        assert memory.reserved == SMALL
    with pytest.raises(Overloaded):
        MemoryGuard(1 << 30, held=lambda: 1 << 30).hold(SMALL + 1, is_small_ok=True)


def test_the_system_is_asked_again_when_much_was_reserved_meanwhile() -> None:
    sizes: Iterator[int] = iter([0, 0, 10 * ASK_FOR])
    memory = MemoryGuard(10 * ASK_FOR - 1, held=lambda: 9 * ASK_FOR // 2, resident=lambda: next(sizes))
    with memory.hold(ASK_FOR), memory.hold(ASK_FOR), pytest.raises(Overloaded, match="memory limit reached"):
        memory.hold(ASK_FOR)


# --- what messages become ---------------------------------------------------------------------------------


async def test_references_of_a_byte_cost_what_they_become() -> None:
    few = pb.SubmitRequest(nodes=[pb.Nodes(instance=bytes(16), origin=bytes(12), function=[0])])
    many = pb.SubmitRequest(nodes=[pb.Nodes(instance=bytes(16), origin=bytes(12), function=[0], source=[0] * 10_000)])
    assert await costs.of_submission(many) - await costs.of_submission(few) >= 16 * 10_000
    assert costs.of_small_submission(many) == await costs.of_submission(many)


COLUMNS = [
    {"function": [0] * 100_000}, {"arguments": [b""] * 100_000}, {"source": [0] * 100_000},
    {"source_count": [0] * 100_000}, {"foreign": [b""] * 100_000}, {"large": [b""] * 100_000},
    {"tolerant": [0] * 100_000}, {"keys": [""] * 100_000}, {"key": [0] * 100_000},
]  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: next(iter(column)))
async def test_each_column_of_a_submission_is_reserved_for_while_it_comes_in(column: dict[str, Any]) -> None:
    async with serving(max_memory=5 * MIB) as served:
        dag = Dag()
        part = pb.SubmitRequest(nodes=[pb.Nodes(instance=dag.instance, origin=dag.origin, **column)])
        with refused(TOO_MUCH, "several smaller"):
            await submit(served.stub, part)
        await submit(served.stub, Dag().submission(b"a"))


async def test_a_submission_on_an_open_stream_is_reserved_for_too() -> None:
    async with serving(max_memory=5 * MIB) as served:
        dag, talk = Dag(), served.stub.Exchange()
        large = dag.submission(b"a", foreign=[bytes(16)] * 100_000)
        await talk.write(pb.Requests(request=[pb.Request(number=1, submit=large)]))
        (answer,) = await answers_of(talk)
        assert answer.refusal.status == TOO_MUCH.value[0]
        await talk.write(pb.Requests(request=[pb.Request(number=2, submit=dag.submission(b"a"))]))
        (answer,) = await answers_of(talk)
        assert not answer.HasField("refusal")
        talk.cancel()


async def test_many_runs_on_an_open_stream_are_taken_in_turns() -> None:
    async with serving() as served:
        dags = [Dag() for _ in range(costs.FEW_RUNS + 1)]
        request = pb.SubmitRequest(functions=[FUNCTION], nodes=[dag.nodes(b"a", creates=True) for dag in dags])
        talk = served.stub.Exchange()
        await talk.write(pb.Requests(request=[pb.Request(number=1, submit=request)]))
        (answer,) = await answers_of(talk)
        assert (answer.done, answer.HasField("refusal")) == (True, False)
        assert len(served.broker.scheduler.graph.instances) == len(dags)
        talk.cancel()


@pytest.mark.parametrize("request_", [
    pb.SubmitRequest(functions=[pb.Function()] * 1_000), pb.SubmitRequest(nodes=[pb.Nodes()] * 1_000),
], ids=["functions", "runs"])  # fmt: skip
async def test_entries_with_nothing_in_them_are_refused_before_they_are_looked_at(
    served: Served, request_: pb.SubmitRequest
) -> None:
    with refused(MALFORMED, "some have no name, or no instance and origin"):
        await submit(served.stub, request_)


def inside_a_submission() -> bytes:
    submission = pb.SubmitRequest.FromString(b"\x0a\x00" * (MIB // 2))
    return pb.Requests(request=[pb.Request(submit=submission)]).SerializeToString()


# Made when the test runs: they take long, and are too long for the name of a test.
@pytest.mark.parametrize(
    ("method", "made"),
    [
        (SUBMIT, lambda: b"\x0a\x00" * (MIB // 2)),
        (SUBMIT, lambda: pb.SubmitRequest(functions=[FUNCTION]).SerializeToString() + b"\x12\x00" * (MIB // 2)),
        (TALK, lambda: pb.Requests(request=[pb.Request(number=1)] * 100_000).SerializeToString()),
        (TALK, inside_a_submission),
        (WORK, lambda: b"\x1a\x00" * (MIB // 2)),
    ],
    ids=["functions", "runs", "requests", "a submission in a request", "returns"],
)
def test_a_message_of_very_many_parts_is_recognised_before_it_is_parsed(method: str, made: Callable[[], bytes]) -> None:
    data = made()
    assert has_too_many_parts(data, FORMS[method])
    assert not has_too_many_parts(data[: 2 * FEW], FORMS[method])


def test_ordinary_and_malformed_messages_are_left_to_the_parser() -> None:
    dags = [Dag() for _ in range(30_000)]
    request = pb.SubmitRequest(functions=[FUNCTION], nodes=[dag.nodes(b"a", creates=True) for dag in dags])
    asks = pb.Requests(
        request=[pb.Request(number=1, wait=pb.WaitRequest(instance=bytes(16), node=[bytes(16)]))] * 30_000
    )
    for method, data in (
        (SUBMIT, request.SerializeToString()),
        (TALK, asks.SerializeToString()),
        (SUBMIT, b"\xff" * MIB),
        (SUBMIT, os.urandom(SMALL_MESSAGE + 1)),
        (SUBMIT, b"\x0b" * MIB),
    ):
        assert len(data) > SMALL_MESSAGE
        assert not has_too_many_parts(data, FORMS[method])


async def test_a_message_of_very_many_parts_is_refused(served: Served) -> None:
    channel: Any = served.channel
    with refused(MALFORMED, "too many tiny parts"):
        await channel.stream_unary(SUBMIT)(iter([b"\x0a\x00" * (MIB // 2)]))
    await served.status()


# --- waits ------------------------------------------------------------------------------------------------


async def test_waits_reserve_memory_for_as_long_as_they_last() -> None:
    dag, many = Dag(), 2_000
    async with serving(max_memory=16 * MIB) as served:
        await submit(served.stub, dag.submission(*[b"a"] * many))
        request = pb.WaitRequest(instance=dag.instance, node=[dag.id(n) for n in range(many)])
        waits = [served.stub.Wait(request) for _ in range(10)]
        key = next(iter(served.broker.scheduler.graph.nodes))

        def are_open() -> int:
            return len(served.broker.watching._listeners(key))

        await served.until(lambda _: are_open() + sum(wait.done() for wait in waits) == len(waits))
        assert 1 <= are_open() < len(waits)
        assert {await wait.code() for wait in waits if wait.done()} == {TOO_MUCH}
        assert await served.states(dag.instance, dag.id(0)) == [pb.QUEUED], "who waits for a little is served"
        for wait in waits:
            wait.cancel()
        await served.until(lambda broker: not broker.watching._watches)
        again = served.stub.Wait(request)
        await served.until(lambda broker: len(broker.watching._watches) == many)
        again.cancel()


async def test_nodes_of_many_instances_some_named_twice_are_waited_for_in_turns(served: Served) -> None:
    dags = [Dag() for _ in range(600)]
    nodes = [dag.nodes(b"a", creates=True) for dag in dags]
    await submit(served.stub, pb.SubmitRequest(functions=[FUNCTION], nodes=nodes))
    worker = await served.worker(slots=64)
    running = asyncio.create_task(worker.run(lambda node: pb.Results(
        node=[node.key], attempt=[node.attempt], value=[node.id], microseconds=[1]
    )))  # fmt: skip
    ids = [dag.id(0) for dag in dags]
    request = pb.WaitRequest(
        instances=[dag.instance for dag in dags], node=[*ids, *ids[:5]], instance_of=[*range(600), *range(5)]
    )
    ended: list[int] = []
    values: dict[bytes, bytes] = {}
    async for reply in served.stub.Wait(request, timeout=PATIENCE):
        ended += reply.index
        values.update(zip(reply.value_node, reply.value, strict=True))
    running.cancel()
    assert sorted(ended) == list(range(605))
    assert values == {id: id for id in ids}


async def test_a_node_that_is_waited_for_as_of_two_instances_is_refused(served: Served) -> None:
    one, other = Dag(), Dag()
    await submit(served.stub, one.submission(b"a"))
    request = pb.WaitRequest(instances=[one.instance, other.instance], node=[one.id(0), one.id(0)], instance_of=[0, 1])
    with refused(MALFORMED, "is named with two instances"):
        [reply async for reply in served.stub.Wait(request)]
    await served.until(lambda broker: not broker.watching._watches)


# --- children ---------------------------------------------------------------------------------------------


async def test_runs_without_nodes_count_as_what_an_attempt_makes() -> None:
    """However many IDs they name, the attempt fails, and who waits for it hears why."""
    dag = Dag()
    async with serving(max_submission=10_000) as served:
        await submit(served.stub, dag.submission(b"parent"))
        worker = await served.worker()
        parent = await worker.node()
        for _ in range(5):
            run = pb.Nodes(instance=dag.instance, origin=os.urandom(12), foreign=[bytes(16)] * 10_000)
            await worker.report(pb.Results(children=[children(parent, run)]))
        await worker.until(lambda: worker.sequence == 5)
        await worker.complete(parent)
        failure = await served.failure(dag.instance, dag.id(0))
        assert "bytes of the broker's memory" in failure.message
        assert "have several nodes make them" in failure.message
        assert not served.broker.scheduler.staged
        assert served.broker.scheduler.staged.cost == 0


async def test_all_running_attempts_together_stage_no_more_than_half_of_the_memory() -> None:
    dags = [Dag() for _ in range(4)]
    async with serving(max_memory=4 * MIB) as served:
        for dag in dags:
            await submit(served.stub, dag.submission(b"parent"))
        worker = await served.worker(slots=4)
        parents = await worker.nodes(4)
        for parent in parents:
            run = EagerAttemptRecord(parent).nodes(foreign=[bytes(16)] * 12_000)
            await worker.report(pb.Results(functions=[LEAF], children=[run]))
        for parent in reversed(parents):
            await worker.complete(parent)
        instances = {parent.id: parent.instance for parent in parents}
        ended = {parent.id: await served.wait(instances[parent.id], parent.id) for parent in parents}
        said = [failure.message for replies in ended.values() for reply in replies for failure in reply.failure]
        assert sum("give the broker more memory" in message for message in said) == 2
        assert served.broker.scheduler.staged.cost == 0


# --- lists ------------------------------------------------------------------------------------------------


async def test_a_worker_names_so_many_queues_and_no_more(served: Served) -> None:
    too_much: list[tuple[dict[str, Any], str]] = [
        ({"include_queues": [f"q{number}" for number in range(501)]}, "500 of 16,384 characters are allowed"),
        ({"tolerations": ["q" * 4_000] * 5}, "500 of 16,384 characters are allowed"),
        ({"key_ids": [b"k"] * 501}, "501 signing keys; 500 are allowed"),
    ]
    for names, said in too_much:
        call = served.stub.Work()
        await call.write(pb.WorkerMessage(hello=pb.Hello(protocol=1, worker=bytes(16), slots=1, **names)))
        with refused(MALFORMED, said):
            await call.read()
    await served.worker(include_queues=[f"q{number}" for number in range(500)])


async def test_lists_of_hashes_states_and_functions_have_their_ends(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    with refused(MALFORMED, "10001 hashes of code are named; 10,000 are allowed"):
        columns: dict[str, Any] = {"from_hash": ["h"] * 10_001}
        await served.stub.Rebind(pb.RebindRequest(function="f", **columns))
    with refused(MALFORMED, "the request names 101 states; 100 are allowed"):
        await served.stub.ListNodes(pb.ListNodesRequest(instance=dag.instance, states=[pb.QUEUED] * 101))
    worker = await served.worker()
    await worker.report(pb.Results(functions=[FUNCTION] * 10_001))
    assert "10001 functions; 10,000 are allowed" in ((await worker.end()).details() or "")


async def test_a_result_names_no_more_promises_than_a_node_has_sources() -> None:
    dag = Dag()
    async with serving(max_sources=3) as served:
        await submit(served.stub, dag.submission(b"a"))
        worker = await served.worker()
        node = await worker.node()
        eager_attempt = EagerAttemptRecord(node)
        await worker.complete(
            node, functions=[LEAF], children=[eager_attempt.nodes(b"x")], ref_count=[4], ref=[0, 0, 0, 0]
        )
        assert "it names 4 promises; 3 are allowed" in (await served.failure(dag.instance, dag.id(0))).message
