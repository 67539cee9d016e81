"""The definition from which the planted ones inherit, in another file than theirs."""

from __future__ import annotations

from typing import Any

from dagorama import DAGDefinition, dagorama


class Nodes(DAGDefinition):
    @dagorama().syncfn
    def measure(self, number: int) -> int:
        return number * 2

    @dagorama().syncfn
    def names(self, number: int) -> list[str]:
        return [f"name {i}" for i in range(number)]

    @dagorama
    def record(self, number: int) -> dict[str, int]:
        return {"number": number}

    @dagorama()
    def thing(self, number: int) -> Any:
        return number

    @dagorama().syncfn
    def total(self, numbers: Any) -> int:
        return sum(numbers)

    @dagorama().asyncfn
    async def fetch(self, number: int) -> int:
        return number

    @dagorama
    async def fetched_names(self, number: int) -> list[str]:
        return ["a", "b"]

    def measured(self, number: int) -> Any:
        """Is a helper that creates a node."""
        return self.measure(number)

    def all_measured(self, count: int) -> list[Any]:
        return [self.measured(number) for number in range(count)]
