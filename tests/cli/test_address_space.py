"""Programs that get too few addresses (`ulimit -v`) for the threads of gRPC, which would wait for one forever."""

import subprocess
import sys

import pytest

from dagorama_monitoring.process.resource_limits import LEAST
from tests.support.processes import SECONDS

NEEDED = LEAST >> 20


@pytest.mark.parametrize("limit", [100, 300])
@pytest.mark.parametrize(
    ("command", "program", "code"),
    [("dagorama_broker serve --port 0 --store memory://", "a broker", 78), ("dagorama.worker", "a worker", 2)],
)
def test_a_program_with_too_few_addresses_ends_with_a_sentence(
    command: str, program: str, code: int, limit: int
) -> None:
    script = f"ulimit -v {limit << 10}; exec {sys.executable} -m {command}"
    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=SECONDS)
    said = f"this process may reserve {limit} MiB of addresses (ulimit -v), and {program} needs {NEEDED}: raise"
    assert (ended.returncode, said in ended.stderr, "Traceback" in ended.stderr) == (code, True, False)
