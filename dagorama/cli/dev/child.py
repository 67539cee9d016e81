"""A child process of `dagorama dev`: its output goes line by line to the console, and it never outlives its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 16
#: Characters of a line that are printed as one.
_LONGEST_LINE = 1 << 16
#: Seconds that the descendants of an ended child get to close its output.
_LAST_OUTPUT = 5.0


class Launch(NamedTuple):
    """How a child is started."""

    arguments: Sequence[str]  #: of Python
    folder: Path
    environment: Mapping[str, str]
    descriptors: Sequence[int] = ()  #: that the child inherits


class Child:
    """A running process. `line` gets what it prints, on stdout and stderr."""

    def __init__(self, process: Process, line: Callable[[str], object]) -> None:
        self._process = process
        self._line = line
        self._reading = asyncio.gather(self._read(process.stdout), self._read(process.stderr))
        self._end = asyncio.ensure_future(self._await_end())

    @classmethod
    async def start(cls, launch: Launch, line: Callable[[str], object]) -> Child:
        """Start a process in a session of its own, so that Ctrl-C in the terminal reaches only `dagorama dev`."""
        # -P: do not import files of the user's folder instead of our modules. The worker adds the folder itself.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", *launch.arguments, cwd=launch.folder, env=dict(launch.environment), stdin=DEVNULL,
            stdout=PIPE, stderr=PIPE, pass_fds=launch.descriptors, start_new_session=True, preexec_fn=_tie_to_parent(),
        )  # fmt: skip
        return cls(process, line)

    async def ended(self) -> int:
        """Wait until it has ended and its output is printed; return its exit code, negative for a signal."""
        return await asyncio.shield(self._end)

    async def _await_end(self) -> int:
        code = await self._process.wait()
        with suppress(TimeoutError):  # a process that a node has left running may hold the output
            await asyncio.wait_for(self._reading, _LAST_OUTPUT)
        return code

    async def stop(self, seconds: float) -> None:
        """Let it end by SIGTERM, or kill it, with the processes that it has started, after some seconds."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.ended(), seconds)
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """Kill it and the processes that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        rest = b""
        while data := await stream.read(_CHUNK):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._line(_text(line))
        if rest:
            self._line(_text(rest))


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def _tie_to_parent() -> Callable[[], None] | None:
    """Return what a child calls before it runs its program: it is told to end when this process dies in any way.

    On systems other than Linux there is no such request: a killed `dagorama dev` leaves its children there.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call took effect
            os._exit(1)

    return tie


def described(code: int) -> str:
    """Return how a child ended, for a sentence."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
