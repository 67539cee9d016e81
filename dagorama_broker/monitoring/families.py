"""Turns a snapshot into the metrics that docs/reference/metrics.md lists. Runs in the listener's thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from dagorama_broker.model.domain import ENDED, State
from dagorama_broker.model.queries import Usage
from dagorama_broker.monitoring.snapshot import FunctionSnapshot, Snapshot
from dagorama_monitoring.exposition import by_name, counter, gauge, sizes, times, times_by
from dagorama_monitoring.histogram import Distribution, summed


def families(now: Snapshot, usage: Usage | None) -> Iterator[Metric]:
    """Yield the metrics of a broker."""
    yield from _nodes(now)
    yield from _queues(now)
    yield from _workers(now)
    yield from _instances(now)
    yield from _broker(now)
    if usage is not None:
        yield from _store(usage)


def _nodes(now: Snapshot) -> Iterator[Metric]:
    yield counter("dagorama_nodes_created_total", "Nodes that were created", value=now.nodes_made)
    finished = counter("dagorama_nodes_finished_total", "Nodes that have ended", ("queue", "function", "outcome"))
    for each in now.functions:
        for state in sorted(ENDED):
            finished.add_metric([each.queue, each.function, state.name.lower()], each.ended[state])
    yield finished
    text = "Nodes that have not ended, by state"
    unfinished = [state for state in State if state not in ENDED]
    yield by_name(
        gauge("dagorama_nodes", text, ("state",)), ((each.name.lower(), now.nodes[each]) for each in unfinished)
    )
    text = "Nodes that run again, by reason"
    yield by_name(counter("dagorama_node_retries_total", text, ("reason",)), now.retries.items())
    text = "Seconds from being ready to being granted, of 1 node in 64 that were queued"
    yield times("dagorama_node_wait_seconds", text, now.waits)
    yield times_by("dagorama_node_run_seconds", "Seconds that attempts ran", "function", _runs(now.functions))


def _runs(functions: Sequence[FunctionSnapshot]) -> Iterator[tuple[str, Distribution]]:
    """Yield the run times by function, in any queue."""
    found: dict[str, list[Distribution]] = {}
    for each in functions:
        found.setdefault(each.function, []).append(each.runs)
    yield from ((function, summed(runs)) for function, runs in found.items())


def _queues(now: Snapshot) -> Iterator[Metric]:
    nodes = gauge("dagorama_queue_nodes", "Nodes of a queue by state, without waiting ones", ("queue", "state"))
    oldest = gauge("dagorama_queue_oldest_ready_seconds", "Seconds that the oldest queued node is ready", ("queue",))
    paused = gauge("dagorama_queue_paused", "1 if the nodes of the queue are not granted", ("queue",))
    for name, queue in now.queues.items():
        nodes.add_metric([name, "queued"], queue.queued)
        nodes.add_metric([name, "claimed"], queue.claimed)
        nodes.add_metric([name, "backoff"], queue.delayed)
        oldest.add_metric([name], queue.oldest)
        paused.add_metric([name], queue.paused)
    yield from (nodes, oldest, paused)


def _workers(now: Snapshot) -> Iterator[Metric]:
    workers = now.workers
    by_state = (("idle", workers.idle), ("busy", workers.busy), ("leaving", workers.leaving))
    yield by_name(gauge("dagorama_workers", "Connected workers", ("state",)), by_state)
    slots = (("busy", workers.slots_busy), ("free", workers.slots - workers.slots_busy))
    yield by_name(gauge("dagorama_slots", "Child processes of connected workers", ("state",)), slots)
    text = "Child processes that ended by themselves while they ran nodes"
    yield by_name(counter("dagorama_worker_deaths_total", text, ("cause",)), now.deaths.items())
    text = "Queued nodes that no worker may run only because none has their code"
    yield gauge("dagorama_unserved_code_nodes", text, value=now.unserved)


def _instances(now: Snapshot) -> Iterator[Metric]:
    yield gauge("dagorama_instances", "Instances with an unfinished node", value=now.instances)
    text = "Seconds from the creation of an instance to its end"
    yield times("dagorama_instance_duration_seconds", text, now.instances_ended)
    text = "Instances that schedules have started"
    yield counter("dagorama_schedule_instances_total", text, value=now.schedules_fired)
    text = "Times of schedules for which nothing was started"
    yield counter("dagorama_schedule_times_missed_total", text, value=now.schedules_missed)
    text = "Signals of unfinished instances that are kept until a node waits for them"
    yield gauge("dagorama_signals_kept", text, value=now.signals.kept)
    yield gauge("dagorama_signal_waits", "Nodes that wait for a signal", value=now.signals.waits)
    text = "Signals that were given to nodes"
    yield counter("dagorama_signals_taken_total", text, value=now.signals.taken)


def _broker(now: Snapshot) -> Iterator[Metric]:
    text = "Seconds from granting nodes to telling their workers, with the commit"
    yield times("dagorama_dispatch_latency_seconds", text, now.dispatches)
    yield times("dagorama_commit_seconds", "Seconds of a commit", now.commits)
    yield sizes("dagorama_commit_batch_nodes", "Nodes that a commit creates or ends", now.batches)
    messages = (("in", now.messages_in), ("out", now.messages_out))
    text = "Messages of clients and workers"
    yield by_name(counter("dagorama_messages_total", text, ("direction",)), messages)
    text = "Bytes of unfinished nodes and cached envelopes, estimated"
    yield gauge("dagorama_memory_bytes", text, value=now.memory)
    yield gauge("dagorama_viewers", "Callers that watch an instance", value=now.viewers)
    text = "Bytes that nodes printed and that were dropped, because the disk was full or too slow"
    yield counter("dagorama_log_bytes_dropped_total", text, value=now.log_bytes_dropped)
    text = "Nodes that got a cached value (hit), and whose value was computed and cached (miss)"
    looked_up = (("hit", now.cache_hits), ("miss", now.cache_misses))
    yield by_name(counter("dagorama_cache_nodes_total", text, ("result",)), looked_up)
    yield gauge("dagorama_cached_values", "Cached values, expired ones too as long as they are kept", value=now.cached)
    text = "0 if the object store of large values does not answer the broker"
    yield gauge("dagorama_values_reachable", text, value=now.values_reachable)


def _store(usage: Usage) -> Iterator[Metric]:
    parts = (("database", usage.database), ("log", usage.log), ("values", usage.values))
    yield by_name(gauge("dagorama_store_bytes", "Bytes of the files of the store", ("part",)), parts)
    if usage.free is not None:
        text = "Bytes that are free on the file system of the database"
        yield gauge("dagorama_store_free_bytes", text, value=usage.free)
