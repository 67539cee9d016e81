"""The functions of the nodes of all workloads, the same on every system."""

from __future__ import annotations

from typing import NamedTuple

WORD = 8  #: bytes of a number in a block


def nothing(number: int) -> int:
    return number


def total(numbers: list[int]) -> int:
    return sum(numbers)


def step(value: int) -> int:
    return value + 1


def square(number: int) -> int:
    return number * number


def turned(block: bytes) -> bytes:
    return block[::-1]


class Summary(NamedTuple):
    """The last node of a pipeline returns this of its block."""

    length: int
    numbers: tuple[int, ...]  #: of the nodes before, in their order


def begin(pattern: bytes, size: int) -> bytes:
    """Return a block of `size` bytes. Nothing compresses it if `pattern` is random and long."""
    return pattern * (size // len(pattern))


def hand_on(block: bytes, number: int) -> bytes:
    """Return another block of the same size, which ends with all numbers of the nodes before and this one."""
    return b"".join((memoryview(block)[WORD:], number.to_bytes(WORD, "big")))


def summary(block: bytes, handed: int) -> Summary:
    """Return the length of a block, and the numbers of the `handed` nodes that handed it on."""
    end = block[len(block) - WORD * handed :]
    return Summary(len(block), tuple(int.from_bytes(end[at : at + WORD], "big") for at in range(0, len(end), WORD)))


#: The functions of all nodes, for systems that want to know them beforehand.
NODES = nothing, total, step, square, turned, begin, hand_on, summary
