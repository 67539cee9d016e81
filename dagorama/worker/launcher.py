"""Between a process that launches workers and their supervisor: how it starts, and the line between the two.

What the worker needs to know goes first. Then down go `stop`, `end SLOT` and `define` with a parcel of classes; up go
`ready` when the first child can run nodes, `failed REASON` when the worker leaves with an exit code other than 0,
`started SLOT PID`, `ended SLOT EXITCODE` and `defined`. When the line breaks, the other is gone.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from subprocess import DEVNULL, Popen
from typing import Any, NamedTuple, Protocol

from dagorama.errors import SettingsError
from dagorama.user_code.modules import absolute_path
from dagorama.worker.options import WorkerOptions

UNUSABLE = 2  #: exit code
READ_BYTES = 1 << 16
WAITING = 0.01  #: seconds between looks at a process that is about to end
_LENGTH = Struct("<Q")
_HEAD = Struct("<IQ")  # bytes of the words, bytes of the payload
_BETWEEN = "\0"  # words


class Message(NamedTuple):
    """Words, of which the first says what it is about, and for some kinds of message bytes."""

    words: list[str]
    payload: bytes = b""


class Lines:
    """One end of the line. Messages that are too late for the other end are lost. Any thread may say something."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = bytearray()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def say(self, *words: object, payload: bytes = b"") -> None:
        text = _BETWEEN.join(str(word).replace(_BETWEEN, " ") for word in words).encode(errors="replace")
        with self._lock, suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(_HEAD.pack(len(text), len(payload)) + text + payload)

    def read(self) -> list[Message] | None:
        """The messages that are complete, once some bytes have come; None when the other end is closed."""
        try:
            data = self._connection.recv(READ_BYTES)
        except ConnectionResetError:
            return None
        if not data:
            return None
        self._rest += data
        return list(self._complete())

    def _complete(self) -> Iterator[Message]:
        rest, start = self._rest, 0
        while len(rest) - start >= _HEAD.size:
            words, payload = _HEAD.unpack_from(rest, start)
            begin, end = start + _HEAD.size + words, start + _HEAD.size + words + payload
            if len(rest) < end:
                break
            yield Message(rest[start + _HEAD.size : begin].decode().split(_BETWEEN), bytes(rest[begin:end]))
            start = end
        del rest[:start]


def launch(options: WorkerOptions) -> tuple[Process, Lines]:
    """Start a supervisor that imports what this process could import, and leaves when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, os.path.dirname(__file__), "--launched", str(theirs.fileno())]
        process = _start(command, theirs.fileno())
    told = pickle.dumps((options, absolute_path()))
    with suppress(BrokenPipeError, ConnectionResetError):  # it has ended already: its exit code says why
        ours.sendall(_LENGTH.pack(len(told)) + told)
    return process, Lines(ours)


class Process(Protocol):
    """What is needed of a Popen."""

    def kill(self) -> None: ...

    def wait(self) -> int: ...


def _start(command: list[str], descriptor: int) -> Process:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("subprocess"):
        return Popen(command, stdin=DEVNULL, pass_fds=[descriptor])
    return _Spawned(command, descriptor)


class _Spawned:
    """A process that is started without Python code between fork and exec, which gevent's Popen runs: grpc may abort it
    there."""

    def __init__(self, command: list[str], descriptor: int) -> None:
        from multiprocessing.util import spawnv_passfds

        gevent: Any = sys.modules["gevent"]
        self._code: int | None = None
        self._pid = spawnv_passfds(command[0].encode(), command, [descriptor])
        # gevent's loop reaps every child, and tells those who watch.
        self._watcher = gevent.get_hub().loop.child(self._pid)
        self._watcher.start(self._ended)

    def _ended(self) -> None:
        self._code = os.waitstatus_to_exitcode(self._watcher.rstatus)
        self._watcher.stop()

    def kill(self) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        while self._code is None:
            # gevent's sleep, so that its loop and other greenlets go on; an event of it would be one thread's alone.
            time.sleep(WAITING)
        return self._code


def run_launched(descriptor: int) -> int:
    """Be the supervisor that `launch` has started; its exit code."""
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    options, path = pickle.loads(_read(connection, length))
    sys.path[:] = path
    from dagorama.client.channel import check
    from dagorama.settings import Settings
    from dagorama.worker.main import run_worker

    lines = Lines(connection)
    try:
        check(Settings.from_env())
        return run_worker(options, lines)
    except SettingsError as error:
        print(f"worker: {error}", file=sys.stderr, flush=True)
        lines.say("failed", error)
        return UNUSABLE
    except Exception as error:
        lines.say("failed", f"{type(error).__name__}: {error}")
        raise


def _read(connection: socket.socket, length: int) -> bytes:
    with connection.makefile("rb", buffering=0) as file:
        data = b""
        while len(data) < length:
            part = file.read(length - len(data))
            if not part:
                sys.exit(1)  # whoever launched it is gone already
            data += part
    return data
