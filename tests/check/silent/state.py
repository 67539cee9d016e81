"""Attributes of `self` that stay in one run, and state of other objects."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class Constructed(Nodes):
    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.scaled(number)

    @dagorama().syncfn
    def scaled(self, number: int) -> int:
        return number * self.factor


class UsedInTheSameRun(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        self.prefix = "size"
        return self.shown(number)

    def shown(self, number: int) -> str:
        return f"{self.prefix} {number}"


class LoadedOnce(Nodes):
    model: Any = None

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.classified(number)

    @dagorama().syncfn
    def classified(self, number: int) -> int:
        if self.model is None:
            self.model = {number: number}
        return self.model[number]


class ReadBackHere(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        self.steps = []
        for i in range(number):
            self.steps.append(i)
        return len(self.steps)


class PassesItselfOn(Nodes):
    mode = "slow"

    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        self.mode = "fast"
        return self.asked(self)

    @dagorama().syncfn
    def asked(self, other: Any) -> str:
        return other.mode + self.mode


class OtherState(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        counter = Counter()
        counter.count = number
        counter.count += 1
        return self.thing(counter.count)


class Counter:
    count = 0


class WithProperty(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        self.level = number
        return self.read_level()

    @property
    def level(self) -> int:
        return Counter.count

    @level.setter
    def level(self, value: int) -> None:
        Counter.count = value

    @dagorama().syncfn
    def read_level(self) -> int:
        return self.level


class Cached(Nodes):
    @cached_property
    def table(self) -> dict[int, int]:
        return {1: 2}

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.table[1]
