"""Answers to GetStatus: the current state of the broker. Lists are paged, each page well below the message limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice
from math import inf
from typing import Generic, TypeVar

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import Role
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.rpc.aggregates import node_name
from dagorama_broker.rpc.explain import unschedulable_message
from dagorama_broker.rpc.permissions import calls_of, may_read_logs
from dagorama_broker.rpc.tokens import Token
from dagorama_broker.scheduler import FunctionQueue, Obstacle, QueueGate, Scheduler, Worker, queued_of

#: Entries, and bytes, of one list on a page.
ENTRIES, BYTES = 1_000, 1 << 20
#: Running nodes that one reply names.
MOST_RUNNING = 1_000

Key = TypeVar("Key", int, bytes, str)
Entry = TypeVar("Entry", pb.WorkerInfo, pb.Unschedulable, pb.QueueInfo)


@cache
def version() -> str:
    """Return the version of the installed package; it is looked up on first use, because that takes a while."""
    from importlib.metadata import version as version_of

    return version_of("dagorama")


@dataclass(frozen=True, slots=True)
class _Page(Generic[Key, Entry]):
    """A page of a list."""

    entries: list[Entry]
    last: Key  #: key of the last entry; if there is none, the key after which the page begins
    more: bool


def who_am_i(token: Token | None) -> pb.WhoAmIReply:
    """Return what a caller may do. None: the broker requires no tokens."""
    return pb.WhoAmIReply(
        name=token.name if token is not None else "",
        role=token.role if token is not None else Role.ADMIN,
        tokens=token is not None,
        calls=calls_of(token),
        version=version(),
        logs=may_read_logs(token),
    )


def status(broker: Broker, request: pb.GetStatusRequest) -> pb.Status:
    """Return the counts, except the counts of messages, and of each list the page after the entry in the request."""
    scheduler = broker.scheduler
    is_first = not (request.after_worker or request.after_function or request.after_queue)
    active, known, queues = scheduler.active_queues, scheduler.workers, functions_by_queue(scheduler)
    workers = _page(known, request.after_worker, lambda id: _worker(known[id]))
    functions = _page(active, request.after_function, lambda id: _unservable(scheduler, active[id]))
    named = _page(queues, request.after_queue, lambda queue: queue_info(scheduler, queue, queues[queue]))
    return pb.Status(
        nodes=scheduler.counts,
        instances=len(scheduler.instances),
        epoch=scheduler.epoch,
        commits=broker.commits.count,
        version=version(),
        workers=workers.entries,
        last_worker=workers.last,
        unschedulable=functions.entries,
        last_function=functions.last,
        queues=named.entries,
        last_queue=named.last,
        more=workers.more or functions.more or named.more,
        limits=_limits(scheduler) if is_first else [],
    )


async def name_running(broker: Broker, status: pb.Status, most: int) -> None:
    """Add to the workers of a status the nodes that they run, at most `most` in all."""
    scheduler = broker.scheduler
    slots = ((info, slot) for info in status.workers for slot in scheduler.workers[info.worker].slots if slot.held)
    running = [
        (info, node.key, node.queue.function.name, scheduler.running_since(node))
        for info, slot in islice(slots, min(most, MOST_RUNNING))
        for node, _ in islice(slot.held.values(), 1)
    ]
    places = await broker.commits.in_view(broker.store.view.places, [key for _, key, _, _ in running])
    for info, key, function, started in running:
        if (place := places.get(key)) is not None:  # a node whose creation is not stored as yet has no place
            info.running.add(name=node_name(place), function=function, started=started)


def _page(keys: Iterable[Key], after: Key, describe: Callable[[Key], Entry | None]) -> _Page[Key, Entry]:
    """Return descriptions of the keys after `after`, in their order, without those described as None."""
    entries: list[Entry] = []
    size, last = 0, after
    for key in sorted([key for key in keys if key > after]):
        entry = describe(key)
        if entry is None:
            continue
        size += entry.ByteSize()
        if entries and (size > BYTES or len(entries) == ENTRIES):
            return _Page(entries, last, True)
        entries.append(entry)
        last = key
    return _Page(entries, last, False)


def _unservable(scheduler: Scheduler, queue: FunctionQueue) -> pb.Unschedulable | None:
    reason = scheduler.unschedulable_reason(queue)
    return unschedulable_message(scheduler, Obstacle(queue, queue.queued, reason)) if reason is not None else None


def functions_by_queue(scheduler: Scheduler) -> dict[str, list[FunctionQueue]]:
    """Return functions with nodes that are queued, claimed or delayed, by their queues, and queues that are paused."""
    queues: dict[str, list[FunctionQueue]] = {}
    for queue in scheduler.function_queues.values():
        if queue.queued or queue.claimed or queue.keyed_claimed or queue.delayed or queue.keyed_delayed:
            queues.setdefault(queue.function.queue, []).append(queue)
    for paused in scheduler.paused:
        queues.setdefault(paused, [])
    return queues


def queue_info(scheduler: Scheduler, queue: str, queues: Iterable[FunctionQueue]) -> pb.QueueInfo:
    """Describe the nodes of a queue that have not ended."""
    info, taints = pb.QueueInfo(queue=queue), set()
    if (paused := scheduler.paused.get(queue)) is not None:
        info.paused_since, info.paused_by = paused.since, paused.by
    for each in queues:
        info.queued += each.queued
        info.claimed += each.claimed + each.keyed_claimed
        info.delayed += each.delayed + each.keyed_delayed
        taints.add(each.function.taint)
    info.taints.extend(sorted(taints - {""}))
    return info


def _limits(scheduler: Scheduler) -> list[pb.LimitInfo]:
    limits = [_limit(scheduler, gate) for gate in scheduler.limits_in_use(ENTRIES)]
    sizes = accumulate(each.ByteSize() for each in limits)
    return [each for each, size in zip(limits, sizes, strict=True) if size <= BYTES // 4]


def _limit(scheduler: Scheduler, gate: QueueGate) -> pb.LimitInfo:
    info = pb.LimitInfo(
        name=gate.name,
        shared=scheduler.is_shared(gate),
        key=gate.key or "",
        max_concurrency=gate.max_concurrency,
        starts=gate.used + gate.held,
        claimed=gate.claimed,
        queued=queued_of(gate),
        declared_by=gate.declared_by,
    )
    if gate.rate is not None:
        info.rate.starts, info.rate.seconds = gate.rate
    next_start = scheduler.next_start(gate)
    if 0.0 < next_start < inf:
        info.next_start = next_start + scheduler.wall
    return info


def _worker(worker: Worker) -> pb.WorkerInfo:
    presence = worker.info
    name = presence.name if presence.protocol is WireProtocol.V1 else f"{presence.name} (dagorama 0.1.10)"
    return pb.WorkerInfo(
        worker=presence.id,
        name=name,
        slots=sum(not slot.closed for slot in worker.slots),
        held=sum(len(slot.held) for slot in worker.slots),
        include_queues=sorted(presence.include_queues),
        exclude_queues=sorted(presence.exclude_queues),
        tolerations=sorted(presence.tolerations),
        leaving=worker.pool is None,
    )
