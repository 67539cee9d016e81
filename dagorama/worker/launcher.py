"""Launch a supervisor in a new process, from a user's program."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from subprocess import DEVNULL, Popen
from typing import Any, Protocol

from dagorama.settings import WorkerOptions
from dagorama.user_code.modules import absolute_path
from dagorama.worker.control_pipe import ControlPipe, send_start

EXIT_POLL_INTERVAL_S = 0.01


def launch(options: WorkerOptions) -> tuple[Process, ControlPipe]:
    """Start a supervisor that has the import path of this process, and exits when this process exits."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, os.path.dirname(__file__), "--launched", str(theirs.fileno())]
        process = _start(command, theirs.fileno())
    send_start(ours, (options, absolute_path()))
    return process, ControlPipe(ours)


class Process(Protocol):
    """The methods of Popen that a launcher needs."""

    def kill(self) -> None: ...

    def wait(self) -> int: ...


def _start(command: list[str], descriptor: int) -> Process:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("subprocess"):
        return Popen(command, stdin=DEVNULL, pass_fds=[descriptor])
    return _Spawned(command, descriptor)


class _Spawned:
    """A process that is started without running Python code between fork and exec.

    gevent's Popen runs Python code there, and grpc may abort the process meanwhile.
    """

    def __init__(self, command: list[str], descriptor: int) -> None:
        from multiprocessing.util import spawnv_passfds

        gevent: Any = sys.modules["gevent"]
        self._code: int | None = None
        self._pid = spawnv_passfds(command[0].encode(), command, [descriptor])
        # gevent's loop reaps every child, and calls the watchers.
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
            # gevent's sleep lets its loop and other greenlets run. A gevent event would work in one thread only.
            time.sleep(EXIT_POLL_INTERVAL_S)
        return self._code
