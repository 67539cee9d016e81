"""Grants queued nodes to slots, oldest instance first, and takes nodes back that wait behind a long-running one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from math import ceil, inf

from dagorama_broker.model.domain import World
from dagorama_broker.scheduler.claims import Dispatch
from dagorama_broker.scheduler.effects import Granted, TakenBack
from dagorama_broker.scheduler.graph import LOOKED_AT
from dagorama_broker.scheduler.objects import Node, Pool, Slot
from dagorama_broker.scheduler.queues import OVERLAP, WINDOW_US, Lane, order
from dagorama_broker.scheduler.transitions import WAITING

#: Seconds without a report after which unstarted nodes of a slot may be granted to others.
STALE = 0.010

#: Functions up to which the even share of a slot is computed: if there are more, there is enough for all slots.
MANY = 1_000
#: Nodes that one step grants; the rest is granted in the next.
MOST = 5_000


@dataclass(slots=True)
class _Menu:
    """The nodes that the slots of a pool may be granted now."""

    pool: Pool
    slots: int  #: slots that were not served yet
    due: float = 0.0  #: nodes that would be an even share for the slots

    def next_share(self) -> int:
        share = max(1, ceil(self.due / max(1, self.slots) - 1e-9)) if self.due < inf else MOST
        self.slots -= 1
        return share


class Feeding:
    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch
        self.graph = dispatch.graph
        self._left = 0  # nodes that this step may still grant

    # --- granting -------------------------------------------------------------------------------------

    def feed(self, now: float) -> bool:
        """Grant queued nodes to slots with room: to empty ones first, and an even share to each.

        Returns whether it stopped early because of the limit of one step.
        """
        self.dispatch.offer()
        self._left = MOST
        if not self.graph.active:
            return False
        menus = self._menus()
        for menu in menus:
            if menu.pool.idle:
                self._serve(menu, list(islice(menu.pool.idle, self._most_served(menu.pool))), now)
        for menu in menus:
            if menu.pool.roomy:
                self._serve(menu, list(menu.pool.roomy), now)
        return self._left <= 0

    def _most_served(self, pool: Pool) -> int:
        """Return the number of empty slots that there may be nodes for."""
        if len(pool.offered) > MANY:
            return MOST
        return sum([lane.servable for lane in pool.offered])

    def _menus(self) -> list[_Menu]:
        """Return the pools to serve, the most restricted first, so that plain nodes do not block ones with a taint."""
        pools = [pool for pool in self.dispatch.pools.of(World.OURS) if pool.offered and pool.hungry]
        if len(pools) == 1:
            (pool,) = pools
            return [_Menu(pool, pool.hungry, inf if len(pool.offered) > MANY else self._most_served(pool))]
        pools.sort(key=lambda pool: len(pool.offered))
        takers: dict[Lane, int] = {}  # slots that may be granted nodes of a function
        for pool in pools:
            # Slots of a pool with many functions count for the other pools' functions only.
            for lane in pool.offered if len(pool.offered) <= MANY else takers:
                if lane in pool.offered:
                    takers[lane] = takers.get(lane, 0) + pool.hungry
        return [_Menu(pool, pool.hungry, self._due(pool, takers)) for pool in pools]

    def _due(self, pool: Pool, takers: Mapping[Lane, int]) -> float:
        if len(pool.offered) > MANY:
            return inf
        return sum(lane.servable / takers[lane] for lane in pool.offered) * pool.hungry

    def _serve(self, menu: _Menu, slots: Iterable[Slot], now: float) -> None:
        for slot in slots:
            if self._left <= 0 or not self._fill(slot, menu, now):
                return

    def _fill(self, slot: Slot, menu: _Menu, now: float) -> bool:
        """Grant a slot its share, as far as the window allows. Return whether there may be more for other slots."""
        graph, pool, granted = self.graph, menu.pool, 0
        head, next_best = pool.oldest(graph.head), pool.next_best()
        if head is None:
            return False
        share = menu.next_share()
        del (pool.roomy if slot.held else pool.idle)[slot]
        if now >= _stale_at(slot):
            return True  # a granted node would wait; the slot has room again when it reports
        while head is not None and granted < share:
            lane = head[2]
            if not _has_room(slot, lane):
                break
            if not slot.sync_us:
                slot.progress_at = now
            node = graph.nodes[lane.pop()]
            graph.effects.granted.append(Granted(slot, node, self.dispatch.claim(slot, node)))
            granted += 1
            if node.dependents:
                self._send_along(slot, pool, node)
            if lane.ready and not (lane.limit or lane.key or lane.heads) and (place := graph.first(lane)) < next_best:
                head = place, lane.number, lane  # usually the next one is of the same function
            else:
                head, next_best = pool.oldest(graph.head), pool.next_best()
        else:
            pool.roomy[slot] = None
        if len(slot.held) > 1:
            self.dispatch.laden[slot] = None
        menu.due -= granted
        self._left -= granted
        return True

    def _send_along(self, slot: Slot, pool: Pool, source: Node) -> None:
        """Grant the dependent that waits for nothing else together with a node, and so on, within the window."""
        while True:
            node = _follower(source, pool)
            if node is None or not _has_room(slot, node.lane):
                return
            attempt = self.dispatch.claim_beside(source, node)
            self.graph.effects.granted.append(Granted(slot, node, attempt))
            source = node

    # --- taking back ----------------------------------------------------------------------------------

    def take_back(self, now: float) -> float | None:
        """Take back nodes that wait behind a long-running one if another slot may run them now.

        Returns when to call this again; None: there is no need.
        """
        again = inf
        for slot in list(self.dispatch.laden):
            stale_at = _stale_at(slot)
            if len(slot.held) < 2:
                del self.dispatch.laden[slot]
            elif now < stale_at:
                again = min(again, stale_at)
            elif not slot.asked and self._is_wanted(slot):
                slot.asked = True
                self.graph.effects.take_back.append(TakenBack(slot, list(slot.held)[1:]))
        return again if again < inf else None

    def _is_wanted(self, slot: Slot) -> bool:
        """Return whether an empty slot may run a waiting node of this one, or an older node is queued for it."""
        waiting = [node for node, _ in islice(slot.held.values(), 1, None)]
        lanes = {node.lane.number: node.lane for node in waiting if not node.pending}.values()
        for pool in self.dispatch.pools.of(World.OURS):
            if pool.idle and any(pool.may_run(lane) for lane in lanes):
                return True
        own = slot.worker.pool
        head = self.dispatch.head(own) if own is not None else None
        return head is not None and head[0] < _place(waiting[-1])


def _has_room(slot: Slot, lane: Lane) -> bool:
    """Return whether a node would wait within the window. Sync nodes wait for sync ones, async nodes for all."""
    if lane.is_async:
        return not slot.held or slot.sync_us + slot.async_us + lane.pace.cost_us <= WINDOW_US
    return not slot.sync_us or slot.sync_us + lane.pace.cost_us <= WINDOW_US


def _follower(source: Node, pool: Pool) -> Node | None:
    """Return a dependent that may be claimed together with a node: both run in one process, one after the other.

    Nodes with failed attempts are granted alone, so that a death or a loss tells which node caused it.
    """
    if source.lane.is_async or source.trouble is not None:
        return None
    for node in islice(source.dependents or (), LOOKED_AT):
        if (
            node.state is WAITING and node.pending == 1 and node.trouble is None
            and node.lane.goes_along and pool.may_run(node.lane)
        ):  # fmt: skip
            return node
    return None


def _stale_at(slot: Slot) -> float:
    """Return when unstarted nodes of a slot may be granted to others, because one runs longer than estimated."""
    return slot.progress_at + STALE if slot.sync_us or len(slot.held) > OVERLAP else inf


def _place(node: Node) -> int:
    return order(node.instance.key, node.key, node.lane.function.priority)
