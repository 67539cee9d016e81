"""The five stories of a pool, on a real Dask scheduler with Dask workers in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama.client.results import resolve
from dagorama.pools import DaskPool, EngineRefused
from tests.pools.stories import (
    ROOT,
    WAIT,
    Node,
    is_leaving,
    names,
    on_engines,
    runs,
    the_next_pool_process_goes_on,
    until,
)
from tests.support.pool_nodes import OnGpu, Tasks

distributed = pytest.importorskip("distributed", reason="Dask is not installed: run `make test-pools`")
pytestmark = [on_engines, pytest.mark.dask, pytest.mark.slow, pytest.mark.usefixtures("broker")]


class Cluster:
    """A scheduler, and Dask workers that a test starts."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.path = f"{ROOT}"  #: of the modules that Dask workers import
        scheduler = self._start(
            "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"
        )
        self.address = ""
        assert scheduler.stderr is not None
        while "tcp://" not in self.address:
            self.address = scheduler.stderr.readline().split()[-1]
        self.client = distributed.Client(self.address, set_as_default=False)

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, *arguments]
        environment = {**os.environ, "PYTHONPATH": self.path}
        output = subprocess.PIPE if "scheduler" in module else subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=self.path, env=environment, stderr=output, text=True)
        self.processes.append(process)
        return process

    def worker(self, name: str, *flags: str) -> subprocess.Popen[str]:
        """Start a Dask worker without a nanny, and wait until the scheduler knows it."""
        process = self._start(
            "distributed.cli.dask_worker", self.address, "--name", name, "--no-nanny", "--nthreads", "1",
            "--no-dashboard", "--host", "127.0.0.1", *flags,
        )  # fmt: skip
        until(lambda: name in {info["name"] for info in self.client.scheduler_info(n_workers=-1)["workers"].values()})
        return process

    def address_of(self, name: str) -> str:
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        (address,) = [address for address, info in workers.items() if info["name"] == name]
        return f"{address}"

    def close(self) -> None:
        self.client.close()
        for process in reversed(self.processes):
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


def test_workers_are_started_by_demand_also_next_to_dask_workers_that_join_later(cluster: Cluster, node: Node) -> None:
    cluster.worker("a")
    with DaskPool(cluster.address, name="p", idle=2):
        assert names() == []
        values = [node.submit(), node.submit()]
        node.running()
        assert names() == ["p/a"]
        cluster.worker("b")
        node.running(2)
        assert names() == ["p/a", "p/b"]
        node.let_go()
        assert {value() for value in values} == {"let go"}
        until(lambda: names() == [])


def test_nodes_with_the_taint_of_a_gpu_run_next_to_dask_workers_that_have_one(cluster: Cluster) -> None:
    cluster.worker("plain")
    with DaskPool(cluster.address, name="p", resources=["GPU"]):
        instance, promise = OnGpu()()
        cluster.worker("gpu", "--resources", "GPU=1")
        assert "PATH" in resolve(instance, promise, timeout=WAIT)
        assert names() == ["p/gpu"]


def test_a_dask_worker_that_is_retired_lets_the_running_node_finish(cluster: Cluster, node: Node) -> None:
    cluster.worker("a")
    with DaskPool(cluster.address, name="p"):
        value = node.submit()
        node.running()
        retired = cluster.client.retire_workers([cluster.address_of("a")], close_workers=True)
        assert retired
        until(is_leaving)
        node.let_go()
        assert value() == "let go"
        assert len(node.pids()) == 1
        until(lambda: names() == [])


def test_a_killed_dask_worker_leaves_nothing_behind_and_its_node_runs_elsewhere(cluster: Cluster, node: Node) -> None:
    host = cluster.worker("a")
    with DaskPool(cluster.address, name="p"):
        value = node.submit()
        pid = node.running()
        host.send_signal(signal.SIGKILL)
        until(lambda: not runs(pid))
        cluster.worker("b")
        node.running(2)
        assert names() == ["p/b"]
        node.let_go()
        assert value() == "let go"


def test_a_killed_pool_process_changes_nothing_and_the_next_one_goes_on(cluster: Cluster, node: Node) -> None:
    cluster.worker("a")
    cluster.worker("b")
    flags = ("dask", cluster.address, "--name", "p")
    the_next_pool_process_goes_on(node, flags, (*flags, "--drain-on-exit"))
    until(lambda: names() == [])


def test_a_cluster_is_scaled_by_demand_and_scaled_down_when_the_workers_have_left() -> None:
    with (
        distributed.LocalCluster(
            n_workers=0, processes=True, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        DaskPool(cluster=cluster, name="p", max=2, idle=2),
    ):
        instance, promise = Tasks()(6)
        assert len(resolve(instance, promise, timeout=WAIT)) == 6
        assert 1 <= len(cluster.worker_spec) <= 2
        until(lambda: not cluster.worker_spec)
        until(lambda: names() == [])


def test_without_a_scheduler_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.pools.on_dask.TIMEOUT_S", 1.0)
    with pytest.raises(EngineRefused, match=r"the Dask scheduler at tcp://127.0.0.1:1 does not answer: "):
        DaskPool("tcp://127.0.0.1:1")


def test_dask_workers_without_dagorama_are_told(cluster: Cluster, tmp_path: Path) -> None:
    hidden = tmp_path / "dagorama"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'dagorama'\")")
    cluster.path = f"{tmp_path}"
    cluster.worker("a")
    with pytest.raises(EngineRefused, match=r"No module named 'dagorama'.*Install dagorama in their environment"):
        DaskPool(cluster.address)


def test_a_cluster_that_chooses_the_workers_to_close_itself_is_refused(cluster: Cluster) -> None:
    with pytest.raises(EngineRefused, match=r"a pool cannot scale a object, .* give the pool the address"):
        DaskPool(cluster=object())
