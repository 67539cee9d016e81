"""What a node forks, starts, sets or closes stays its own: the worker goes on, the next node begins as the first."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama import NodeFailed, State, resolve, state
from dagorama.client.connection import connection
from tests.support.brokers import launch_broker
from tests.support.isolated import FORKED, OLD_THREAD, UNCHANGED, WAYS, Closes, Forks, Leaves, Signals, Threads
from tests.support.workers import launch_workers

ROOT = Path(__file__).parents[2]
WAIT = 60.0  #: seconds after which something that should happen is taken not to
CALLING = {
    "sync": "from dagorama.runner import execute_worker; execute_worker(infinite_loop=False)",
    "async": "import asyncio; from dagorama.runner import execute_worker_async as execute_worker; "
    "asyncio.run(execute_worker(infinite_loop=False))",
}


@pytest.fixture(scope="module")
def worker() -> Iterator[None]:
    """One for all tests, so that each runs in the process that the tests before have left."""
    with launch_broker(port=0), launch_workers(1):
        yield


# --- forks -------------------------------------------------------------------------------------------------


def test_forks_end_as_python_ends_them_and_report_nothing(worker: None, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert resolve(*asyncio.run(Forks()(str(journal))), timeout=WAIT) == (FORKED, True)
    assert journal.stat().st_size == len(FORKED) + 1  # each node ran once


@pytest.mark.parametrize("code", CALLING.values(), ids=CALLING)
def test_a_worker_in_the_calling_process_isolates_nodes_alike(tmp_path: Path, code: str) -> None:
    """Forks, what a run leaves behind, and threads."""
    journal = tmp_path / "journal"
    with launch_broker(port=0):
        forks, leaves = asyncio.run(Forks()(str(journal))), Leaves()()
        threads = [Threads()(way, True) for way in WAYS if way != OLD_THREAD]
        # With its fork handlers grpc aborts now and then in a child that starts another program (preexec_fn).
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRPC_ENABLE_FORK_SUPPORT": "0"}
        subprocess.run([sys.executable, "-c", code], env=environment, timeout=WAIT, check=True)
        assert resolve(*forks) == (FORKED, True)
        assert [each for each in resolve(*leaves) or () if each is not None] == [UNCHANGED] * 3
        assert all(state(*thread) is State.FAILED for thread in threads)
        assert children() == 0
    assert journal.stat().st_size == len(FORKED) + 1


def test_workers_belong_to_the_process_that_has_launched_them(worker: None) -> None:
    block = launch_workers(1)
    [launched] = block.__enter__()
    pid = os.fork()
    if pid == 0:
        refused = 0
        for ask in (launched.is_alive, launched.join, launched.terminate):
            try:
                ask()
            except RuntimeError:
                refused += 1
        block.__exit__(None, None, None)
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert launched.is_alive()
    block.__exit__(None, None, None)
    assert not launched.is_alive()


# Python itself may not notice SIGINT in a process that was forked by another thread than the main one.
@pytest.mark.parametrize(("number", "threads"), [(signal.SIGTERM, 1), (signal.SIGTERM, 4), (signal.SIGINT, 1)])
def test_a_fork_ends_by_a_signal_that_comes_at_once(worker: None, number: signal.Signals, threads: int) -> None:
    assert resolve(*Signals()(number, threads), timeout=WAIT) == [-number] * 10 * threads


def test_a_fork_has_the_mask_and_the_handlers_of_its_node(worker: None) -> None:
    instance, _ = Signals()(signal.SIGTERM, 1)
    assert resolve(instance, instance.masks(), timeout=WAIT)
    assert resolve(instance, instance.own_handler(), timeout=WAIT) == 5


# --- what is left behind -------------------------------------------------------------------------------------


def test_no_run_leaves_context_handlers_or_timers_to_the_next(worker: None) -> None:
    states = resolve(*Leaves()(), timeout=WAIT)
    assert [each for each in states if each is not None] == [UNCHANGED] * 3


# --- threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_what_a_thread_of_a_node_makes_is_its_nodes(worker: None, way: str) -> None:
    before = children()
    instance, promise = Threads()(way, True)
    with pytest.raises(NodeFailed, match="what this run has made is dropped"):
        resolve(instance, promise, timeout=WAIT)
    assert children() == before
    assert resolve(*Threads()(way, False), timeout=WAIT) == 1
    assert children() == before + 1
    assert resolve(instance, instance.is_inside(way), timeout=WAIT) == [True, True]


@pytest.mark.parametrize("way", ["to_thread", "executor", "thread", "pool that stays"])
def test_what_a_thread_of_an_async_node_makes_is_its_nodes(worker: None, way: str) -> None:
    instance, _ = Threads()("thread", False)
    assert resolve(instance, asyncio.run(instance.from_async(way)), timeout=WAIT) == 1


def test_first_calls_from_many_threads_are_all_kept(worker: None) -> None:
    instance, _ = Threads()("thread", False)
    promises = [instance.many(8) for _ in range(10)]
    wanted = sum(number * 100 + each for number in range(8) for each in range(5))
    assert [resolve(instance, promise, timeout=WAIT) for promise in promises] == [wanted] * 10


def test_a_thread_that_outlives_its_node_is_refused_while_another_node_runs(worker: None) -> None:
    instance, _ = Threads()("thread", False)
    assert resolve(instance, instance.let_go(instance.leave_a_thread()), timeout=WAIT)


def test_a_thread_that_may_be_of_several_async_nodes_is_refused_with_what_to_do(worker: None) -> None:
    instance, _ = Threads()("thread", False)
    promises = [asyncio.run(instance.overlapping()) for _ in range(2)]
    for promise in promises:
        assert "to_thread() or with contextvars.copy_context().run()" in resolve(instance, promise, timeout=WAIT)


def children() -> int:
    return sum(info.definition.endswith(":Child") for info in connection().list_instances().instances)


# --- descriptors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close_all", "close_and_open", "close_and_go_on", "close_async"])
def test_a_node_that_closes_its_workers_socket_fails_with_the_cause_and_the_others_run(
    worker: None, tmp_path: Path, how: str
) -> None:
    journal = tmp_path / "journal"
    instance, promise = Closes()()
    others = [promise] + [instance.entrypoint() for _ in range(20)]
    closing = getattr(instance, how)(str(journal))
    if how == "close_async":
        closing = asyncio.run(closing)
    others += [instance.entrypoint() for _ in range(20)]
    with pytest.raises(NodeFailed, match="its socket to the worker was closed"):
        resolve(instance, closing, timeout=WAIT)
    assert all(resolve(instance, other, timeout=WAIT) for other in others)
    assert journal.stat().st_size <= 5
