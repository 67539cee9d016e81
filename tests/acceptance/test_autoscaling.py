"""Pools that grow from nothing and shrink to nothing as KEDA scales them, with workers as pods that run real nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from dagorama import resolve
from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.forks import Fork
from tests.support.keda import ExternalScaler, Trigger
from tests.support.keda_loop import Pod, Pool, scaling
from tests.support.keda_nodes import Meeting, Training
from tests.support.tokens import Tokens
from tests.support.worker_command import WAIT, await_that
from tests.support.workers import fork_worker

pytestmark = pytest.mark.slow
VARIABLE = "DAGORAMA_AUTH_TOKEN"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    tokens = Tokens(tmp_path / "tokens.toml")
    tokens.add("client", "client")
    tokens.add("plain", "worker", tolerations=[])
    tokens.add("gpu", "worker", tolerations=["GPU"])
    return tokens


@pytest.fixture
def broker(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> Iterator[LaunchedBroker]:
    monkeypatch.setenv(VARIABLE, tokens["client"])
    with launch_broker(environment={"DAGORAMA_TOKENS_FILE": str(tokens.path)}) as broker:
        yield broker


@pytest.fixture
def channel(broker: LaunchedBroker) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(broker.address) as channel:
        yield channel


def starter(token: str, *flags: str) -> Callable[[], Fork]:
    """Start a worker as the chart does."""
    return lambda: fork_worker(
        ["--concurrency", "1", "--grace", f"{WAIT:g}", *flags], {**os.environ, VARIABLE: token}, (1, 2)
    )


def ancestors(pid: int) -> set[int]:
    """A process, its parent and so on; nothing if it has ended."""
    found = set[int]()
    if not Path(f"/proc/{pid}").exists():
        return found
    while pid > 1:
        found.add(pid)
        status = Path(f"/proc/{pid}/stat").read_text()
        pid = int(status.rpartition(")")[2].split()[1])
    return found


def test_a_deployment_grows_to_eight_pods_and_shrinks_to_none_and_ends_no_running_node(
    channel: grpc.Channel, tokens: Tokens, tmp_path: Path
) -> None:
    """Case: the pod that runs a node is the first one that is told to go."""
    trigger = Trigger({"slotsPerPod": "1", "tokenFromEnv": VARIABLE}, {VARIABLE: tokens["plain"]})
    pool = Pool(ExternalScaler(channel, trigger), starter(tokens["plain"]), 8)
    folder = tmp_path / "meeting"
    folder.mkdir()

    def busy_first(pods: list[Pod]) -> list[Pod]:
        busy = ancestors(int((folder / "0").read_text()))
        return sorted(pods, key=lambda pod: pod.pid not in busy)

    pool.chosen = busy_first
    with scaling(pool):
        began = time.monotonic()
        instance, promise = Meeting()(str(folder), 8)
        await_that(lambda: len(pool.ended) == 7)
        busy = ancestors(int((folder / "0").read_text()))
        (running,) = (pod for pod in pool.ended if pod.pid in busy)
        assert all(pod.ended() == 0 for pod in pool.ended if pod is not running)
        assert running.code is None
        (folder / "let go").touch()
        assert resolve(instance, promise, timeout=WAIT) == list(range(8))
        await_that(lambda: not pool.pods)
        assert {pod.ended() for pod in pool.ended} == {0}
        assert max(pool.wanted) == 8
    print(f"from the submission to the first pod: {pool.first_at - began:.3f} s")
    nodes = connection().list_nodes(instance.instance_id.bytes)
    assert [(node.failed_attempts, node.worker_losses) for node in nodes] == [(0, 0)] * 10


def test_jobs_for_gpus_are_started_by_taint_and_leave_by_themselves(
    channel: grpc.Channel, tokens: Tokens, tmp_path: Path
) -> None:
    plain_trigger = Trigger({"tokenFromEnv": VARIABLE}, {VARIABLE: tokens["plain"]})
    gpu_trigger = Trigger({"tokenFromEnv": VARIABLE, "tolerations": "GPU"}, {VARIABLE: tokens["gpu"]})
    plain = Pool(ExternalScaler(channel, plain_trigger), starter(tokens["plain"]), 8)
    jobs = starter(tokens["gpu"], "--toleration", "GPU", "--until", "idle", "--idle", "1")
    gpus = Pool(ExternalScaler(channel, gpu_trigger), jobs, 3, jobs=True)
    with scaling(plain), scaling(gpus):
        instance, promise = Training()(str(tmp_path), 3)
        assert resolve(instance, promise, timeout=WAIT) == [0, 1, 2]
        await_that(lambda: not gpus.pods)
        assert {pod.ended() for pod in gpus.ended} == {0}
        assert max(gpus.wanted) == 3
        assert not plain.ended
        assert not plain.pods
