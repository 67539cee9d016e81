"""The workloads, for any system: each is timed from the call to the value, and every result is compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from peers.functions import Summary

T = TypeVar("T")

MIB = 1 << 20
CALLERS = 16
Figure: TypeAlias = "tuple[str, float]"  #: the key of a row, and its value in the row's unit


class Pipeline(NamedTuple):
    """Nodes that hand a large block on: the first makes it, the last returns a summary."""

    nodes: int
    size: int  #: bytes
    pattern: bytes  #: random

    @property
    def handed(self) -> int:
        """How often a node gets a block and returns another one."""
        return self.nodes - 2

    def expected(self) -> Summary:
        return Summary(self.size, tuple(range(self.handed)))


class Stack(Protocol):
    """A system that is running, with two workers. A system may lack parts, which are not asked of it."""

    def version(self) -> str: ...
    def one(self, number: int) -> int: ...
    def fan(self, width: int) -> int: ...
    def chain(self, length: int) -> int: ...
    def hop(self, length: int) -> int: ...
    def small(self, instances: int, callers: int) -> list[int]: ...
    def together(self, instances: int) -> list[int]: ...
    def turn(self, blocks: list[bytes]) -> list[bytes]: ...
    def pipeline(self, wanted: Pipeline) -> Summary: ...


class Sizes(NamedTuple):
    """How much each part does in one round."""

    fan: int = 2_000
    wide: int = 20_000
    chain: int = 200
    round_trips: int = 300
    instances: int = 400
    blocks: int = 32
    block: int = 4  #: MiB
    pipeline: int = 64  #: MiB


FULL = Sizes()
QUICK = Sizes(fan=1_000, wide=10_000, chain=100, round_trips=100, instances=200, blocks=16, pipeline=16)
WARM = Sizes(fan=64, wide=64, chain=8, round_trips=8, instances=8, blocks=2, pipeline=1)


class WrongResultError(Exception):
    """A system returned another result than the workload has: its figures mean nothing."""


def expect(found: object, wanted: object, workload: str) -> None:
    """Raise `WrongResultError` unless both are equal."""
    if found != wanted:
        shown = [text if len(text) < 200 else f"{text[:200]}..." for text in (repr(found), repr(wanted))]
        raise WrongResultError(f"{workload} returned {shown[0]}, and its result is {shown[1]}")


def _timed(workload: str, wanted: object, action: Callable[[], object]) -> float:
    """Return the seconds of an action with the right result."""
    start = perf_counter()
    found = action()
    seconds = perf_counter() - start
    expect(found, wanted, workload)
    return seconds


def _fan(stack: Stack, sizes: Sizes) -> Iterator[Figure]:
    yield "fan", _fan_rate(stack, sizes.fan)


def _wide(stack: Stack, sizes: Sizes) -> Iterator[Figure]:
    yield "wide", _fan_rate(stack, sizes.wide)


def _fan_rate(stack: Stack, width: int) -> float:
    """Return nodes a second, of the nodes that do nothing and the one that sums their values."""
    return (width + 1) / _timed("fan", sum(range(width)), lambda: stack.fan(width))


def _chain(stack: Stack, sizes: Sizes) -> Iterator[Figure]:
    length = sizes.chain
    yield "chain", _timed("chain", length, lambda: stack.chain(length)) * 1000 / length


def _hop(stack: Stack, sizes: Sizes) -> Iterator[Figure]:
    length = sizes.chain
    yield "hop", _timed("hop", length, lambda: stack.hop(length)) * 1000 / length


def _round_trip(stack: Stack, sizes: Sizes) -> Iterator[Figure]:
    waits = sorted(_timed("round trip", n, partial(stack.one, n)) * 1000 for n in range(sizes.round_trips))
    yield "round-trip-p50", waits[len(waits) // 2]
    yield "round-trip-p99", waits[int(len(waits) * 0.99)]


def _small(stack: Stack, sizes: Sizes) -> Iterator[Figure]:
    count = sizes.instances
    wanted = [sum((number + offset) ** 2 for offset in range(4)) for number in range(count)]
    yield "small-1", count / _timed("small graphs", wanted, lambda: stack.small(count, 1))
    yield "small-16", count / _timed("small graphs", wanted, lambda: stack.small(count, CALLERS))
    yield "small-together", count / _timed("small graphs", wanted, lambda: stack.together(count))


def _values(stack: Stack, sizes: Sizes) -> Iterator[Figure]:
    """Each block is a new one, so that no system has it already. Bytes in and bytes out count."""
    blocks = [os.urandom(sizes.block * MIB) for _ in range(sizes.blocks)]
    start = perf_counter()
    found = stack.turn(blocks)
    seconds = perf_counter() - start
    for got, block in zip(found, blocks, strict=True):
        if got != block[::-1]:
            raise WrongResultError("a large value came back as another one")
    yield "values", 2 * sizes.blocks * sizes.block * MIB / seconds / 1e6


def _pipeline(stack: Stack, sizes: Sizes) -> Iterator[Figure]:
    wanted = Pipeline(10, sizes.pipeline * MIB, os.urandom(MIB))
    yield "pipeline", _timed("pipeline", wanted.expected(), lambda: stack.pipeline(wanted))


#: By the name of the part, the function that runs it once and yields its figures.
PARTS: dict[str, Callable[[Stack, Sizes], Iterator[Figure]]] = {
    "fan": _fan, "wide": _wide, "chain": _chain, "hop": _hop, "round-trip": _round_trip, "small": _small,
    "values": _values, "pipeline": _pipeline,
}  # fmt: skip
START = "start"  #: the row of every turn: from the start of the program until its first result


def by_callers(submit: Callable[[int], T], count: int, callers: int) -> list[T]:
    """Return what `submit` returns for each number below `count`. It is called in `callers` threads, or here if 1."""
    if callers == 1:
        return [submit(number) for number in range(count)]
    with ThreadPoolExecutor(callers) as threads:
        return list(threads.map(submit, range(count)))
