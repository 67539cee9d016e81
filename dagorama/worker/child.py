"""A child: the process that runs user code. It reads grants from its socket and writes outcomes to it.

It loads no grpc. What it starts and finishes is in the memory that it shares with the supervisor.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType

from dagorama.serializer import run_only, unpack_definitions
from dagorama.worker import node_logging
from dagorama.worker.engine import Engine
from dagorama.worker.executor import Executor
from dagorama.worker.failures import bounded
from dagorama.worker.frames import FrameReader, Kind, Outcome, pack, pack_outcome
from dagorama.worker.large import SpoolValues
from dagorama.worker.nursery import ChildMain
from dagorama.worker.options import WorkerOptions
from dagorama.worker.outbox import Outbox
from dagorama.worker.shared import SharedMemory

UNFIT = 2  #: exit code of a child that cannot start
REASON_BYTES = 16 << 10
READ_BYTES = 1 << 20


def child_main(options: WorkerOptions, memory: SharedMemory, spool: Path) -> ChildMain:
    """What the nursery forks; called there once."""

    def live(slot: int, connection: socket.socket) -> int:
        _settle()
        node_logging.configure()
        reason = _unfit(options)
        with suppress(BrokenPipeError, ConnectionResetError):  # the supervisor has left
            if reason is not None:
                connection.sendall(pack(Kind.UNFIT, bounded(reason, REASON_BYTES).encode()))
                return UNFIT
            _Child(slot, connection, memory, spool).run()
        atexit._run_exitfuncs()
        return 0

    return live


class _Child:
    def __init__(self, slot: int, connection: socket.socket, memory: SharedMemory, spool: Path) -> None:
        self._connection = connection
        self._memory = memory
        self._reader = FrameReader()
        self._pieces: list[bytes] = []
        self._outbox = Outbox(self._send)
        self._executor = Executor(self._outbox, SpoolValues(spool))
        self._engine = Engine(self._executor, memory.slots[slot])

    def run(self) -> None:
        """Until the supervisor closes the socket."""
        self._connection.sendall(pack(Kind.READY))
        while (data := self._read()) is not None:
            self._executor.large_from = self._memory.large_from or self._executor.large_from
            for kind, payload in self._reader.feed(data):
                self._take(kind, payload)
            self._engine.work_off()

    def _read(self) -> bytes | None:
        """What has come; only when nothing has, results go out and it waits."""
        try:
            data = self._connection.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._engine.flush()
            data = self._connection.recv(READ_BYTES)
        return data or None

    def _take(self, kind: Kind, payload: bytes) -> None:
        self._pieces.append(payload)
        if kind == Kind.GRANT:
            body, self._pieces = b"".join(self._pieces), []
            self._engine.add(self._executor.prepare(body))

    def _send(self, kind: Kind, outcome: Outcome) -> None:
        try:
            self._connection.sendall(pack_outcome(kind, outcome))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(1)  # the supervisor is gone: there is nobody left to work for


def _settle() -> None:
    """Make the process fit for user code: signals are the supervisor's to answer, input is nobody's."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not ignored: what user code executes would inherit that.
        signal.signal(number, _leave_it_to_the_supervisor)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.register_at_fork(after_in_child=_be_ordinary)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)


def _leave_it_to_the_supervisor(_number: int, _frame: FrameType | None) -> None:
    """It decides what a signal to the whole group means for what runs here."""


def _be_ordinary() -> None:
    """A process that user code forks ends when it is told to."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _unfit(options: WorkerOptions) -> str | None:
    """Load what was asked for; why that cannot be done, or None."""
    try:
        unpack_definitions(options.definitions)
    except BaseException as error:
        return f"the definitions sent by the launching process cannot be read ({type(error).__name__}: {error})"
    for name in options.imports:
        try:
            import_module(name)
        except BaseException as error:
            return f"--import {name}: it cannot be imported ({type(error).__name__}: {error})"
    if options.only_imported:
        run_only(options.imports)
    return None
