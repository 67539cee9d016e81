"""Computes how many slots a pool of workers needs now, from what its workers run and what they would be granted.

The predicate that grants nodes decides what a pool may run, and the counts behind grants decide how many, so that the
demand does not differ from what is granted. It costs nothing unless it is requested.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import NamedTuple

from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.scheduler.ages import ReadyAges
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.mismatch import ReasonCode, mismatch
from dagorama_broker.scheduler.objects import Slot, Worker
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.refusals import REMEMBERED, PoolRules, Refusals, rules_of
from dagorama_broker.scheduler.requests import WorkerInfo
from dagorama_broker.scheduler.run_times import OVERHEAD_US, OVERLAP
from dagorama_broker.scheduler.transitions import BACKOFF

#: Seconds of work for which one slot is enough.
HORIZON = 10.0
#: Delayed nodes that are due within this many seconds count as ready, because a new worker takes a while to start.
SOON = 30.0
#: Delayed nodes that are examined. If more are due soon, the others count when they are queued.
MOST_DELAYED = 5_000


class DemandQuery(NamedTuple):
    """A pool whose demand is asked for."""

    pool: WorkerInfo  #: as a worker of the pool presents itself
    horizon: float = HORIZON  #: seconds of work for which one slot is enough
    share: float = 1.0  #: the part of the ready work that is for this pool, if others run the same queues
    any_key: bool = False  #: the keys of the pool are not known: nodes with any key count


class Demand(NamedTuple):
    """The slots that a pool needs, with the counts behind them."""

    slots: int = 0  #: slots that are needed: `running_slots`, and some for the ready nodes
    running: int = 0  #: nodes that workers of the pool hold and have started
    running_slots: int = 0  #: slots in which these run; fewer than nodes if these are async
    leaving_slots: int = 0  #: of these, slots of workers that are granted nothing more
    ready: int = 0  #: nodes that a worker of the pool would be granted, now or within `SOON`
    unmeasured: int = 0  #: of these, nodes of functions that have not run since the broker was started
    seconds: float = 0.0  #: that the ready nodes take in one slot; an unmeasured node counts as the horizon
    oldest_ready: float = 0.0  #: seconds for which the oldest ready node has been queued
    connected: int = 0  #: workers of the pool
    busy: int = 0  #: of these, workers that hold a node
    leaving: int = 0  #: of these, workers that are granted nothing more
    unservable: int = 0  #: nodes that the pool may run, except that its workers have returned them
    missing_key: int = 0  #: nodes that the pool may not run only because it lacks a signing key


@dataclass(slots=True)
class _Staff:
    """The workers of one pool."""

    connected: int = 0
    busy: int = 0
    leaving: int = 0
    running: int = 0
    running_slots: int = 0
    leaving_slots: int = 0
    taking: list[Worker] = field(default_factory=list)  #: workers that are granted nodes

    def add(self, worker: Worker) -> None:
        self.connected += 1
        held = [slot for slot in worker.slots if slot.held]
        if worker.pool is None:
            self.leaving += 1
            self.leaving_slots += len(held)
        else:
            self.taking.append(worker)
        self.busy += bool(held)
        self.running_slots += len(held)
        self.running += sum(map(_started, held))


def _started(slot: Slot) -> int:
    """Return how many of the nodes that a slot holds have started: one sync node, and async ones."""
    if not slot.async_us:
        return 1
    started = sum(node.queue.is_async for node, _ in slot.held.values())
    return min(started, OVERLAP) + (slot.sync_us > 0)


@dataclass(slots=True)
class _Work:
    """The nodes that a pool may run, as they are added up."""

    horizon: float
    ready: int = 0
    unmeasured: int = 0
    seconds: float = 0.0
    most_slots: int = 0  #: slots in which all of these nodes would run at the same time

    def add(self, queue: FunctionQueue, nodes: int) -> None:
        overlap, mean = OVERLAP if queue.is_async else 1, queue.run_time.mean_us
        self.ready += nodes
        self.most_slots += ceil(nodes / overlap)
        if mean is None:
            self.unmeasured += nodes
        each = self.horizon if mean is None else (mean + OVERHEAD_US) / 1e6
        self.seconds += nodes * each / overlap

    def slots(self, share: float) -> int:
        """Return the slots that do the work within the horizon, as far as there is a node for each."""
        return ceil(share * min(self.most_slots, ceil(self.seconds / self.horizon - 1e-9)) - 1e-9)


class DemandLook:
    """The claimable nodes by function and the workers by their rules, at one moment: the same for all pools.

    It costs a step for each function with queued nodes, each connected worker and each delayed node that is due soon,
    and for each pool that is asked for a step for each function with claimable nodes.
    """

    def __init__(self, claims: Claims, ages: ReadyAges) -> None:
        graph = claims.graph
        self._now = graph.now
        self._ages = ages
        self._refusals: Refusals = claims.refusals
        self._claimable = _claimable(graph)
        self._staff: dict[PoolRules, _Staff] = {}
        for worker in claims.workers_of(WireProtocol.V1):
            rules = rules_of(worker.info)
            for each in {rules, rules.of_any_owner}:
                self._staff.setdefault(each, _Staff()).add(worker)

    def demand(self, query: DemandQuery) -> Demand:
        """Return the demand of a pool. Its workers are those with the same owner, queues and tolerations."""
        rules = rules_of(query.pool)
        staff, work = self._staff.get(rules, _NO_STAFF), _Work(query.horizon)
        refused, unservable, missing_key, oldest = self._refused(rules, staff.taking), 0, 0, 0.0
        for queue, nodes in self._claimable.items():
            lacks = mismatch(query.pool, queue.function)
            if lacks is not None and not (query.any_key and lacks.code is ReasonCode.MISSING_KEY):
                missing_key += nodes * (lacks.code is ReasonCode.MISSING_KEY)
                continue
            counted = min(nodes, refused.get(queue.id, nodes))
            unservable += nodes - counted
            if counted:
                work.add(queue, counted)
                oldest = max(oldest, self._ages.oldest_of(queue, self._now))
        return Demand(
            slots=staff.running_slots + work.slots(query.share),
            running=staff.running,
            running_slots=staff.running_slots,
            leaving_slots=staff.leaving_slots,
            ready=work.ready,
            unmeasured=work.unmeasured,
            seconds=work.seconds,
            oldest_ready=oldest,
            connected=staff.connected,
            busy=staff.busy,
            leaving=staff.leaving,
            unservable=unservable,
            missing_key=missing_key,
        )

    def _refused(self, rules: PoolRules, taking: Collection[Worker]) -> Mapping[int, int]:
        """Return how many nodes count of functions, by their IDs, whose nodes the workers of a pool have returned.

        None at first, also when these workers have left: else one after the other would be started for a node that no
        worker of the pool can run. After a while one node counts, because the next worker may have other code.
        """
        found: dict[int, int] = {}
        for id, at in list(self._refusals.of(rules).items()):
            if any(id not in worker.refuses for worker in taking):
                self._refusals.withdraw(rules, id)
            else:
                found[id] = int(self._now - at >= REMEMBERED)
        return found


_NO_STAFF = _Staff()


def _claimable(graph: Graph) -> dict[FunctionQueue, int]:
    """Return how many nodes of each function could be claimed now, or soon, with any concurrency key."""
    found = {queue: queue.schedulable for queue in graph.active.values()}
    for queue, soon in _due_soon(graph, graph.now + SOON).items():
        found[queue.base] = found.get(queue.base, 0) + queue.room_for(soon)
    return {
        queue: min(nodes, queue.shared_room)
        for queue, nodes in found.items()
        if nodes > 0 and not queue.is_closed and queue.function.protocol is WireProtocol.V1
    }


def _due_soon(graph: Graph, until: float) -> dict[FunctionQueue, int]:
    """Return how many delayed nodes of each queue are due by then."""
    found: dict[FunctionQueue, int] = {}
    for when, key in islice(_heap_until(graph.pauses, until), MOST_DELAYED):
        node = graph.nodes.get(key)
        if node is not None and node.state is BACKOFF and graph.trouble(node).retry_at == when:
            found[node.queue] = found.get(node.queue, 0) + 1
    return found


def _heap_until(heap: list[tuple[float, int]], until: float) -> Iterable[tuple[float, int]]:
    """Yield the entries of a heap up to a time, without looking at most of the others; nearly in their order."""
    places = [0] if heap else []
    for place in places:
        if heap[place][0] <= until:
            yield heap[place]
            places += [child for child in (2 * place + 1, 2 * place + 2) if child < len(heap)]
