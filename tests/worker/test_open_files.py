"""A worker with many slots under a low limit of open files, as systems have it by default."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dagorama import DAGDefinition, dagorama, resolve_all
from tests.support.brokers import launch_broker

ROOT = Path(__file__).parents[2]
WAIT = 60.0
SLOTS, SOFT = 20, 64


class Counts(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number


@pytest.mark.slow
def test_a_worker_may_open_the_files_that_its_slots_need() -> None:
    command = f"ulimit -Sn {SOFT}; exec {sys.executable} -m dagorama.worker --concurrency {SLOTS} --until drained"
    with launch_broker(port=0):
        pairs = [Counts()(number) for number in range(SLOTS)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        worker = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=WAIT)
        assert resolve_all(pairs, timeout=WAIT) == list(range(SLOTS))
    assert (worker.returncode, "Too many open files" in worker.stderr) == (0, False)


def test_a_worker_that_may_open_too_few_files_ends_with_a_sentence() -> None:
    command = f"ulimit -n 20; exec {sys.executable} -m dagorama.worker --concurrency 2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    worker = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=WAIT)
    said = "Error: this process may have 20 open files, and a worker with --concurrency 2 needs 40: raise the hard"
    assert (worker.returncode, said in worker.stderr, "Traceback" in worker.stderr) == (2, True, False)
