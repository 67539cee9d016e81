"""What grpc prints: nothing of a connection that a broker closes, in any process that is a client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.brokers import launch_broker
from tests.support.worker_command import ROOT

#: Runs at the start of each interpreter: notes what grpc will print when it is imported for the first time.
NOTES = """
import os, sys

class Note:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            with open(os.environ["NOTED"], "a") as file:
                file.write(os.environ.get("GRPC_VERBOSITY", "not set"))

sys.meta_path.insert(0, Note())
"""
IN_PROCESS = "from dagorama import execute_worker; execute_worker(infinite_loop=False)"
COMMANDS = {
    "client": ("-m", "dagorama", "status"),
    "worker": ("-m", "dagorama.worker", "--exit-on-completion"),
    "worker in a program": ("-c", IN_PROCESS),
    "dashboard": ("-m", "dagorama", "dashboard", "--bind", "nowhere.invalid"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_grpc_is_told_to_be_quiet_before_it_is_imported(name: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOTES)
    noted = tmp_path / "noted"
    with launch_broker(0) as broker:
        environment = {
            **os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "NOTED": f"{noted}",
            "DAGORAMA_HOST": broker.host, "DAGORAMA_PORT": f"{broker.port}",
        }  # fmt: skip
        environment.pop("GRPC_VERBOSITY", None)
        subprocess.run([sys.executable, *COMMANDS[name]], env=environment, capture_output=True, timeout=60, check=False)
    assert noted.read_text() == "ERROR"
