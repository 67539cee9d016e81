"""Nodes that hang, are cancelled, fail, die, and run within limits. Workers import this module: it imports little."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from inspect import iscoroutine
from pathlib import Path
from typing import Any

from dagorama import (
    DAGDefinition,
    Failure,
    RetryLater,
    StaticRetry,
    cancelled,
    dagorama,
    outcome,
)
from dagorama.context import current_run
from tests.support.starting import forever, note

WAIT = 30  #: seconds after which something that should happen is taken not to
HANGS = 1.0  #: seconds; a loaded machine takes a part of them to import the function
AGAIN = StaticRetry(max_attempts=2, interval=0)


def run_number() -> int:
    run = current_run.get()
    assert run is not None
    return run.number


class Chosen(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, method: str, *args: Any) -> Any:
        promise = getattr(self, method)(*args)
        return await promise if iscoroutine(promise) else promise


class Hanging(Chosen):
    @dagorama(timeout=HANGS, retry=AGAIN).syncfn
    def hang(self, notes: str) -> int:
        note(notes, str(os.getpid()))
        forever()
        return 0

    # Long enough for the run that follows, whose new process has to import this first.
    @dagorama(timeout=2 * HANGS, retry=AGAIN).syncfn
    def hang_once(self) -> int:
        if run_number() == 1:
            forever()
        return run_number()

    @dagorama(timeout=HANGS, retry=StaticRetry(3, 0, give_up_on=(TimeoutError,))).syncfn
    def hang_for_good(self) -> None:
        forever()

    @dagorama(timeout=HANGS).asyncfn
    async def hang_async(self, notes: str) -> int:
        note(notes, str(os.getpid()))
        await asyncio.Event().wait()
        return 0

    @dagorama(timeout=HANGS).asyncfn
    async def swallow(self) -> int:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return 1

    @dagorama(timeout=HANGS).asyncfn
    async def block_the_loop(self) -> int:
        forever()
        return 0

    @dagorama(timeout=WAIT).syncfn
    def quick(self) -> int:
        return os.getpid()


class Beside(DAGDefinition):
    """Nodes that share the process of one that is stopped."""

    @dagorama().syncfn
    def entrypoint(self, notes: str) -> Any:
        return self.both(outcome(self.hang()), [self.stay(notes, number) for number in range(3)])

    @dagorama(timeout=HANGS).syncfn
    def hang(self) -> int:
        forever()
        return 0

    @dagorama().syncfn
    def stay(self, notes: str, number: int) -> int:
        note(notes, str(run_number()))
        return number

    @dagorama().syncfn
    def both(self, hung: int | Failure, others: list[int]) -> tuple[str, list[int]]:
        assert isinstance(hung, Failure)
        return hung.type, others


class Long(Chosen):
    @dagorama().syncfn
    def listen(self, line: str) -> None:
        Path(line).write_text("runs")
        while not cancelled():
            time.sleep(0.001)
        Path(line).write_text("heard of it")

    @dagorama().syncfn
    def ignore(self, line: str) -> None:
        with open(line, "wb", buffering=0) as file:
            file.write(b"runs")
            forever()

    @dagorama().asyncfn
    async def wait(self, line: str) -> None:
        Path(line).write_text("runs")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            Path(line).write_text(f"told, {cancelled()}")
            raise

    @dagorama().syncfn
    def pid(self, line: str) -> int:
        return os.getpid()

    @dagorama().syncfn
    def write(self, line: str) -> None:
        Path(line).write_text("ran")


class Flaky(Exception): ...


class Broken(Exception): ...


class Retried(Chosen):
    @dagorama(retry=StaticRetry(3, 0, retry_on=(Flaky,))).syncfn
    def some(self, kind: str, notes: str) -> int:
        return fail_with(kind, notes)

    @dagorama(retry=StaticRetry(3, 0, give_up_on=(Broken,))).asyncfn
    async def others(self, kind: str, notes: str) -> int:
        return fail_with(kind, notes)

    @dagorama(retry=StaticRetry(3, 3600, give_up_on=(Exception,))).syncfn
    def later(self, kind: str, notes: str) -> int:
        if run_number() < 3:
            raise RetryLater(0)
        return run_number()


def fail_with(kind: str, notes: str) -> int:
    note(notes, str(run_number()))
    raise {"flaky": Flaky, "broken": Broken}[kind](kind)


class Fan(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, numbers: list[int]) -> Any:
        return self.rollup([outcome(self.invert(number)) for number in numbers])

    @dagorama().syncfn
    def invert(self, number: int) -> float:
        return 1 / number

    @dagorama().syncfn
    def rollup(self, parts: list[float | Failure]) -> tuple[float, list[str]]:
        failures = [part for part in parts if isinstance(part, Failure)]
        return sum(part for part in parts if not isinstance(part, Failure)), [str(each) for each in failures]


class Limited(Chosen):
    @dagorama(max_deaths=1).syncfn
    def die(self, notes: str) -> None:
        note(notes, "died")
        os.kill(os.getpid(), signal.SIGKILL)

    @dagorama().syncfn
    def crowd(self, notes: str) -> Any:
        return self.gathered([self.one_of_two(notes, number) for number in range(12)])

    @dagorama(max_concurrency=2).syncfn
    def one_of_two(self, notes: str, number: int) -> int:
        note(notes, "+1")
        time.sleep(0.01)  # so that the others have a chance to be wrong
        note(notes, "-1")
        return number

    @dagorama().syncfn
    def in_order(self, notes: str) -> Any:
        mixed = [self.low(notes), self.ordinary(notes), self.high(notes)]
        return self.gathered([*mixed, self.low(notes), self.high(notes)])

    @dagorama(priority=-1).syncfn
    def low(self, notes: str) -> int:
        note(notes, "low")
        return 0

    @dagorama().syncfn
    def ordinary(self, notes: str) -> int:
        note(notes, "ordinary")
        return 0

    @dagorama(priority=5).syncfn
    def high(self, notes: str) -> int:
        note(notes, "high")
        return 0

    @dagorama(delay=HANGS).syncfn
    def delayed(self, notes: str) -> float:
        return time.monotonic()

    @dagorama(taint_name="NOBODY-HAS-THIS", queue_timeout=HANGS).syncfn
    def unwanted(self, notes: str) -> None: ...

    @dagorama().syncfn
    def gathered(self, values: list[int]) -> int:
        return len(values)
