"""Turns the figures of a worker into the metrics that docs/reference/metrics.md lists."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from dagorama.worker.supervisor.figures import Snapshot
from dagorama_monitoring.exposition import by_name, counter, gauge, times_by

#: States of a slot.
STATES = ("starting", "idle", "busy", "closed")


def families(now: Snapshot) -> Iterator[Metric]:
    """Yield the metrics of a worker."""
    yield from _nodes(now)
    yield from _processes(now)
    yield from _connection(now)


def _nodes(now: Snapshot) -> Iterator[Metric]:
    yield gauge("dagorama_worker_held_nodes", "Nodes that the worker holds, running or not", value=now.held)
    text = "Seconds that attempts ran which ended by themselves"
    yield times_by("dagorama_worker_run_seconds", text, "function", now.runs.items())


def _processes(now: Snapshot) -> Iterator[Metric]:
    slots = ((state, now.slots.get(state, 0)) for state in STATES)
    yield by_name(gauge("dagorama_worker_slots", "Slots for a child process, by state", ("state",)), slots)
    text = "Child processes that ended without being told to"
    yield by_name(counter("dagorama_worker_process_deaths_total", text, ("cause",)), now.deaths.items())


def _connection(now: Snapshot) -> Iterator[Metric]:
    yield gauge("dagorama_worker_connected", "1 if a broker has welcomed the worker", value=now.is_connected)
    text = "Times that the worker has connected again"
    yield counter("dagorama_worker_reconnects_total", text, value=now.reconnects)
    text = "Large values that were fetched from the broker"
    yield counter("dagorama_worker_values_fetched_total", text, value=now.fetched)
    text = "Bytes of large values that were fetched from the broker"
    yield counter("dagorama_worker_value_bytes_fetched_total", text, value=now.fetched_bytes)
    text = "Bytes of results that the broker has not acknowledged"
    yield gauge("dagorama_worker_unacknowledged_bytes", text, value=now.unacknowledged)
