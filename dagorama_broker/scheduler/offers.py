"""Offers queued nodes to pools of workers, and says which workers may run what, and why not."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.model.rows import PausedQueueRow
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.mismatch import Mismatch, ReasonCode
from dagorama_broker.scheduler.objects import Node, Pool, Worker
from dagorama_broker.scheduler.pools import Pools
from dagorama_broker.scheduler.queues import FunctionQueue, Head
from dagorama_broker.scheduler.refusals import Refusals

#: Reasons of a worker that does not have the code of a node.
ABOUT_CODE = frozenset(
    {ReasonCode.NOT_IMPORTABLE, ReasonCode.OTHER_CODE, ReasonCode.NOT_REGISTERED, ReasonCode.UNCHECKABLE}
)
#: The reason of queued nodes if no worker of their protocol is connected.
NO_WORKERS = {
    WireProtocol.V1: "no worker is connected (start one with `worker`)",
    WireProtocol.LEGACY: "none of its workers is connected",
}


def paused_text(paused: PausedQueueRow) -> str:
    """Return that a queue is paused, as a sentence without a period."""
    by = f" by {paused.by}" if paused.by else ""
    return f"queue {paused.queue!r} is paused{by} (resume it with `dagorama queues resume {paused.queue}`)"


class Offers:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.workers: dict[bytes, Worker] = {}
        self.pools = Pools(self.offer_all)
        self.refusals = Refusals()
        self.claimed: dict[int, Node] = {}  #: by attempt
        self.until_idle: dict[Worker, None] = {}  #: workers that leave when nothing is queued for them
        self.until_drained: dict[Worker, None] = {}  #: workers that leave when nothing will be queued, either

    def tidy(self, ids: Collection[int]) -> None:
        """Remove functions without claimable nodes from the pools."""
        self.offer()
        idle = {queue for id in ids if not (queue := self.graph.queue_by_id[id]).schedulable}
        for queue in idle:
            queue.forget_heads()
        for protocol in WireProtocol:
            for pool in self.pools.of(protocol):
                pool.withdraw(idle)

    def forget_queues(self, ids: set[int]) -> None:
        """Drop what workers and pools know of these functions, by their IDs."""
        self.pools.forget(ids)
        self.refusals.forget(ids)
        for worker in self.workers.values():
            self.pools.allow(worker, ids)

    def refuse(self, worker: Worker, queue: FunctionQueue, why: Mismatch) -> None:
        """Grant the worker no more nodes of this function, and remember that its pool could not run them."""
        self.pools.refuse(worker, queue, why)
        self.refusals.note(worker.info, queue.id, self.graph.now)

    def head(self, pool: Pool) -> Head | None:
        """Return the oldest node that workers of this pool may run, as its place and its queue; None: there is none."""
        self.offer()
        return pool.oldest(self.graph.head)

    def offer(self) -> None:
        """Offer the oldest nodes of functions to the pools, if they may have changed."""
        graph = self.graph
        stirred, graph.stirred = graph.stirred, {}
        for queue in stirred:
            if queue.key and queue.available > 0:
                queue.list_head(graph.first(queue))
        for base in dict.fromkeys([queue.base for queue in stirred]):
            head = graph.head(base)
            for pool in self.pools.of(base.function.protocol):
                if pool.may_run(base):
                    pool.offer(base, head)

    def offer_all(self, pool: Pool) -> None:
        """Offer the oldest nodes of all functions to a new pool."""
        for base in self.graph.active.values():
            if base.function.protocol is pool.protocol and pool.may_run(base):
                pool.offer(base, self.graph.head(base))

    def satisfied(self) -> list[Worker]:
        """Return the workers that may leave, because their condition is met (see `Until` in broker.proto)."""
        if self.graph.starting or self.graph.unnotified:
            return []  # there may be more in a moment
        waiting: Iterable[Worker] = self.until_idle
        if self.until_drained and self._is_drained():
            waiting = [*self.until_idle, *self.until_drained]
        return [worker for worker in waiting if self._is_idle(worker)]

    def _is_idle(self, worker: Worker) -> bool:
        if worker.pool is None or any(slot.held for slot in worker.slots):
            return False
        return self.head(worker.pool) is None

    def _is_drained(self) -> bool:
        """Return whether no node runs, or will run by itself, that could make others."""
        if any(node.queue.function.protocol is WireProtocol.V1 for node in self.claimed.values()):
            return False
        graph = self.graph
        limited = [queue for queue in graph.active.values() if queue.is_limited and not queue.is_paused]
        later = [*graph.delayed.values(), *limited]
        return not any(pool.may_run(queue) for pool in self.pools.of(WireProtocol.V1) for queue in later)

    def unschedulable(self, queues: Iterable[FunctionQueue] | None = None) -> list[tuple[FunctionQueue, str]]:
        """Return the queues whose nodes no connected worker may run, and why.

        By default it covers all functions with queued nodes.
        """
        queues = self.graph.active.values() if queues is None else queues
        return [(queue, reason) for queue in queues if (reason := self.unschedulable_reason(queue)) is not None]

    def deployed(self, queue: FunctionQueue) -> list[str]:
        """Return the hashes of other code that connected workers have of this function."""
        return sorted({hash for worker in self.workers.values() if (hash := worker.deployed.get(queue.id))})

    def lacks_key_of_rebinding(self, queue: FunctionQueue) -> bool:
        """Return whether its nodes were rebound under a signing key that no connected worker holds."""
        key = queue.function.rebound_under
        ours = [worker.info for worker in self.workers_of(WireProtocol.V1)]
        return bool(key and ours) and not any(key in presence.key_ids for presence in ours)

    def needs_rebinding(self, queue: FunctionQueue) -> bool:
        """Return whether its nodes need a rebinding to run: workers have other code, or lack its key."""
        return bool(self.mismatch_reason(queue) and self.deployed(queue)) or self.lacks_key_of_rebinding(queue)

    def lacks_code(self, queue: FunctionQueue) -> bool:
        """Return whether no worker may run nodes of this function, and one of them only because of its code."""
        protocol = queue.function.protocol
        if any(pool.may_run(queue) for pool in self.pools.of(protocol)):
            return False
        return any(self.mismatch(worker, queue).code in ABOUT_CODE for worker in self.workers_of(protocol))

    def workers_of(self, protocol: WireProtocol) -> list[Worker]:
        """Return the connected workers of a protocol."""
        return [worker for worker in self.workers.values() if worker.info.protocol is protocol]

    def mismatch(self, worker: Worker, queue: FunctionQueue) -> Mismatch:
        """Return why a worker may not run nodes of this function, which no pool may run."""
        leaving = Mismatch(ReasonCode.LEAVING, "it takes nothing more (start another)")
        return worker.mismatch(queue) or leaving

    def unschedulable_reason(self, queue: FunctionQueue) -> str | None:
        """Return why no connected worker may run nodes of this function now; None: one may."""
        paused = self.graph.paused.get(queue.function.queue) if self.graph.paused else None
        return paused_text(paused) if paused is not None else self.mismatch_reason(queue)

    def mismatch_reason(self, queue: FunctionQueue) -> str | None:
        """Return what connected workers lack to run nodes of this function; None: one of them lacks nothing."""
        protocol = queue.function.protocol
        if any(pool.may_run(queue) for pool in self.pools.of(protocol)):
            return None
        workers = self.workers_of(protocol)
        if not workers:
            return NO_WORKERS[protocol]
        reasons = dict.fromkeys(self.mismatch(worker, queue).text for worker in workers)
        many = len(workers) > 1
        none = f"none of {len(workers)} connected workers may" if many else "the only connected worker may not"
        return f"{none} run it: " + "; ".join(reasons)
