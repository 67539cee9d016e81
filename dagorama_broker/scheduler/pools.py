"""Groups workers by what they may run: a thousand alike are one pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.scheduler.mismatch import Mismatch
from dagorama_broker.scheduler.objects import Pool, Worker
from dagorama_broker.scheduler.queues import FunctionQueue

_Rules = tuple[WireProtocol, frozenset[str], frozenset[str], frozenset[str], frozenset[str], frozenset[int]]


def _rules(worker: Worker) -> _Rules:
    own = worker.info
    return own.protocol, own.include_queues, own.exclude_queues, own.tolerations, own.key_ids, frozenset(worker.refuses)


class Pools:
    """Keeps all pools. A worker is in one pool, or in none if it is granted nothing more."""

    def __init__(self, offer_all: Callable[[Pool], None]) -> None:
        """Call `offer_all` with each new pool, so that it learns which nodes are queued."""
        self._pools: dict[WireProtocol, dict[_Rules, Pool]] = {protocol: {} for protocol in WireProtocol}
        self._offer_all = offer_all

    def of(self, protocol: WireProtocol) -> Iterator[Pool]:
        """Return the pools of a protocol."""
        return iter(self._pools[protocol].values())

    def join(self, worker: Worker) -> None:
        """Enter a worker in the pool of its rules."""
        rules, pools = _rules(worker), self._pools[worker.info.protocol]
        pool = pools.get(rules)
        if pool is None:
            pool = pools[rules] = Pool(worker.info.protocol)
        is_new = not pool.workers
        pool.workers[worker.info.id] = worker
        worker.pool = pool
        if is_new:
            self._offer_all(pool)
        for slot in worker.slots:
            if not slot.closed:
                pool.place(slot)

    def leave(self, worker: Worker) -> None:
        """Remove a worker from its pool."""
        pool, worker.pool = worker.pool, None
        if pool is None:
            return
        for slot in worker.slots:
            pool.remove(slot)
        del pool.workers[worker.info.id]
        if not pool.workers:
            del self._pools[pool.protocol][_rules(worker)]

    def refuse(self, worker: Worker, queue: FunctionQueue, why: Mismatch) -> None:
        """Grant the worker no more nodes of this function."""
        takes_more = worker.pool is not None
        self.leave(worker)
        worker.refuses[queue.id] = why
        if takes_more:
            self.join(worker)

    def forget(self, queues: set[int]) -> None:
        """Drop what pools know of these functions, by their IDs."""
        for pools in self._pools.values():
            for pool in pools.values():
                pool.forget(queues)

    def allow(self, worker: Worker, queues: set[int]) -> None:
        """Forget that the worker has refused these functions, by their IDs."""
        stale = queues.intersection(worker.refuses)
        if not stale:
            return
        takes_more = worker.pool is not None
        self.leave(worker)
        for queue in stale:
            del worker.refuses[queue]
            worker.deployed.pop(queue, None)
        if takes_more:
            self.join(worker)
