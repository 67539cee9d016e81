"""The `worker` command as a process, and what the broker says of the workers."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
