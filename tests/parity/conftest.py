"""A broker and workers that all stories of a test process share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama_testing.processes import Processes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Start a broker, and a worker with two child processes that tolerates the taint GPU."""
    processes = Processes()
    command = [sys.executable, "-m", "dagorama.worker", "--concurrency", "2", "--toleration", "GPU"]
    log = tmp_path_factory.mktemp("parity") / "worker.log"
    try:
        with processes.environment(), log.open("w") as stderr:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            worker = subprocess.Popen(command, cwd="/", env=environment, stdout=stderr, stderr=stderr)
        try:
            yield processes
        finally:
            worker.terminate()
            worker.wait()
    finally:
        processes.close()
