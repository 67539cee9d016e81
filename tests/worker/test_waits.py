"""Workers that leave by themselves: when they have had nothing to do for a while, or when their lifetime is over."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama.worker.supervisor.waits import idle_for
from tests.proof.progress import patience
from tests.support.fifo import Fifo
from tests.support.scripted_broker import Conversation, ScriptedBroker, WorkerProcess, worker_process
from tests.support.worker_grants import call

#: Its tests start processes and wait for them, ten seconds and more together.
slow = pytest.mark.slow
#: Seconds; within these a worker must have started its child.
LIFETIME = patience(5)


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    return Fifo(tmp_path / "fifo")


class Clock:
    """A loop's time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(asyncio, "sleep", self._sleep)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds


async def idle_until(monkeypatch: pytest.MonkeyPatch, seconds: float, *activity: int | None) -> float:
    """Return the seconds until a worker leaves that shows this activity at one look after the other, the last on."""
    clock, shown = Clock(monkeypatch), list(activity)
    await idle_for(seconds, lambda: shown.pop(0) if len(shown) > 1 else shown[0])
    passed = clock.now - 100.0
    monkeypatch.undo()
    return passed


async def test_a_worker_without_work_leaves_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await idle_until(monkeypatch, 60.0, 0) == pytest.approx(60.0, abs=5.0)
    assert await idle_until(monkeypatch, 0.4, 0) == pytest.approx(0.4, abs=0.06)


async def test_the_time_begins_again_after_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a node that came and ended between two looks."""
    assert await idle_until(monkeypatch, 40.0, 0, 0, 0, 0, None, 1) == pytest.approx(65.0)
    assert await idle_until(monkeypatch, 40.0, 0, 0, 0, 0, 1) == pytest.approx(60.0)
    assert await idle_until(monkeypatch, 40.0, *[None] * 100, 1) == pytest.approx(540.0)


def beats(spoken: Conversation, count: int) -> None:
    """Let the worker live for this many of its heartbeats, a tenth of a second each."""
    until = spoken.heartbeats + count
    spoken.listen(lambda: spoken.heartbeats >= until)


@slow
def test_an_idle_worker_leaves_and_one_that_runs_a_node_stays(broker: ScriptedBroker, fifo: Fifo) -> None:
    with worker_process(broker, "--until", "idle", "--idle", "2") as worker:
        spoken = broker.greeted(heartbeat=0.1)
        spoken.grant(call("wait_for", fifo.path))
        fifo.wait_until_read()
        beats(spoken, 30)
        assert not spoken.draining
        fifo.let_go()
        assert spoken.value() == "let go"
        spoken.listen(lambda: spoken.draining)
        spoken.listen_to_the_end()
        code, errors = worker.ended()
    assert code == 0
    assert "worker: leaves: it had nothing to do for 2 seconds" in errors


@slow
def test_a_worker_whose_results_the_broker_does_not_have_is_not_idle(broker: ScriptedBroker) -> None:
    with worker_process(broker, "--until", "idle", "--idle", "2"):
        spoken = broker.greeted(heartbeat=0.1)
        spoken.grant(call("echo", 1))
        report = spoken.report()
        beats(spoken, 30)
        assert not spoken.draining
        spoken.send(acknowledged=report.sequence)
        spoken.listen(lambda: spoken.draining)


@pytest.fixture
def short_lived(broker: ScriptedBroker) -> Iterator[tuple[WorkerProcess, Conversation]]:
    with worker_process(broker, "--lifetime", str(LIFETIME), "--grace", "0.1") as worker:
        yield worker, broker.greeted(heartbeat=0.1)


@slow
def test_at_the_end_of_its_lifetime_a_worker_finishes_what_runs_and_returns_the_rest(
    short_lived: tuple[WorkerProcess, Conversation], fifo: Fifo
) -> None:
    worker, spoken = short_lived
    running, unstarted = spoken.grant(call("wait_for", fifo.path), call("echo", 2))
    fifo.wait_until_read()
    assert list(spoken.returned().attempt) == [unstarted]
    spoken.listen(lambda: spoken.draining)
    beats(spoken, 5)  # for longer than the grace period
    fifo.let_go()
    assert spoken.values(1) == {running: "let go"}
    spoken.listen_to_the_end()
    code, errors = worker.ended()
    assert code == 0
    assert f"leaves: its lifetime of {LIFETIME:g} seconds is over; it finishes what it runs" in errors


@slow
def test_a_sigterm_after_the_lifetime_gives_running_nodes_the_grace(
    short_lived: tuple[WorkerProcess, Conversation], fifo: Fifo
) -> None:
    worker, spoken = short_lived
    [running] = spoken.grant(call("wait_for", fifo.path))
    fifo.wait_until_read()
    spoken.listen(lambda: spoken.draining)
    beats(spoken, 5)
    worker.signal(signal.SIGTERM)
    assert list(spoken.returned().attempt) == [running]
    spoken.listen_to_the_end()
    assert worker.ended()[0] == 0
