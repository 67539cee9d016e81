"""Commands whose standard streams are closed or cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m dagorama"


def run(line: str, folder: Path, *, unbuffered: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("command", ["keys new", "--help", "check misused.py"])
def test_an_output_on_a_full_disk_is_one_sentence(command: str, unbuffered: bool, tmp_path: Path) -> None:
    tmp_path.joinpath("misused.py").write_text("def")
    done = run(f"{COMMAND} {command} > /dev/full", tmp_path, unbuffered=unbuffered)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    if "check" not in command:
        assert done.stderr == "dagorama: the output cannot be written: No space left on device\n"


def test_closed_streams_are_the_null_device(tmp_path: Path) -> None:
    done = run(f"{COMMAND} config show <&- >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_that_is_opened_gets_the_descriptor_of_a_closed_stream(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os\n"
        "from dagorama_monitoring.process.streams import open_standard_streams\n"
        "open_standard_streams()\n"
        "descriptor = os.open('file', os.O_RDWR | os.O_CREAT)\n"
        "print('to the null device')\n"
        "os.write(2, b'to it too')\n"
        "os.write(descriptor, str(descriptor > 2).encode())\n"
    )
    code = f"PYTHONPATH={Path(__file__).parents[2]} {sys.executable} {program} <&- >&- 2>&-"
    assert run(code, tmp_path).returncode == 0
    assert tmp_path.joinpath("file").read_text() == "True"
