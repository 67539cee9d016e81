"""All benchmarks of the suite: a table, and a JSON file.

Run: python benchmarks/run.py [--quick] [--only NAME]... [--json FILE] [--seed N]     (make bench)
     python benchmarks/run.py --large                                                 (make bench-large)
     python benchmarks/run.py --store both                                            (make bench ARGS=--store=both)
     python benchmarks/run.py --objects                                               (make bench ARGS=--objects)

Durable: SQLite with a sync at every commit, payloads signed. Two workers unless the row says otherwise. The clock runs
from the call to the value in hand, with workers that are connected already. Medians, and the machine above the table.
"""

from __future__ import annotations

import random
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

from suite import anchors, dashboard, inspecting, latency, rate_keys, removing, sizes, standing, throughput, turns
from suite.serving import serving
from suite.table import Row, machine, say, shown, write_json

RESULTS = Path("benchmarks.json")


def _fan(options: Namespace) -> Iterator[Row]:
    widths = {5_000: 3, 20_000: 3} if options.quick else {5_000: 3, 20_000: 5, 100_000: 3}
    yield from throughput.fan(widths, random.Random(options.seed))


def _rated(options: Namespace) -> Iterator[Row]:
    yield from throughput.rated(20_000, 5 if options.quick else 9)


def _watched(options: Namespace) -> Iterator[Row]:
    yield from throughput.watched(20_000 if options.quick else 50_000, 11)


def _served(options: Namespace) -> Iterator[Row]:
    runs = 3
    with serving() as served:
        yield from throughput.chain(served, {200: runs, 1_000 if options.quick else 5_000: runs})
        yield from latency.round_trip(served, 100 if options.quick else 300, clients=16)
        yield from throughput.hits(served, 10_000, runs)
        yield from throughput.many(served, 300 if options.quick else 1_000, runs)


def _values(options: Namespace) -> Iterator[Row]:
    runs = 1 if options.quick else 3
    with serving() as served:
        yield from sizes.values(served, runs, "files that both sides see", "300")
        yield from sizes.shared(served, runs, "files that both sides see")
        yield from sizes.handed_on(runs, "files that both sides see")
    with serving(DAGORAMA_SHARED_FILES="0") as served:
        yield from sizes.values(served, runs, "through the broker", "110")


def _latency(options: Namespace) -> Iterator[Row]:
    yield from latency.sleep(1 if options.quick else 3)
    yield from latency.start(3)


def _standing(options: Namespace) -> Iterator[Row]:
    yield from standing.memory(20_000)
    yield from standing.idle(100)
    if not options.quick:
        yield from standing.wide(1_000, 200)


def _removal(options: Namespace) -> Iterator[Row]:
    yield from removing.removing(1 if options.quick else 3, 2.0 if options.quick else 5.0)


def _inspecting(options: Namespace) -> Iterator[Row]:
    yield from inspecting.inspecting(5_000 if options.quick else 20_000, 9)


def _dashboard(options: Namespace) -> Iterator[Row]:
    yield from dashboard.dashboard(20_000 if options.quick else 50_000, 11)


def _anchors(options: Namespace) -> Iterator[Row]:
    yield from anchors.anchors(5_000 if options.quick else 20_000, 3)


def _large(options: Namespace) -> Iterator[Row]:
    yield from standing.memory(1_000_000)
    yield from turns.turns(1_000_000)
    yield from rate_keys.rate_keys(1_000_000)


def _stores(options: Namespace) -> Iterator[Row]:
    try:
        from suite import stores
    except ImportError as error:
        raise SystemExit(f"--store=both needs the tools for tests (make .venv/.installed-dev): {error}") from error
    with stores.server() as server:
        yield from stores.commits(server, {1: 300, 100: 100, 10_000: 5 if options.quick else 15})
        yield from stores.products(server, 1 if options.quick else 3, random.Random(options.seed))


def _objects(options: Namespace) -> Iterator[Row]:
    try:
        from suite import objects
    except ImportError as error:
        raise SystemExit(f"--objects needs the tools for tests (make .venv/.installed-dev): {error}") from error
    yield from objects.objects(1 if options.quick else 3)


PARTS: dict[str, Callable[[Namespace], Iterator[Row]]] = {
    "fan": _fan, "anchors": _anchors, "graphs": _served, "values": _values, "latency": _latency, "standing": _standing,
    "removal": _removal, "rates": _rated, "watched": _watched, "dashboard": _dashboard, "inspecting": _inspecting,
}  # fmt: skip


def main() -> int:
    parser = ArgumentParser(description="the suite's benchmarks on this machine")
    parser.add_argument("--quick", action="store_true", help="about a minute, with fewer runs")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="only this part; may be repeated")
    parser.add_argument("--large", action="store_true", help="the rows of a million nodes or keys, and nothing else")
    parser.add_argument("--store", choices=["sqlite", "both"], default="sqlite",
                        help="both: compare PostgreSQL with SQLite, and nothing else")  # fmt: skip
    parser.add_argument("--objects", action="store_true", help="values in an object store, and nothing else")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, default=1, help="which nodes are read back")
    options = parser.parse_args()
    parts = [PARTS[name] for name in options.only or PARTS]
    if options.large:
        parts = [_large]
    elif options.store == "both":
        parts = [_stores]
    elif options.objects:
        parts = [_objects]
    start, rows = perf_counter(), []
    for part in parts:
        for row in part(options):
            rows.append(row)
            say(f"{row.workload}: {row.figure:,.3g} {row.unit}")
    print("\n".join(f"{name}: {what}" for name, what in machine().items()), end="\n\n")
    print(shown(rows))
    print(f"\n{perf_counter() - start:.0f} s in all; figures in {options.json}")
    write_json(options.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
