"""A file into which a child writes its stacks: when the supervisor signals it, and when it dies of a fatal signal.

The module faulthandler writes in the signal handler itself, so that a child which is busy in C code, or holds the GIL,
does so too. Nothing is paid before. The file has no name, and exists as long as both processes.
"""

import faulthandler
import fcntl
import os
import signal
from tempfile import TemporaryFile

#: Sent to a child to make it write its stacks; no program that we know of uses it.
STACK_SIGNAL = signal.SIGRTMIN + 11 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
#: Bytes of stacks that are read.
MOST_BYTES = 256 << 10


def _unnamed_file() -> int:
    """Return the descriptor of a new file, in memory if the system can do that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("dagorama-stacks")
    with TemporaryFile() as file:
        return os.dup(file.fileno())


class DumpFile:
    """The file of one slot; make it before the first fork."""

    def __init__(self) -> None:
        self.coroutine: str | None = None  #: for the supervisor: the stack of an async node, as its child has sent it
        self._file = _unnamed_file()
        # Both processes share its offset. With this flag each write goes to the end, also after `clear`.
        fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) | os.O_APPEND)

    def __del__(self) -> None:
        os.close(self._file)

    # --- for the child ---

    def install(self) -> None:
        """Write the stacks of all threads into the file on STACK_SIGNAL, and when the process dies."""
        faulthandler.register(STACK_SIGNAL, file=self._file, all_threads=True)
        if not faulthandler.is_enabled():  # otherwise PYTHONFAULTHANDLER is set, and stderr gets them
            faulthandler.enable(self._file)

    # --- for the supervisor ---

    def clear(self) -> None:
        """Forget what was written."""
        self.coroutine = None
        os.ftruncate(self._file, 0)

    @property
    def size(self) -> int:
        """The number of bytes that were written since `clear`."""
        return os.fstat(self._file).st_size

    def read(self) -> str:
        """Return what was written since `clear`."""
        return os.pread(self._file, MOST_BYTES, 0).decode("utf-8", "backslashreplace")
