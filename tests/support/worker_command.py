"""The `worker` command as a process, and what the broker says of the workers."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dagorama.client.connection import connection

ROOT = Path(__file__).parents[2]
WAIT = 60.0  #: seconds after which something that should happen is taken not to


@contextmanager
def worker(*flags: str, path: Path | None = ROOT) -> Iterator[subprocess.Popen[str]]:
    """Run the command in another folder, with `path` to import from."""
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-m", "dagorama.worker", *flags]
    process = subprocess.Popen(command, cwd="/", env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def await_that(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def unservable() -> list[str]:
    """Return why nodes have no worker."""
    return [each.reason for each in connection().get_status().unschedulable]


def old_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str) -> Any:
    """Write two versions of a module into the folders "old" and "new", and import the old one."""
    for folder, text in (("old", old), ("new", new)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "old"))
    return importlib.import_module(name)
