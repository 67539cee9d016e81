"""Where a running node stands: in Python code, in C code that holds the GIL, in an async node; and when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dagorama import DAGDefinition, NodeFailed, cancel, dagorama, execute_worker, logs, resolve
from dagorama.client.connection import connection
from dagorama.errors import RequestRejected
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.commands import forked
from tests.support.workers import launch_workers


class Busy(DAGDefinition):
    """Nodes that take their time."""

    @dagorama().syncfn
    def entrypoint(self, what: str, path: str) -> None:
        print("begun")
        globals()[what](path)


class BusyAsync(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, path: str) -> None:
        async def inner() -> None:
            while not Path(path).exists():
                await asyncio.sleep(0.01)

        await asyncio.create_task(inner())


class BlocksTheLoop(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, path: str) -> None:
        spin_in_c(path)


def wait_in_python(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.001)


def spin_in_c(path: str) -> None:
    sum(itertools.repeat(1, 10**12))


def crash(path: str) -> None:
    ctypes.string_at(0)


@pytest.fixture(scope="module")
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0, environment={"DAGORAMA_CANCEL_GRACE": "0"}) as broker, launch_workers(1):
        yield broker


def stack_of(instance: Any, promise: Any, until: str) -> None:
    """Wait until the node runs and its stack has this text."""
    stack, patience = "", time.monotonic() + 60
    while until not in stack:
        assert time.monotonic() < patience, stack
        with contextlib.suppress(RequestRejected):  # it does not run yet
            stack = connection().get_stack(instance.instance_id.bytes, promise.node_id).stack
        time.sleep(0.01)


def stack(instance: Any, promise: Any, *options: str) -> subprocess.CompletedProcess[str]:
    return forked("stack", instance.instance_id, promise.identifier, *options)


def test_a_node_that_runs_python_code_shows_its_functions(broker: LaunchedBroker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    instance, promise = Busy()("wait_in_python", str(gate))
    stack_of(instance, promise, until="in wait_in_python")
    shown = stack(instance, promise)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"{__name__}:Busy.entrypoint, node {str(promise.identifier)[:8]}/1, attempt 1, on ")
    assert "in wait_in_python" in shown.stdout
    assert "in entrypoint" in json.loads(stack(instance, promise, "--json").stdout)["stack"]
    gate.touch()
    resolve(instance, promise, timeout=60)
    ended = stack(instance, promise)
    assert ended.returncode == 1
    assert "has ended: only a running node has a stack" in ended.stderr


def test_a_node_that_holds_the_interpreter_in_c_code_shows_its_functions(broker: LaunchedBroker) -> None:
    instance, promise = Busy()("spin_in_c", "")
    stack_of(instance, promise, until="in spin_in_c")
    cancel(instance)


def test_an_async_node_shows_its_coroutines(broker: LaunchedBroker, tmp_path: Path) -> None:
    async def spawn() -> Any:
        return await BusyAsync()(str(tmp_path / "gate"))

    instance, promise = asyncio.run(spawn())
    stack_of(instance, promise, until="Coroutine of the node (most recent call first):")
    shown = stack(instance, promise)
    assert shown.stderr == ""
    _, _, coroutine, sleep, inner, outer, *_ = shown.stdout.splitlines()
    assert coroutine == "Coroutine of the node (most recent call first):"
    assert sleep.endswith("in sleep")
    assert (inner.split()[-1], outer.split()[-1]) == ("inner", "entrypoint")
    assert "dagorama-async" not in shown.stdout
    (tmp_path / "gate").touch()
    resolve(instance, promise, timeout=60)


def test_of_an_async_node_that_blocks_everything_the_threads_are_shown(broker: LaunchedBroker) -> None:
    async def spawn() -> Any:
        return await BlocksTheLoop()("")

    instance, promise = asyncio.run(spawn())
    stack_of(instance, promise, until="in spin_in_c")
    assert stack(instance, promise).stderr.startswith("Note: it is an async node")
    cancel(instance)


def test_the_stack_of_a_process_that_died_is_in_the_logs_of_its_node(broker: LaunchedBroker) -> None:
    instance, promise = Busy()("crash", "")
    with pytest.raises(NodeFailed, match="SIGSEGV"):
        resolve(instance, promise, timeout=120)
    last = [record for record in logs(instance) if record.stream == "death"][-1]
    assert last.text.startswith("Fatal Python error: Segmentation fault")
    assert "in crash" in last.text
    assert last.attempt >= 1


def test_a_worker_in_this_process_shows_its_threads(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with launch_broker(port=0):
        instance, promise = Busy()("wait_in_python", str(gate))
        found: list[bool] = []

        def look() -> None:
            try:
                stack_of(instance, promise, until="in wait_in_python")
                found.append(True)
            finally:
                gate.touch()

        looking = threading.Thread(target=look)
        looking.start()
        execute_worker(infinite_loop=False)
        looking.join()
    assert found == [True]
