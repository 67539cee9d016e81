"""The workloads of the suite, for any system that can run functions: what differs is how they are called."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from statistics import median
from time import perf_counter

MIB = 1 << 20
RUNS = 3


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


def seconds(action: Callable[[], object]) -> float:
    start = perf_counter()
    action()
    return perf_counter() - start


def say(workload: str, figures: list[float], unit: str) -> None:
    """One line of JSON on standard output."""
    print(json.dumps({"workload": workload, "figure": median(figures), "unit": unit, "runs": figures}), flush=True)


def report_fan(width: int, fan: Callable[[int], int], runs: int = RUNS) -> None:
    def once() -> None:
        assert fan(width) == sum(range(width))

    say(f"fan, {width:,} nodes", [(width + 1) / seconds(once) for _ in range(runs)], "nodes/s")


def report_chain(length: int, chain: Callable[[int], int]) -> None:
    def once() -> None:
        assert chain(length) == length

    say(f"chain, {length:,} nodes", [seconds(once) * 1000 / length for _ in range(RUNS)], "ms a hop")


def report_round_trip(times: int, one: Callable[[int], int]) -> None:
    waits = sorted(seconds(lambda: one(7)) * 1000 for _ in range(times))
    say("round trip, median", [waits[times // 2]], "ms")
    say("round trip, p99", [waits[int(times * 0.99)]], "ms")


def report_many(instances: int, many: Callable[[int], list[int]]) -> None:
    def once() -> None:
        assert many(instances) == [sum((number + offset) ** 2 for offset in range(4)) for number in range(instances)]

    say("many", [instances / seconds(once) for _ in range(RUNS)], "instances/s")


def report_values(count: int, size: int, turn: Callable[[list[bytes]], list[bytes]]) -> None:
    def once() -> float:
        blocks = [os.urandom(size) for _ in range(count)]
        start = perf_counter()
        found = turn(blocks)
        taken = perf_counter() - start
        assert found == [block[::-1] for block in blocks]
        return 2 * count * size / taken / 1e6

    say(f"values, {count} of {size // MIB} MiB", [once() for _ in range(RUNS)], "MB/s")
