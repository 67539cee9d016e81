"""Pipes that take the place of stdout and stderr in a child, so that the output of C code and of programs is captured.

The supervisor reads them, never the child: code that writes while it holds the GIL would wait forever for a thread of
its own process. A child waits at the end of each node until all was read, so that the supervisor knows whose it is.
"""

import array
import fcntl
import os
import sys
import termios
from collections.abc import Callable
from io import TextIOWrapper
from time import monotonic, sleep
from typing import NamedTuple

#: Seconds that a child waits at the end of a node until its output was read, and between two looks.
DRAIN_TIMEOUT_S, DRAIN_INTERVAL_S = 1.0, 0.0005
STDOUT, STDERR = 1, 2  #: descriptors


class Pipe(NamedTuple):
    """The ends of a pipe."""

    reading: int
    writing: int

    @property
    def unread(self) -> int:
        """The number of bytes that were written and not read yet."""
        found = array.array("i", [0])
        fcntl.ioctl(self.reading, termios.FIONREAD, found)
        return found[0]


class OutputPipes:
    """The pipes of one slot, by the descriptor that each stands for; make them before the first fork."""

    def __init__(self) -> None:
        self.pipes = {descriptor: Pipe(*os.pipe()) for descriptor in (STDOUT, STDERR)}
        for pipe in self.pipes.values():
            os.set_blocking(pipe.reading, False)

    def __del__(self) -> None:
        for pipe in self.pipes.values():
            for end in pipe:
                os.close(end)

    # --- for the child ---

    def take_over(self) -> Callable[[], None]:
        """Let the descriptors 1 and 2 lead to the pipes, and Python's streams to where these led before.

        Return a function that waits until the supervisor has read everything.
        """
        import ctypes

        self._flush_stdio = ctypes.CDLL(None).fflush
        for descriptor, name in ((STDOUT, "stdout"), (STDERR, "stderr")):
            stream = getattr(sys, name)
            if stream is not None:
                stream.flush()
                setattr(sys, name, _stream_on(os.dup(descriptor)))
            os.dup2(self.pipes[descriptor].writing, descriptor)
        return self._drain

    def _drain(self) -> None:
        self._flush_stdio(None)  # all output streams of C
        if not self._has_unread:
            return
        until = monotonic() + DRAIN_TIMEOUT_S
        while self._has_unread and monotonic() < until:
            sleep(DRAIN_INTERVAL_S)

    @property
    def _has_unread(self) -> bool:
        return any(pipe.unread for pipe in self.pipes.values())


def _stream_on(descriptor: int) -> TextIOWrapper:
    """Return a text stream like Python's own ones."""
    return TextIOWrapper(open(descriptor, "wb"), "utf-8", "backslashreplace", line_buffering=True)
