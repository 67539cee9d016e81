"""How a worker's process begins: what is forked is forked first, before anything loads grpc or starts a thread."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

from dagorama.errors import SettingsError
from dagorama.settings import Settings, WorkerOptions
from dagorama.values.signing import keyring
from dagorama.worker.control_pipe import Lines, read_start
from dagorama.worker.frames import ChildMain
from dagorama.worker.shared_memory import SharedMemory
from dagorama.worker.supervisor.fork_server import Nursery
from dagorama.worker.supervisor.spool import remove_folder, spool_folder

UNUSABLE = 2  #: exit code
# Names of parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def run_worker(options: WorkerOptions, parent: Lines | None = None) -> int:
    """Be a worker, with its supervisor in this process; its exit code. For a process that has done nothing else."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is an event loop to answer it
    _keep_freed_memory()
    keyring()  # read once: the children that are forked hold the same keys
    memory = SharedMemory(options.concurrency)
    folder = spool_folder()
    # The nursery is the last to go, also where the supervisor is killed: it removes what they shared.
    nursery = Nursery.start(lambda: _child_main(options, memory, folder), lambda: remove_folder(folder))
    try:
        return _supervise(options, nursery, memory, folder, parent)
    finally:
        nursery.close()


def run_launched(descriptor: int) -> int:
    """Be the supervisor that `launch` has started; return its exit code."""
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    options, sys.path[:] = read_start(connection)
    from dagorama.client.channel import check

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


def _child_main(options: WorkerOptions, memory: SharedMemory, folder: Path) -> ChildMain:
    """The nursery's: its imports go on beside those of the supervisor."""
    from dagorama.worker.child.main import child_main

    return child_main(options, memory, folder)


def _supervise(
    options: WorkerOptions, nursery: Nursery, memory: SharedMemory, folder: Path, parent: Lines | None
) -> int:
    import asyncio

    from dagorama.worker.supervisor.supervisor import Supervisor

    async def supervise() -> int:
        return await Supervisor(options, keyring().ids, nursery, memory, folder, parent).run()

    return asyncio.run(supervise())


def _keep_freed_memory() -> None:
    """Have the C library keep what messages of megabytes leave behind, for the next ones.

    Given back and asked for again, each megabyte is twice as expensive as sending it. Elsewhere than with glibc nothing
    is changed.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 8 << 20)
        mallopt(_M_TRIM_THRESHOLD, 16 << 20)
