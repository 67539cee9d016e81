"""The graph that compose.yaml runs at first; put your own modules here, or change the mount of the workers."""

from __future__ import annotations

from time import sleep

from dagorama import DAGDefinition, dagorama


class Shapes(DAGDefinition):
    """Adds up the areas of `count` squares."""

    @dagorama
    def entrypoint(self, count: int) -> int:
        return self.total([self.measure(i) for i in range(count)])

    @dagorama
    def measure(self, number: int) -> int:
        sleep(0.1)
        return number * number

    @dagorama
    def total(self, areas: list[int]) -> int:
        return sum(areas)
