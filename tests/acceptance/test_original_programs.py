"""Programs written for dagorama 0.1.10 run on this library as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from inspect import getfullargspec
from pathlib import Path

import pytest

from dagorama.runner import execute_worker, execute_worker_async
from dagorama_broker.launch import LaunchedBroker
from tests.support import original_programs
from tests.support.brokers import launch_broker

HERE = Path(original_programs.__file__).parent
ROOT = Path(__file__).parents[2]


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0) as broker:
        yield broker


@pytest.mark.parametrize("program", [program.__name__ for program in original_programs.PROGRAMS])
def test_a_program_written_for_the_original_runs_as_it_is(broker: LaunchedBroker, tmp_path: Path, program: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}", "SCRATCH": str(tmp_path)}
    command = [sys.executable, "-c", f"import original_programs; original_programs.main({program!r})"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"{program}: as expected, with {ROOT}" in done.stdout


def test_both_ways_to_execute_a_worker_have_the_same_parameters() -> None:
    assert getfullargspec(execute_worker).args == getfullargspec(execute_worker_async).args
    assert getfullargspec(execute_worker).args == [
        "exclude_queues", "include_queues", "queue_tolerations", "infinite_loop", "catch_exceptions",
    ]  # fmt: skip
