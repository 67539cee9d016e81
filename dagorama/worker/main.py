"""The start of a worker's process: fork the fork server before anything loads grpc or starts a thread."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

from dagorama.errors import BrokerUnavailable, SettingsError
from dagorama.settings import Settings, WorkerOptions, broker_wait, captured_log_level, captures_logs
from dagorama.values.signing import keyring
from dagorama.worker.control_pipe import ControlPipe, read_start
from dagorama.worker.frames import ChildMain
from dagorama.worker.shared_memory import SharedMemory
from dagorama.worker.supervisor.fork_server import ForkServer
from dagorama.worker.supervisor.spool import remove_folder, spool_folder
from dagorama_monitoring.documentation import with_address
from dagorama_monitoring.process.resource_limits import RAISE_FILES, raised_open_files, refusal_of_address_space

UNUSABLE = 2  #: exit code
#: Descriptors that the processes of a worker need for themselves, and for each slot: pipes, locks, and sockets.
_OPEN_FILES, _FILES_OF_A_SLOT = 128, 10
#: Descriptors that a worker, each slot, and each slot with captured output have open all the time.
_LEAST_FILES, _LEAST_OF_A_SLOT, _LEAST_OF_OUTPUT = 32, 4, 4
# Names of parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def run_worker(options: WorkerOptions, parent: ControlPipe | None = None) -> int:
    """Run a worker, with its supervisor in this process, and return its exit code. Call it in a fresh process only."""
    if refusal := refusal_of_address_space("a worker"):
        raise SettingsError(refusal)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the event loop handles it
    _keep_freed_memory()
    keyring()  # read the keys once, so that all forked children have the same ones
    counts_runs = options.metrics_port is not None or options.lifetime is not None
    _open_enough_files(options)
    memory = SharedMemory(options.concurrency, captures_output=options.captures_output, counts_runs=counts_runs)
    folder = spool_folder()
    # The fork server exits last, even if the supervisor is killed, so it removes the folder, unless it is killed too.
    fork_server = ForkServer.start(lambda: _child_main(options, memory, folder), lambda: remove_folder(folder))
    try:
        return _supervise(options, fork_server, memory, folder, parent)
    finally:
        fork_server.close()
        remove_folder(folder)


def run_launched(descriptor: int) -> int:
    """Run the supervisor that `launch` has started, and return its exit code."""
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    options, sys.path[:] = read_start(connection)
    from dagorama.client.channel import check

    lines = ControlPipe(connection)
    try:
        check(Settings.from_env())
        broker_wait()
        captures_logs()
        captured_log_level()
        return run_worker(options, lines)
    except SettingsError as error:
        print(f"worker: {with_address(error)}", file=sys.stderr, flush=True)
        lines.say("failed", error)
        return UNUSABLE
    except Exception as error:
        lines.say("failed", f"{type(error).__name__}: {error}")
        raise


def _child_main(options: WorkerOptions, memory: SharedMemory, folder: Path) -> ChildMain:
    """Return the main function of children. The fork server calls this while the supervisor does its own imports."""
    from dagorama.worker.child.main import child_main

    return child_main(options, memory, folder)


def _supervise(
    options: WorkerOptions, fork_server: ForkServer, memory: SharedMemory, folder: Path, parent: ControlPipe | None
) -> int:
    import asyncio

    from dagorama.client.channel import quieten_grpc

    quieten_grpc()  # before the modules below import it
    from dagorama.worker.supervisor.child_pool import FAILED
    from dagorama.worker.supervisor.monitoring import CannotListen, monitored
    from dagorama.worker.supervisor.notices import complain
    from dagorama.worker.supervisor.supervisor import Supervisor

    async def supervise() -> int:
        supervisor = Supervisor(options, keyring().ids, fork_server, memory, folder, parent)
        async with monitored(options, supervisor):
            return await supervisor.run()

    try:
        return asyncio.run(supervise())
    except (CannotListen, BrokerUnavailable) as error:  # BrokerUnavailable: none of several hosts can be looked up
        complain(with_address(error))
        if parent is not None:
            parent.say("failed", error)
        return UNUSABLE if isinstance(error, CannotListen) else FAILED


def _open_enough_files(options: WorkerOptions) -> None:
    """Raise the soft limit of open files as far as a worker needs it and the hard limit allows.

    Raises SettingsError if it may not open the files that it has open all the time: gRPC would end it somewhere.
    """
    slots, of_a_slot = options.concurrency, _LEAST_OF_A_SLOT + (_LEAST_OF_OUTPUT if options.captures_output else 0)
    limit, needed = raised_open_files(_OPEN_FILES + slots * _FILES_OF_A_SLOT), _LEAST_FILES + slots * of_a_slot
    if limit < needed:
        raise SettingsError(
            f"this process may have {limit} open files, and a worker with --concurrency {slots} needs {needed}:"
            f" {RAISE_FILES}"
        )


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of freed messages, for the next messages.

    Returning a megabyte to the system and requesting it again costs twice as much as sending it. Without glibc this
    changes nothing.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 8 << 20)
        mallopt(_M_TRIM_THRESHOLD, 16 << 20)
