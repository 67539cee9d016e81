"""Nodes with large values, for workers of tests about object stores."""

from __future__ import annotations

from dagorama import DAGDefinition, dagorama

SIZE = 600_000


class Summing(DAGDefinition):
    """Each node takes the same large value and returns a large one of its own."""

    @dagorama().syncfn
    def entrypoint(self, data: bytes, width: int) -> int:
        return self.total([self.part(data, number) for number in range(width)])

    @dagorama().syncfn
    def part(self, data: bytes, number: int) -> bytes:
        return bytes([data[0] + 1 + number]) * SIZE

    @dagorama().syncfn
    def total(self, parts: list[bytes]) -> int:
        return sum(map(len, parts))


class Small(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number + 1
