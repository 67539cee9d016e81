"""A definition whose nodes fan out and are summed up."""

from __future__ import annotations

from dagorama import DAGDefinition, dagorama


class Fan(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, nodes: int) -> int:
        return self.total([self.one(number) for number in range(nodes)])

    @dagorama().syncfn
    def one(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)
