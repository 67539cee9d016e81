"""Between a process that launches workers and their supervisor: how it starts, and the line between the two.

What the worker needs to know goes first. Then down go lines `stop` and `end SLOT`, up go `started SLOT PID` and
`ended SLOT EXITCODE`. When the line breaks, the other is gone.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from contextlib import suppress
from struct import Struct
from subprocess import DEVNULL, Popen

from dagorama.errors import SettingsError
from dagorama.worker.options import WorkerOptions

UNUSABLE = 2  #: exit code
_LENGTH = Struct("<Q")


class Lines:
    """One end. Lines that are too late for the other end are lost."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def say(self, *words: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall((" ".join(map(str, words)) + "\n").encode())

    def read(self) -> list[list[str]] | None:
        """The words of each line that has come, waiting for some bytes; None when the other end is closed."""
        try:
            data = self._connection.recv(4096)
        except ConnectionResetError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode().split() for line in lines]


def launch(options: WorkerOptions) -> tuple[Popen[bytes], Lines]:
    """Start a supervisor that imports what this process could import, and leaves when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, os.path.dirname(__file__), "--launched", str(theirs.fileno())]
        process = Popen(command, stdin=DEVNULL, pass_fds=[theirs.fileno()])
    told = pickle.dumps((options, sys.path))
    with suppress(BrokenPipeError, ConnectionResetError):  # it has ended already: its exit code says why
        ours.sendall(_LENGTH.pack(len(told)) + told)
    return process, Lines(ours)


def run_launched(descriptor: int) -> int:
    """Be the supervisor that `launch` has started; its exit code."""
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    options, path = pickle.loads(_read(connection, length))
    sys.path[:] = path
    from dagorama.channels import check
    from dagorama.settings import Settings
    from dagorama.worker.start import run_worker

    try:
        check(Settings.from_env())
    except SettingsError as error:
        print(f"worker: {error}", file=sys.stderr, flush=True)
        return UNUSABLE
    return run_worker(options, Lines(connection))


def _read(connection: socket.socket, length: int) -> bytes:
    with connection.makefile("rb", buffering=0) as file:
        data = b""
        while len(data) < length:
            part = file.read(length - len(data))
            if not part:
                sys.exit(1)  # whoever launched it is gone already
            data += part
    return data
