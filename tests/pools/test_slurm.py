"""The five stories of a pool, on a real Slurm cluster of one node with a GPU that only Slurm's books have."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama.client.results import resolve
from dagorama.pools import EngineRefused, SlurmPool
from dagorama.pools.on_slurm import SlurmEngine
from dagorama.pools.options import PoolOptions
from tests.pools.slurm_cluster import slurm_or_skip
from tests.pools.stories import (
    ROOT,
    WAIT,
    Node,
    a_drained_worker_finishes_its_node,
    names,
    on_engines,
    runs,
    the_next_pool_process_goes_on,
    the_node_of_a_killed_worker_runs_elsewhere,
    until,
)
from tests.support.pool_nodes import OnGpu

pytestmark = [on_engines, pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("broker", "cluster", "no_jobs")]
SBATCH = ["--output=/dev/null", f"--chdir={ROOT}"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with slurm_or_skip(tmp_path_factory.mktemp("slurm")) as folder:
        yield folder


@pytest.fixture
def no_jobs(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the jobs that a failed test has left."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}")
    yield
    if jobs():
        subprocess.run(["scancel", "--user=root"], check=True)
        until(lambda: not jobs())


def jobs(format: str = "%i") -> list[str]:
    asked = ["squeue", "--noheader", "--array", f"--format={format}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


def test_workers_are_started_by_demand_and_leave_without_it(node: Node) -> None:
    with SlurmPool(SBATCH, name="demand", max=2, idle=2):
        assert jobs() == []
        values = [node.submit() for _ in range(3)]
        node.running(2)
        assert jobs("%j") == ["dagorama-demand"] * 2
        assert names() == sorted(f"demand/{job}" for job in jobs())
        node.let_go(2)
        node.running(3)
        node.let_go()
        assert {value() for value in values} == {"let go"}
        until(lambda: not jobs())


def test_nodes_with_the_taint_of_a_gpu_run_on_the_gpu_that_slurm_gives() -> None:
    with SlurmPool([*SBATCH, "--gres=gpu:1"], name="gpu"):
        instance, promise = OnGpu()()
        environment = resolve(instance, promise, timeout=WAIT)
        assert environment["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_worker_that_is_drained_finishes_its_node_with_all_that_the_node_has_started(node: Node) -> None:
    with SlurmPool(SBATCH, name="drain") as pool:
        a_drained_worker_finishes_its_node(pool, node, lambda: not jobs())


def test_a_job_whose_time_is_over_gives_its_node_back_in_time(node: Node) -> None:
    """A minute is the shortest limit. The node runs past the lifetime of its worker, until the signal comes."""
    with SlurmPool(SBATCH, name="limit", time="1:00", grace=0.5):
        value = node.submit()
        first = node.running()
        assert node.running(2) != first
        node.let_go()
        assert value() == "let go"


def test_a_killed_job_leaves_nothing_behind_and_its_node_runs_elsewhere(node: Node) -> None:
    with SlurmPool(SBATCH, name="killed"):
        value = node.submit()
        pid = node.running()
        (job,) = jobs()
        subprocess.run(["scancel", "--full", "--signal=KILL", job], check=True)
        until(lambda: not runs(pid))
        node.running(2)
        assert job not in jobs()
        node.let_go()
        assert value() == "let go"


def test_a_killed_worker_ends_its_job_with_all_of_its_processes(node: Node) -> None:
    with SlurmPool(SBATCH, name="oom"):
        the_node_of_a_killed_worker_runs_elsewhere(node, lambda pid, _: os.kill(supervisor_of(pid), signal.SIGKILL))


def supervisor_of(pid: int) -> int:
    """Return the parent of the fork server, whose child runs the node."""
    for _ in range(2):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


def test_a_killed_pool_process_changes_nothing_and_the_next_one_goes_on(node: Node) -> None:
    flags = ("slurm", "--name", "next", "--drain-on-exit", "--", *SBATCH)
    the_next_pool_process_goes_on(node, flags, flags)
    until(lambda: not jobs())


def test_jobs_that_wait_are_pending_and_are_withdrawn() -> None:
    engine = SlurmEngine("pending", [*SBATCH, "--cpus-per-task=3"])
    ids = engine.start(2, PoolOptions("pending").worker())
    until(lambda: sorted(phase.name for phase in engine.alive().values()) == ["PENDING", "RUNNING"])
    assert sorted(engine.alive()) == sorted(ids)
    engine.drain(ids)
    until(lambda: not engine.alive())


def test_the_words_of_sbatch_are_told() -> None:
    engine = SlurmEngine("wrong", ["--partition=nowhere"])
    with pytest.raises(EngineRefused, match=r"sbatch: .*invalid partition specified: nowhere"):
        engine.start(1, PoolOptions("wrong").worker())
