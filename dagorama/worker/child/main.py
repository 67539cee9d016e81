"""A child: the process that runs user code. It reads grants from its socket and writes outcomes to it.

It loads no grpc. What it starts and finishes is in the memory that it shares with the supervisor.
"""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import monotonic_ns
from typing import NoReturn

from dagorama.client.connection import expect_broker
from dagorama.context import expect_threads
from dagorama.errors import FunctionNotFound
from dagorama.graph import shipping
from dagorama.serializer import run_only
from dagorama.settings import WorkerOptions
from dagorama.user_code.names import class_name
from dagorama.worker.child import node_logging, signals
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.forks import forget_in_forks, leave
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.child.process_state import note_changes
from dagorama.worker.child.run_loop import Engine
from dagorama.worker.child.threads import follow_threads
from dagorama.worker.failures import bounded
from dagorama.worker.frames import CUT_OFF, ChildMain, FrameReader, Kind, Outcome, pack, pack_outcome
from dagorama.worker.shared_memory import SharedMemory
from dagorama.worker.spool_files import SpoolValues

UNFIT = 2  #: exit code of a child that cannot start
REASON_BYTES = 16 << 10
DEFINITIONS_BYTES = 16 << 10
READ_BYTES = 1 << 20
CARE = 60 * 10**9  #: nanoseconds for which results do not gather after a child has lost its socket


def child_main(options: WorkerOptions, memory: SharedMemory, spool: Path) -> ChildMain:
    """What the nursery forks; called there once."""

    def live(slot: int, connection: socket.socket) -> int:
        _settle()
        expect_broker()  # which has granted what runs here
        node_logging.configure()
        pid = os.getpid()
        reason = _unfit(options)
        if os.getpid() != pid:  # what was imported has forked, and this is not the child
            leave(SystemExit(reason))
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
        self._values = SpoolValues(spool)
        self._executor = Executor(self._outbox, self._values)
        self._engine = Engine(self._executor, memory.slots[slot])
        self._slot = memory.slots[slot]
        self._identity = _identity(connection)
        expect_threads(self._executor.runs)
        forget_in_forks(self)

    def forget(self) -> None:
        """In a fork: the socket and the slot's memory are the child's alone."""
        self._slot.forget()
        if _identity(self._connection) == self._identity:
            self._connection.close()
        else:
            self._connection.detach()  # its number is that of something else by now

    def run(self) -> None:
        """Until the supervisor closes the socket."""
        self._connection.sendall(pack(Kind.READY, bounded("\n".join(_definitions()), DEFINITIONS_BYTES).encode()))
        while (data := self._read()) is not None:
            self._executor.large_from = self._memory.large_from or self._executor.large_from
            for kind, payload in self._reader.feed(data):
                self._take(kind, payload)
            self._engine.careful = self._memory.careful_until > monotonic_ns()
            self._engine.work_off()

    def _read(self) -> bytes | None:
        """What has come; only when nothing has, results go out and it waits."""
        data = self._received(socket.MSG_DONTWAIT)
        if data is None:
            self._engine.flush()
            data = self._received()
        return data or None

    def _received(self, flags: int = 0) -> bytes | None:
        """What has come, b"" once the supervisor has left; None if nothing has and `flags` say not to wait."""
        try:
            return self._connection.recv(READ_BYTES, flags)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""
        except OSError as error:
            self._cut_off(str(error))

    def _take(self, kind: Kind, payload: bytes) -> None:
        if kind == Kind.DEFINE:
            shipping.receive_parcel(pickle.loads(payload))
            self._executor.look_again()
            return
        self._pieces.append(payload)
        if kind == Kind.GRANT:
            body, self._pieces = b"".join(self._pieces), []
            self._engine.add(self._executor.prepare(body))

    def _send(self, kind: Kind, outcome: Outcome) -> None:
        if _identity(self._connection) != self._identity:
            self._cut_off("it was closed")
        try:
            named = outcome._replace(waiting=self._values.take_waiting(outcome.large)) if outcome.large else outcome
            self._connection.sendall(pack_outcome(kind, named))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(1)  # the supervisor is gone: there is nobody left to work for
        except OSError as error:
            self._cut_off(str(error))

    def _cut_off(self, why: str) -> NoReturn:
        """End, as no result can be sent: some code has closed the socket. The node that ran last is blamed for it."""
        self._memory.careful_until = monotonic_ns() + CARE
        last = self._executor.last
        node = f"{last.work.name} (node {last.id.hex()})" if last is not None else "none"
        with suppress(OSError, ValueError):
            print(
                f"worker: child process {os.getpid()} cannot reach its supervisor, because its socket does not work "
                f"({why}); it ends, and its unsent results are lost. The node that ran last: {node}. "
                "A node must not close descriptors that it has not opened.",
                file=sys.stderr,
                flush=True,
            )
        os._exit(CUT_OFF)


def _identity(connection: socket.socket) -> tuple[int, int] | None:
    """What tells an open socket from all others, also if its descriptor was closed and is in use again."""
    try:
        found = os.fstat(connection.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _settle() -> None:
    """Make the process fit for user code: signals are the supervisor's to answer, input is nobody's."""
    signals.settle()
    note_changes()
    follow_threads()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)


def _definitions() -> list[str]:
    """The names of the definitions that were imported or registered by now."""
    return sorted({*shipping.registered, *map(class_name, shipping.definitions)})


def _unfit(options: WorkerOptions) -> str | None:
    """Load what was asked for; why that cannot be done, or None."""
    shipping.become_worker()
    try:
        if options.definitions:
            shipping.receive(pickle.loads(options.definitions))
    except FunctionNotFound as error:
        return str(error)
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
