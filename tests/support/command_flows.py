"""Definitions that the tests of commands run."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Literal

from dagorama import DAGDefinition, dagorama


class Shapes(DAGDefinition):
    """Every third number fails."""

    @dagorama().syncfn
    def entrypoint(self, count: int) -> int:
        return self.total([self.measure(number) for number in range(count)])

    @dagorama().syncfn
    def measure(self, number: int) -> int:
        if number % 3 == 2:
            raise ValueError(f"bad number {number}")
        return number * number

    @dagorama().syncfn
    def total(self, areas: list[int]) -> int:
        return sum(areas)


class Recursive(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, depth: int) -> int:
        return self.deeper(depth)

    @dagorama().syncfn
    def deeper(self, depth: int) -> int:
        return self.add(self.deeper(depth - 1), 1) if depth else 0

    @dagorama().syncfn
    def add(self, number: int, other: int) -> int:
        return number + other


class Large(DAGDefinition):
    """Takes the large value of a source, and fails."""

    @dagorama().syncfn
    def entrypoint(self, size: int) -> int:
        return self.use(self.made(size), label="a label")

    @dagorama().syncfn
    def made(self, size: int) -> bytes:
        return b"x" * size

    @dagorama().syncfn
    def use(self, content: bytes, label: str) -> int:
        length = len(content)
        self.made(length)
        raise RuntimeError(f"{label}: {length}")


class Chained(DAGDefinition):
    """Its second node takes the value of the first one, which fails."""

    def entrypoint(self) -> int:
        return self.second(self.first())

    @dagorama().syncfn
    def first(self) -> int:
        raise ValueError("no value")

    @dagorama().syncfn
    def second(self, number: int) -> int:
        return number


class Refused(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        pair = (1, Lock())
        return self.count(pair)  # dagorama: ignore[DAG009]

    @dagorama
    def count(self, pair: tuple[int, object]) -> int:
        return len(pair)


class Awaiting(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        doubled = number * 2
        raise KeyError(doubled)


class Typed(DAGDefinition):
    """Returns what it was given."""

    @dagorama().syncfn
    def entrypoint(
        self,
        number: float,
        yes: bool,
        path: Path,
        items: list[int],
        kind: Literal["a", "b"] = "a",
        maybe: int | None = None,
        *,
        label: str = "",
    ) -> list[object]:
        return [number, yes, path, items, kind, maybe, label]


class Plain(DAGDefinition):
    """Its entry point is not decorated, so it runs in the client."""

    def entrypoint(self, number: int) -> list[int]:
        if number < 0:
            raise ValueError("too small")
        return [self.same(each) for each in range(number)]

    @dagorama().syncfn
    def same(self, number: int) -> int:
        return number


class Configured(DAGDefinition):
    """Needs an argument to be constructed."""

    def __init__(self, name: str) -> None:
        self.name = name

    @dagorama().syncfn
    def entrypoint(self) -> str:
        return self.name


NOT_A_DEFINITION = 1
