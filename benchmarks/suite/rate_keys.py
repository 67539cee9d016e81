"""Very many rate keys in the scheduler: the time, the memory while their starts count, and the memory afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from sys import getallocatedblocks
from time import perf_counter

from dagorama_broker.model.domain import Function, Rate
from dagorama_broker.scheduler import Granted, NewNodes, Scheduler, Worker, WorkerInfo
from suite.table import Row, row

PART = 10_000  #: nodes of one instance, each with a key of its own
SECONDS = 3_600.0  #: for which a start counts
FETCH = Function("rates:Crawl.fetch", "h", "rates", rate=Rate(2, SECONDS), rate_by_key=True)


def rate_keys(keys: int) -> Iterator[Row]:
    """Run a node of each key in the scheduler alone, and let the windows pass."""
    scheduler = Scheduler(1)
    scheduler.at(0.0, 1e9)
    worker = scheduler.connect(WorkerInfo(bytes(16), "worker", 1_000), [], 0.0)
    _run(scheduler, worker, 0)
    empty, start = _objects(), perf_counter()
    for first in range(PART, keys + PART, PART):
        _run(scheduler, worker, first)
    seconds, idle = perf_counter() - start, _objects() - empty
    yield row(f"{keys:,} nodes with rate keys of their own, in the scheduler alone", [keys / seconds], "nodes/s")
    yield row("an idle rate key while its start counts", [idle / keys], "objects")
    start = perf_counter()
    while (due := scheduler.graph.rates.next_due) is not None:
        scheduler.record_contact(worker, due)
        _step(scheduler, due)
    yield row(f"dropping {keys:,} idle rate keys", [perf_counter() - start], "s")
    yield row(f"what is left of {keys:,} rate keys", [float(max(0, _objects() - empty))], "objects", "0")


def _run(scheduler: Scheduler, worker: Worker, first: int) -> None:
    """Submit an instance, and complete all of its nodes as they are granted."""
    origin = (first + 1).to_bytes(12, "big")
    names = [f"tenant-{first + number}" for number in range(PART)]
    nodes = NewNodes(
        origin + bytes(4), origin, 0, [FETCH], [0] * PART, [b"\1\0"] * PART, creates=("rates:Crawl", b""),
        keys=names, key=range(1, PART + 1),
    )  # fmt: skip
    scheduler.submit([nodes], {})
    while scheduler.graph.active:
        for _, node, attempt in _step(scheduler, 0.0):
            scheduler.complete(worker, node.key, attempt, b"\1\0", 100, (), (), {}, (), 0.0)
    _step(scheduler, 0.0)


def _step(scheduler: Scheduler, now: float) -> list[Granted]:
    scheduler.at(now, 1e9)
    scheduler.tick(now)
    return scheduler.drain()[1].granted


def _objects() -> int:
    gc.collect()
    return getallocatedblocks()
