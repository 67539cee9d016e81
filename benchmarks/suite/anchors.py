"""What the standard library does on the same machine, in the same run: without durability and without a graph."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter

from suite.table import Row, row

WORKERS = 2


def nothing(number: int) -> int:
    return number


def anchors(nodes: int, runs: int) -> Iterator[Row]:
    with ProcessPoolExecutor(WORKERS) as executor:
        list(executor.map(nothing, range(64)))
        rates = [_submits(executor, nodes) for _ in range(runs)]
        yield row("beside it: ProcessPoolExecutor(2), one by one", rates, "calls/s")
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(nothing, range(64))
        rates = [_map(pool, nodes) for _ in range(runs)]
        yield row("beside it: Pool(2).map, chunksize=1", rates, "calls/s")


def _submits(executor: ProcessPoolExecutor, nodes: int) -> float:
    start = perf_counter()
    futures = [executor.submit(nothing, number) for number in range(nodes)]
    assert sum(future.result() for future in futures) == sum(range(nodes))
    return nodes / (perf_counter() - start)


def _map(pool: multiprocessing.pool.Pool, nodes: int) -> float:
    start = perf_counter()
    assert sum(pool.map(nothing, range(nodes), chunksize=1)) == sum(range(nodes))
    return nodes / (perf_counter() - start)
