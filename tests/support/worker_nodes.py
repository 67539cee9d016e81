"""Functions of nodes, for tests in their own process, in children and in the children of supervisors."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

from dagorama.context import cancelled, current, current_run
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition
from dagorama.errors import RetryLater
from dagorama.retry import StaticRetry

#: for nodes that run in the test's own process
gate = threading.Event()
reached = threading.Event()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("stays here")


class Opaque(Exception):
    """Reading any attribute of it fails, even its class."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


@dataclass
class Box:
    content: object


def odd(depth: int) -> int:
    return even(depth - 1) if depth else 1 // 0


def even(depth: int) -> int:
    return odd(depth - 1) if depth else 1 // 0


class Nodes(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return 0

    @dagorama().syncfn
    def echo(self, value: Any) -> Any:
        return value

    @dagorama().syncfn
    def pid(self) -> int:
        return os.getpid()

    @dagorama().syncfn
    def loaded(self, *names: str) -> list[str]:
        return [name for name in names if name in sys.modules]

    @dagorama().syncfn
    def append(self, values: list[int], value: int) -> list[int]:
        values.append(value)
        return values

    @dagorama().syncfn
    def fail(self, text: str) -> None:
        raise ValueError(text)

    @dagorama().syncfn
    def fail_with(self, kind: str) -> None:
        kinds: dict[str, type[BaseException]] = {
            "unprintable": Unprintable, "unpicklable": Unpicklable, "opaque": Opaque,
            "exit": SystemExit, "ctrl-c": KeyboardInterrupt,
        }  # fmt: skip
        raise kinds[kind]("no luck")

    @dagorama().syncfn
    def recurse(self, depth: int) -> int:
        return odd(depth)

    @dagorama().syncfn
    def thread(self) -> Any:
        return threading.Lock()

    @dagorama().syncfn
    def pair(self) -> Any:
        """Two children, one the argument of the other, and both promised."""
        first = self.echo(1)
        return Box([first, self.append([first], 2), 3])

    @dagorama().syncfn
    def many(self, count: int, size: int) -> Any:
        return [self.echo(bytes(size)) for _ in range(count)]

    @dagorama().syncfn
    def children_then_fail(self) -> None:
        self.echo(1)
        raise ValueError("after all")

    @dagorama().syncfn
    def leak(self, where: list[Any]) -> None:
        leaked.append(self)

    @dagorama().syncfn
    def zeros(self, size: int) -> bytes:
        return bytes(size)

    @dagorama().syncfn
    def length(self, value: bytes) -> int:
        return len(value)

    # --- what runs long ----------------------------------------------------------------------------

    @dagorama().syncfn
    def wait_here(self) -> str:
        """In the test's own process."""
        reached.set()
        while not gate.wait(0.1):  # a signal that comes just before a wait does not end it
            pass
        return "let through"

    @dagorama().syncfn
    def wait_for(self, fifo: str) -> str:
        """Wait until the test writes to the fifo, which is possible only while this runs."""
        with open(fifo) as file:
            return file.read()

    @dagorama().asyncfn
    async def meet(self, name: str, count: int) -> int:
        """Ends when `count` of them run at once in this process."""
        await meetings.setdefault(name, asyncio.Barrier(count)).wait()
        return count

    @dagorama().asyncfn
    async def fail_async(self, text: str) -> None:
        await asyncio.sleep(0)
        raise ValueError(text)

    @dagorama().asyncfn
    async def block_the_loop(self) -> str:
        gate.wait()
        return "let through"

    @dagorama().asyncfn
    async def exit_in_a_task(self) -> str:
        async def leave() -> None:
            sys.exit(3)

        try:
            await asyncio.get_running_loop().create_task(leave())
        except SystemExit:
            return "caught"
        return "not seen"

    @dagorama().syncfn
    def which(self) -> Any:
        return current()

    @dagorama().asyncfn
    async def which_async(self) -> Any:
        await asyncio.sleep(0)
        return current()

    @dagorama().syncfn
    def run_a_loop(self) -> str:
        async def inside() -> str:
            await asyncio.sleep(0)
            return "run"

        return asyncio.run(inside())

    # --- what makes nodes that others see while it runs ---------------------------------------------

    @dagorama(stream_children=True).syncfn
    def make_and_wait(self, count: int) -> Any:
        """In the test's own process."""
        made = [self.echo(number) for number in range(count)]
        reached.set()
        gate.wait()
        return [*made, self.echo("last")]

    @dagorama(stream_children=True).asyncfn
    async def make_and_wait_async(self, count: int) -> Any:
        made = [self.echo(number) for number in range(count)]
        await asyncio.to_thread(gate.wait)
        return made

    @dagorama(stream_children=True).syncfn
    def make_an_instance_and_wait(self) -> Any:
        _, promise = Counting(1)(2)
        gate.wait()
        return promise

    @dagorama(stream_children=True).syncfn
    def make_and_fail(self, count: int) -> None:
        for number in range(count):
            self.echo(number)
        raise ValueError("after all")

    # --- what asks about its run -------------------------------------------------------------------

    @dagorama().syncfn
    def number_of_run(self) -> int | None:
        run = current_run.get()
        return None if run is None else run.number

    @dagorama(retry=StaticRetry(3, 1, give_up_on=(KeyError,))).syncfn
    def fail_under_a_policy(self, kind: str) -> None:
        errors = {"given up on": KeyError(), "retried": ValueError(), "later": RetryLater(2.5)}
        raise errors.get(kind) or RetryLater(2.5, pause_key=True)

    @dagorama().syncfn
    def later_without_a_policy(self, kind: str) -> None:
        raise RetryLater(2.5)

    @dagorama().syncfn
    def until_cancelled(self) -> str:
        """In the test's own process."""
        reached.set()
        while not cancelled():
            gate.wait(0.001)
        return "cancelled"

    @dagorama().asyncfn
    async def until_cancelled_async(self) -> None:
        reached.set()
        await asyncio.Event().wait()

    # --- what ends its process ---------------------------------------------------------------------

    @dagorama().syncfn
    def exit_at_once(self, code: int) -> None:
        os._exit(code)

    @dagorama().syncfn
    def kill_itself(self, number: int) -> None:
        os.kill(os.getpid(), number)

    @dagorama().syncfn
    def signals_of_what_it_starts(self) -> list[int]:
        """How a program and a fork, started here, end when they are told to."""
        program = subprocess.Popen(["sleep", "1000"])
        program.terminate()
        pid = os.fork()
        if not pid:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        return [program.wait(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


class Counting(DAGDefinition):
    def __init__(self, start: int) -> None:
        self.start = start

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.start + number


meetings: dict[str, asyncio.Barrier] = {}
leaked: list[Any] = []
