"""The unmodified client of dagorama 0.1.10, in an environment of its own, against this broker."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama_broker.launch import LaunchedBroker
from tests.support import original_programs
from tests.support.brokers import launch_broker

ROOT = Path(__file__).parents[2]
HERE = Path(original_programs.__file__).parent
ENVIRONMENT = ROOT / ".venv-original"
#: Its generated code is older than protobuf 5, and it imports pkg_resources.
REQUIREMENTS = ["dagorama==0.1.10", "protobuf<5", "setuptools<81"]


@pytest.fixture(scope="session")
def original() -> Path:
    """The folder of that release's commands; made once and kept."""
    ENVIRONMENT.mkdir(exist_ok=True)
    with (ENVIRONMENT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = ENVIRONMENT / f"{sys.version_info.major}.{sys.version_info.minor}"
        if not (made / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", made], check=True, timeout=120)
            pip = [str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            installed = subprocess.run([*pip, *REQUIREMENTS], capture_output=True, text=True, timeout=300)
            if installed.returncode:
                said = installed.stderr.strip().splitlines() or ["pip said nothing"]
                pytest.skip(f"dagorama 0.1.10 cannot be installed here (is there a package index?): {said[-1]}")
            (made / "complete").touch()
    return made / "bin"


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0) as broker:
        yield broker


def environment(scratch: Path) -> dict[str, str]:
    """Where the broker is, and the programs; nothing of this repository's library."""
    kept = {name: os.environ[name] for name in ("DAGORAMA_HOST", "DAGORAMA_PORT", "PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(HERE), "SCRATCH": str(scratch)}


def run(bin: Path, program: str, scratch: Path) -> str:
    command = [str(bin / "python"), "-c", f"import original_programs; original_programs.main({program!r})"]
    done = subprocess.run(command, cwd=scratch, env=environment(scratch), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", [program.__name__ for program in original_programs.PROGRAMS])
def test_a_program_of_its_client_runs_against_this_broker(
    original: Path, broker: LaunchedBroker, tmp_path: Path, program: str
) -> None:
    said = run(original, program, tmp_path)
    assert "as expected" in said
    assert str(ENVIRONMENT) in said


def test_its_worker_command_serves_another_process(original: Path, broker: LaunchedBroker, tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [original / "worker", "--exclude-queue", "nothing", "--toleration", "GPU"], env=environment(tmp_path)
    )
    try:
        assert "as expected" in run(original, "pieces_by_a_worker_elsewhere", tmp_path)
        assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait()


def test_its_graph_goes_on_after_the_broker_was_killed(original: Path, tmp_path: Path) -> None:
    with launch_broker(port=0, store=f"sqlite:///{tmp_path}/store") as broker:
        client = subprocess.Popen(
            [original / "python", "-c", "import original_programs; original_programs.main('across_a_restart')"],
            cwd=tmp_path, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        with client:
            assert client.stdout.readline() == "half done\n"
            broker.kill()
            broker.restart()
            client.stdin.write("the broker is back\n")
            client.stdin.close()
            assert "as expected" in client.stdout.read()
        assert client.returncode == 0
