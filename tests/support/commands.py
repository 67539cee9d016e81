"""The `dagorama` command, in this process and as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from dagorama.__main__ import COMMANDS, main
from tests.support.forks import Program, completed

ROOT = Path(__file__).parents[2]
WAIT = 60.0  #: seconds after which something that should happen is taken not to


def invoke(*arguments: object) -> Result:
    """Run the command here."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def printed(*arguments: object) -> str:
    """Return the stdout of a command that succeeds."""
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def data(*arguments: object) -> Any:
    """The JSON that the command prints."""
    return json.loads(printed(*arguments, "-o", "json"))


def refusal(*arguments: object) -> tuple[int, str]:
    """The exit code and what the command says on stderr when it prints nothing on stdout."""
    result = invoke(*arguments)
    assert result.stdout == ""
    return int(result.exit_code), result.stderr


def process(*arguments: object, folder: Path = ROOT, said: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a process in this folder, with `said` on its stdin."""
    command = [sys.executable, "-m", "dagorama", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, input=said, capture_output=True, text=True, timeout=WAIT
    )  # fmt: skip


#: The command, for tests that need a process of it, but not a start of Python for each.
FORKED = Program(
    "dagorama.__main__:main",
    ("dagorama.__main__", "dagorama.client.connection", *sorted({at.partition(":")[0] for at in COMMANDS.values()})),
    command="dagorama",
    has_folder=True,
)


def forked(
    *arguments: object, program: Program = FORKED, folder: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a fork of a process that has imported it. It runs no workers."""
    variables = environment or {**os.environ, "PYTHONPATH": str(ROOT)}
    done = completed(program, [str(argument) for argument in arguments], variables, folder)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
