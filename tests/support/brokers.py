"""Brokers for tests whose subject is not the start of a broker: forks of a process that has imported the broker.

They are processes like those of `dagorama_broker.launch`, with the same options, and start in a tenth of the time: a
broker takes longer to import than to start. One nursery serves all tests of a process.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock

from dagorama_broker.launch import HOST, MEMORY, LaunchedBroker, Process, launched

ROOT = Path(__file__).parents[2]
LARGEST = 128 << 10  #: bytes of a request to the nursery


@contextmanager
def launch_broker(
    port: int = 0,
    store: str | None = None,
    *,
    host: str = HOST,
    log_level: str = "WARNING",
    environment: Mapping[str, str] | None = None,
) -> Iterator[ForkedBroker]:
    """Run a broker for the length of the block, as `dagorama_broker.launch.launch_broker` does."""
    with launched(ForkedBroker(port, store or MEMORY, log_level, environment or {}, host)) as broker:
        yield broker


class ForkedBroker(LaunchedBroker):
    """A launched broker that is a fork of the nursery."""

    program = "dagorama_broker.cli"  #: the module whose `main` is the command

    def _run(self, command: list[str], environment: dict[str, str], pipes: tuple[int, int]) -> Process:
        return _nursery().fork(self.program, command[command.index("serve") :], environment, pipes)


class _Nursery:
    """The process whose forks are brokers. It ends with this one."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        with theirs:
            command = [sys.executable, "-P", "-m", "tests.support.broker_nursery", str(theirs.fileno())]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])

    def fork(self, program: str, arguments: list[str], environment: dict[str, str], pipes: tuple[int, int]) -> _Fork:
        """Start a broker that inherits the two pipes, under numbers that the nursery puts into its arguments."""
        places = [arguments.index(str(pipe)) for pipe in pipes]
        wanted = {"program": program, "arguments": arguments, "environment": environment, "places": places}
        request = json.dumps(wanted).encode()
        assert len(request) <= LARGEST, "the environment is too large for one message"
        reading, writing = os.pipe()
        with self._lock:
            socket.send_fds(self._control, [request], [writing, 2, *pipes])
        os.close(writing)
        return _Fork(reading)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


@cache
def _nursery() -> _Nursery:
    nursery = _Nursery()
    atexit.register(nursery.close)
    return nursery


class _Fork:
    """A fork of the nursery, which tells its process id and then its exit code."""

    def __init__(self, said: int) -> None:
        self._said = open(said)  # noqa: SIM115  # closed by wait()
        self._lock = Lock()
        self._code: int | None = None
        self.pid = int(self._said.readline())

    def wait(self) -> int:
        with self._lock:
            if self._code is None:
                self._code = int(self._said.readline())
                self._said.close()
            return self._code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
