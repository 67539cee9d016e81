"""The standard library on the same machine, in the same run: without durability and without a graph."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing.pool import Pool as ProcessPool
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from suite.table import Row, row, share

WORKERS = 2


def nothing(number: int) -> int:
    return number


def anchors(nodes: int, runs: int) -> Iterator[Row]:
    commits = _commits(300)
    yield Row("compare: a commit of one row, SQLite FULL, median", median(commits), "ms", commits)
    yield Row("compare: the same, p99", share(commits, 0.99), "ms", commits)
    with ProcessPoolExecutor(WORKERS) as executor:
        list(executor.map(nothing, range(64)))
        rates = [_submits(executor, nodes) for _ in range(runs)]
        yield row("compare: ProcessPoolExecutor(2), one by one", rates, "calls/s")
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(nothing, range(64))
        rates = [_map(pool, nodes) for _ in range(runs)]
        yield row("compare: Pool(2).map, chunksize=1", rates, "calls/s")


def _commits(times: int) -> list[float]:
    """Milliseconds of each: what this disk takes to be sure."""
    with TemporaryDirectory(prefix="dagorama-bench-") as folder:
        connection = sqlite3.connect(Path(folder, "commits.sqlite3"), isolation_level=None)
        with closing(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("CREATE TABLE rows (key INTEGER PRIMARY KEY, value BLOB)")
            return [_commit(connection, number) for number in range(times)]


def _commit(connection: sqlite3.Connection, number: int) -> float:
    start = perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO rows VALUES (?, ?)", (number, bytes(100)))
    connection.execute("COMMIT")
    return (perf_counter() - start) * 1000


def _submits(executor: ProcessPoolExecutor, nodes: int) -> float:
    start = perf_counter()
    futures = [executor.submit(nothing, number) for number in range(nodes)]
    assert sum(future.result() for future in futures) == sum(range(nodes))
    return nodes / (perf_counter() - start)


def _map(pool: ProcessPool, nodes: int) -> float:
    start = perf_counter()
    assert sum(pool.map(nothing, range(nodes), chunksize=1)) == sum(range(nodes))
    return nodes / (perf_counter() - start)
