"""The same submission again: a client whose reply was lost sends it twice, and it has one effect and one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagorama_broker.errors import Conflict
from dagorama_broker.scheduler import NewRun

if TYPE_CHECKING:
    from dagorama_broker.broker import Broker


async def left_to_make(broker: Broker, runs: Sequence[NewRun]) -> list[NewRun]:
    """The runs that no earlier call has made. Raises Conflict where one was made with other content."""
    left = []
    for run in runs:
        made = _digest_in_memory(broker, run)
        if made is None and not _is_new(broker, run):
            made = await _digest_in_store(broker, run)
        if made is None:
            left.append(run)
        elif made != run.digest:
            raise Conflict(f"node {run.origin.hex()}, counter {run.first}, exists already, with other content")
    return left


def _digest_in_memory(broker: Broker, run: NewRun) -> bytes | None:
    for made in broker.scheduler.graph.origins.get(run.origin, ()):
        if made.first == run.first:
            return made.digest
    return None


def _is_new(broker: Broker, run: NewRun) -> bool:
    """Whether the store need not be asked: the usual case, at the price of one index lookup."""
    graph = broker.scheduler.graph
    if run.instance in graph.instances:
        return run.creates is None  # all runs of a live instance are in memory
    if run.creates is None or run.instance in broker.in_flight:
        return False
    if any(row.id == run.instance for row in graph.changes.instances):
        return False
    return not broker.store.has_instance(run.instance)


async def _digest_in_store(broker: Broker, run: NewRun) -> bytes | None:
    await broker.durable()
    stored = await broker.in_store(broker.store.run, run.origin, run.first)
    if stored is not None:
        return stored.digest
    if run.creates is not None:
        instance = await broker.in_store(broker.store.instance, run.instance)
        if instance is not None:
            same = (instance.row.definition, instance.row.entry) == run.creates and not run.lanes
            return run.digest if same else b"other"
    return None
