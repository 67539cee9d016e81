"""Definitions that are constructed with arguments, for workers of another process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from dagorama import DAGDefinition, dagorama


class Scaling(DAGDefinition):
    constructed = 0

    def __init__(self, factor: int = 1, *, offset: int = 0) -> None:
        type(self).constructed += 1
        self.factor, self.offset = factor, offset

    @dagorama().syncfn
    def entrypoint(self, numbers: list[int]) -> int:
        return self.total([self.scaled(number) for number in numbers])

    @dagorama().syncfn
    def scaled(self, number: int) -> int:
        return number * self.factor + self.offset

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


@dataclass
class Configured(DAGDefinition):
    name: str
    weights: dict[str, float] = field(default_factory=dict)
    blob: bytes = b""

    @dagorama().syncfn
    def entrypoint(self) -> tuple[str, float, int]:
        return self.name, sum(self.weights.values()), len(self.blob)


class Outer(DAGDefinition):
    """Makes an instance of another definition, constructed with a value of this one's."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return cast(int, Scaling(self.factor, offset=1)([number])[1])


class Breaking(DAGDefinition):
    may_be_made = False

    def __init__(self, number: int) -> None:
        if not self.may_be_made:
            raise ZeroDivisionError(number)

    @dagorama().syncfn
    def entrypoint(self) -> None: ...


class Collecting(DAGDefinition):
    def __init__(self) -> None:
        self.items: list[int] = []

    @dagorama().syncfn
    def entrypoint(self) -> int:
        return sum(self.items)


class Made(DAGDefinition):
    """Has a `__new__` of its own."""

    number: int

    def __new__(cls, number: int, *more: int, **named: int) -> Made:
        made = super().__new__(cls)
        made.number = number + sum(more) + sum(named.values())
        return made

    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.number


@dataclass(frozen=True)
class Frozen(DAGDefinition):
    number: int

    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.number
