"""Grants queued nodes to slots, oldest instance first, and takes nodes back that wait behind a long-running one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from math import ceil, inf

from dagorama_broker.model.domain import ENDED, WireProtocol
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.effects import Granted
from dagorama_broker.scheduler.graph import LOOKED_AT
from dagorama_broker.scheduler.objects import Node, Pool, Slot
from dagorama_broker.scheduler.queues import FunctionQueue, order
from dagorama_broker.scheduler.run_times import OVERLAP, SHORT_US, WINDOW_US
from dagorama_broker.scheduler.transitions import WAITING

#: Seconds without a report after which unstarted nodes of a slot may be granted to others.
STALE = 0.010

#: Functions up to which the even share of a slot is computed: if there are more, there is enough for all slots.
MANY = 1_000
#: Sources up to which a node may be claimed together with several of them.
MOST_JOINED = 64
#: Nodes that one step grants; the rest is granted in the next.
MOST = 5_000


@dataclass(slots=True)
class _Candidates:
    """The nodes that the slots of a pool may be granted now."""

    pool: Pool
    slots: int  #: slots that were not served yet
    due: float = 0.0  #: nodes that would be an even share for the slots

    def next_share(self) -> int:
        share = max(1, ceil(self.due / max(1, self.slots) - 1e-9)) if self.due < inf else MOST
        self.slots -= 1
        return share


class Assigner:
    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.graph = claims.graph
        self._left = 0  # nodes that this step may still grant

    # --- granting -------------------------------------------------------------------------------------

    def assign(self, now: float) -> bool:
        """Grant queued nodes to slots with room: to empty ones first, and an even share to each.

        Returns whether it stopped early because of the limit of one step.
        """
        self.claims.offer()
        self._left = MOST
        if not self.graph.active:
            return False
        menus = self._menus()
        for menu in menus:
            if menu.pool.idle:
                self._serve(menu, list(islice(menu.pool.idle, self._most_served(menu.pool))), now)
        for menu in menus:
            if menu.pool.partially_free:
                self._serve(menu, list(menu.pool.partially_free), now)
        for menu in menus:  # shares that other slots could not take
            if menu.pool.partially_free and menu.pool.offered:
                menu.due = inf
                self._serve(menu, list(menu.pool.partially_free), now)
        return self._left <= 0

    def _most_served(self, pool: Pool) -> int:
        """Return the number of empty slots that there may be nodes for."""
        if len(pool.offered) > MANY:
            return MOST
        return sum([queue.schedulable for queue in pool.offered])

    def _menus(self) -> list[_Candidates]:
        """Return the pools to serve, the most restricted first, so that plain nodes do not block ones with a taint."""
        pools = [pool for pool in self.claims.pools.of(WireProtocol.V1) if pool.offered and pool.slots_with_room]
        if len(pools) == 1:
            (pool,) = pools
            return [
                _Candidates(pool, pool.slots_with_room, inf if len(pool.offered) > MANY else self._most_served(pool))
            ]
        pools.sort(key=lambda pool: len(pool.offered))
        takers: dict[FunctionQueue, int] = {}  # slots that may be granted nodes of a function
        for pool in pools:
            # Slots of a pool with many functions count for the other pools' functions only.
            for queue in pool.offered if len(pool.offered) <= MANY else takers:
                if queue in pool.offered:
                    takers[queue] = takers.get(queue, 0) + pool.slots_with_room
        return [_Candidates(pool, pool.slots_with_room, self._due(pool, takers)) for pool in pools]

    def _due(self, pool: Pool, takers: Mapping[FunctionQueue, int]) -> float:
        if len(pool.offered) > MANY:
            return inf
        return sum(queue.schedulable / takers[queue] for queue in pool.offered) * pool.slots_with_room

    def _serve(self, menu: _Candidates, slots: Iterable[Slot], now: float) -> None:
        for slot in slots:
            if self._left <= 0 or not self._fill(slot, menu, now):
                return

    def _fill(self, slot: Slot, menu: _Candidates, now: float) -> bool:
        """Grant a slot its share, as far as the window allows. Return whether there may be more for other slots."""
        graph, pool, granted, before = self.graph, menu.pool, 0, self.claims.last_attempt
        head, next_best = pool.oldest(graph.head), pool.next_best()
        if head is None:
            return False
        share, short_us = menu.next_share(), SHORT_US
        del (pool.partially_free if slot.held else pool.idle)[slot]
        if now >= stale_at(slot):
            return True  # a granted node would wait; the slot has room again when it reports
        while head is not None and (granted < share or head[2].run_time.short_us <= short_us):
            queue = head[2]
            if not has_room(slot, queue):
                break
            if not slot.sync_us:
                slot.progress_at = now
            node = graph.nodes[queue.pop()]
            graph.effects.granted.append(Granted(slot, node, self.claims.claim(slot, node)))
            granted += 1
            short_us -= queue.run_time.short_us
            if node.dependents:
                self._send_along(slot, pool, node, before)
            if (
                queue.ready
                and not (queue.is_bounded or queue.key or queue.heads or (queue.gates and queue.is_closed))
                and (place := graph.first(queue)) < next_best
            ):
                head = place, queue.number, queue  # usually the next one is of the same function
            else:
                head, next_best = pool.oldest(graph.head), pool.next_best()
        else:
            pool.partially_free[slot] = None
        if len(slot.held) > 1:
            self.claims.loaded[slot] = None
        menu.due -= granted
        self._left -= granted
        return True

    def _send_along(self, slot: Slot, pool: Pool, source: Node, before: int) -> None:
        """Grant a dependent that waits for nothing but nodes of this grant, and one of that, and so on.

        `before`: the last attempt before this grant.
        """
        while True:
            node = self._follower(source, slot, pool, before)
            if node is None or not has_room(slot, node.queue):
                return
            attempt = self.claims.claim_fused(slot, node)
            self.graph.effects.granted.append(Granted(slot, node, attempt))
            source = node

    def _follower(self, source: Node, slot: Slot, pool: Pool, before: int) -> Node | None:
        """Return a dependent that may be claimed together with a node: they run in one process, one after the other.

        Nodes with failed attempts are granted alone, so that a death or a loss tells which node caused it.
        """
        if source.queue.is_async or source.queue.caches or source.failures is not None:
            return None
        for node in islice(source.dependents or (), LOOKED_AT):
            if (
                node.pending <= MOST_JOINED and node.state is WAITING
                and (node.rare is None or (node.failures is None and node.delay is None)) and node.queue.can_fuse
                and not node.queue.base.is_paused and pool.may_run(node.queue)
                and (node.pending == 1 or self._holds_sources(slot, node, before))
            ):  # fmt: skip
                return node
        return None

    def _holds_sources(self, slot: Slot, node: Node, before: int) -> bool:
        """Return whether this grant has all unfinished sources of a node, and no other node goes along with them.

        `before`: the last attempt before this grant. The process has not kept values of nodes that were granted then.
        """
        if not 0 < node.pending <= len(node.sources) <= MOST_JOINED or not slot.worker.info.fuses_joins:
            return False
        fused, held = self.claims.fused, 0
        for source in reversed(node.sources):  # the last one is usually granted last
            if source.state in ENDED:
                continue
            if (
                source.slot is not slot or source.attempt <= before or source.attempt in fused
                or source.queue.is_async or source.queue.caches or source.failures is not None
                or node not in (source.dependents or ())[:LOOKED_AT]  # else it is not notified at once
            ):  # fmt: skip
                return False
            held += 1
        return held == node.pending

    # --- taking back ----------------------------------------------------------------------------------

    def take_back(self, now: float) -> float | None:
        """Take back nodes that wait behind a long-running one if another slot may run them now.

        Returns when to call this again; None: there is no need.
        """
        again = inf
        for slot in list(self.claims.loaded):
            due = stale_at(slot)
            if len(slot.held) < 2:
                del self.claims.loaded[slot]
            elif now < due:
                again = min(again, due)
            elif not slot.asked and self._is_wanted(slot):
                self.claims.ask_back(slot)
        return again if again < inf else None

    def _is_wanted(self, slot: Slot) -> bool:
        """Return whether an empty slot may run a waiting node of this one, or an older node is queued for it."""
        waiting = [node for node, _ in islice(slot.held.values(), 1, None)]
        queues = {node.queue.number: node.queue for node in waiting if not node.pending}.values()
        for pool in self.claims.pools.of(WireProtocol.V1):
            if pool.idle and any(pool.may_run(queue) for queue in queues):
                return True
        own = slot.worker.pool
        head = self.claims.head(own) if own is not None else None
        return head is not None and head[0] < _place(waiting[-1])


def has_room(slot: Slot, queue: FunctionQueue) -> bool:
    """Return whether a node would wait within the window. Sync nodes wait for sync ones, async nodes for all."""
    if queue.is_async:
        if queue.is_limited and slot.sync_us:
            return False  # it would start later, at a time that no report tells
        return not slot.held or slot.sync_us + slot.async_us + queue.run_time.cost_us <= WINDOW_US
    return not slot.sync_us or slot.sync_us + queue.run_time.cost_us <= WINDOW_US


def stale_at(slot: Slot) -> float:
    """Return when unstarted nodes of a slot may be granted to others, because one runs longer than estimated."""
    return slot.progress_at + STALE if slot.sync_us or len(slot.held) > OVERLAP else inf


def _place(node: Node) -> int:
    return order(node.instance.rank, node.key, node.queue.function.priority)
