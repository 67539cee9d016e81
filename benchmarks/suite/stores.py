"""PostgreSQL and SQLite: the same commits and work on both, in turns, with the server on the same machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time

from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import Changes, InstanceRow, NodeBlockRow, NodeRow, OutcomeRow
from dagorama_broker.store import Store, StoreOptions, open_store
from suite.latency import once
from suite.serving import Serving, serving
from suite.table import Row
from suite.throughput import CALLERS, by_callers, one_fan
from tests.support.postgres_server import NoServer, new_schema, running_server

ARGUMENTS, VALUE = bytes(180), bytes(120)
#: Goals for the time of a commit, and for the processor time of our thread, as multiples of SQLite's, by its rows.
TIMES = {1: "2.0 at most", 100: "2.2 at most", 10_000: "1.2 at most"}
CPU = {100: "0.8 at most", 10_000: "0.6 at most"}


@contextmanager
def server() -> Iterator[str]:
    """Start a PostgreSQL server that syncs each commit, and yield its URL, or end the program if there is none."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(running_server("shared_buffers=128MB", "max_wal_size=1GB"))
        except NoServer as error:
            raise SystemExit(f"--store=both: {error}") from error
        yield started.url


def commits(server: str, counts: dict[int, int]) -> Iterator[Row]:
    """Measure commits of submissions and of outcomes; `counts` has the rows of each, and how often it is made."""
    with TemporaryDirectory(prefix="dagorama-bench-") as folder, new_schema(server) as url:
        values = StoreOptions(f"file://{folder}/values")
        sqlite, postgres = open_store(f"sqlite:///{folder}/broker.sqlite3", StoreOptions()), open_store(url, values)
        with closing(sqlite), closing(postgres):
            first = 1
            for store in (sqlite, postgres):
                store.open()
                store.take()
            for rows, times in counts.items():
                yield from _measured(sqlite, postgres, rows, times, first)
                first += rows * (times + 1)


def _measured(sqlite: Store, postgres: Store, rows: int, times: int, first: int) -> Iterator[Row]:
    """Yield the figures of commits of `rows` rows; the first commit of each kind is not counted."""
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for time in range(times + 1):
        keys = range(first + time * rows, first + (time + 1) * rows)
        for kind, changes in (("submitted", _submission(keys)), ("outcomes", _outcomes(keys))):
            for name, store in (("SQLite", sqlite), ("PostgreSQL", postgres)):
                taken.setdefault((kind, name), []).append(_commit(store, changes))
    for kind in ("submitted", "outcomes"):
        what = f"commit of {rows:,} {kind}"
        light, heavy = taken[kind, "SQLite"][1:], taken[kind, "PostgreSQL"][1:]
        for name, found in (("SQLite", light), ("PostgreSQL", heavy)):
            cpu = median(cpu for _, cpu in found)
            milliseconds = [whole for whole, _ in found]
            yield Row(f"{what}, {name}", median(milliseconds), "ms", milliseconds, note=f"own CPU {cpu:.2f} ms")
        yield _ratio(f"{what}, PostgreSQL : SQLite", [h for h, _ in heavy], [s for s, _ in light], TIMES.get(rows, ""))
        cpus = [h for _, h in heavy], [s for _, s in light]
        yield _ratio(f"{what}, own CPU, PostgreSQL : SQLite", *cpus, CPU.get(rows, ""))


def _ratio(workload: str, figures: list[float], others: list[float], reach: str) -> Row:
    """Return the ratio of the medians, and of each pair."""
    pairs = [figure / other for figure, other in zip(figures, others, strict=True)]
    return Row(workload, median(figures) / median(others), "times", pairs, reach)


def _commit(store: Store, changes: Changes) -> tuple[float, float]:
    """Return the milliseconds that a commit takes, and the milliseconds of this thread's processor time."""
    start, cpu = perf_counter(), thread_time()
    store.commit(changes)
    return (perf_counter() - start) * 1000, (thread_time() - cpu) * 1000


def _submission(keys: range) -> Changes:
    """Return an instance with a node for each key."""
    instance, origin = keys[0], keys[0].to_bytes(12, "big")
    return Changes(
        instances=[InstanceRow(instance, instance.to_bytes(16, "big"), "bench:Made", origin + bytes(4), 1.5e9)],
        blocks=[NodeBlockRow(origin, 0, len(keys), keys[0], instance, bytes(16), 0, 1)],
        nodes=[NodeRow(key, instance, 1, b"", ARGUMENTS) for key in keys],
    )


def _outcomes(keys: range) -> Changes:
    state = int(State.COMPLETED)
    return Changes(outcomes=[OutcomeRow(key, state, key, b"", VALUE, 0, None, 1.5e9, 250, 1) for key in keys])


# --- the product on both ----------------------------------------------------------------------------------

Measure = Callable[[Serving], float]


def products(server: str, runs: int, chance: random.Random) -> Iterator[Row]:
    """Measure a fan, round trips and many callers with a broker on each store."""
    measures: dict[str, tuple[str, str, Measure]] = {
        "fan, 20,000 nodes": ("nodes/s", "0.85 at least", lambda served: 20_002 / one_fan(served, 20_000, chance)),
        "round trip, median": ("ms", "1.25 at most", lambda served: median(once(number) for number in range(200))),
        f"many, {CALLERS} callers": ("instances/s", "0.80 at least", lambda served: by_callers(1_000, CALLERS)),
    }
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        for name in ("SQLite", "PostgreSQL"):
            with _served(name, server) as served:
                for workload, (_, _, measure) in measures.items():
                    found.setdefault((workload, name), []).append(measure(served))
    for workload, (unit, reach, _) in measures.items():
        light, heavy = found[workload, "SQLite"], found[workload, "PostgreSQL"]
        yield Row(f"{workload}, SQLite", median(light), unit, light)
        yield Row(f"{workload}, PostgreSQL", median(heavy), unit, heavy)
        yield _ratio(f"{workload}, PostgreSQL : SQLite", heavy, light, reach)


@contextmanager
def _served(name: str, server: str) -> Iterator[Serving]:
    if name == "SQLite":
        with serving() as served:
            yield served
        return
    with (
        TemporaryDirectory(prefix="dagorama-bench-") as folder,
        new_schema(server) as url,
        serving(store=url, DAGORAMA_VALUES=f"file://{folder}/values") as served,
    ):
        yield served
