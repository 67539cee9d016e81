"""The original's eight calls, by raw stubs: its texts, its order, its leases, and a world of its own."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from dagorama.api import api_pb2 as old
from dagorama.api import broker_pb2 as pb
from dagorama_broker.rpc import legacy_workers
from tests.support.gate import gate, settled
from tests.support.legacy_client import Client
from tests.support.raw import Dag, Served, envelope, refused, serving, submit

if TYPE_CHECKING:
    pass

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNKNOWN = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
NOT_NOW = grpc.StatusCode.FAILED_PRECONDITION


@pytest_asyncio.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    yield Client(served.original)


# --- the round ----------------------------------------------------------------------------------------


async def test_a_node_is_made_claimed_completed_and_read(client: Client) -> None:
    instance, worker = await client.instance(), await client.worker()
    made = client.node(instance, functionHash="h", queueName="q")
    reply = await client.stub.CreateNode(made)
    assert (reply.identifier, reply.arguments, reply.instanceId) == (made.identifier, b"pickled", instance)
    work = await client.get_work(worker)
    assert (work.identifier, work.instanceId) == (made.identifier, instance)
    assert (work.functionName, work.functionHash, work.queueName) == ("work:f", "h", "q")
    assert (work.arguments, work.completed, work.resolvedValue) == (b"pickled", False, b"")
    waiting = await client.get(instance, made.identifier)
    assert (waiting.completed, waiting.resolvedValue, waiting.arguments) == (False, b"", b"pickled")
    reply = await client.complete(worker, work, b"the value")
    assert (reply.completed, reply.resolvedValue) == (True, b"the value")
    done = await client.get(instance, made.identifier)
    assert (done.completed, done.resolvedValue, done.arguments) == (True, b"the value", b"pickled")
    assert (done.functionName, done.functionHash, done.queueName) == ("work:f", "h", "q")
    await client.no_work(worker)


async def test_sources_come_with_identifier_value_and_completion(client: Client) -> None:
    instance, worker = await client.instance(), await client.worker()
    sources = [await client.create(instance) for _ in range(40)]
    join = await client.create(instance, sourceIds=[*sources, sources[0]])
    before = await client.get(instance, join)
    assert [source.identifier for source in before.sources] == sources
    assert not any(source.completed or source.resolvedValue for source in before.sources)
    for identifier in sources:
        work = await client.get_work(worker)
        assert work.identifier == identifier
        await client.complete(worker, work, f"of {identifier}".encode())
    work = await client.get_work(worker)
    await client.complete(worker, work)
    for message in (work, await client.get(instance, join)):
        found = [(source.identifier, source.resolvedValue, source.completed) for source in message.sources]
        assert found == [(identifier, f"of {identifier}".encode(), True) for identifier in sources]


async def test_a_value_of_no_bytes_completes_its_node(client: Client) -> None:
    instance, worker = await client.instance(), await client.worker()
    identifier = await client.create(instance)
    await client.complete(worker, await client.get_work(worker), b"")
    assert (await client.get(instance, identifier)).completed


async def test_children_are_visible_at_once_and_outlive_their_parents_failure(client: Client) -> None:
    instance, worker, other = await client.instance(), await client.worker(), await client.worker()
    await client.create(instance)
    parent = await client.get_work(worker)
    child = await client.create(instance)
    assert (await client.get_work(other)).identifier == child
    await client.fail(worker, parent)
    assert not (await client.get(instance, child)).completed


# --- order, queues and taints ---------------------------------------------------------------------------


async def test_older_instances_go_first_whatever_their_queues(client: Client) -> None:
    older, newer = await client.instance(), await client.instance()
    expected: list[str] = []
    for instance, queues in ((newer, "abc"), (older, "cab")):
        made = [await client.create(instance, queueName=queue) for queue in queues]
        expected = made + expected
    worker = await client.worker()
    given = [(await client.get_work(worker)).identifier for _ in range(6)]
    assert given == expected


async def test_a_worker_is_given_what_it_includes_does_not_exclude_and_tolerates(client: Client) -> None:
    instance = await client.instance()
    plain = await client.create(instance, queueName="a")
    gpu = await client.create(instance, queueName="a", taintName="GPU")
    other = await client.create(instance, queueName="b")
    excluding = await client.worker(excludeQueues=["a"])
    assert (await client.get_work(excluding)).identifier == other
    await client.no_work(excluding)
    including = await client.worker(includeQueues=["a"])
    assert (await client.get_work(including)).identifier == plain
    await client.no_work(including)
    tolerating = await client.worker(queueTolerations=["GPU"])
    assert (await client.get_work(tolerating)).identifier == gpu
    await client.no_work(tolerating)


async def test_a_node_without_a_queue_has_that_of_its_function(client: Client) -> None:
    identifier = await client.create(await client.instance())
    worker = await client.worker(includeQueues=["work:f"])
    work = await client.get_work(worker)
    assert (work.identifier, work.queueName) == (identifier, "work:f")


async def test_nodes_are_not_routed_by_hash(client: Client) -> None:
    instance, worker = await client.instance(), await client.worker()
    for number in range(3):
        await client.create(instance, functionHash=f"hash {number}")
        assert (await client.get_work(worker)).functionHash == f"hash {number}"


# --- failures and retries -----------------------------------------------------------------------------


async def test_a_failed_node_never_completes_and_takes_its_dependents_along(client: Client, served: Served) -> None:
    instance, worker = await client.instance(), await client.worker()
    failed = await client.create(instance)
    await client.create(instance, sourceIds=[failed])
    await client.fail(worker, await client.get_work(worker), "Traceback\n  ...\nKeyError: 'x'\n")
    await client.no_work(worker)
    node = await client.get(instance, failed)
    assert (node.completed, node.resolvedValue) == (False, b"")
    assert (await served.status()).nodes[pb.FAILED] == 2


async def test_max_attempts_counts_runs(client: Client, served: Served) -> None:
    instance, worker = await client.instance(), await client.worker()
    await client.create(instance, retry=old.RetryMessage(maxAttempts=3, staticInterval=0))
    for _ in range(3):
        work = await client.get_work(worker)
        await client.fail(worker, work)
        await served.until(lambda broker: not broker.scheduler.graph.counts[pb.BACKOFF])
    await client.no_work(worker)
    assert (await served.status()).nodes[pb.FAILED] == 1


@pytest.mark.parametrize(
    "retry", [old.RetryMessage(maxAttempts=2, staticInterval=1), old.RetryMessage(maxAttempts=2, exponentialBase=1)]
)
async def test_a_retry_comes_after_its_interval(client: Client, retry: old.RetryMessage) -> None:
    instance, worker = await client.instance(), await client.worker()
    identifier = await client.create(instance, retry=retry)
    await client.fail(worker, await client.get_work(worker))
    failed_at = time.monotonic()
    await client.no_work(worker)
    async with asyncio.timeout(5):
        while True:
            try:
                work = await client.get_work(worker)
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)
    assert time.monotonic() - failed_at >= 0.95
    await client.complete(worker, work, b"at last")
    assert (await client.get(instance, identifier)).resolvedValue == b"at last"


async def test_a_node_without_a_policy_runs_once(client: Client) -> None:
    instance, worker = await client.instance(), await client.worker()
    await client.create(instance, retry=old.RetryMessage(maxAttempts=0, staticInterval=1))
    await client.fail(worker, await client.get_work(worker))
    await client.no_work(worker)


# --- leases and fencing ---------------------------------------------------------------------------------


async def test_a_ping_says_when_it_was_heard(client: Client) -> None:
    worker = await client.worker()
    before = time.time()
    heard = (await client.stub.Ping(old.WorkerMessage(identifier=worker))).lastPing
    assert math.floor(before) <= heard <= math.ceil(time.time())


async def test_a_silent_worker_is_invalidated_and_its_node_goes_to_another() -> None:
    async with serving(legacy_lease=0.3) as served:
        client = Client(served.original)
        instance, silent, lively = await client.instance(), await client.worker(), await client.worker()
        identifier = await client.create(instance)
        work = await client.get_work(silent)
        async with asyncio.timeout(5):
            while True:
                await client.stub.Ping(old.WorkerMessage(identifier=lively))
                try:
                    again = await client.get_work(lively)
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
        assert again.identifier == identifier
        for call in (client.get_work(silent), client.complete(silent, work, b"late"), client.fail(silent, work),
                     client.stub.Ping(old.WorkerMessage(identifier=silent))):  # fmt: skip
            with refused(NOT_NOW, "worker invalidated"):
                await call
        await client.complete(lively, again, b"in time")
        assert (await client.get(instance, identifier)).resolvedValue == b"in time"


async def test_a_worker_that_pings_keeps_its_node() -> None:
    async with serving(legacy_lease=0.3) as served:
        client = Client(served.original)
        instance, worker = await client.instance(), await client.worker()
        await client.create(instance)
        work = await client.get_work(worker)
        for _ in range(12):
            await client.stub.Ping(old.WorkerMessage(identifier=worker))
            await asyncio.sleep(0.05)
        await client.complete(worker, work)
        assert (await client.get(instance, work.identifier)).completed


async def test_the_lease_is_ninety_seconds_unless_told_otherwise(served: Served, client: Client) -> None:
    await client.worker()
    (worker,) = served.broker.scheduler.claims.workers.values()
    assert worker.lease == 90.0


async def test_a_legacy_outcome_of_a_node_that_is_not_the_workers_is_refused_and_the_value_stays(
    client: Client,
) -> None:
    instance, worker, other = await client.instance(), await client.worker(), await client.worker()
    identifier = await client.create(instance)
    queued = old.NodeMessage(identifier=identifier, instanceId=instance)
    with refused(NOT_NOW):
        await client.complete(other, queued, b"before it was claimed")
    work = await client.get_work(worker)
    for call in (client.complete(other, work, b"wrong"), client.fail(other, work)):
        with refused(NOT_NOW):
            await call
    await client.complete(worker, work, b"right")
    for call in (client.complete(worker, work, b"again"), client.fail(worker, work), client.complete(other, work)):
        with refused(NOT_NOW):
            await call
    assert (await client.get(instance, identifier)).resolvedValue == b"right"


async def test_a_node_whose_worker_hung_up_before_it_was_handed_over_goes_to_the_next(served: Served) -> None:
    client = Client(served.original)
    instance, hasty, other = await client.instance(), await client.worker(), await client.worker()
    await client.create(instance)  # so that the instance and its function are known when the next comes
    await client.get_work(await client.worker())
    with gate(served) as commits:
        making = asyncio.ensure_future(client.create(instance))
        await served.until(lambda broker: commits.waiting and any(broker.scheduler.graph.active))
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            await client.stub.GetWork(old.WorkerMessage(identifier=hasty), timeout=0.2)
        await settled()
    identifier = await making
    assert (await client.get_work(other)).identifier == identifier
    await client.stub.Ping(old.WorkerMessage(identifier=hasty))


# --- refusals -------------------------------------------------------------------------------------------


async def test_unknown_ids_are_refused_in_every_call_and_change_nothing(client: Client, served: Served) -> None:
    instance, worker, nobody = await client.instance(), await client.worker(), str(uuid4())
    node = old.NodeMessage(identifier=nobody, instanceId=instance)
    calls: list[tuple[grpc.StatusCode, Awaitable[Any]]] = [
        (UNKNOWN, client.create(nobody)),
        (UNKNOWN, client.create(instance, sourceIds=[nobody])),
        (UNKNOWN, client.get(instance, nobody)),
        (UNKNOWN, client.get(nobody, nobody)),
        (NOT_NOW, client.get_work(nobody)),
        (NOT_NOW, client.stub.Ping(old.WorkerMessage(identifier=nobody))),
        (NOT_NOW, client.complete(nobody, node)),
        (NOT_NOW, client.fail(nobody, node)),
        (NOT_NOW, client.complete(worker, node)),
        (NOT_NOW, client.fail(worker, node)),
    ]
    for status, call in calls:
        with refused(status):
            await call
    assert not any((await served.status()).nodes)


@pytest.mark.parametrize("text", ["", "x", "not-a-uuid", "0" * 31, "\N{PILE OF POO}" * 1000])
async def test_identifiers_that_are_none_are_refused_in_every_call(client: Client, text: str) -> None:
    instance, worker = await client.instance(), await client.worker()
    node = old.NodeMessage(identifier=text, instanceId=instance)
    calls: list[Any] = [
        client.stub.CreateInstance(old.InstanceConfigurationMessage(identifier=text)),
        client.create(text),
        client.create(instance, identifier=text),
        client.create(instance, sourceIds=[text]),
        client.get(instance, text),
        client.get(text, instance),
        client.get_work(text),
        client.stub.Ping(old.WorkerMessage(identifier=text)),
        client.complete(text, node),
        client.complete(worker, node),
        client.fail(worker, node),
    ]
    for call in calls:
        with refused(INVALID, "not a UUID"):
            await call


async def test_a_node_that_names_itself_or_another_instances_node_is_refused(client: Client) -> None:
    instance, other, identifier = await client.instance(), await client.instance(), str(uuid4())
    foreign = await client.create(other)
    with refused(INVALID, "itself"):
        await client.create(instance, identifier=identifier, sourceIds=[identifier])
    with refused(INVALID, "another instance"):
        await client.create(instance, sourceIds=[foreign])
    with refused(INVALID, "another instance"):
        await client.get(instance, foreign)


@pytest.mark.parametrize("field", ["functionName", "functionHash", "queueName", "taintName"])
async def test_names_without_end_are_refused(client: Client, field: str) -> None:
    instance = await client.instance()
    with refused(INVALID):
        await client.create(instance, **{field: "n" * 5000})
    with refused(INVALID):
        await client.create(instance, functionName="")


async def test_the_same_again_has_no_second_effect_and_other_content_is_refused(client: Client, served: Served) -> None:
    instance, worker = await client.instance(), await client.worker()
    await client.stub.CreateInstance(old.InstanceConfigurationMessage(identifier=instance))
    node = client.node(instance)
    for _ in range(2):
        await client.stub.CreateNode(node)
    assert (await served.status()).nodes[pb.QUEUED] == 1
    with refused(EXISTS):
        await client.create(instance, identifier=node.identifier, arguments=b"other")
    await client.complete(worker, await client.get_work(worker))
    await client.stub.CreateNode(node)
    await client.stub.CreateInstance(old.InstanceConfigurationMessage(identifier=instance))
    await client.no_work(worker)
    with refused(EXISTS):
        await client.create(instance, identifier=node.identifier, arguments=b"other")


async def test_a_node_too_large_for_its_client_fails_and_holds_up_no_other(client: Client, served: Served) -> None:
    instance, worker = await client.instance(), await client.worker()
    sources = [await client.create(instance) for _ in range(5)]
    for _ in sources:
        await client.complete(worker, await client.get_work(worker), bytes(1 << 20))
    too_wide = await client.create(instance, sourceIds=sources)
    next_one = await client.create(instance, sourceIds=sources[:3])
    assert (await client.get_work(worker)).identifier == next_one
    assert (await served.status()).nodes[pb.FAILED] == 1
    assert not (await client.get(instance, too_wide)).completed


async def test_the_largest_result_is_read_whole(client: Client) -> None:
    instance, worker = await client.instance(), await client.worker()
    identifier = await client.create(instance, arguments=os.urandom(3 << 20), functionName="f" * 4000)
    work, result = await client.get_work(worker), os.urandom((4 << 20) - 130)
    await client.complete(worker, work, result)
    node = await client.get(instance, identifier)
    assert (node.completed, node.resolvedValue == result) == (True, True)


# --- two worlds -----------------------------------------------------------------------------------------


async def test_nodes_of_one_world_never_reach_workers_of_the_other(client: Client, served: Served) -> None:
    theirs, ours = await client.worker(), await served.worker(name="ours")
    dag, function = Dag(), pb.Function(name="work:f")
    await submit(served.stub, dag.submission(b"ours", functions=[function]))
    instance = await client.instance()
    identifier = await client.create(instance, functionName="work:f")
    assert (await ours.node()).id == dag.id(0)
    assert (await client.get_work(theirs)).identifier == identifier
    await client.no_work(theirs)
    await settled()
    assert not ours.given
    names = {worker.name for worker in (await served.status()).workers}
    assert names == {"ours", f"{theirs} (dagorama 0.1.10)"}


async def test_values_of_one_world_are_not_read_in_the_other(client: Client, served: Served) -> None:
    theirs, ours = await client.worker(), await served.worker()
    dag, instance = Dag(), await client.instance()
    await submit(served.stub, dag.submission(b"ours"))
    node = await client.create(instance)
    our_ids = str(UUID(bytes=dag.instance)), str(UUID(bytes=dag.id(0)))
    for has_ended in (False, True):
        with refused(UNKNOWN):
            await client.get(*our_ids)
        with refused(UNKNOWN):
            await served.wait(UUID(instance).bytes, UUID(node).bytes)
        with refused(INVALID):
            await client.create(our_ids[0], sourceIds=[our_ids[1]])
        with refused(INVALID):
            await submit(served.stub,
                dag.submission(b"x", instance=UUID(instance).bytes, origin=os.urandom(12), creates=False,
                               source_count=[1], source=[-1], foreign=[UUID(node).bytes])
            )  # fmt: skip
        if not has_ended:
            await ours.durable(await ours.complete(await ours.node()))
            await client.complete(theirs, await client.get_work(theirs))
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"done")


async def test_an_instance_of_one_world_is_not_made_again_in_the_other(client: Client, served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission())
    with refused(EXISTS):
        identifier = str(UUID(bytes=dag.instance))
        await client.stub.CreateInstance(old.InstanceConfigurationMessage(identifier=identifier))


# --- a restart ------------------------------------------------------------------------------------------


async def test_all_of_it_survives_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        client = Client(served.original)
        instance, worker = await client.instance(), await client.worker()
        done = await client.create(instance)
        await client.complete(worker, await client.get_work(worker), b"kept")
        claimed = await client.create(instance, sourceIds=[done])
        node = client.node(instance, sourceIds=[claimed])
        await client.stub.CreateNode(node)
        work = await client.get_work(worker)
    async with serving(store=store) as served:
        client = Client(served.original)
        with refused(NOT_NOW, "worker invalidated"):
            await client.complete(worker, work)
        worker = await client.worker()
        assert (await client.get(instance, done)).resolvedValue == b"kept"
        await client.stub.CreateNode(node)  # a client whose reply was lost
        work = await client.get_work(worker)
        assert (work.identifier, work.sources[0].resolvedValue) == (claimed, b"kept")
        await client.complete(worker, work, b"second")
        work = await client.get_work(worker)
        assert (work.identifier, work.sources[0].resolvedValue) == (node.identifier, b"second")
        await client.complete(worker, work, b"third")
        await client.no_work(worker)
        assert (await client.get(instance, node.identifier)).resolvedValue == b"third"


async def test_a_restarted_broker_that_hands_out_nothing_yet_does_not_say_that_there_is_no_work(
    tmp_path: Path,
) -> None:
    store = f"sqlite:///{tmp_path}/store"
    async with serving(store=store) as served:
        await served.worker()
        await settled()
        client = Client(served.original)
        identifier = await client.create(await client.instance())
        # Killed: its worker is on record as connected.
        served.broker.scheduler.graph.changes.workers_left.clear()
        served.broker.sessions.clear()
        served.broker.scheduler.claims.workers.clear()
    async with serving(store=store, reconnect_wait=0.3) as served:
        client = Client(served.original)
        assert served.broker.scheduler.dispatch_paused_until is not None
        assert (await client.get_work(await client.worker())).identifier == identifier


# --- how many workers -------------------------------------------------------------------------------------


async def test_one_caller_makes_so_many_workers_and_the_silent_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacy_workers, "MOST", 8)
    monkeypatch.setattr(legacy_workers, "LOOK", 0.05)
    async with serving(legacy_lease=0.3) as served:
        client = Client(served.original)
        workers = [await client.worker(includeQueues=[f"q{number}"]) for number in range(6)]
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "6 workers of dagorama 0.1.10 are connected; 8 are allowed"):
            await client.worker()
        await client.no_work(workers[0])
        await served.until(lambda broker: len(broker.scheduler.claims.workers) < 6)
        while True:
            try:
                await client.worker()
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)


async def test_a_worker_names_so_many_queues(client: Client) -> None:
    with refused(INVALID, "500 of 16,384 characters are allowed"):
        await client.worker(includeQueues=[f"q{number}" for number in range(501)])
