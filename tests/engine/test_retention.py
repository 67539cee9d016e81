"""Finished instances are forgotten after their time, whoever asks meanwhile; what lives or is named by others stays."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.retention import Retention
from dagorama_broker.engine.retention_policy import (
    INSTANCES,
    MOST_INSTANCES,
    MOST_NODES,
    NODES,
    SHORTEST_PAUSE,
    RemovalRate,
    RetentionPolicy,
    format_duration,
)
from dagorama_broker.model.rows import Changes, InstanceEnd, LinkRow, NodeBlockRow
from dagorama_broker.scheduler import KEYS_LEFT_OUT, Scheduler
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.far_store import distance
from tests.support.legacy_client import Client
from tests.support.raw import LEAF, Dag, EagerAttemptRecord, Served, envelope, refused, serving, submit
from tests.support.records import begun, completed, graph, instance_row, node, node_id

GONE = grpc.StatusCode.NOT_FOUND
NEVER = float("inf")
SOON = 0.1
#: A step is taken by the test, at a moment that it picks: that works if nothing is awaited.
ONLY_NEAR = pytest.mark.parametrize("distance", ["near"], indirect=True)
REMOVED = "was removed after its retention of 0.1 s (DAGORAMA_RETENTION)"

__all__ = ["distance"]


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/store"


async def finish(served: Served, *dags: Dag, fail: bool = False, **columns: Any) -> None:
    """Instances of one node each, submitted, run and durable."""
    worker = await served.worker()
    for dag in dags:
        await submit(served.stub, dag.submission(b"a", **columns))
        given = await worker.node()
        await worker.durable(await (worker.fail(given) if fail else worker.complete(given, value=b"done")))
    await worker.say(draining=True)


def is_removed(dag: Dag) -> Callable[[Broker], bool]:
    return lambda broker: broker.store.removed(dag.instance) is not None


def nodes_in(broker: Broker) -> int:
    path: Path = cast("SqliteStore", broker.store).path
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM nodes").fetchone()[0]
        return count


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else url(tmp_path)


# --- what is said of it -------------------------------------------------------------------------------


async def test_a_call_for_a_removed_instance_says_when_it_ended_and_why_it_was_removed(place: str) -> None:
    dag = Dag()
    async with serving(store=place, retention=SOON) as served:
        await finish(served, dag)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        await served.until(is_removed(dag))
        sentence = f"instance {dag.instance.hex()} ended on {today}"
        for text in (sentence, REMOVED):
            with refused(GONE, text):
                await served.wait(dag.instance, dag.id(0))
            with refused(GONE, text):
                await served.wait(dag.instance, dag.id(0), now=True)
            with refused(GONE, text):
                await served.stub.GetInstance(pb.GetInstanceRequest(instance=dag.instance))
            for ids in ([], [dag.id(0)]):
                with refused(GONE, text):
                    await served.stub.Cancel(pb.CancelRequest(instance=dag.instance, node=ids))
            with refused(GONE, text):
                join = dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0])
                await submit(served.stub, join)


async def test_an_instance_that_never_existed_is_unknown_and_the_message_says_that_old_ones_are_removed() -> None:
    async with serving(retention=36 * 3600.0) as served:
        with refused(GONE, "is not known to this broker; old instances are removed, ended ones after 36 h"):
            await served.stub.GetInstance(pb.GetInstanceRequest(instance=os.urandom(16)))
        with refused(GONE, "failed ones after 7 days (DAGORAMA_RETENTION_FAILED)"):
            await submit(served.stub, Dag().submission(b"a", creates=False))


async def test_no_message_speaks_of_removals_if_nothing_is_removed() -> None:
    async with serving(retention=NEVER, retention_failed=NEVER) as served:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await served.stub.GetInstance(pb.GetInstanceRequest(instance=os.urandom(16)))
        assert "removed" not in (refusal.value.details() or "")


async def test_the_same_submission_does_not_recreate_a_removed_instance(place: str) -> None:
    dag, empty = Dag(), Dag()
    async with serving(store=place, retention=SOON) as served:
        nothing = empty.submission()
        await submit(served.stub, nothing)
        await finish(served, dag)
        for each, again in ((dag, dag.submission(b"a")), (empty, nothing)):
            await served.until(is_removed(each))
            for _ in range(5):
                with refused(GONE, REMOVED):
                    await submit(served.stub, again)
                await asyncio.sleep(0.01)
        assert sum((await served.status()).nodes[: pb.COMPLETED]) == 0


@ONLY_NEAR
async def test_the_same_submission_is_refused_while_what_it_made_is_still_on_the_disk(place: str) -> None:
    dag = Dag()
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, dag)
        assert now_removed(served)
        await served.broker.commits.wait_durable()
        assert served.broker.store.last_block(dag.origin, 1) is not None
        with refused(GONE, "was removed after its retention of 0 s"):
            await submit(served.stub, dag.submission(b"a"))


@ONLY_NEAR
async def test_the_originals_calls_say_so_too() -> None:
    async with serving(retention=NEVER, retention_failed=NEVER) as served:
        client = Client(served.original)
        instance, worker = await client.instance(), await client.worker()
        identifier = await client.create(instance)
        await client.complete(worker, await client.get_work(worker), b"value")
        assert now_removed(served)
        with refused(GONE, "was removed after its retention of 0 s"):
            await client.get(instance, identifier)
        with refused(GONE, "was removed after its retention of 0 s"):
            await client.create(instance, sourceIds=[identifier])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7 * 86_400, "7 days"), (86_400, "24 h"), (5_400, "90 min"), (3_600, "60 min"), (45, "45 s"), (0.5, "0.5 s")],
)
def test_a_retention_is_told_in_words(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


# --- what goes and what stays --------------------------------------------------------------------------


async def test_instances_go_and_their_rows_with_them_while_what_lives_stays(tmp_path: Path) -> None:
    live, ended = Dag(), [Dag() for _ in range(5)]
    async with serving(store=url(tmp_path), retention=SOON) as served:
        functions = [pb.Function(name="work:nobody", queue="none")]
        await submit(served.stub, live.submission(b"a", b"b", functions=functions))
        worker = await served.worker(exclude_queues=["none"])
        for dag in ended:
            await submit(served.stub, dag.submission(b"a"))
            await worker.complete(await worker.node())
        for dag in ended:
            await served.until(is_removed(dag))
        await served.until(lambda broker: nodes_in(broker) == 2)
        assert await served.states(live.instance, live.id(0), live.id(1)) == [pb.QUEUED, pb.QUEUED]


async def test_failed_instances_are_kept_longer() -> None:
    failed, ended = Dag(), Dag()
    async with serving(retention=SOON) as served:
        await finish(served, failed, fail=True)
        await finish(served, ended)
        await served.until(is_removed(ended))
        assert await served.states(failed.instance, failed.id(0)) == [pb.FAILED]


async def test_a_failed_instance_goes_after_its_own_time() -> None:
    failed, ended = Dag(), Dag()
    async with serving(retention=NEVER, retention_failed=SOON) as served:
        await finish(served, ended)
        await finish(served, failed, fail=True)
        await served.until(is_removed(failed))
        with refused(GONE, "was removed after its retention of 0.1 s (DAGORAMA_RETENTION_FAILED)"):
            await served.wait(failed.instance, failed.id(0))
        assert await served.value(ended.instance, ended.id(0)) == envelope(b"done")


@ONLY_NEAR
async def test_an_instance_that_ended_and_got_new_nodes_is_not_removed() -> None:
    dag = Dag()
    async with serving(retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, dag)
        await submit(served.stub, dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0]))
        assert not now_removed(served)
        worker = await served.worker()
        await worker.complete(await worker.node(), value=b"second")
        assert await served.value(dag.instance, dag.id(1)) == envelope(b"second")
        assert now_removed(served)


async def test_what_a_kept_instance_names_is_kept_as_long_and_goes_after_it(place: str) -> None:
    outer, inner, other = Dag(), Dag(), Dag()
    async with serving(store=place, retention=SOON) as served:
        worker = await served.worker(slots=3)
        await submit(served.stub, outer.submission(b"returns a promise of another instance", b"runs on"))
        promising, running = await worker.nodes(2)
        await submit(served.stub, inner.submission(b"a", functions=[LEAF]))
        value = await worker.node()
        await worker.complete(promising, value=b"outer", foreign=[inner.id(0)], ref_count=[1], ref=[-1])
        await worker.durable(await worker.complete(value, value=b"inner"))
        await submit(served.stub, other.submission(b"a"))
        await worker.complete(await worker.node())
        await served.until(is_removed(other))
        (reply,) = await served.wait(outer.instance, outer.id(0))
        assert sorted(reply.value) == [envelope(b"inner"), envelope(b"outer")]
        assert await served.value(inner.instance, inner.id(0)) == envelope(b"inner")
        await worker.complete(running)
        await served.until(is_removed(outer))
        await served.until(is_removed(inner))


async def test_instances_that_name_each_other_go_together_when_the_time_of_both_is_over(place: str) -> None:
    one, other = Dag(), Dag()
    async with serving(store=place, retention=SOON) as served:
        worker = await served.worker(slots=3)
        for dag in (one, other):
            await submit(served.stub, dag.submission(b"a", b"names the other's first"))
        firsts = {node.id: node for node in await worker.nodes(2)}
        await worker.complete(*firsts.values())
        for node in await worker.nodes(2):
            named = other.id(0) if node.instance == one.instance else one.id(0)
            await worker.complete(node, foreign=[named], ref_count=[1], ref=[-1])
        await served.until(is_removed(one))
        await served.until(is_removed(other))


@ONLY_NEAR
async def test_instances_of_which_one_is_live_keep_each_other(place: str) -> None:
    one, other = Dag(), Dag()
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, one, other)
        store = served.broker.store
        keys = [stored.row.key for dag in (one, other) if (stored := store.instance(dag.instance)) is not None]
        links = [LinkRow(keys[0], keys[1]), LinkRow(keys[1], keys[0])]
        await served.broker.commits.in_store(store.commit, Changes(links=links))
        await submit(served.stub, one.submission(b"b", first=1, creates=False))
        assert not now_removed(served)
        worker = await served.worker()
        await worker.durable(await worker.complete(await worker.node()))
        assert now_removed(served)
        await served.broker.commits.wait_durable()
        assert is_removed(one)(served.broker)
        assert is_removed(other)(served.broker)


async def test_the_failure_of_another_instance_is_told_as_long_as_who_shares_it_is_kept() -> None:
    outer, inner, other = Dag(), Dag(), Dag()
    async with serving(retention=SOON, retention_failed=SOON) as served:
        worker = await served.worker(slots=3)
        await submit(served.stub, outer.submission(b"returns a promise of another instance", b"runs on"))
        promising, _ = await worker.nodes(2)
        await submit(served.stub, inner.submission(b"a", functions=[LEAF]))
        failing = await worker.node()
        await worker.complete(promising, foreign=[inner.id(0)], ref_count=[1], ref=[-1])
        await worker.durable(await worker.fail(failing, message="of the inner"))
        await submit(served.stub, other.submission(b"a"))
        await worker.complete(await worker.node())
        await served.until(is_removed(other))
        assert (await served.failure(outer.instance, outer.id(0))).message == "of the inner"


def retention_of(broker: Broker) -> Retention:
    """Return another instance next to the one that the broker runs."""
    return Retention(broker.commits, broker.lookups, broker.loading, broker.removed)


@ONLY_NEAR
async def test_a_clock_that_is_put_forward_makes_nothing_old(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = Dag()
    async with serving(retention=3600.0) as served:
        await finish(served, dag)
        served.broker.lookups.keeping = RetentionPolicy(3600.0, 3600.0)
        retention, year = retention_of(served.broker), 365 * 86_400
        before = time.time
        monkeypatch.setattr(time, "time", lambda: before() + year)
        assert not at_once(retention._remove())
        assert at_once(retention_of(served.broker)._remove())


@ONLY_NEAR
async def test_a_start_whose_clock_is_days_ahead_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag, url = Dag(), f"sqlite:///{tmp_path}/store"
    async with serving(store=url, retention=3600.0) as served:
        await finish(served, dag)
    before = time.time
    monkeypatch.setattr(time, "time", lambda: before() + 10 * 86_400)
    async with serving(store=url, retention=3600.0) as served:
        assert not at_once(retention_of(served.broker)._remove())
        assert await served.states(dag.instance, dag.id(0)) == [pb.COMPLETED]


# --- calls that come in between ------------------------------------------------------------------------


def at_once(step: Coroutine[Any, Any, int]) -> int:
    """Carry out what awaits nothing with a store that is near."""
    try:
        step.send(None)
    except StopIteration as end:
        return cast("int", end.value)
    raise AssertionError("it has awaited something")


def now_removed(served: Served) -> bool:
    """Have all that ended removed by the next commit, whatever the settings."""
    served.broker.lookups.keeping = RetentionPolicy(0.0, 0.0)
    try:
        return at_once(retention_of(served.broker)._remove()) > 0
    finally:
        served.broker.lookups.keeping = RetentionPolicy(NEVER, NEVER)


@ONLY_NEAR
async def test_an_instance_that_is_removed_while_a_call_looks_it_up_is_unknown_to_that_call(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = Dag()
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, dag)
        loop, read, removals = asyncio.get_running_loop(), served.broker.store.instance, []

        def read_and_remove(id: bytes) -> Any:
            found = read(id)
            # This runs in the loop before the call learns what was found.
            loop.call_soon_threadsafe(lambda: removals.append(now_removed(served)))
            return found

        monkeypatch.setattr(served.broker.store, "instance", read_and_remove)
        with refused(GONE, "and was removed after its retention"):
            await submit(served.stub, dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0]))
        monkeypatch.undo()
        assert removals == [True]
        assert is_removed(dag)(served.broker)
        assert not served.broker.scheduler.graph.nodes


@ONLY_NEAR
async def test_an_instance_that_a_call_has_just_taken_up_is_not_removed(place: str) -> None:
    dag = Dag()
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, dag)
        submitted: Callable[..., None] = served.broker.scheduler.submit
        removals: list[bool] = []

        def submit_and_remove(*arguments: Any, **named: Any) -> None:
            submitted(*arguments, **named)
            removals.append(now_removed(served))

        served.broker.scheduler.submit = submit_and_remove  # type: ignore[method-assign]
        await submit(served.stub, dag.submission(b"b", first=1, creates=False, source_count=[1], source=[0]))
        assert removals == [False]
        assert await served.states(dag.instance, dag.id(0), dag.id(1)) == [pb.COMPLETED, pb.QUEUED]


@ONLY_NEAR
async def test_what_a_value_names_that_is_not_committed_yet_is_not_removed(place: str) -> None:
    outer, inner = Dag(), Dag()
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, inner)
        worker = await served.worker()
        await submit(served.stub, outer.submission(b"a"))
        promising, complete, removals = await worker.node(), served.broker.scheduler.complete, []

        def complete_and_remove(*arguments: Any, **named: Any) -> bool:
            taken = complete(*arguments, **named)
            removals.append(now_removed(served))
            return taken

        served.broker.scheduler.complete = complete_and_remove  # type: ignore[method-assign]
        await worker.complete(promising, value=b"outer", foreign=[inner.id(0)], ref_count=[1], ref=[-1])
        (reply,) = await served.wait(outer.instance, outer.id(0))
        assert removals == [False]
        assert sorted(reply.value) == [envelope(b"done"), envelope(b"outer")]


@ONLY_NEAR
async def test_an_instance_that_is_being_read_goes_when_the_reader_has_gone(place: str) -> None:
    dag = Dag()
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, dag)
        with served.broker.lookups.holds.on(dag.instance):
            assert not now_removed(served)
        assert now_removed(served)
        await served.broker.commits.wait_durable()
        assert is_removed(dag)(served.broker)


async def test_a_wait_that_is_open_at_the_end_gets_the_value_with_any_retention(place: str) -> None:
    async with serving(store=place, retention=0.0) as served:
        worker = await served.worker()
        for _ in range(20):
            dag = Dag()
            await submit(served.stub, dag.submission(b"a"))
            given = await worker.node()
            waiting = asyncio.ensure_future(served.value(dag.instance, dag.id(0)))
            await served.until(lambda broker, key=given.key: key in broker.watching)  # type: ignore[misc]
            await worker.complete(given, value=b"in time")
            assert await waiting == envelope(b"in time")
            await served.until(is_removed(dag))


# --- how much at a time ----------------------------------------------------------------------------------


def test_a_portion_is_twice_what_was_made_since_the_one_before_between_two_bounds() -> None:
    made = SimpleNamespace(instances_made=1, nodes_made=1)
    pace = RemovalRate(cast(Scheduler, made), 0.0)
    assert (pace.instances(), pace.nodes()) == (INSTANCES, NODES)
    made.instances_made, made.nodes_made = 1_001, 9_001
    assert (pace.instances(), pace.nodes()) == (2_000, 18_000)
    assert (pace.instances(), pace.nodes()) == (INSTANCES, NODES)
    made.instances_made, made.nodes_made = 1_000_000, 1_000_000
    assert (pace.instances(), pace.nodes()) == (MOST_INSTANCES, MOST_NODES)


def test_a_pause_is_as_long_as_a_portion_takes_to_expire() -> None:
    pace = RemovalRate(cast(Scheduler, SimpleNamespace(instances_made=1, nodes_made=1)), 100.0)
    assert pace.pause(101.0, longest=60.0) == 60.0
    for removed in (INSTANCES, INSTANCES, 1):
        pace.count(removed)
    assert pace.pause(103.0, longest=60.0) == pytest.approx(1.0, rel=0.01)
    pace.count(1)
    assert pace.pause(104.0, longest=60.0) == 60.0
    pace.count(1_000_000)
    assert pace.pause(105.0, longest=60.0) == SHORTEST_PAUSE


async def test_instances_that_are_being_read_do_not_keep_the_others_from_going(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagorama_broker.engine.retention_policy.INSTANCES", 1)
    read, other = Dag(), Dag()
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, read)
        await finish(served, other)
        retention = retention_of(served.broker)
        served.broker.lookups.keeping = RetentionPolicy(0.0, 0.0)
        with served.broker.lookups.holds.on(read.instance):
            assert await retention._forget_some()
            assert not is_removed(other)(served.broker)
            await retention._forget_some()
        assert (is_removed(read)(served.broker), is_removed(other)(served.broker)) == (False, True)


async def test_instances_go_one_after_the_other_without_a_pause_if_each_names_the_next(place: str) -> None:
    dags = [Dag() for _ in range(5)]
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        await finish(served, *dags)
        store, retention = served.broker.store, retention_of(served.broker)
        keys = [stored.row.key for dag in dags if (stored := store.instance(dag.instance)) is not None]
        links = [LinkRow(naming, named) for named, naming in pairwise(keys)]
        await served.broker.commits.in_store(store.commit, Changes(links=links))
        served.broker.lookups.keeping = RetentionPolicy(0.0, 0.0)
        steps = 1
        while await retention._forget_some():
            steps += 1
        assert steps == len(dags)
        assert all(is_removed(dag)(served.broker) for dag in dags)


async def test_rows_of_what_was_removed_go_before_more_is_removed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("INSTANCES", "MOST_INSTANCES", "NODES", "MOST_NODES"):
        monkeypatch.setattr(f"dagorama_broker.engine.retention_policy.{bound}", 1)
    dags = [Dag() for _ in range(3)]
    async with serving(store=place, retention=NEVER, retention_failed=NEVER) as served:
        worker = await served.worker()
        for dag in dags:
            await submit(served.stub, dag.submission(b"a", b"b", b"c"))
            for _ in range(3):
                await worker.durable(await worker.complete(await worker.node()))
        store, retention = served.broker.store, retention_of(served.broker)
        served.broker.lookups.keeping, steps = RetentionPolicy(0.0, 0.0), 1
        removed, left = [], []
        while await retention._forget_some():
            removed.append(sum(is_removed(dag)(served.broker) for dag in dags))
            left.append(sum(store.outcome(key) is not None for key in range(1, 10)))
            steps += 1
        assert all(nodes + 3 * gone >= 9 for nodes, gone in zip(left, removed, strict=True))
        assert all(nodes <= 9 - 3 * (gone - 1) for nodes, gone in zip(left, removed, strict=True))
        assert not any(store.outcome(key) for key in range(1, 10))
        assert steps >= 9


# --- brokers that die ----------------------------------------------------------------------------------

MANY = 40_000


def fill(path: Path) -> None:
    """An instance of many nodes that ended long ago, and one that has not ended."""
    store = SqliteStore(path)
    begun(store)
    changes = graph(*(node(key) for key in range(1, MANY + 1)))
    changes.outcomes = [completed(key) for key in range(1, MANY + 1)]
    changes.instance_ends = [InstanceEnd(1, 1.0, False)]
    store.commit(changes)
    other = MANY + 1
    live = Changes(instances=[instance_row(2)], nodes=[node(other, instance=2)])
    live.blocks = [NodeBlockRow(b"other-origin", 0, 1, other, 2, b"")]
    store.commit(live)
    store.close()


def counted(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


def kill_while_it_removes(path: Path) -> None:
    """Start a broker and kill it when some of the nodes are gone and some are there."""
    command = [sys.executable, "-m", "dagorama_broker", "serve", "--port", "0", "--store", f"sqlite:///{path}"]
    environment = {**os.environ, "DAGORAMA_RETENTION": "1"}
    before = counted(path, "nodes")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("serving on" in line for line in process.stderr)
            deadline = time.monotonic() + 60
            while counted(path, "nodes") == before:
                assert process.poll() is None
                assert time.monotonic() < deadline
        finally:
            process.kill()


@pytest.mark.slow
async def test_a_broker_that_is_killed_while_it_removes_leaves_nothing_for_ever_and_half_of_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store"
    fill(path)
    for _ in range(2):
        kill_while_it_removes(path)
        assert 1 < counted(path, "nodes") <= MANY
        assert counted(path, "leftovers") == 1
    gone, live = instance_row(1).id, instance_row(2).id
    async with serving(store=url(tmp_path), retention=NEVER, retention_failed=NEVER, reconnect_wait=0.0) as served:
        assert counted(path, "nodes") > 1
        for counter in (0, MANY // 2, MANY - 1):
            with refused(GONE, "was removed after its retention of 1 s"):
                await served.wait(gone, node_id(counter), now=True)
        assert await served.states(live, b"other-origin" + bytes(4)) == [pb.QUEUED]
        await served.until(lambda _: counted(path, "leftovers") == 0)
        for table in ("nodes", "node_blocks", "instances"):
            assert counted(path, table) == 1
        assert counted(path, "outcomes") == 0
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        assert served.broker.scheduler.graph.find(dag.id(0)).key == MANY + 2 + KEYS_LEFT_OUT  # type: ignore[union-attr]
        assert served.broker.scheduler.graph.instances[dag.instance].key == 3


async def test_keys_of_removed_instances_are_not_used_by_the_next_broker(tmp_path: Path) -> None:
    dags = [Dag(), Dag()]
    async with serving(store=url(tmp_path), retention=SOON) as served:
        await finish(served, *dags)
        await served.until(lambda broker: nodes_in(broker) == 0)
        before = served.broker.scheduler.nodes_made, served.broker.scheduler.instances_made
    assert before == (3, 3)
    async with serving(store=url(tmp_path)) as served:
        assert served.broker.scheduler.nodes_made == before[0] + KEYS_LEFT_OUT
        assert served.broker.scheduler.instances_made == before[1]


# --- large values --------------------------------------------------------------------------------------

CONTENT = b"large" * 100
NAME = sha256(CONTENT).digest()


async def put(served: Served, content: bytes = CONTENT) -> bytes:
    return (await served.stub.PutValue(iter([pb.ValueChunk(data=content)]))).sha256


def grace_is_short(served: Served) -> None:
    """From now on, so that what a test sends is named in time on a slow machine too."""
    served.broker.lookups.keeping = replace(served.broker.lookups.keeping, grace=SOON)


def is_dropped(name: bytes) -> Callable[[Broker], bool]:
    return lambda broker: not broker.store.has_large(name)


async def test_a_large_value_goes_with_the_last_instance_that_names_it(place: str) -> None:
    first, last = Dag(), Dag()
    async with serving(store=place, retention=SOON) as served:
        await put(served)
        worker = await served.worker(slots=2)
        for dag in (first, last):
            await submit(served.stub, dag.submission(b"a", large=[NAME]))
        grace_is_short(served)
        ends, runs = await worker.nodes(2)
        await worker.complete(ends)
        await served.until(is_removed(first))
        await served.until(is_dropped(await put(served, b"named by nobody")))
        assert served.broker.store.has_large(NAME)
        await worker.complete(runs)
        await served.until(is_dropped(NAME))
        assert is_removed(last)(served.broker)


async def test_a_large_value_is_removed_a_grace_period_after_its_last_reference(place: str) -> None:
    dag = Dag()
    async with serving(store=place, retention=SOON) as served:
        await put(served)
        await finish(served, dag, large=[NAME])
        grace_is_short(served)
        await served.until(is_dropped(NAME))
        assert is_removed(dag)(served.broker)
        with refused(GONE, "no node has named it"):
            await submit(served.stub, Dag().submission(b"a", large=[NAME]))


async def test_a_large_value_of_children_that_are_not_made_yet_is_kept_and_goes_with_a_failed_attempt(
    place: str,
) -> None:
    dag = Dag()
    async with serving(store=place, retention=SOON) as served:
        await submit(served.stub, dag.submission(b"parent"))
        worker = await served.worker()
        parent = await worker.node()
        await put(served)
        await worker.report(
            pb.Results(functions=[LEAF], children=[EagerAttemptRecord(parent).nodes(b"child", large=[NAME])])
        )
        await served.until(lambda broker: broker.scheduler.staged)
        grace_is_short(served)
        await served.until(is_dropped(await put(served, b"named by nobody")))
        assert served.broker.store.has_large(NAME)
        await worker.fail(parent)
        await served.until(is_dropped(NAME))


async def test_a_large_value_that_an_earlier_broker_left_behind_goes_after_a_grace(tmp_path: Path) -> None:
    dag = Dag()
    async with serving(store=url(tmp_path)) as served:
        for content in (CONTENT, b"of a failed attempt"):
            await put(served, content)
        await submit(served.stub, dag.submission(b"a", large=[NAME]))
    left = sha256(b"of a failed attempt").digest()
    async with serving(store=url(tmp_path), large_grace=SOON) as served:
        await served.until(is_dropped(left))
        assert served.broker.store.has_large(NAME)
