"""`watch` from Python, from asyncio and as a command, across a restart of the broker; and `explain` as a command."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama import DAGDefinition, NotFound, Progress, PromiseMisuse, State, batch, dagorama, resolve, watch
from dagorama.client.connection import connection
from dagorama.client.progress import Watch
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.commands import forked
from tests.support.workers import launch_workers


class Grows(DAGDefinition):
    """A graph that grows while it runs; one of its nodes may fail."""

    @dagorama().syncfn
    def entrypoint(self, count: int, bad: bool = False) -> list[int]:
        return [self.step(number, bad) for number in range(count)]

    @dagorama().syncfn
    def step(self, number: int, bad: bool) -> int:
        if bad and not number:
            raise ValueError("the first one")
        return number


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedBroker]:
    store = f"sqlite:///{tmp_path_factory.mktemp('watch')}/store"
    with launch_broker(port=0, store=store) as broker, launch_workers(1):
        yield broker


def command(instance: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "dagorama", "watch", instance, *options]


def check_end(last: Progress, count: int) -> None:
    entry, steps = last.functions
    assert last.ended_at is not None
    assert last.ended_at >= last.created > 1e9
    assert (entry.function.rpartition(".")[2], steps.function.rpartition(".")[2]) == ("entrypoint", "step")
    assert (entry.states, steps.states) == ({State.COMPLETED: 1}, {State.COMPLETED: count})
    assert (last.done, last.total, last.running, last.waiting, last.failed) == (count + 1, count + 1, 0, 0, 0)
    assert steps.timed == count
    assert 0 < (steps.mean_seconds or 0) <= steps.longest_seconds < 60


def test_a_watch_ends_with_the_instance(broker: LaunchedBroker) -> None:
    instance, promise = Grows()(20)
    *_, last = watch(instance)
    assert resolve(instance, promise) == list(range(20))
    check_end(last, 20)
    (again,) = watch(instance)
    assert again == last


async def test_a_watch_is_an_asynchronous_iterator_too(broker: LaunchedBroker) -> None:
    instance, _ = Grows()(5)
    states = [progress async for progress in watch(instance)]
    check_end(states[-1], 5)


async def test_an_asynchronous_watch_can_be_left_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with launch_broker(port=0, store=f"sqlite:///{tmp_path}/store"):
        instance, _ = Grows()(5)
        states = aiter(watch(instance))
        assert (await anext(states)).waiting == 1
        waiting = asyncio.ensure_future(anext(states))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def test_another_thread_can_end_a_watch(tmp_path: Path) -> None:
    with launch_broker(port=0, store=f"sqlite:///{tmp_path}/store"):
        instance, _ = Grows()(5)
        states = watch(instance)
        seen: list[Progress] = []
        first = threading.Event()

        def follow() -> None:
            for progress in states:
                seen.append(progress)
                first.set()

        following = threading.Thread(target=follow)
        following.start()
        assert first.wait(60)
        states.close()
        following.join(60)
    assert [progress.waiting for progress in seen] == [1]


def test_a_watch_goes_on_when_the_broker_is_restarted(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store"
    with launch_broker(port=0, store=store) as first:
        instance, _ = Grows()(3)
        states = iter(watch(instance))
        assert next(states).waiting == 1
        first.kill()
        ended: list[Progress] = []
        watching = threading.Thread(target=lambda: ended.extend(states))
        watching.start()
        with launch_broker(port=first.port, store=store), launch_workers(1):
            watching.join(60)
    check_end(ended[-1], 3)


def test_what_cannot_be_watched_is_refused(broker: LaunchedBroker) -> None:
    with batch():
        instance, promise = Grows()(1)
        with pytest.raises(PromiseMisuse, match="watch it after the block"):
            watch(instance)
    with pytest.raises(TypeError, match="must be the instance"):
        watch(promise)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(NotFound, match="is not known"):
        list(Watch(connection(), bytes(16)))


def test_the_command_prints_lines_and_the_table_at_the_end(broker: LaunchedBroker) -> None:
    instance, _ = Grows()(7)
    done = subprocess.run(command(f"{instance.instance_id}"[:8]), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    *_, heads, entry, steps, total, summary = done.stdout.splitlines()
    assert heads.split() == ["function", "done", "running", "waiting", "failed", "mean", "left"]
    assert entry.split()[:4] == ["Grows.entrypoint", "1", "of", "1"]
    assert steps.split()[:4] == ["Grows.step", "7", "of", "7"]
    assert total.split()[:5] == ["in", "all", "8", "of", "8"]
    assert summary.startswith("completed after ")


def test_the_command_ends_with_one_if_a_node_failed_and_prints_json(broker: LaunchedBroker) -> None:
    instance, _ = Grows()(3, True)
    done = subprocess.run(command(f"{instance.instance_id}", "--json"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["instance"], last["failed"], last["nodes"]) == (f"{instance.instance_id}", True, 4)
    assert [function["states"] for function in last["functions"]] == [{"FAILED": 1}, {"COMPLETED": 2, "FAILED": 1}]


def test_a_terminal_gets_a_table_that_is_redrawn(broker: LaunchedBroker) -> None:
    instance, promise = Grows()(4)
    resolve(instance, promise)
    primary, secondary = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(command(f"{instance.instance_id}"), stdout=secondary, env=environment) as shown:
        os.close(secondary)
        written = b""
        while True:
            try:
                written += os.read(primary, 4096)
            except OSError:  # the other end is closed
                break
    os.close(primary)
    assert shown.returncode == 0
    for text in ("Grows.step", "4 of 4", "in all", "5 of 5", "completed after"):
        assert text in written.decode()


def test_an_unknown_instance_is_one_sentence(broker: LaunchedBroker) -> None:
    done = subprocess.run(command("0" * 32), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("dagorama: ")
    assert "is not known" in done.stderr
    assert "Traceback" not in done.stderr


class Picky(DAGDefinition):
    """Its nodes wait for a worker that tolerates a taint."""

    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.add(self.heavy(1), self.heavy(2))

    @dagorama(taint_name="GPU").syncfn
    def heavy(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def add(self, first: int, second: int) -> int:
        return first + second


def explained(*ids: str) -> subprocess.CompletedProcess[str]:
    return forked("explain", *ids)


def test_explain_says_what_an_instance_and_a_node_wait_for(broker: LaunchedBroker) -> None:
    instance, promise = Picky()()
    for progress in watch(instance):
        if progress.total == 4 and not progress.running:
            break
    lacks = "the only connected worker may not run it: it does not tolerate 'GPU' (start one with --toleration GPU)"
    whole = explained(f"{instance.instance_id}")
    assert whole.stdout.splitlines()[0] == f"instance {instance.instance_id} waits for:"
    assert "2 nodes of Picky.heavy, QUEUED" in whole.stdout
    assert f"- {lacks} [no_toleration]" in whole.stdout
    entry = explained(f"{instance.instance_id}", f"{promise.identifier}")
    assert "Picky.entrypoint  RESOLVING" in entry.stdout
    assert "[returned_promises]" in entry.stdout
    assert "it ultimately waits for:\n  2 nodes of Picky.heavy, QUEUED" in entry.stdout
    found = json.loads(explained(f"{instance.instance_id}", "--json").stdout)
    (cause,) = found["causes"]
    assert (cause["nodes"], cause["state"], [reason["code"] for reason in cause["reasons"]]) == (
        2, "QUEUED", ["no_toleration"],
    )  # fmt: skip
    assert found["reasons"] == []


def test_explain_says_that_an_ended_instance_has_no_unfinished_node(broker: LaunchedBroker) -> None:
    instance, promise = Grows()(1)
    resolve(instance, promise)
    assert explained(f"{instance.instance_id}").stdout == f"instance {instance.instance_id} has no unfinished node\n"
    assert "- it has completed [completed]" in explained(f"{instance.instance_id}", f"{promise.identifier}").stdout


def queues(*arguments: str) -> str:
    shown = forked("queues", *arguments)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_a_queue_is_paused_and_resumed_by_a_command(broker: LaunchedBroker) -> None:
    queue = f"{Grows.__module__}:Grows.step"
    assert queues("pause", queue).startswith(f"queue {queue} is paused; 0 nodes are queued")
    instance, promise = Grows()(2)
    for progress in watch(instance):
        if progress.total == 3 and not progress.running:
            break
    (shown,) = [each for each in json.loads(queues("--json")) if each["paused_since"]]
    assert (shown["queue"], shown["queued"]) == (queue, 2)
    assert "[paused]" in explained(f"{instance.instance_id}").stdout
    assert queues("resume", queue).startswith(f"queue {queue} is resumed")
    assert resolve(instance, promise) == [0, 1]
