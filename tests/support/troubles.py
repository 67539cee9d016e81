"""Graphs that need something of their workers: to be several, to bear what user code does, to know a definition."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from dagorama import DAGDefinition, dagorama

PATIENCE = 30.0  #: seconds after which nodes that should meet are assumed not to


def meet(folder: str, name: str, count: int) -> str:
    """Return when `count` nodes of different names are here at once."""
    Path(folder, name).touch()
    until = time.monotonic() + PATIENCE
    while len(list(Path(folder).iterdir())) < count:
        if time.monotonic() > until:
            raise TimeoutError(f"{name} was here without the others")
        time.sleep(0.01)
    return name


class FastThenSlow(DAGDefinition):
    """1,000 fast nodes and then four that end only when all four run."""

    @dagorama().syncfn
    def entrypoint(self, folder: str) -> list[str]:
        fast = [self.fast(number) for number in range(1000)]
        slow = [self.slow(folder, str(number)) for number in range(4)]
        return self.names(fast, slow)

    @dagorama().syncfn
    def fast(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def slow(self, folder: str, name: str) -> str:
        return meet(folder, name, 4)

    @dagorama().syncfn
    def names(self, fast: list[int], slow: list[str]) -> list[str]:
        assert fast == list(range(1000))
        return slow


class LateChildren(DAGDefinition):
    """One node runs for a while, alone, and then makes two that need a worker each."""

    @dagorama().syncfn
    def entrypoint(self, fifo: str, folder: str) -> Any:
        with open(fifo) as file:
            file.read()
        return self.both([self.child(folder, name) for name in ("a", "b")])

    @dagorama().syncfn
    def child(self, folder: str, name: str) -> str:
        return meet(folder, name, 2)

    @dagorama().syncfn
    def both(self, names: list[str]) -> list[str]:
        return names


class Gated(DAGDefinition):
    """One node that says in a file where it runs, and ends when there is a gate."""

    @dagorama().syncfn
    def entrypoint(self, folder: str, gate: str) -> int:
        Path(folder, str(os.getpid())).touch()
        until = time.monotonic() + PATIENCE
        while not Path(gate).exists():
            if time.monotonic() > until:
                raise TimeoutError("the gate was not opened")
            time.sleep(0.01)
        return os.getpid()


class Troubles(DAGDefinition):
    """User code that does harm to the process that runs it."""

    @dagorama().syncfn
    def entrypoint(self, what: str) -> Any:
        return {
            "exit": self.exit,
            "ctrl-c": self.interrupt,
            "unpicklable": self.unpicklable,
            "unreadable": self.unreadable,
            "surrogates": self.surrogates,
            "exits at once": self.killer,
            "segfault": self.segfault,
            "out of memory": self.out_of_memory,
            "none": self.fine,
        }[what]()

    @dagorama().syncfn
    def exit(self) -> NoReturn:
        sys.exit(3)

    @dagorama().syncfn
    def interrupt(self) -> NoReturn:
        raise KeyboardInterrupt

    @dagorama().syncfn
    def unpicklable(self) -> Any:
        return {"inside": [threading.Lock()]}

    @dagorama().syncfn
    def unreadable(self) -> Any:
        return self.consume(self.rotten())

    @dagorama().syncfn
    def rotten(self) -> Any:
        return Rotten()

    @dagorama().syncfn
    def consume(self, value: Any) -> str:
        return "consumed"

    @dagorama().syncfn
    def surrogates(self) -> NoReturn:
        raise ValueError("bad \udcff and \0")

    @dagorama().syncfn
    def killer(self) -> NoReturn:
        os._exit(9)

    @dagorama().syncfn
    def segfault(self) -> None:
        ctypes.string_at(0)

    @dagorama().syncfn
    def out_of_memory(self) -> None:
        """Do the same as the kernel without memory; waiting for the kernel would take the whole machine along."""
        os.kill(os.getpid(), signal.SIGKILL)

    @dagorama().syncfn
    def fine(self) -> int:
        return os.getpid()


class Loops(DAGDefinition):
    """Event loops in unexpected places, and none in expected ones."""

    @dagorama().asyncfn
    async def entrypoint(self) -> list[str]:
        return self.pair(self.sync_with_a_loop(), await self.async_that_blocks())

    @dagorama().syncfn
    def sync_with_a_loop(self) -> str:
        async def inside() -> str:
            await asyncio.sleep(0)
            return "looped"

        return asyncio.run(inside())

    @dagorama().asyncfn
    async def async_that_blocks(self) -> str:
        time.sleep(0.1)
        return "blocked"

    @dagorama().syncfn
    def pair(self, one: str, other: str) -> list[str]:
        return [one, other]


class Rotten:
    """Pickled, it cannot be read."""

    def __reduce__(self) -> Any:
        return rot, ()


def rot() -> NoReturn:
    raise RuntimeError("rotten inside")


class Adding(DAGDefinition):
    """Is constructed with an argument."""

    def __init__(self, start: int) -> None:
        self.start = start

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.start + number


class Locking(DAGDefinition):
    """Is constructed with something that cannot be pickled."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        with self.lock:
            return number + 1
