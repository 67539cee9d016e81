"""Workers by what they may run: a thousand alike are one pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dagorama_broker.model.domain import World
from dagorama_broker.scheduler.objects import Pool, Worker
from dagorama_broker.scheduler.queues import Lane

_Rules = tuple[World, frozenset[str], frozenset[str], frozenset[str], frozenset[str], frozenset[int]]


def _rules(worker: Worker) -> _Rules:
    own = worker.presence
    return own.world, own.include_queues, own.exclude_queues, own.tolerations, own.key_ids, frozenset(worker.refuses)


class Pools:
    """A worker is in one pool, or in none when it takes nothing more."""

    def __init__(self, offer_all: Callable[[Pool], None]) -> None:
        """Call `offer_all` with each pool that is new, which has nothing to run yet."""
        self._pools: dict[World, dict[_Rules, Pool]] = {world: {} for world in World}
        self._offer_all = offer_all

    def of(self, world: World) -> Iterator[Pool]:
        return iter(self._pools[world].values())

    def join(self, worker: Worker) -> None:
        rules, pools = _rules(worker), self._pools[worker.presence.world]
        pool = pools.get(rules)
        if pool is None:
            pool = pools[rules] = Pool(worker.presence.world)
        is_new = not pool.workers
        pool.workers[worker.presence.id] = worker
        worker.pool = pool
        if is_new:
            self._offer_all(pool)
        for slot in worker.slots:
            if not slot.closed:
                pool.place(slot)

    def leave(self, worker: Worker) -> None:
        pool, worker.pool = worker.pool, None
        if pool is None:
            return
        for slot in worker.slots:
            pool.remove(slot)
        del pool.workers[worker.presence.id]
        if not pool.workers:
            del self._pools[pool.world][_rules(worker)]

    def refuse(self, worker: Worker, lane: Lane, why: str) -> None:
        """The worker is not offered nodes of this lane any more."""
        takes_more = worker.pool is not None
        self.leave(worker)
        worker.refuses[lane.id] = why
        if takes_more:
            self.join(worker)

    def forget(self, lanes: set[int]) -> None:
        """Nobody will ask about these lanes again."""
        for pools in self._pools.values():
            for pool in pools.values():
                pool.forget(lanes)

    def allow(self, worker: Worker, lanes: set[int]) -> None:
        """It does not matter any more that the worker has refused these lanes."""
        stale = lanes.intersection(worker.refuses)
        if not stale:
            return
        takes_more = worker.pool is not None
        self.leave(worker)
        for lane in stale:
            del worker.refuses[lane]
            worker.deployed.pop(lane, None)
        if takes_more:
            self.join(worker)
