"""`dagorama dev` as a process in a folder, with what it says and the processes that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import ROOT, WAIT, forked
from tests.support.processes import has_ended
from tests.support.worker_command import await_that

FLOW = """
from pathlib import Path
from time import sleep
from dagorama import DAGDefinition, dagorama

class Shapes(DAGDefinition):
    @dagorama
    def entrypoint(self, count: int) -> int:
        return self.total([self.measure(i) for i in range(count)])

    @dagorama
    def measure(self, number: int) -> int:
        print(f"measured {number}\\n", end="")  # one write, so that the lines of two processes stay whole
        return number * number

    @dagorama
    def total(self, areas: list[int]) -> int:
        return sum(areas)

class Gated(DAGDefinition):
    @dagorama
    def entrypoint(self, gate: str) -> str:
        while not Path(gate).exists():
            sleep(0.01)
        return "open"
"""


def environment(folder: Path) -> dict[str, str]:
    """An environment that names no broker and no access, in which the home folder is this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DAGORAMA_")}
    return {**kept, "HOME": f"{folder}", "XDG_CONFIG_HOME": f"{folder}/config", "PYTHONPATH": f"{ROOT}"}


def refused(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dagorama dev` where it cannot run."""
    command = [sys.executable, "-m", "dagorama", "dev", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=WAIT)


def command(folder: Path, *arguments: object, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run another `dagorama` command in a folder."""
    return forked(*arguments, folder=folder, environment=environment(home or folder))


class Dev:
    """A running `dagorama dev`."""

    def __init__(self, folder: Path, *arguments: str, through: Sequence[str] = ()) -> None:
        self.folder = folder
        self._log = folder / "dev.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*through, sys.executable, "-m", "dagorama", "dev", *arguments, "--port", "0", "--http-port", "0"],
                cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(3)]
        assert all(lines), self.said
        self.summary = {name: text.strip() for name, _, text in (line.partition(" ") for line in lines)}

    @property
    def said(self) -> str:
        """Everything on stderr up to now."""
        return self._log.read_text()

    def await_said(self, text: str) -> None:
        await_that(lambda: text in self.said)

    @property
    def broker(self) -> int:
        """The process ID of the broker; 0 while a new one takes its lock."""
        return int((self.folder / ".dagorama" / "broker.sqlite3.lock").read_text() or 0)

    @property
    def processes(self) -> list[int]:
        """The process IDs of all descendants."""
        parents = dict(_parents())
        return [pid for pid in parents if self.process.pid in _ancestors(pid, parents)]

    @property
    def worker(self) -> int:
        """The process ID of the child that starts workers."""
        children = [pid for pid, parent in _parents() if parent == self.process.pid]
        (found,) = [pid for pid in children if b"\0worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return found

    def run(self, *arguments: object) -> str:
        """Run a definition from the folder and return what is printed on stdout."""
        done = command(self.folder, "run", *arguments)
        assert done.returncode == 0, done.stderr + self.said
        return done.stdout.strip()

    def end(self, *numbers: signal.Signals) -> int:
        """Send signals, and return the exit code when all processes have ended."""
        processes = self.processes
        for number in numbers:
            self.process.send_signal(number)
        code = self.process.wait(WAIT)
        assert all(has_ended(pid) for pid in processes)
        return code


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:  # it has ended
            continue
        yield int(folder.name), int(stat.rpartition(")")[2].split()[1])


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        pid = parents[pid]
        yield pid


@contextmanager
def running(folder: Path, *arguments: str, through: Sequence[str] = ()) -> Iterator[Dev]:
    """Run it for the length of the block, if need be through another program, such as nohup."""
    dev = Dev(folder, *arguments, through=through)
    try:
        yield dev
    finally:
        if dev.process.poll() is None:
            dev.end(signal.SIGTERM)
        assert dev.process.stdout is not None
        dev.process.stdout.close()
