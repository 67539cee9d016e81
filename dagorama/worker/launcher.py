"""How a program launches a supervisor, in a process of its own."""

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
from dagorama.worker.control_pipe import Lines, send_start

WAITING = 0.01  #: seconds between looks at a process that is about to end


def launch(options: WorkerOptions) -> tuple[Process, Lines]:
    """Start a supervisor that imports what this process could import, and leaves when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, os.path.dirname(__file__), "--launched", str(theirs.fileno())]
        process = _start(command, theirs.fileno())
    send_start(ours, (options, absolute_path()))
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
