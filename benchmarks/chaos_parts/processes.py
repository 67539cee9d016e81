"""The broker and the workers as processes of their own, to be killed, stopped and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
LEASE = 2.0


class Program:
    """A process that is started again whenever it was killed; its end by itself is remembered."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        self.own_ends: list[int] = []
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env={**os.environ, **self._environment}, stderr=log, stdout=log
            )

    def kill(self) -> None:
        if self.process.poll() is not None:
            self.own_ends.append(self.process.returncode)
        self.process.kill()
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def stop(self) -> None:
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def broker(port: int, store: Path, broken: str, log: Path) -> Program:
    command = [sys.executable, str(HERE / "broken_broker.py"), "serve", "--port", str(port), "--log-level", "WARNING"]
    environment = {
        "DAGORAMA_STORE": f"sqlite:///{store}",
        "DAGORAMA_LEASE": str(LEASE),
        "DAGORAMA_HEARTBEAT": "0.5",
        "DAGORAMA_RECONNECT_WAIT": "0.5",
        "BREAK": broken,
    }
    return Program(command, environment, log)


def worker(port: int, log: Path) -> Program:
    command = [sys.executable, "-m", "dagorama.worker"]
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return Program(command, {"DAGORAMA_HOST": "127.0.0.1", "DAGORAMA_PORT": str(port), "PYTHONPATH": path}, log)


def children_of(pid: int) -> list[int]:
    """Return the processes that run user code below a supervisor: the children of its fork server."""
    return [child for nursery in _children(pid) for child in _children(nursery)]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
