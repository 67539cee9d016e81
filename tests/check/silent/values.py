"""Parameters of nodes are values, and so are results of functions that run here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class Parameters(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.summed(self.measure(number), self.names(number))

    @dagorama().syncfn
    def summed(self, size: int, names: list[str]) -> int:
        if size > 1 and names:
            return sum([size, len(names)]) + size
        return max(size, 3)


class Greedy(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = self.measure(number, greedy_execution=True)
        return size + 1 if size else 0


class GreedyByName(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        options = {"greedy_execution": True}
        return self.measure(number, **options) + 1


class GreedyIfAsked(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        here = number > 1
        return self.measure(number, greedy_execution=here) + 1


class PlainHelper(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.half(number) + self.three() + self.squared(number)

    def half(self, number: int) -> int:
        return number // 2

    @staticmethod
    def three() -> int:
        return 3

    @classmethod
    def squared(cls, number: int) -> int:
        return number * number


class SometimesAPromise(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = 4
        if number > 100:
            size = self.measure(number)
        return size + 1


class HelperOfTwoKinds(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.maybe(number) + 1

    def maybe(self, number: int) -> int:
        return self.measure(number) if number > 100 else number


class Rebound(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = self.measure(number)
        sizes = [size]
        size = len(sizes)
        return size + 1


class ShadowedByParameter(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = self.measure(number)

        def plus_one(size: int) -> int:
            return size + 1

        return self.total([size, plus_one(number)])


class OverriddenByPlain(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.plain(number) + 1

    def plain(self, number: int) -> int:
        return number


class AttributeHidesMethod(Nodes):
    def __init__(self) -> None:
        self.thing = lambda number: number

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.thing(number) + 1


class OriginalFunction(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return Nodes.measure.original_fn(self, number) + 1


@dataclass
class Held:
    size: Any


class InDataclass(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> Any:
        held = Held(self.measure(number))
        return self.thing(held)


class LoopVariable(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        last = self.measure(number)
        for i in range(number):
            last = self.total([last, i])
        return last


class OtherObjects(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        meter = Meter()
        return meter.measure(number) + 1


class Meter:
    def measure(self, number: int) -> int:
        return number
