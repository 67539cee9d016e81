"""Locks between a supervisor and its children, one for each slot, also on systems without POSIX semaphores.

The rule: a lock that was held by a killed process can be had again, at the latest after `SharedMemory.reset`.
"""

import fcntl
import threading
from contextlib import suppress
from multiprocessing import get_context
from tempfile import TemporaryFile
from typing import IO, Protocol


class Lock(Protocol):
    def acquire(self, block: bool = True) -> bool: ...

    def release(self) -> None: ...


class FileLock:
    """One byte of a file that is open in all processes. The system lets go of it when its holder ends.

    The system's lock is between processes; beside it there is one between the threads of each.
    """

    def __init__(self, file: IO[bytes], place: int) -> None:
        self._file = file
        self._place = place
        self._threads = threading.Lock()

    def acquire(self, block: bool = True) -> bool:
        if not self._threads.acquire(block):
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB), 1, self._place)
        except (BlockingIOError, PermissionError):  # another process holds it
            self._threads.release()
            return False
        return True

    def release(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._place)
        with suppress(RuntimeError):  # `reset` releases what it may not have got
            self._threads.release()


def make_locks(count: int) -> list[Lock]:
    """Made before the first fork. Raises OSError if the system has neither semaphores nor room for a file."""
    try:
        context = get_context("fork")
        return [context.Lock() for _ in range(count)]
    except (ImportError, OSError):  # no /dev/shm, as in some containers and on AWS Lambda
        file = TemporaryFile()  # noqa: SIM115 - as long as the locks
        return [FileLock(file, place) for place in range(count)]
