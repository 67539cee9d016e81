"""A worker ends with the process that started it, by its lifeline, and in time for the end of its lifetime."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.settings import WorkerOptions
from dagorama.worker.run_times import RunTimes
from dagorama.worker.supervisor import own_end
from dagorama.worker.supervisor.own_end import Events, Manner, OwnEnd, longest_mean
from tests.support.fifo import Fifo
from tests.support.scripted_broker import Conversation, ScriptedBroker, environment_of
from tests.support.worker_grants import call

#: A program that starts a worker next to itself, says its process ID, and drains it when it is told to.
HOST = """
import sys
from dagorama.pools.hosted import HostedWorker
from dagorama.pools.worker_spec import WorkerSpec
worker = HostedWorker(WorkerSpec("pool", grace=600.0), "7")
print(worker.pid, flush=True)
sys.stdin.read()
worker.drain()
print(worker.join(), flush=True)
"""
ROOT = Path(__file__).parents[2]


class Left(Exception):
    pass


def watched(options: WorkerOptions, *run_times: RunTimes) -> tuple[OwnEnd, asyncio.Future[tuple[str, Manner]]]:
    """A watch, and how it lets the worker leave."""
    left: asyncio.Future[tuple[str, Manner]] = asyncio.get_running_loop().create_future()
    return OwnEnd(options, run_times, Events(lambda: None, lambda *how: left.set_result(how))), left


async def how_left(options: WorkerOptions, *run_times: RunTimes) -> tuple[str, Manner]:
    watch, left = watched(options, *run_times)
    tasks = watch.watch()
    try:
        return await asyncio.wait_for(left, 30)
    finally:
        for task in tasks:
            task.cancel()


async def test_the_closed_end_of_a_pipe_ends_a_worker_at_once() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"what is written has no meaning")
    os.close(writing)
    why, manner = await how_left(WorkerOptions(lifeline=reading))
    os.close(reading)
    assert (why, manner) == ("the process that holds its lifeline is gone", Manner.HURRIED)


async def test_the_closed_end_of_a_socket_ends_a_worker_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert (await how_left(WorkerOptions(lifeline=ours.fileno())))[1] is Manner.HURRIED


def run_times(**microseconds: int) -> RunTimes:
    made = RunTimes()
    for function, each in microseconds.items():
        made.add(function, each)
    return made


def test_the_longest_mean_is_that_of_a_function_in_all_slots() -> None:
    slots = [run_times(quick=10_000, slow=4_000_000), run_times(slow=2_000_000)]
    assert longest_mean(slots) == pytest.approx(3.0)
    assert longest_mean([]) == 0.0


async def test_a_worker_leaves_when_no_node_as_long_as_before_fits_into_its_lifetime() -> None:
    why, manner = await how_left(WorkerOptions(lifetime=600.0), run_times(long=601_000_000))
    assert (
        why == "600 seconds of its lifetime are left, and nodes that it ran take 601 seconds; it finishes what it runs"
    )
    assert manner is Manner.PATIENT


async def test_a_longer_node_shortens_the_lifetime_as_soon_as_it_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_end, "LONGEST_LOOK_S", 0.01)
    slot = RunTimes()
    watch, left = watched(WorkerOptions(lifetime=600.0), slot)
    (task,) = watch.watch()
    await asyncio.sleep(0)
    assert not left.done()
    slot.add("long", 601_000_000)
    assert (await asyncio.wait_for(left, 30))[1] is Manner.PATIENT
    await task


async def test_a_lifetime_that_is_over_says_so() -> None:
    why, _ = await how_left(WorkerOptions(lifetime=0.01))
    assert why == "its lifetime of 0.01 seconds is over; it finishes what it runs"


# --- with real processes --------------------------------------------------------------------------------


@pytest.fixture
def host(broker: ScriptedBroker) -> Iterator[subprocess.Popen[str]]:
    """A process with a worker next to it that connects to the scripted broker."""
    with subprocess.Popen(
        [sys.executable, "-c", HOST], env=environment_of(broker), text=True, cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def line(host: subprocess.Popen[str]) -> str:
    assert host.stdout is not None
    return host.stdout.readline()


@pytest.mark.slow
def test_a_worker_whose_host_is_killed_gives_its_running_node_back_and_ends(
    broker: ScriptedBroker, host: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Although its grace period is ten minutes: the resources of its host are given to others."""
    fifo = Fifo(tmp_path / "fifo")
    spoken: Conversation = broker.greeted(heartbeat=0.1)
    assert spoken.hello.name == "pool/7"
    [attempt] = spoken.grant(call("wait_for", fifo.path))
    fifo.wait_until_read()
    host.send_signal(signal.SIGKILL)
    returned = spoken.returned()
    assert (list(returned.attempt), returned.reason) == ([attempt], pb.INTERRUPTED)
    spoken.listen_to_the_end()
    # Both share stdout with it: it is read to its end when the worker and its children have ended.
    assert host.stdout is not None
    assert host.stdout.read().count("\n") == 1


@pytest.mark.slow
def test_a_worker_that_is_drained_by_its_host_ends_with_success(
    broker: ScriptedBroker, host: subprocess.Popen[str]
) -> None:
    spoken = broker.greeted(heartbeat=0.1)
    assert int(line(host)) > 0
    spoken.listen(lambda: spoken.heartbeats > 0)  # it knows that its hello has arrived
    assert host.stdin is not None
    host.stdin.close()
    spoken.listen(lambda: spoken.draining)
    assert line(host) == "0\n"
