"""Steps of the stories that each engine of pools must live up to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dagorama.client.connection import connection
from dagorama.client.results import resolve
from dagorama.pools import Pool
from tests.support.pool_nodes import Waiting

#: The engines are heavy, and their stories take minutes.
on_engines = pytest.mark.skipif(
    "DAGORAMA_TEST_POOLS" not in os.environ, reason="pools on real engines are tested by `make test-pools`"
)
ROOT = Path(__file__).parents[2]
WAIT = 90.0  #: seconds after which something that should happen is taken not to


def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.1)


def names() -> list[str]:
    """Return the names of the connected workers."""
    return sorted(worker.name for worker in connection().get_status().workers)


def is_leaving() -> bool:
    """Return whether a worker finishes what it runs, and leaves."""
    return any(worker.leaving for worker in connection().get_status().workers)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Node:
    """Nodes that run for as long as a test wants."""

    def __init__(self, folder: Path) -> None:
        self._started = folder / "started"
        self._folder = folder
        self._fifos: list[Path] = []
        self._count = 0

    def submit(self) -> Callable[[], str]:
        """Submit one, and return what waits for its value."""
        self._count += 1
        fifo = self._folder / f"fifo-{self._count}"
        os.mkfifo(fifo)
        self._fifos.append(fifo)
        instance, promise = Waiting()(f"{self._started}", f"{fifo}")
        return lambda: resolve(instance, promise, timeout=WAIT)

    def pids(self) -> list[int]:
        """Return the process of each run that has begun."""
        return [int(line) for line in self._started.read_text().split()] if self._started.exists() else []

    def running(self, count: int = 1) -> int:
        """Wait for this many runs, and return the process of the last."""
        until(lambda: len(self.pids()) >= count)
        return self.pids()[-1]

    def let_go(self, count: int | None = None) -> None:
        """Let the first nodes end, which must be running; None: all."""
        for fifo in self._fifos[:count]:
            fifo.write_text("let go")
        del self._fifos[:count]


class PoolProcess:
    """`dagorama pool` as a process."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "dagorama", "pool", *arguments]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}"}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    def until(self, text: str) -> str:
        """Wait for a sentence with this text."""
        assert self._process.stderr is not None
        heard = []
        for line in self._process.stderr:
            heard.append(line)
            if text in line:
                return line
        raise AssertionError(f"it ended without {text!r}: {heard}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Stop it as Ctrl-C does, and return its exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(WAIT)

    def close(self) -> None:
        self.kill()
        assert self._process.stderr is not None
        self._process.stderr.close()


def a_drained_worker_finishes_its_node(pool: Pool, node: Node, is_gone: Callable[[], object]) -> None:
    """Drain a pool while a node runs. It ends in its first run, and then all members go."""
    value = node.submit()
    node.running()
    pool.drain(wait=False)
    until(is_leaving)
    node.let_go()
    assert value() == "let go"
    assert len(node.pids()) == 1
    until(is_gone)


def the_node_of_a_killed_worker_runs_elsewhere(node: Node, kill: Callable[[int, str], object]) -> None:
    """Start a node, and call `kill` with its process and the name of its worker: both end, and the node runs again."""
    value = node.submit()
    pid = node.running()
    (name,) = names()
    kill(pid, name)
    until(lambda: not runs(pid))
    node.running(2)
    assert name not in names()
    node.let_go()
    assert value() == "let go"


def the_next_pool_process_goes_on(node: Node, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    """Kill the pool with the first flags while a node runs, and start one with the second: it has that worker."""
    with pool_process(*first) as killed:
        value = node.submit()
        pid = node.running()
        killed.kill()
    with pool_process(*second) as process:
        process.until("and has 1")
        other = node.submit()
        assert node.running(2) != pid
        assert runs(pid)
        node.let_go()
        assert {value(), other()} == {"let go"}
        assert process.stop() == 0


@contextmanager
def pool_process(*arguments: str) -> Iterator[PoolProcess]:
    process = PoolProcess(arguments)
    try:
        yield process
    finally:
        process.close()
