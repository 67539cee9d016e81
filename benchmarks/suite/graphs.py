"""The graphs that are measured. Every node is a call of its own, in a child process."""

from __future__ import annotations

from time import sleep

from dagorama import DAGDefinition, dagorama


class Fan(DAGDefinition):
    """An entry node, `width` nodes that do nothing, and one that sums them."""

    @dagorama().syncfn
    def entrypoint(self, width: int) -> int:
        return self.total([self.nothing(number) for number in range(width)])

    @dagorama().syncfn
    def nothing(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


#: The queue of the nodes of `HeldFan`.
HELD = "held"


class HeldFan(DAGDefinition):
    """A fan whose nodes are in a queue of their own, which can be paused."""

    @dagorama().syncfn
    def entrypoint(self, width: int) -> int:
        return self.total([self.nothing(number) for number in range(width)])

    @dagorama(queue_name=HELD).syncfn
    def nothing(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class Failing(DAGDefinition):
    """A fan whose nodes all fail, each with a message of its own, and the sum because of them."""

    @dagorama().syncfn
    def entrypoint(self, width: int) -> int:
        return self.total([self.fails(number) for number in range(width)])

    @dagorama().syncfn
    def fails(self, number: int) -> int:
        raise ValueError(f"row {number} of 'file-{number}.csv' has 0x{number:x} bytes, not {number * 1.5}")

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class Chain(DAGDefinition):
    """Nodes that wait for one another, each for the one before."""

    def __init__(self) -> None:
        """Take no arguments, so that workers construct the definition themselves."""

    @dagorama().syncfn
    def entrypoint(self, length: int) -> int:
        value = self.step(0)
        for _ in range(length - 1):
            value = self.step(value)
        return value

    @dagorama().syncfn
    def step(self, value: int) -> int:
        return value + 1


class HopByHop(Chain):
    """Measure a chain without fusion: its function may run on one worker at a time."""

    @dagorama(max_concurrency=1).syncfn
    def step(self, value: int) -> int:
        return value + 1


class One(DAGDefinition):
    """A single node."""

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number


class Small(DAGDefinition):
    """Four maps and a reduce, all known when the call is made."""

    def entrypoint(self, number: int) -> int:
        return self.total([self.square(number + offset) for offset in range(4)])

    @dagorama().syncfn
    def square(self, number: int) -> int:
        return number * number

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class Blocks(DAGDefinition):
    """Large values in and out: blocks that are turned round, and one block that many nodes read."""

    def entrypoint(self) -> None:
        """Make nothing: the measurement calls the methods."""

    @dagorama().syncfn
    def turned(self, block: bytes) -> bytes:
        return block[::-1]

    @dagorama().syncfn
    def length(self, block: bytes, number: int) -> int:
        return len(block) + number

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class Sleepers(DAGDefinition):
    """The README's sample."""

    @dagorama().syncfn
    def entrypoint(self) -> int:
        return self.total([self.rest(number) for number in range(4)])

    @dagorama().syncfn
    def rest(self, number: int) -> int:
        sleep(2)
        return number

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)
