"""A child process: it runs user code, reads grants from its socket and writes outcomes to it.

It does not load grpc. The memory that it shares with the supervisor tells which nodes it is running.
"""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from select import POLLIN, poll
from time import monotonic_ns
from typing import NoReturn

from dagorama.client.connection import expect_broker
from dagorama.context import expect_threads
from dagorama.errors import FunctionNotFound
from dagorama.graph import shipping
from dagorama.serializer import run_only
from dagorama.settings import WorkerOptions, captures_logs, traces
from dagorama.user_code.names import class_name
from dagorama.worker.child import capture, node_logging, signals
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.forks import forget_in_forks, leave
from dagorama.worker.child.live_logs import LiveLogs
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.child.process_state import note_changes
from dagorama.worker.child.run_loop import RunLoop
from dagorama.worker.child.threads import follow_threads
from dagorama.worker.failures import truncate
from dagorama.worker.frames import CUT_OFF, ChildMain, FrameReader, Kind, Outcome, pack, pack_outcome, unpack_attempt
from dagorama.worker.shared_memory import SharedMemory
from dagorama.worker.spool_files import SpoolValues

UNFIT = 2  #: exit code of a child that cannot start
REASON_BYTES = 16 << 10
DEFINITIONS_BYTES = 16 << 10
READ_BYTES = 1 << 20
IDLE_S = 1.0  #: seconds without a node after which the values of the last one are forgotten
CAREFUL_TIME_NS = 60 * 10**9  #: time after a broken socket during which results are sent one by one


def child_main(options: WorkerOptions, memory: SharedMemory, spool: Path) -> ChildMain:
    """Return the main function of a child. The fork server calls this once, and forks the children afterwards."""

    def live(slot: int, connection: socket.socket) -> int:
        _settle()
        memory.slots[slot].dump.install()
        output = memory.slots[slot].output
        drain = None if output is None else output.take_over()
        expect_broker()  # it granted the nodes that run here
        node_logging.configure()
        if captures_logs():
            capture.install(has_pipes=output is not None)
        pid = os.getpid()
        reason = _unfit(options)
        if os.getpid() != pid:  # an imported module has forked, and this is the fork
            leave(SystemExit(reason))
        with suppress(BrokenPipeError, ConnectionResetError):  # the supervisor has exited
            if reason is not None:
                connection.sendall(pack(Kind.UNFIT, truncate(reason, REASON_BYTES).encode()))
                return UNFIT
            _Child(slot, connection, memory, spool).run(drain)
        atexit._run_exitfuncs()
        return 0

    return live


class _Child:
    """Connects the socket of a child with its run loop."""

    def __init__(self, slot: int, connection: socket.socket, memory: SharedMemory, spool: Path) -> None:
        self._connection = connection
        self._memory = memory
        self._reader = FrameReader()
        self._pieces: list[bytes] = []
        self._outbox = Outbox(self._send)
        self._values = SpoolValues(spool)
        self._executor = _executor(self._outbox, self._values)
        if memory.run_times:
            self._executor.run_times = memory.run_times[slot]
        self._engine = RunLoop(self._executor, memory.slots[slot])
        self._slot = memory.slots[slot]
        self._identity = _identity(connection)
        expect_threads(self._executor.runs)
        forget_in_forks(self)

    def forget(self) -> None:
        """In a fork, give up the socket and the memory of the slot: only the child may use them."""
        self._slot.forget()
        if _identity(self._connection) == self._identity:
            self._connection.close()
        else:
            self._connection.detach()  # its descriptor refers to another file by now

    def run(self, drain: Callable[[], None] | None) -> None:
        """Run nodes until the supervisor closes the socket. Call `drain` at the end of each."""
        self._executor.drain = drain
        self._connection.sendall(pack(Kind.READY, truncate("\n".join(_definitions()), DEFINITIONS_BYTES).encode()))
        while (data := self._read()) is not None:
            self._executor.large_from = self._memory.large_from or self._executor.large_from
            for kind, payload in self._reader.feed(data):
                self._take(kind, payload)
            self._engine.careful = self._memory.careful_until > monotonic_ns()
            self._engine.work_off()

    def _read(self) -> bytes | None:
        """Return received bytes; None if the supervisor has exited. Before it has to wait, send all results."""
        data = self._received(socket.MSG_DONTWAIT)
        if data is None:
            self._engine.flush()
            if self._executor.large.kept and not self._has_data(IDLE_S):
                self._executor.large.forget()
            data = self._received()
        return data or None

    def _received(self, flags: int = 0) -> bytes | None:
        """Return received bytes, b"" if the supervisor has exited, or None if the call would have to wait."""
        try:
            return self._connection.recv(READ_BYTES, flags)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""
        except OSError as error:
            self._cut_off(str(error))

    def _has_data(self, seconds: float) -> bool:
        """Wait until the supervisor has sent something or has exited; return whether that was in time."""
        waiting = poll()
        waiting.register(self._connection, POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def _take(self, kind: Kind, payload: bytes) -> None:
        if kind == Kind.DEFINE:
            shipping.receive_parcel(pickle.loads(payload))
            self._executor.look_again()
            return
        if kind == Kind.STACK:
            self._outbox.stack(self._engine.queue.stack_of(unpack_attempt(payload)))
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
            os._exit(1)  # the supervisor has exited, so there is nothing left to do
        except OSError as error:
            self._cut_off(str(error))

    def _cut_off(self, why: str) -> NoReturn:
        """Exit because no result can be sent: user code has closed the socket, probably the node that ran last."""
        self._memory.careful_until = monotonic_ns() + CAREFUL_TIME_NS
        last = self._executor.last
        node = f"{last.work.name} (node {last.id.hex()})" if last is not None else "none"
        with suppress(OSError, ValueError):
            print(
                f"worker: child process {os.getpid()} cannot reach its supervisor, because its socket is broken "
                f"({why}); it exits, and its unsent results are lost. The last node was: {node}. "
                "A node must not close file descriptors that it did not open.",
                file=sys.__stderr__,  # not the log of a node, which cannot be sent
                flush=True,
            )
        os._exit(CUT_OFF)


def _executor(outbox: Outbox, values: SpoolValues) -> Executor:
    open_log = LiveLogs(outbox).open
    if not traces():
        return Executor(outbox, values, open_log)
    from dagorama.worker.child.traced import TracedExecutor, name_spans_in_logs

    name_spans_in_logs()
    return TracedExecutor(outbox, values, open_log)


def _identity(connection: socket.socket) -> tuple[int, int] | None:
    """Return an identity of an open socket that changes if its descriptor is closed and used again; None if closed."""
    try:
        found = os.fstat(connection.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _settle() -> None:
    """Prepare the process for user code: ignore signals, which the supervisor handles, and make stdin empty."""
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
    """Return the names of the definitions that are imported or registered so far."""
    return sorted({*shipping.registered, *map(class_name, shipping.definitions)})


def _unfit(options: WorkerOptions) -> str | None:
    """Load the requested definitions and modules. Return why that is impossible, or None."""
    shipping.become_worker()
    try:
        if options.definitions:
            shipping.receive(pickle.loads(options.definitions))
    except FunctionNotFound as error:
        return str(error)
    except BaseException as error:
        return f"cannot read the definitions sent by the launching process ({type(error).__name__}: {error})"
    for name in options.imports:
        try:
            import_module(name)
        except BaseException as error:
            return f"--import {name}: it cannot be imported ({type(error).__name__}: {error})"
    if options.only_imported:
        run_only(options.imports)
    return None
