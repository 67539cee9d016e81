"""Brokers and workers that all stories of a test process share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dagorama_testing.processes import Processes

ROOT = Path(__file__).parents[2]
IN_ONE_PROCESS = "from dagorama import execute_worker; execute_worker(queue_tolerations=['GPU'])"


@pytest.fixture(scope="session")
def worker_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Start a broker, and a worker with two child processes that tolerates the taint GPU."""
    options = ("-m", "dagorama.worker", "--concurrency", "2", "--toleration", "GPU")
    with _serving(tmp_path_factory.mktemp("parity"), *options) as processes:
        yield processes


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Start a broker, and a worker that runs nodes in the process that has called `execute_worker`."""
    with _serving(tmp_path_factory.mktemp("parity"), "-c", IN_ONE_PROCESS) as processes:
        yield processes


@contextmanager
def _serving(folder: Path, *worker: str) -> Iterator[Processes]:
    processes = Processes()
    try:
        with processes.environment(), (folder / "worker.log").open("w") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            started = subprocess.Popen([sys.executable, *worker], cwd="/", env=environment, stdout=log, stderr=log)
        try:
            yield processes
        finally:
            started.terminate()
            started.wait()
    finally:
        processes.close()
