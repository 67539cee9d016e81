"""The plugin, in flake8 itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TASK = """from dagorama import DAGDefinition, dagorama


class Task(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> int:
        'ä', self.entrypoint(1)[0]
        self.entrypoint(2)[0]  # noqa: DAG003
        self.entrypoint(3)[0]  # dagorama: ignore[DAG003]
        self.entrypoint(i for i in [1])
"""


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], ["task.py:7:14: DAG003"]),
        (["--extend-select", "DAG009"], ["task.py:7:14: DAG003", "task.py:10:9: DAG009"]),
        (["--select", "DAG", "--ignore", "DAG003"], ["task.py:10:9: DAG009"]),
        (["--disable-noqa"], ["task.py:7:14: DAG003", "task.py:8:9: DAG003"]),
    ],
)
def test_flake8_reports_findings(options: list[str], found: list[str], tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    command = [sys.executable, "-m", "flake8", "--isolated", "-j", "1", *options, "task.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert [" ".join(line.split()[:2]) for line in done.stdout.splitlines()] == found, done.stderr
    assert done.returncode == bool(found)
    assert "docs/reference/checks.md#dag" in done.stdout
