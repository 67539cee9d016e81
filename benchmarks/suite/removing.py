"""Removal during creation: instances that end and are removed after a second, next to the same with nothing removed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from dagorama import batch, resolve, resolve_all
from suite.graphs import One
from suite.serving import Serving, serving
from suite.table import Row, row, share

TOGETHER = 1_000  #: instances of one submission
CLIENTS = 16
#: Settings of DAGORAMA_RETENTION.
NEVER, SOON = "never", "1"


@dataclass(frozen=True, slots=True)
class Made:
    """The result of one run: rates in instances a second, times in seconds."""

    made: float  #: a second
    removed: float  #: a second
    left: int  #: in the store at the end
    trips: list[float]  #: milliseconds


def removing(runs: int, seconds: float) -> Iterator[Row]:
    """Alternate runs with and without removal."""
    pairs = [[_at_full_speed(seconds, kept) for kept in (NEVER, SOON)] for _ in range(runs)]
    kept, removed = ([pair[place] for pair in pairs] for place in (0, 1))
    yield row("removal, made together, nothing removed", [each.made for each in kept], "instances/s")
    left = f"{median([each.left for each in removed]):,.0f} left at the end"
    yield row("removal, made together, removed after 1 s", [each.made for each in removed], "instances/s", "", left)
    yield row("removal, removed meanwhile", [each.removed for each in removed], "instances/s", "what is made")
    yield from _trips(runs, seconds)


def _trips(runs: int, seconds: float) -> Iterator[Row]:
    pairs = [[_one_by_one(seconds, kept) for kept in (NEVER, SOON)] for _ in range(runs)]
    for place, what in enumerate(("nothing removed", "removed after 1 s")):
        found = [pair[place] for pair in pairs]
        rate = f"{median([each.made for each in found]):,.0f} instances/s"
        for part, name in ((0.5, "median"), (0.99, "p99")):
            reach = "1.5 times that without" if place and part == 0.99 else ""
            trips = [share(each.trips, part) for each in found]
            yield row(f"removal, round trip, {CLIENTS} clients, {what}, {name}", trips, "ms", reach, rate)


def _at_full_speed(seconds: float, kept: str) -> Made:
    with serving(DAGORAMA_RETENTION=kept) as served:
        start, made = perf_counter(), 0
        while perf_counter() - start < seconds:
            with batch():
                pairs = [One()(number) for number in range(TOGETHER)]
            resolve_all(pairs, timeout=120)
            made += TOGETHER
        return _made(served, made, perf_counter() - start, [])


def _one_by_one(seconds: float, kept: str) -> Made:
    """Each client waits for its instance before it makes the next."""
    with serving(DAGORAMA_RETENTION=kept) as served:
        begun, start = threading.Barrier(CLIENTS), perf_counter()

        def client(_: int) -> list[float]:
            begun.wait()
            trips: list[float] = []
            while (began := perf_counter()) - start < seconds:
                assert resolve(*One()(len(trips)), timeout=60) == len(trips)
                trips.append((perf_counter() - began) * 1000)
            return trips

        with ThreadPoolExecutor(CLIENTS) as threads:
            trips = [each for one in threads.map(client, range(CLIENTS)) for each in one]
        return _made(served, len(trips), perf_counter() - start, trips)


def _made(served: Serving, made: int, seconds: float, trips: list[float]) -> Made:
    left, removed = _stored(served.folder)
    return Made(made / seconds, removed / seconds, left, trips)


def _stored(folder: Path) -> tuple[int, int]:
    """Instances that the store has, and how many it has removed."""
    with closing(sqlite3.connect(f"file:{folder}/broker.sqlite3?mode=ro", uri=True)) as look:
        (left,) = look.execute("SELECT count(*) FROM instances").fetchone()
        (removed,) = look.execute("SELECT coalesce(max(number), 0) FROM removed").fetchone()
    return left, removed
