"""Copies the figures of a broker, for metrics. Runs in the loop: it reads what is counted already, and sums up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.recorder import Recorder
from dagorama_broker.scheduler import ReadyAges, Recording, Scheduler, SignalCounts, Worker
from dagorama_monitoring.histogram import Distribution


@dataclass(frozen=True, slots=True)
class FunctionSnapshot:
    function: str
    queue: str
    ended: Sequence[int]  #: nodes by their last state
    runs: Distribution  #: microseconds


@dataclass(slots=True)
class QueueSnapshot:
    queued: int = 0
    claimed: int = 0
    delayed: int = 0
    oldest: float = 0.0  #: seconds since which the oldest queued node has been ready
    paused: bool = False


@dataclass(slots=True)
class WorkersSnapshot:
    idle: int = 0  #: workers that hold no node
    busy: int = 0
    leaving: int = 0  #: workers that are granted nothing more
    slots: int = 0
    slots_busy: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of one moment. Counts are those since the start of the broker."""

    functions: Sequence[FunctionSnapshot]
    queues: Mapping[str, QueueSnapshot]
    workers: WorkersSnapshot
    nodes: Sequence[int]  #: by state
    nodes_made: int
    retries: Mapping[str, int]  #: by reason
    deaths: Mapping[str, int]  #: by cause
    waits: Distribution
    dispatches: Distribution
    commits: Distribution
    batches: Distribution
    instances_ended: Distribution
    instances: int  #: with an unfinished node
    unserved: int  #: queued nodes whose code no worker has
    viewers: int
    log_bytes_dropped: int  #: of what nodes have printed: the disk was full, or too slow
    memory: int
    cache_hits: int
    cache_misses: int
    cached: int  #: values
    values_reachable: bool  #: False: large values are in an object store that does not answer
    messages_in: int
    messages_out: int
    schedules_fired: int  #: instances that schedules have started
    schedules_missed: int  #: times for which schedules have started nothing
    signals: SignalCounts


def taken(broker: Broker, recorder: Recorder, ages: ReadyAges) -> Snapshot:
    """Take a snapshot."""
    scheduler, counts = broker.scheduler, recorder.scheduling
    return Snapshot(
        functions=_functions(counts),
        queues=_queues(scheduler, counts, ages),
        workers=_workers(scheduler.workers.values()),
        nodes=list(scheduler.counts),
        nodes_made=recorder.nodes_made,
        retries={reason.value: count for reason, count in counts.retries.items()},
        deaths=dict(counts.deaths),
        waits=Distribution(counts.waits.copy(), counts.waited),
        dispatches=recorder.dispatches.copy(),
        commits=recorder.commits.copy(),
        batches=recorder.batches.copy(),
        instances_ended=recorder.instances.copy(),
        instances=len(scheduler.instances),
        unserved=sum(queue.queued for queue in scheduler.active_queues.values() if scheduler.lacks_code(queue)),
        viewers=broker.progress.viewers,
        log_bytes_dropped=broker.logs.bytes_dropped,
        memory=broker.memory_size(),
        cache_hits=scheduler.cache_hits,
        cache_misses=scheduler.cache_misses,
        cached=scheduler.cached_values,
        values_reachable=broker.store.objects is None or not broker.store.objects.remote.is_away,
        messages_in=broker.traffic.messages_in,
        messages_out=broker.traffic.messages_out,
        schedules_fired=broker.schedules.fired,
        schedules_missed=broker.schedules.missed,
        signals=scheduler.signal_counts,
    )


def _functions(counts: Recording) -> list[FunctionSnapshot]:
    return [
        FunctionSnapshot(function, queue, figures.ended.copy(), Distribution(figures.runs.copy(), figures.microseconds))
        for (function, queue), figures in counts.functions.items()
        if any(figures.ended) or any(figures.runs)
    ]


def _queues(scheduler: Scheduler, counts: Recording, ages: ReadyAges) -> dict[str, QueueSnapshot]:
    found: dict[str, QueueSnapshot] = {}
    for queue in scheduler.function_queues.values():
        its = found.setdefault(counts.queue_name(queue.function.queue), QueueSnapshot())
        its.queued += queue.queued
        its.claimed += queue.claimed + queue.keyed_claimed
        its.delayed += queue.delayed + queue.keyed_delayed
    for name, age in ages.oldest(scheduler.now).items():
        its = found.setdefault(counts.queue_name(name), QueueSnapshot())
        its.oldest = max(its.oldest, age)
    for name in scheduler.paused:
        found.setdefault(counts.queue_name(name), QueueSnapshot()).paused = True
    return found


def _workers(workers: Collection[Worker]) -> WorkersSnapshot:
    found = WorkersSnapshot()
    for worker in workers:
        busy = sum(bool(slot.held) for slot in worker.slots)
        found.slots += sum(not slot.closed for slot in worker.slots)
        found.slots_busy += busy
        if worker.pool is None:
            found.leaving += 1
        elif busy:
            found.busy += 1
        else:
            found.idle += 1
    return found
