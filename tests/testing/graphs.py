"""Graphs that the tests of the testing kit run."""

from __future__ import annotations

import asyncio

from dagorama import DAGDefinition, ExponentialRetry, Rate, StaticRetry, dagorama, outcome
from dagorama.models.failure import Failure

HOURS = 3_600.0


class Shapes(DAGDefinition):
    @dagorama
    def entrypoint(self, count: int) -> int:
        return self.total([self.square(number) for number in range(count)])

    @dagorama(taint_name="GPU", retry=StaticRetry(max_attempts=4, interval=60))
    def square(self, number: int) -> int:
        return number * number

    @dagorama
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class AsyncShapes(DAGDefinition):
    @dagorama
    async def entrypoint(self, count: int) -> int:
        return await self.total([await self.square(number) for number in range(count)])

    @dagorama
    async def square(self, number: int) -> int:
        await asyncio.sleep(0)
        return number * number

    @dagorama
    async def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class Patient(DAGDefinition):
    """A node that fails each time, with two hours between its attempts."""

    @dagorama
    def entrypoint(self, number: int) -> int:
        return self.divide(number)

    @dagorama(retry=StaticRetry(max_attempts=3, interval=2 * HOURS))
    def divide(self, number: int) -> int:
        raise ZeroDivisionError(f"{number} by nothing")


class Growing(DAGDefinition):
    """Pauses of two, four and eight seconds."""

    @dagorama(retry=ExponentialRetry(max_attempts=4, base_interval=2))
    def entrypoint(self) -> int:
        return 7


class Lenient(DAGDefinition):
    @dagorama
    def entrypoint(self) -> str:
        return self.told(outcome(self.broken()))

    @dagorama
    def broken(self) -> int:
        raise KeyError("nothing here")

    @dagorama
    def told(self, found: int | Failure) -> str:
        return found.type if isinstance(found, Failure) else "fine"


class Late(DAGDefinition):
    @dagorama
    def entrypoint(self) -> str:
        return self.later()

    @dagorama(delay=HOURS)
    def later(self) -> str:
        return "now"


class Hurried(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        return self.rendered()

    @dagorama(queue_name="render", taint_name="GPU", queue_timeout=600)
    def rendered(self) -> int:
        return 1


class Steps(DAGDefinition):
    """A chain: each step is a node that needs the one before."""

    @dagorama
    def entrypoint(self, count: int) -> int:
        value = self.step(0)
        for _ in range(count - 1):
            value = self.step(value)
        return value

    @dagorama
    def step(self, before: int) -> int:
        return before + 1


class Polite(DAGDefinition):
    @dagorama
    def entrypoint(self, calls: int) -> list[int]:
        return [self.call(number) for number in range(calls)]

    @dagorama(rate=Rate(3, per=HOURS))
    def call(self, number: int) -> int:
        return number
