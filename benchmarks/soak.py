"""Runs for an hour at a steady rate with a short retention: does the database stay as large as what it keeps?

    python benchmarks/soak.py [--store sqlite|postgresql] [--minutes 60] [--rate 2000] [--keep 60] [--hold 20:25]

One broker, one worker. Each line is a minute: nodes that ran, the size of the database, the broker's own memory, and
the median round trip of a small instance. `--hold` names minutes between which another session keeps a snapshot of
the PostgreSQL database open, as a backup or a forgotten console does. Both stores at the same time are two processes
of this program. It ends with 1 if the database is more than half as large again in the last tenth of the time as it
was at a fifth of it, with `--hold` if round trips take more than half as long again meanwhile.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psycopg
from suite.graphs import Fan
from suite.latency import once
from suite.serving import Serving, resident, serving
from suite.stores import server

from dagorama import resolve
from tests.support.postgres_server import new_schema

WIDTH = 100  #: nodes of an instance, without its first and its last
SIZE = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND c.relkind = 'r'"
)


class Minute(NamedTuple):
    nodes: int
    database: int  #: bytes
    memory: int  #: bytes of the broker's own
    round_trip: float  #: median, in milliseconds


class Stage(NamedTuple):
    """A broker on a store, and what can be asked of the store."""

    served: Serving
    size: Callable[[], int]
    hold: Callable[[bool], None]  #: begins or ends a snapshot of another session


@contextmanager
def on_sqlite(keep: float) -> Iterator[Stage]:
    with serving(1, DAGORAMA_RETENTION=str(keep)) as served:
        path = Path(served.folder, "broker.sqlite3")

        def size() -> int:
            return sum(file.stat().st_size for file in path.parent.glob("broker.sqlite3*") if file.is_file())

        yield Stage(served, size, lambda is_held: None)


@contextmanager
def on_postgresql(keep: float) -> Iterator[Stage]:
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="dagorama-bench-"))
        url = stack.enter_context(new_schema(stack.enter_context(server())))
        plain, _, query = url.partition("?")
        schema = dict(part.split("=") for part in query.split("&"))["schema"]
        values = f"file://{folder}/values"
        served = stack.enter_context(serving(1, store=url, DAGORAMA_VALUES=values, DAGORAMA_RETENTION=str(keep)))
        options = f"-csearch_path={schema}"
        asking = stack.enter_context(psycopg.connect(plain, autocommit=True, options=options))
        holding = stack.enter_context(psycopg.connect(plain, options=options))

        def size() -> int:
            found = asking.execute(SIZE).fetchone()
            assert found is not None
            return int(found[0])

        def hold(is_held: bool) -> None:
            holding.rollback()
            if is_held:
                holding.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                holding.execute("SELECT count(*) FROM nodes")

        yield Stage(served, size, hold)


STORES = {"sqlite": on_sqlite, "postgresql": on_postgresql}


def soak(stage: Stage, minutes: int, rate: int, held: range) -> Iterator[Minute]:
    """Submit instances at a steady rate, and yield the figures of each minute."""
    chance, pause = random.Random(1), (WIDTH + 2) / rate
    start = due = time.monotonic()
    for minute in range(minutes):
        stage.hold(minute in held)
        nodes, trips = 0, []
        while (now := time.monotonic()) < start + 60 * (minute + 1):
            if now < due:
                time.sleep(due - now)
            if chance.random() < 0.1:
                trips.append(once(nodes))
            instance, promise = Fan()(WIDTH)
            nodes += WIDTH + 2
            assert resolve(instance, promise, timeout=60) == sum(range(WIDTH))
            due = max(due + pause, time.monotonic() - 1)  # only the last second is made up for
        broker = stage.served.broker.pid
        assert broker is not None
        yield Minute(nodes, stage.size(), resident(broker), median(trips))


def verdict(found: list[Minute], held: range) -> int:
    """Return the exit code, and say why it is not 0."""
    early, late = found[len(found) // 5 : len(found) // 5 + 3], found[-max(1, len(found) // 10) :]
    growth = median(each.database for each in late) / median(each.database for each in early)
    print(f"database: {growth:.2f} times as large at the end as at a fifth of the time")
    slower = 0.0
    if during := [found[minute].round_trip for minute in held if minute < len(found)]:
        slower = median(during) / median(found[minute].round_trip for minute in range(held.start))
        print(f"round trips while a snapshot was held: {slower:.2f} times as long")
    return int(growth > 1.5 or slower > 1.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=STORES, default="postgresql")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=int, default=2000, help="nodes a second")
    parser.add_argument("--keep", type=float, default=60.0, help="seconds that an ended instance is kept")
    parser.add_argument("--hold", default="0:0", help="minutes, from:to")
    asked = parser.parse_args()
    held = range(*map(int, asked.hold.split(":")))
    found = []
    with suppress(KeyboardInterrupt), STORES[asked.store](asked.keep) as stage:
        print("minute   nodes/s  database MiB  broker MiB  round trip ms")
        for minute in soak(stage, asked.minutes, asked.rate, held):
            found.append(minute)
            sizes = f"{minute.database / 2**20:12.1f}  {minute.memory / 2**20:10.1f}"
            print(f"{len(found):6}  {minute.nodes / 60:8.0f}  {sizes}  {minute.round_trip:13.2f}", flush=True)
    return verdict(found, held)


if __name__ == "__main__":
    sys.exit(main())
