"""Graphs with options that earlier versions lack, so that `compare.py --before` can measure these with the others."""

from __future__ import annotations

from dagorama import Cache, DAGDefinition, Rate, dagorama
from suite.graphs import Fan


class CachedFan(DAGDefinition):
    """A fan whose nodes have their values from a cache, except for the first time."""

    @dagorama
    def entrypoint(self, width: int) -> int:
        return self.total([self.cached(number) for number in range(width)])

    @dagorama(cache=Cache())
    def cached(self, number: int) -> int:
        return number

    @dagorama
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class RatedFan(Fan):
    """A fan whose nodes have a rate that is never reached."""

    @dagorama(rate=Rate(10_000_000, per=60)).syncfn
    def nothing(self, number: int) -> int:
        return number
