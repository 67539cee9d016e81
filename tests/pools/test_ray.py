"""The five stories of a pool, on a real Ray cluster of this machine, with a GPU that only Ray's books have."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dagorama.client.results import resolve
from dagorama.pools import EngineRefused, RayPool
from dagorama.pools.on_ray import RayEngine
from dagorama.pools.options import PoolOptions
from tests.pools.stories import (
    WAIT,
    Node,
    a_drained_worker_finishes_its_node,
    names,
    on_engines,
    pool_process,
    the_next_pool_process_goes_on,
    the_node_of_a_killed_worker_runs_elsewhere,
    until,
)
from tests.support.pool_nodes import OnGpu

ray = pytest.importorskip("ray", reason="Ray is not installed: run `make test-pools`")
pytestmark = [on_engines, pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("broker")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster with four CPUs and a GPU, to which this process is connected."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 1, "include_dashboard": False}
    )  # fmt: skip
    ray.init(address=cluster.address, log_to_driver=False)
    yield f"{cluster.address}"
    ray.shutdown()
    cluster.shutdown()


def actors() -> list[str]:
    return [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]


def test_workers_are_started_by_demand_and_leave_without_it(address: str, node: Node) -> None:
    with RayPool(name="demand", max=2, idle=2):
        assert actors() == []
        values = [node.submit() for _ in range(3)]
        node.running(2)
        assert len(actors()) == len(names()) == 2
        assert all(name.startswith("demand/") for name in names())
        node.let_go(2)
        node.running(3)
        node.let_go()
        assert {value() for value in values} == {"let go"}
        until(lambda: not actors())


def test_nodes_with_the_taint_of_a_gpu_run_on_the_gpu_that_ray_gives(address: str) -> None:
    with RayPool(name="gpu", num_cpus=1, num_gpus=1, max=8):
        instance, promise = OnGpu()()
        environment = resolve(instance, promise, timeout=WAIT)
        assert environment["CUDA_VISIBLE_DEVICES"] == "0"


def test_actors_without_resources_are_pending_and_are_withdrawn(address: str) -> None:
    engine = RayEngine("pending", num_cpus=3)
    worker = PoolOptions("pending").worker()
    ids = engine.start(2, worker)
    until(lambda: sorted(phase.name for phase in engine.alive().values()) == ["PENDING", "RUNNING"])
    assert list(engine.alive()) == ids
    engine.drain(ids)
    until(lambda: not engine.alive())


def test_a_worker_that_is_drained_finishes_its_node(address: str, node: Node) -> None:
    with RayPool(name="drain") as pool:
        a_drained_worker_finishes_its_node(pool, node, lambda: not actors())


def test_a_killed_actor_leaves_nothing_behind_and_its_node_runs_elsewhere(address: str, node: Node) -> None:
    with RayPool(name="killed"):
        the_node_of_a_killed_worker_runs_elsewhere(node, lambda pid, _: os.kill(host_of(pid), signal.SIGKILL))


def host_of(pid: int) -> int:
    """Return the process of the actor: the parent of the worker, above the fork server and the node's process."""
    for _ in range(3):
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{pid}/cmdline") as file:
        assert "WorkerActor" in file.read()
    return pid


def test_a_killed_pool_process_changes_nothing_and_the_next_one_goes_on(address: str, node: Node) -> None:
    flags = ("ray", "--address", address, "--name", "next")
    the_next_pool_process_goes_on(node, flags, (*flags, "--drain-on-exit"))
    until(lambda: names() == [])


def test_workers_import_modules_of_the_folder_that_ray_copies(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_there.py").write_text(ONLY_THERE)
    with pool_process(
        "ray", "--address", address, "--name", "copied", "--working-dir", f"{tmp_path}", "--drain-on-exit"
    ) as process:
        monkeypatch.syspath_prepend(tmp_path)
        import only_there  # type: ignore[import-not-found]  # it was just written

        instance, promise = only_there.Where()()
        process.until("started")
        assert resolve(instance, promise, timeout=WAIT) != f"{tmp_path}/only_there.py"
        assert process.stop() == 0
    until(lambda: names() == [])


ONLY_THERE = """
from dagorama import DAGDefinition, dagorama

class Where(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self):
        return __file__
"""


def test_without_a_cluster_a_sentence_says_so(address: str) -> None:
    with pool_process("ray", "--address", "127.0.0.1:1") as process:
        assert "the Ray cluster does not answer" in process.until("does not answer")


def test_the_error_of_a_lost_cluster_is_one_of_the_engine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RayEngine("lost")
    monkeypatch.setattr(ray.util, "list_named_actors", _gone)
    with pytest.raises(EngineRefused, match=r"the Ray cluster does not answer: .*gone"):
        engine.alive()


def _gone(**_: object) -> None:
    raise ray.exceptions.RaySystemError("gone")
