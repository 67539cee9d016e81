"""Whole workers and a whole broker: what workers survive, when they leave, and who runs what."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama import NodeFailed, resolve
from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.fifo import Fifo
from tests.support.pausing import Pausing
from tests.support.troubles import Adding, FastThenSlow, LateChildren, Locking, Loops, Troubles
from tests.support.worker_command import WAIT, await_that, unservable, worker
from tests.support.workers import fork_worker, launch_workers


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0) as made:
        yield made


# --- who runs what ---------------------------------------------------------------------------------------


def test_slow_nodes_run_side_by_side_regardless_of_who_held_them_first(broker: LaunchedBroker, tmp_path: Path) -> None:
    """Case 45: behind 1,000 fast nodes are four that end only when all four of them run."""
    with launch_workers(4):
        instance, promise = FastThenSlow()(str(tmp_path))
        assert resolve(instance, promise, timeout=WAIT) == ["0", "1", "2", "3"]


def test_a_worker_without_the_module_gives_nodes_back_to_one_that_has_it(
    broker: LaunchedBroker, tmp_path: Path
) -> None:
    """Cases 34 and 44."""
    # Hides this package: where dagorama is installed as editable, the tree is on the path of each program.
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    instance, promise = asyncio.run(Loops()())
    with worker(path=tmp_path) as without:
        await_that(lambda: any("cannot be found" in reason for reason in unservable()))
        with worker():
            assert resolve(instance, promise, timeout=WAIT) == ["looped", "blocked"]
        assert without.poll() is None


def test_constructor_arguments_are_the_callers_whatever_a_worker_registers(broker: LaunchedBroker) -> None:
    with worker("--import", "tests.support.registering"):
        assert [resolve(*Adding(number)(1), timeout=WAIT) for number in (5, 100)] == [6, 101]


def test_a_definition_made_with_what_cannot_travel_waits_for_a_worker_that_registers_it(broker: LaunchedBroker) -> None:
    """Case 47."""
    instance, promise = Locking(threading.Lock())(1)
    with worker():
        await_that(lambda: any("register_definition" in reason for reason in unservable()))
        with worker("--import", "tests.support.registering"):
            assert resolve(instance, promise, timeout=WAIT) == 2


# --- what workers survive -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "type", "text"),
    [
        ("exit", "builtins.SystemExit", "3"),
        ("ctrl-c", "builtins.KeyboardInterrupt", ""),
        ("unpicklable", "dagorama.errors.NotPicklable", "['inside'][0]"),
        ("unreadable", "dagorama.errors.ValueNotReadable", "rotten inside"),
        ("surrogates", "builtins.ValueError", "bad \\udcff and \\x00"),
    ],
)
def test_the_node_fails_and_the_worker_lives(broker: LaunchedBroker, what: str, type: str, text: str) -> None:
    """Cases 24, 26 and 34."""
    with launch_workers(1) as [worker]:
        pid = worker.pid
        instance, promise = Troubles()(what)
        with pytest.raises(NodeFailed) as failed:
            resolve(instance, promise, timeout=WAIT)
        assert failed.value.type == type
        assert text in failed.value.message
        assert resolve(instance, instance.fine(), timeout=WAIT) == pid


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("exits at once", "exited with code 9"),
        ("segfault", "killed by SIGSEGV"),
        ("out of memory", "killed by SIGKILL"),
    ],
)
def test_a_node_that_kills_its_process_fails_after_three_with_the_cause_and_the_others_run(
    broker: LaunchedBroker, what: str, cause: str
) -> None:
    """Case 20."""
    with launch_workers(1):
        instance, promise = Troubles()(what)
        others = [instance.fine() for _ in range(10)]
        with pytest.raises(NodeFailed, match=cause):
            resolve(instance, promise, timeout=WAIT)
        assert all(resolve(instance, other, timeout=WAIT) for other in others)


def test_loops_in_sync_nodes_and_blocking_async_nodes_complete(broker: LaunchedBroker) -> None:
    """Case 36."""
    with launch_workers(1):
        instance, promise = asyncio.run(Loops()())
        assert resolve(instance, promise, timeout=WAIT) == ["looped", "blocked"]


def test_what_runs_when_the_broker_is_killed_counts_after_its_restart(tmp_path: Path) -> None:
    """Case 34: the node is not run again, it goes on."""
    fifo, folder = tmp_path / "fifo", tmp_path / "meeting"
    os.mkfifo(fifo)
    folder.mkdir()
    with launch_broker(port=0, store=f"sqlite:///{tmp_path}/store.db") as broker, launch_workers(2):
        instance, promise = LateChildren()(str(fifo), str(folder))
        reading = os.open(fifo, os.O_WRONLY)  # returns when the node has opened it
        broker.kill()
        broker.restart()
        os.close(reading)
        assert resolve(instance, promise, timeout=WAIT) == ["a", "b"]


# --- when they leave -------------------------------------------------------------------------------------------


def test_workers_stay_while_others_run_what_may_lead_to_more(broker: LaunchedBroker, tmp_path: Path) -> None:
    """Case 35: the children need both workers, and come when one of them has long been idle."""
    fifo, folder = tmp_path / "fifo", tmp_path / "meeting"
    os.mkfifo(fifo)
    folder.mkdir()
    instance, promise = LateChildren()(str(fifo), str(folder))
    with launch_workers(2, exit_on_completion=True) as workers:
        reading = os.open(fifo, os.O_WRONLY)
        for each in workers:
            each.join(0.2)
        assert all(each.is_alive() for each in workers)
        os.close(reading)
        for each in workers:
            each.join(WAIT)
        assert [each.exitcode for each in workers] == [0, 0]
    assert resolve(instance, promise) == ["a", "b"]


def test_sigterm_lets_finish_what_runs(broker: LaunchedBroker, tmp_path: Path) -> None:
    """Case 37: and leaves nothing that the broker would have to miss."""
    fifo, folder = tmp_path / "fifo", tmp_path / "meeting"
    os.mkfifo(fifo)
    folder.mkdir()
    instance, promise = LateChildren()(str(fifo), str(folder))
    with worker() as first:
        reading = os.open(fifo, os.O_WRONLY)
        first.send_signal(signal.SIGTERM)
        os.close(reading)
        _, errors = first.communicate(timeout=WAIT)
        assert first.returncode == 0
        told = [line.split(maxsplit=2)[1] for line in errors.splitlines()]
        assert sorted(told) == ["connected", "no", "process"], "how it started, and nothing else"
        assert not connection().get_status().workers
    with launch_workers(2):
        assert resolve(instance, promise, timeout=WAIT) == ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_the_whole_process_group_ends_neither_a_node_nor_what_it_has_started(
    broker: LaunchedBroker, tmp_path: Path, number: signal.Signals
) -> None:
    """As shells, and some supervisors of services, end a program: `kill -TERM -PGID`."""
    fifo = Fifo(tmp_path / "fifo")
    instance, promise = Pausing()(fifo.path)
    leaver = fork_worker(["--grace", f"{WAIT:g}"], dict(os.environ), (1, 2), has_session=True)
    try:
        fifo.wait_until_read()
        os.killpg(leaver.pid, number)
        await_that(lambda: [each.leaving for each in connection().get_status().workers] == [True])
        fifo.let_go()
        assert resolve(instance, promise, timeout=WAIT) == ("let go", 0)
        assert leaver.wait() == 0
        (node,) = connection().list_nodes(instance.instance_id.bytes)
        assert (node.failed_attempts, node.crashes, node.worker_losses) == (0, 0, 0)
    finally:
        leaver.kill()
        leaver.wait()


@pytest.mark.parametrize("flags", [["--exit-on-completion"], ["--until", "idle", "--idle", "1"]])
def test_without_a_broker_a_worker_that_may_leave_says_so(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nothing listens there, and no other test gets the port
        monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
        monkeypatch.setenv("DAGORAMA_PORT", str(silent.getsockname()[1]))
        with worker(*flags) as lonely:
            _, errors = lonely.communicate(timeout=WAIT)
    assert lonely.returncode == 1
    assert "no broker answers at" in errors
    assert "Traceback" not in errors
