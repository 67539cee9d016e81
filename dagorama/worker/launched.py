"""Between a process that launches workers and their supervisor: how it starts, and the line between the two.

What the worker needs to know goes first. Then down go lines `stop`, `end SLOT` and `define` with a parcel of classes,
up go `started SLOT PID`, `ended SLOT EXITCODE` and `defined`. When the line breaks, the other is gone.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from subprocess import DEVNULL, Popen
from typing import NamedTuple

from dagorama.errors import SettingsError
from dagorama.modules import absolute_path
from dagorama.worker.options import WorkerOptions

UNUSABLE = 2  #: exit code
READ_BYTES = 1 << 16
_LENGTH = Struct("<Q")
_HEAD = Struct("<II")  # lengths of the words and of the payload


class Line(NamedTuple):
    words: list[str]
    payload: bytes


class Lines:
    """One end. Lines that are too late for the other end are lost."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = bytearray()

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def say(self, *words: object, payload: bytes = b"") -> None:
        text = " ".join(map(str, words)).encode()
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(_HEAD.pack(len(text), len(payload)) + text + payload)

    def read(self) -> list[Line] | None:
        """Each line that has come, waiting for some bytes; None if the other end is closed."""
        try:
            data = self._connection.recv(READ_BYTES)
        except ConnectionResetError:
            return None
        if not data:
            return None
        self._rest += data
        return list(self._lines())

    def _lines(self) -> Iterator[Line]:
        while len(self._rest) >= _HEAD.size:
            words, payload = _HEAD.unpack_from(self._rest)
            start = _HEAD.size + words
            if len(self._rest) < start + payload:
                return
            yield Line(self._rest[_HEAD.size : start].decode().split(), bytes(self._rest[start : start + payload]))
            del self._rest[: start + payload]


def launch(options: WorkerOptions) -> tuple[Popen[bytes], Lines]:
    """Start a supervisor that imports what this process could import, and leaves when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, os.path.dirname(__file__), "--launched", str(theirs.fileno())]
        process = Popen(command, stdin=DEVNULL, pass_fds=[theirs.fileno()])
    told = pickle.dumps((options, absolute_path()))
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
