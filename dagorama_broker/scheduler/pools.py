"""Groups workers by what they may run: a thousand alike are one pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.scheduler.mismatch import Mismatch
from dagorama_broker.scheduler.objects import Slot, Worker
from dagorama_broker.scheduler.queues import UNLISTED, FunctionQueue, Head

_Rules = tuple[WireProtocol, frozenset[str], frozenset[str], frozenset[str], frozenset[str], frozenset[int]]


def _rules(worker: Worker) -> _Rules:
    own = worker.info
    return own.protocol, own.include_queues, own.exclude_queues, own.tolerations, own.key_ids, frozenset(worker.refuses)


class Pool:
    """Workers that may run the same nodes; assignment looks at pools and never at every worker.

    It has the oldest nodes of all functions that its workers may run, as far as they have been offered to it.
    """

    __slots__ = ("_heads", "_may", "idle", "offered", "partially_free", "protocol", "workers")

    def __init__(self, protocol: WireProtocol) -> None:
        self.protocol = protocol
        self.workers: dict[bytes, Worker] = {}
        self.idle: dict[Slot, None] = {}  #: empty slots, the one that waited longest first
        #: slots with nodes that may have room, the one that waited longest first
        self.partially_free: dict[Slot, None] = {}
        self._may: dict[int, bool] = {}  # by the id of a function, as far as asked
        self.offered: dict[FunctionQueue, int] = {}  #: functions' own queues, and the place at which `_heads` has each
        self._heads: list[tuple[int, int, FunctionQueue]] = []  # heap of (place, id, the function's own queue)

    @property
    def slots_with_room(self) -> int:
        """Return the number of slots that may have room."""
        return len(self.idle) + len(self.partially_free)

    def any_worker(self) -> Worker:
        """Return one of the workers, which stands for all."""
        return next(iter(self.workers.values()))

    def may_run(self, queue: FunctionQueue) -> bool:
        """Return whether these workers may run nodes of this function."""
        known = self._may.get(queue.id)
        if known is None:
            known = self._may[queue.id] = self.any_worker().mismatch(queue) is None
        return known

    # --- nodes to run ---------------------------------------------------------------------------------

    def offer(self, queue: FunctionQueue, head: Head | None) -> None:
        """Enter the oldest node of a function that these workers may run; None: none can be claimed now."""
        if head is not None and head[0] < self.offered.get(queue, UNLISTED):
            self.offered[queue] = head[0]
            heappush(self._heads, (head[0], queue.id, queue))

    def oldest(self, head: Callable[[FunctionQueue], Head | None]) -> Head | None:
        """Return the oldest node that these workers may run now, as its place and its queue; None: there is none.

        `head` returns the oldest node of a function. Outdated entries are corrected when they come up.
        """
        heads, offered = self._heads, self.offered
        while heads:
            place, id, queue = heads[0]
            if offered.get(queue) != place:
                heappop(heads)  # an older one of the function was entered since
                continue
            now = head(queue)
            if now is None:
                heappop(heads)
                del offered[queue]
            elif now[0] != place:
                offered[queue] = now[0]
                heapreplace(heads, (now[0], id, queue))
            else:
                return now
        return None

    def withdraw(self, queues: set[FunctionQueue]) -> None:
        """Remove functions without a claimable node."""
        if queues.isdisjoint(self.offered):
            return
        for queue in queues:
            self.offered.pop(queue, None)
        self._heads = [entry for entry in self._heads if entry[2] in self.offered]
        heapify(self._heads)

    def next_best(self) -> int:
        """Return a place that is no younger than the oldest node of any function except the first one."""
        heads = self._heads
        if len(heads) < 3:
            return heads[1][0] if len(heads) == 2 else UNLISTED
        return min(heads[1][0], heads[2][0])

    def forget(self, queues: set[int]) -> None:
        """Drop what is known of these functions, by their ids."""
        for queue in queues.intersection(self._may):
            del self._may[queue]

    # --- slots ----------------------------------------------------------------------------------------

    def place(self, slot: Slot) -> None:
        """Enter a slot that may have room, behind the others of its kind."""
        its, other = (self.partially_free, self.idle) if slot.held else (self.idle, self.partially_free)
        other.pop(slot, None)
        its[slot] = None

    def remove(self, slot: Slot) -> None:
        """Remove a slot: it is granted nothing more."""
        self.idle.pop(slot, None)
        self.partially_free.pop(slot, None)


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
        """Drop what pools know of these functions, by their ids."""
        for pools in self._pools.values():
            for pool in pools.values():
                pool.forget(queues)

    def allow(self, worker: Worker, queues: set[int]) -> None:
        """Forget that the worker has refused these functions, by their ids."""
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
