"""The tests' end of a fork server, and processes that are its forks."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Program(NamedTuple):
    """A program whose processes are forks."""

    name: str  #: a module and, after a colon, its function that takes the arguments from `sys.argv`
    imports: tuple[str, ...]  #: modules that the fork server imports
    command: str = ""  #: its name in `sys.argv`
    has_session: bool = False  #: each of its processes is in a session of its own
    has_folder: bool = False  #: modules of the current folder can be imported, as with `python -m`


class Fork:
    """A fork of a fork server, with the methods of Popen that launchers need."""

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
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it has not been waited for."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ForkServerSocket:
    """A fork server, which ends with this process, and its socket."""

    def __init__(self, imports: tuple[str, ...]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        with theirs:
            command = [sys.executable, "-P", "-m", "tests.support.fork_server", str(theirs.fileno()), *imports]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])

    def fork(
        self,
        program: Program,
        arguments: list[str],
        environment: dict[str, str],
        outputs: tuple[int, int],
        *inherited: int,
        folder: Path | None = None,
    ) -> Fork:
        """Start a process of a program, with these stdout and stderr.

        Arguments that name inherited descriptors are changed as their numbers are.
        """
        places = [arguments.index(str(descriptor)) for descriptor in inherited]
        wanted = {
            **program._asdict(), "folder": str(folder or Path.cwd()), "arguments": arguments,
            "environment": environment, "places": places,
        }  # fmt: skip
        said, told = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._control, [json.dumps(wanted).encode()], [told, *outputs, *inherited])
        finally:
            os.close(told)
        return Fork(said)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


@cache
def fork_server(imports: tuple[str, ...]) -> ForkServerSocket:
    """Return the fork server with these imports."""
    made = ForkServerSocket(imports)
    atexit.register(made.close)
    return made


def completed(
    program: Program, arguments: list[str], environment: dict[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, as `subprocess.run` does."""
    with TemporaryFile() as out, TemporaryFile() as err:
        outputs = out.fileno(), err.fileno()
        code = fork_server(program.imports).fork(program, arguments, environment, outputs, folder=folder).wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())
