"""What clients and people ask of the broker, by raw stubs: answers, refusals with their statuses, no second effect."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dagorama.api import broker_pb2 as pb
from tests.support.far_store import distance
from tests.support.raw import LEAF, Dag, Served, envelope, refused, serving, submit

__all__ = ["distance"]

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNKNOWN = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
TOO_MUCH = grpc.StatusCode.RESOURCE_EXHAUSTED


async def nothing_has_changed(served: Served) -> None:
    status = await served.status()
    assert not any(status.nodes)
    assert status.instances == 0
    graph = served.broker.scheduler.graph
    assert not graph.instances
    assert not graph.origins
    assert not graph.nodes


# --- submitting -------------------------------------------------------------------------------------


async def test_a_submitted_node_is_queued_and_known(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    assert (await served.status()).nodes[pb.QUEUED] == 1
    assert await served.states(dag.instance, dag.id(0)) == [pb.QUEUED]


async def test_an_instance_may_come_without_nodes_and_get_them_later(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission())
    await submit(served.stub, dag.submission(b"a", creates=False))
    assert await served.states(dag.instance, dag.id(0)) == [pb.QUEUED]


async def test_an_empty_run_leaves_the_nodes_of_its_origin_in_reach(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    await submit(served.stub, dag.submission(first=1, creates=False))
    assert await served.states(dag.instance, dag.id(0)) == [pb.QUEUED]
    await submit(served.stub, dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0]))
    assert await served.states(dag.instance, dag.id(1)) == [pb.WAITING]


async def test_nodes_may_name_earlier_nodes_of_their_origin_and_foreign_ones(served: Served) -> None:
    dag, other = Dag(), Dag()
    other.instance = dag.instance
    await submit(served.stub, dag.submission(b"a"))
    await submit(served.stub, dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0]))
    join = other.submission(b"c", creates=False, source_count=[2], source=[-1, -2], foreign=[dag.id(0), dag.id(1)])
    await submit(served.stub, join)
    states = await served.states(dag.instance, dag.id(0), dag.id(1), other.id(0))
    assert states == [pb.QUEUED, pb.WAITING, pb.WAITING]


BAD_RUNS: dict[str, dict[str, Any]] = {
    "more arguments than functions": {"function": [0], "arguments": [b"a", b"b"]},
    "fewer source counts than nodes": {"source_count": [0]},
    "source references past their counts": {"source_count": [0, 1], "source": [0, 0]},
    "a source of no earlier counter": {"source_count": [0, 1], "source": [7]},
    "a source past the foreign list": {"source_count": [0, 1], "source": [-1]},
    "itself as a source": {"source_count": [0, 1], "source": [1]},
    "a later node as a source": {"source_count": [1, 0], "source": [1]},
    "the same source twice": {"source_count": [0, 2], "source": [0, 0]},
    "a function that is not there": {"function": [0, 1]},
    "a short origin": {"origin": b"short"},
    "a long instance id": {"instance": b"i" * 17},
    "a short source id": {"foreign": [b"short"]},
    "counters past 32 bits": {"first": 2**32 - 1},
    "a short entry id": {"creates": pb.NewInstance(definition="d", entry=b"short")},
    "a large value's name of the wrong length": {"large": [b"short"]},
}


@pytest.mark.parametrize("columns", BAD_RUNS.values(), ids=BAD_RUNS.keys())
async def test_a_run_that_is_not_well_formed_is_refused(served: Served, columns: dict[str, Any]) -> None:
    dag = Dag()
    with refused(INVALID):
        await submit(served.stub, dag.submission(b"a", b"b", **columns))
    await nothing_has_changed(served)


BAD_FUNCTIONS = {
    "without a name": pb.Function(name=""),
    "of too long a name": pb.Function(name="n" * 5000),
    "of too long a hash": pb.Function(name="n", hash="h" * 5000),
    "of too long a queue": pb.Function(name="n", queue="q" * 5000),
    "of too long a taint": pb.Function(name="n", taint="t" * 5000),
    "that never runs": pb.Function(name="n", retry=pb.Retry(max_attempts=0)),
    "that pauses backwards": pb.Function(name="n", retry=pb.Retry(max_attempts=2, interval=-1)),
    "that pauses for ever": pb.Function(name="n", retry=pb.Retry(max_attempts=2, interval=float("inf"))),
    "that pauses for NaN": pb.Function(name="n", retry=pb.Retry(max_attempts=2, base=float("nan"))),
}


@pytest.mark.parametrize("function", BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS.keys())
async def test_a_function_that_cannot_be_is_refused(served: Served, function: pb.Function) -> None:
    with refused(INVALID):
        await submit(served.stub, Dag().submission(b"a", functions=[function]))
    await nothing_has_changed(served)


async def test_nodes_of_an_unknown_instance_are_refused(served: Served) -> None:
    with refused(UNKNOWN, "instance"):
        await submit(served.stub, Dag().submission(b"a", creates=False))
    await nothing_has_changed(served)


async def test_an_unknown_source_is_refused(served: Served) -> None:
    dag, nobody = Dag(), Dag()
    with refused(UNKNOWN, nobody.id(0).hex()):
        await submit(served.stub, dag.submission(b"a", source_count=[1], source=[-1], foreign=[nobody.id(0)]))
    await nothing_has_changed(served)


async def test_an_earlier_counter_that_was_never_made_is_refused_as_a_source(served: Served) -> None:
    with refused(UNKNOWN):
        await submit(served.stub, Dag().submission(b"a", first=5, source_count=[1], source=[2]))
    await nothing_has_changed(served)


async def test_a_large_value_that_was_never_put_is_refused(served: Served) -> None:
    with refused(UNKNOWN, "PutValue"):
        await submit(served.stub, Dag().submission(b"a", large=[sha256(b"never put").digest()]))
    await nothing_has_changed(served)


@pytest.mark.parametrize("has_ended", [False, True], ids=["live", "ended"])
async def test_a_source_of_another_instance_is_refused(served: Served, has_ended: bool) -> None:
    other, dag = Dag(), Dag()
    await submit(served.stub, other.submission(b"a"))
    if has_ended:
        worker = await served.worker()
        await worker.complete(await worker.node())
        await served.value(other.instance, other.id(0))
    with refused(INVALID, "another instance"):
        await submit(served.stub, dag.submission(b"b", source_count=[1], source=[-1], foreign=[other.id(0)]))
    with refused(UNKNOWN, "instance"):
        await served.wait(dag.instance, dag.id(0))


async def test_a_bad_run_takes_the_good_ones_of_its_message_with_it(served: Served) -> None:
    good, bad = Dag(), Dag()
    both = good.submission(b"a")
    both.nodes.append(bad.nodes(b"b"))
    with refused(UNKNOWN):
        await submit(served.stub, both)
    await nothing_has_changed(served)


# --- the same again ---------------------------------------------------------------------------------


async def complete_all(served: Served, dag: Dag, count: int = 1) -> None:
    worker = await served.worker()
    for _ in range(count):
        await worker.complete(await worker.node())
    for counter in range(count):
        await served.value(dag.instance, dag.id(counter))
    await worker.vanish()


async def test_the_same_submission_twice_has_one_effect(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b"))
    await submit(served.stub, dag.submission(b"a", b"b"))
    assert list((await served.status()).nodes)[pb.QUEUED] == 2


async def test_the_same_submission_twice_at_once_has_one_effect(served: Served) -> None:
    dag = Dag()
    await asyncio.gather(*(submit(served.stub, dag.submission(b"a")) for _ in range(10)))
    assert (await served.status()).nodes[pb.QUEUED] == 1


async def test_the_same_submission_has_no_second_effect_when_its_instance_has_left_memory(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    await complete_all(served, dag)
    assert not served.broker.scheduler.graph.instances
    await submit(served.stub, dag.submission(b"a"))
    assert not served.broker.scheduler.graph.nodes
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"done")


async def test_nodes_sent_twice_have_one_effect_when_their_instance_has_left_memory_and_come_back(
    served: Served,
) -> None:
    dag = Dag()
    more = dag.submission(b"b", first=1, creates=False)
    await submit(served.stub, dag.submission(b"a"))
    await submit(served.stub, more)
    await complete_all(served, dag, 2)
    await submit(served.stub, dag.submission(b"c", first=2, creates=False))  # the instance is live again
    await submit(served.stub, more)
    assert (await served.status()).nodes[pb.QUEUED] == 1
    with refused(EXISTS):
        await submit(served.stub, dag.submission(b"other", first=1, creates=False))


async def test_two_that_name_an_ended_source_at_once_have_one_effect(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    await complete_all(served, dag)
    more = dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0])
    await asyncio.gather(*(submit(served.stub, more) for _ in range(10)))
    assert (await served.status()).nodes[pb.QUEUED] == 1


async def test_the_empty_instance_twice_has_one_effect(served: Served) -> None:
    dag = Dag()
    await asyncio.gather(*(submit(served.stub, dag.submission()) for _ in range(5)))
    await submit(served.stub, dag.submission())
    with refused(EXISTS):
        await submit(served.stub, dag.submission(creates=pb.NewInstance(definition="other")))


OTHER_CONTENT: dict[str, Callable[[Dag], pb.SubmitRequest]] = {
    "other arguments": lambda dag: dag.submission(b"other"),
    "another function": lambda dag: dag.submission(b"a", functions=[LEAF]),
    "one node more": lambda dag: dag.submission(b"a", b"b"),
    "another definition": lambda dag: dag.submission(b"a", creates=pb.NewInstance(definition="other")),
    "an overlapping run": lambda dag: dag.submission(b"a", b"b", b"c", first=0, creates=False),
    "the same instance with other nodes": lambda dag: dag.submission(b"a", origin=os.urandom(12)),
    "its origin for another instance": lambda dag: dag.submission(b"a", instance=os.urandom(16)),
}


@pytest.mark.parametrize("has_ended", [False, True], ids=["live", "ended"])
@pytest.mark.parametrize("other", OTHER_CONTENT.values(), ids=OTHER_CONTENT.keys())
async def test_the_same_ids_with_other_content_are_refused(
    served: Served, other: Callable[[Dag], pb.SubmitRequest], has_ended: bool
) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    if has_ended:
        await complete_all(served, dag)
    with refused(EXISTS):
        await submit(served.stub, other(dag))
    ended = served.broker.scheduler.graph.counts[pb.COMPLETED]
    assert (sum((await served.status()).nodes) - ended, ended) == ((0, 1) if has_ended else (1, 0))


async def test_counters_inside_an_ended_run_are_taken(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", b"c"))
    await complete_all(served, dag, 3)
    for first, arguments in [(1, [b"b"]), (2, [b"c", b"d"])]:
        with refused(EXISTS):
            await submit(served.stub, dag.submission(*arguments, first=first, creates=False))
    await submit(served.stub, dag.submission(b"d", first=3, creates=False))
    assert await served.states(dag.instance, dag.id(3)) == [pb.QUEUED]


# --- a submission in several messages ---------------------------------------------------------------


async def stream(*requests: pb.SubmitRequest) -> AsyncIterator[pb.SubmitRequest]:
    for request in requests:
        yield request
    yield pb.SubmitRequest()


async def test_a_submission_in_several_messages_is_one_transaction(served: Served) -> None:
    dag = Dag()
    parts = [dag.submission(*[b"a"] * 10, first=start, creates=not start) for start in range(0, 100, 10)]
    before = (await served.status()).commits
    await served.stub.SubmitStream(stream(*parts))
    status = await served.status()
    assert status.nodes[pb.QUEUED] == 100
    assert status.commits == before + 1


async def test_a_bad_message_takes_the_whole_submission_with_it(served: Served) -> None:
    dag = Dag()
    with refused(INVALID):
        await served.stub.SubmitStream(
            stream(dag.submission(b"a"), dag.submission(b"b", first=1, creates=False, function=[7]))
        )
    await nothing_has_changed(served)


async def test_a_submission_that_breaks_off_has_no_effect(served: Served) -> None:
    dag = Dag()

    async def breaking_off() -> AsyncIterator[pb.SubmitRequest]:
        yield dag.submission(b"a")
        await asyncio.sleep(60)

    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        await served.stub.SubmitStream(breaking_off(), timeout=0.1)
    await nothing_has_changed(served)


async def test_a_submission_without_its_empty_last_message_is_refused(served: Served) -> None:
    async def unfinished() -> AsyncIterator[pb.SubmitRequest]:
        yield dag.submission(b"a")

    dag = Dag()
    with refused(INVALID, "incomplete submission"):
        await served.stub.SubmitStream(unfinished())
    await nothing_has_changed(served)


async def test_the_same_stream_twice_has_one_effect(served: Served) -> None:
    dag = Dag()
    parts = [dag.submission(b"a"), dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0])]
    await served.stub.SubmitStream(stream(*parts))
    await served.stub.SubmitStream(stream(*parts))
    status = await served.status()
    assert (status.nodes[pb.QUEUED], status.nodes[pb.WAITING]) == (1, 1)


async def test_a_stream_of_nothing_is_no_submission(served: Served) -> None:
    await served.stub.SubmitStream(stream())
    await nothing_has_changed(served)


# --- bounds -----------------------------------------------------------------------------------------


async def test_more_nodes_than_one_call_may_make_are_refused() -> None:
    async with serving(max_nodes=10) as served:
        with refused(TOO_MUCH, "11 nodes"):
            await submit(served.stub, Dag().submission(*[b"a"] * 11))
        await nothing_has_changed(served)
        await submit(served.stub, Dag().submission(*[b"a"] * 10))


async def test_more_bytes_than_one_call_may_carry_are_refused() -> None:
    async with serving(max_submission=100_000) as served:
        dag = Dag()
        with refused(TOO_MUCH):
            await served.stub.SubmitStream(
                stream(*(dag.submission(bytes(30_000), first=n, creates=not n) for n in range(5)))
            )
        await nothing_has_changed(served)


async def test_a_message_over_the_limit_is_refused(served: Served) -> None:
    with refused(TOO_MUCH):
        await served.stub.Cancel(pb.CancelRequest(instance=bytes(16), node=[bytes(16)] * 300_000))
    await nothing_has_changed(served)


# --- large values -----------------------------------------------------------------------------------


async def chunks(data: bytes, size: int = 1 << 20) -> AsyncIterator[pb.ValueChunk]:
    for start in range(0, len(data), size):
        yield pb.ValueChunk(data=data[start : start + size])


async def fetched(served: Served, digest: bytes) -> bytes:
    return b"".join([chunk.data async for chunk in served.stub.GetValue(pb.GetValueRequest(sha256=digest))])


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 20) + 1, 5 << 20])
async def test_a_large_value_comes_back_as_it_was_put(served: Served, length: int) -> None:
    data = os.urandom(length)
    reply = await served.stub.PutValue(chunks(data))
    assert (reply.sha256, reply.length) == (sha256(data).digest(), length)
    assert await fetched(served, reply.sha256) == data


async def test_a_large_value_survives_a_restart(tmp_path: Path) -> None:
    store, data = f"sqlite:///{tmp_path}/store", os.urandom(3 << 20)
    async with serving(store=store) as served:
        digest = (await served.stub.PutValue(chunks(data))).sha256
    async with serving(store=store) as served:
        assert await fetched(served, digest) == data


async def test_a_value_past_the_bound_is_refused_and_not_kept() -> None:
    async with serving(max_value=100_000) as served:
        data = bytes(100_001)
        with refused(TOO_MUCH):
            await served.stub.PutValue(chunks(data, 4096))
        with refused(UNKNOWN):
            await fetched(served, sha256(data).digest())
        await served.stub.PutValue(chunks(data[1:], 4096))


async def test_a_value_that_was_never_put_is_not_known(served: Served) -> None:
    with refused(UNKNOWN, "large value"):
        await fetched(served, sha256(b"never").digest())


@pytest.mark.parametrize("name", [b"", b"short", bytes(33)])
async def test_a_name_that_is_no_sha256_is_refused(served: Served, name: bytes) -> None:
    await served.stub.PutValue(chunks(b"something"))
    with refused(INVALID):
        await fetched(served, name)


async def test_the_folder_of_values_is_told_to_who_asks_and_to_workers(served: Served) -> None:
    folder = await served.stub.GetSharedFolder(pb.GetSharedFolderRequest())
    assert Path(folder.path, "shared").read_text() == folder.nonce
    values = (await served.worker()).welcomed.values
    assert (values.path, values.nonce) == (folder.path, folder.nonce)


async def test_no_folder_is_told_where_the_setting_says_so() -> None:
    async with serving(shared_files=False, local_socket=False) as served:
        assert await served.stub.GetSharedFolder(pb.GetSharedFolderRequest()) == pb.GetSharedFolderReply()
        assert (await served.worker()).welcomed.values == pb.GetSharedFolderReply()


async def test_a_file_in_the_folder_is_kept_when_asked_for(served: Served) -> None:
    data, name = os.urandom(5000), os.urandom(16).hex()
    digest = sha256(data).digest()
    folder = await served.stub.GetSharedFolder(pb.GetSharedFolderRequest())
    request = pb.ImportValueRequest(sha256=digest, length=len(data), unfinished=name)
    assert not (await served.stub.ImportValue(request)).kept
    Path(folder.path, "unfinished", name).write_bytes(data)
    assert (await served.stub.ImportValue(request)).kept
    assert (await served.stub.ImportValue(request)).kept
    assert await fetched(served, digest) == data


@pytest.mark.parametrize("name", ["1", "../shared", "A" * 32, "a" * 33, "1.dropped"])
async def test_a_file_that_is_not_a_clients_is_not_taken(served: Served, name: str) -> None:
    with refused(INVALID):
        await served.stub.ImportValue(pb.ImportValueRequest(sha256=bytes(32), length=1, unfinished=name))
    with refused(INVALID):
        await served.stub.ImportValue(pb.ImportValueRequest(sha256=b"short"))


async def test_interrupted_values_hold_up_no_others(served: Served) -> None:
    async def breaking_off(part: bytes) -> AsyncIterator[pb.ValueChunk]:
        yield pb.ValueChunk(data=part)
        await asyncio.sleep(60)

    parts = [os.urandom(1000) for _ in range(60)]
    uploads = [served.stub.PutValue(breaking_off(part)) for part in parts]
    await asyncio.sleep(0.1)
    data = os.urandom(1000)
    async with asyncio.timeout(5):
        digest = (await served.stub.PutValue(chunks(data))).sha256
        assert await fetched(served, digest) == data
    for upload in uploads:
        upload.cancel()
    await asyncio.gather(*uploads, return_exceptions=True)


# --- looking ----------------------------------------------------------------------------------------


async def test_an_instance_says_what_it_is_and_where_its_entry_stands(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
    assert (info.instance, info.definition, info.entry) == (dag.instance, "work:Task", dag.id(0))
    assert info.entry_state == pb.QUEUED
    await complete_all(served, dag)
    info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
    assert info.entry_state == pb.COMPLETED
    assert info.created > 1.7e9


async def test_an_unknown_instance_is_not_known(served: Served) -> None:
    with refused(UNKNOWN, "instance"):
        await served.stub.GetInstance(pb.GetInstanceRequest(instance=os.urandom(16)))
    with refused(INVALID):
        await served.stub.GetInstance(pb.GetInstanceRequest(instance=b"short"))


async def test_the_status_says_why_no_worker_may_run_a_node(served: Served) -> None:
    gpu = pb.Function(name="work:Task.train", hash="h", queue="heavy", taint="GPU")
    await submit(served.stub, Dag().submission(b"a", b"b", functions=[gpu]))
    (unservable,) = (await served.status()).unschedulable
    assert (unservable.function.name, unservable.queued) == ("work:Task.train", 2)
    assert unservable.reason == "no worker is connected (start one with `worker`)"
    await served.worker()
    (unservable,) = (await served.status()).unschedulable
    assert "does not tolerate 'GPU'" in unservable.reason
    await served.worker(tolerations=["GPU"])
    assert not (await served.status()).unschedulable


async def test_the_status_says_which_signing_key_a_worker_lacks(served: Served) -> None:
    signed = pb.Function(name="work:Task.train", hash="h", key_id=b"\x01\x02")
    await submit(served.stub, Dag().submission(b"a", functions=[signed]))
    await served.worker(key_ids=[b"\x03"])
    (unservable,) = (await served.status()).unschedulable
    assert unservable.reason.endswith("it does not hold the signing key 0102: set DAGORAMA_SIGNING_KEYS there")
    assert unservable.function.key_id == b"\x01\x02"
    holder = await served.worker(key_ids=[b"\x03", b"\x01\x02"])
    assert (await holder.node()).function.key_id == b"\x01\x02"
    assert not (await served.status()).unschedulable


async def test_the_status_lists_workers_and_counts(served: Served) -> None:
    worker = await served.worker(name="here:1", slots=3, include_queues=["b", "a"], tolerations=["GPU"])
    await submit(served.stub, Dag().submission(b"a", functions=[pb.Function(name="f", queue="a")]))
    await worker.node()
    status = await served.status()
    (seen,) = status.workers
    assert (seen.name, seen.slots, seen.held, list(seen.include_queues)) == ("here:1", 3, 1, ["a", "b"])
    assert seen.worker == worker.hello.worker
    assert status.instances == 1
    assert status.epoch == 1
    assert status.version
    assert status.messages_in > 0
    assert status.messages_out > 0
    assert status.commits > 0


async def test_the_broker_says_that_it_is_healthy_until_it_leaves(served: Served) -> None:
    health: Any = health_pb2_grpc.HealthStub(served.channel)
    reply = await health.Check(health_pb2.HealthCheckRequest())
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    served.stop()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()  # it would be given its grace


async def test_a_submission_while_others_create_workers_and_queues_at_full_speed_is_taken(served: Served) -> None:
    async def make_queues(number: int) -> None:
        for turn in range(40):
            function = pb.Function(name=f"work:f{number}.{turn}", queue=f"queue-{number}-{turn}")
            await submit(served.stub, Dag().submission(b"a", functions=[function]))

    async def come_and_go() -> None:
        for turn in range(10):
            worker = await served.worker(exclude_queues=[f"queue-0-{turn}"], slots=2)
            await worker.complete(*await worker.nodes(1))
            await worker.vanish()

    async def look() -> None:
        for _ in range(40):
            await served.status()

    async with asyncio.timeout(30):
        await asyncio.gather(*(make_queues(number) for number in range(4)), come_and_go(), come_and_go(), look())
    status = await served.status()
    assert sum(status.nodes) == 160
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    assert await served.states(dag.instance, dag.id(0)) == [pb.QUEUED]


# --- the process ------------------------------------------------------------------------------------


def test_the_server_loads_no_pickle_and_of_dagorama_only_its_api() -> None:
    """Section 3 of the design: what is opaque to the broker cannot be opened by it."""
    script = (
        "import sys, dagorama_broker.server, dagorama_broker.settings;"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in ('dagorama', 'cloudpickle')))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    allowed = {"dagorama", "dagorama.api"} | {
        f"dagorama.api.{name}"
        for name in (
            "contract",
            "error_patterns",
            "frames",
            "text_forms",
            *(f"{file}_pb2{kind}" for file in ("api", "broker", "externalscaler") for kind in ("", "_grpc")),
        )
    }
    assert set(loaded) <= allowed


# --- what is no message ------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["dagorama.v1.Broker/Cancel", "main.Dagorama/Ping", "grpc.health.v1.Health/Check"])
async def test_bytes_that_are_no_message_are_refused_and_leave_no_traceback_in_the_log(
    served: Served, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    channel: Any = served.channel
    with refused(INVALID, "cannot be read as a message of this call"):
        await channel.unary_unary(f"/{call}")(b"\xff\xff\xff")
    with refused(INVALID, "cannot be read as a message of this call"):
        await channel.stream_unary("/dagorama.v1.Broker/SubmitStream")(iter([b"", b"\xff\xff\xff"]))
    work = channel.stream_stream("/dagorama.v1.Broker/Work")(iter([b"\xff\xff\xff"]))
    with refused(INVALID, "cannot be read as a message of this call"):
        await work.read()
    assert not [record for record in caplog.records if record.exc_info]
