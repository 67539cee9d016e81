"""Who runs what: workers come and go, slots are fed oldest instance first, and what waits behind a long run is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from dagorama_broker.model import State, World
from dagorama_broker.queues import WINDOW_US, Lane, order
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.parts import Granted, Node, Presence, Slot, TakenBack, Worker

EPOCH_BITS = 40
#: Seconds without a report after which what a slot has not started is up for others.
STALE = 0.010


class Dispatch:
    def __init__(self, graph: Graph, epoch: int) -> None:
        self.graph = graph
        self.workers: dict[bytes, Worker] = {}
        self.hungry: dict[Slot, None] = {}  #: slots that may have room, who waited longest first
        self.claimed: dict[int, Node] = {}  #: by attempt
        self.first_attempt = epoch << EPOCH_BITS
        self.last_attempt = self.first_attempt
        self.leases: list[tuple[float, int, Worker]] = []  #: heap of (deadline, tie, worker)
        self._ties = 0

    # --- workers --------------------------------------------------------------------------------------

    def add(self, presence: Presence, now: float, lease: float) -> Worker:
        worker = self.workers[presence.id] = Worker(presence, now, lease)
        if presence.world is World.OURS:  # the original's workers come and ask
            self.hungry.update((slot, None) for slot in worker.slots)
        self.watch(worker)
        return worker

    def watch(self, worker: Worker) -> None:
        """Put the worker's lease in the heap; whoever pops it looks whether it was heard since."""
        self._ties += 1
        heappush(self.leases, (worker.heard_at + worker.lease, self._ties, worker))

    def remove(self, worker: Worker) -> list[Node]:
        """Forget a worker; what it held is claimed by nobody and returned, in order."""
        held = [node for slot in worker.slots for node, _ in slot.held.values()]
        for slot in worker.slots:
            self.hungry.pop(slot, None)
            for attempt in slot.held:
                del self.claimed[attempt]
            slot.held.clear()
        del self.workers[worker.presence.id]
        return held

    def silent(self, now: float) -> list[Worker]:
        """Workers whose lease has run out."""
        lost = []
        while self.leases and self.leases[0][0] <= now:
            _, _, worker = heappop(self.leases)
            if self.workers.get(worker.presence.id) is not worker:
                continue
            if worker.heard_at + worker.lease <= now:
                lost.append(worker)
            else:
                self.watch(worker)
        return lost

    # --- claims ---------------------------------------------------------------------------------------

    def claim(self, slot: Slot, node: Node, attempt: int = 0) -> int:
        """Give a queued node to a slot under a new attempt, or under one of an earlier epoch that is adopted."""
        if not attempt:
            self.last_attempt += 1
            attempt = self.last_attempt
        self.graph.move(node, State.CLAIMED)
        node.attempt, node.slot = attempt, slot
        cost = node.lane.cost_us
        slot.held[attempt] = (node, cost)
        slot.load_us += cost
        self.claimed[attempt] = node
        return attempt

    def held(self, worker: Worker, key: int, attempt: int) -> Node | None:
        """The node that this worker holds under this attempt; None: it holds no such thing (fencing)."""
        node = self.claimed.get(attempt)
        if node is None or node.key != key or node.slot is None or node.slot.worker is not worker:
            return None
        return node

    def let_go(self, node: Node, now: float) -> None:
        """The slot holds the node no more; it may have room."""
        slot = node.slot
        assert slot is not None
        _, cost = slot.held.pop(node.attempt)
        del self.claimed[node.attempt]
        slot.load_us = slot.load_us - cost if slot.held else 0.0
        slot.progress_at, slot.asked = now, False
        if not slot.worker.draining and slot.worker.presence.world is World.OURS:
            self.hungry[slot] = None

    def rest(self, worker: Worker) -> None:
        """Give the worker nothing more."""
        worker.draining = True
        for slot in worker.slots:
            self.hungry.pop(slot, None)

    # --- feeding --------------------------------------------------------------------------------------

    def feed(self, now: float) -> None:
        """Grant queued nodes to slots that have room, an even share to each."""
        active = self.graph.active
        if not active or not self.hungry:
            return
        share = self._share()
        for slot in list(self.hungry):
            self._feed_slot(slot, share, now)
            if not active:
                return

    def _share(self) -> int:
        ready = sum(lane.ready for lane in self.graph.active.values())
        return max(1, -(-ready // len(self.hungry)))

    def _feed_slot(self, slot: Slot, share: int, now: float) -> None:
        was_empty, granted = not slot.held, self.graph.effects.granted
        while share and (lane := self.head(slot.worker)) is not None:
            if slot.held and slot.load_us + lane.cost_us > WINDOW_US:
                del self.hungry[slot]
                break
            node = self.graph.nodes[lane.pop()]
            granted.append(Granted(slot, node, self.claim(slot, node)))
            share -= 1
        if was_empty and slot.held:
            slot.progress_at = now
        if slot in self.hungry and slot.held:
            self.hungry[slot] = self.hungry.pop(slot)  # whoever waits longest comes first

    def head(self, worker: Worker) -> Lane | None:
        """The lane whose first node is the oldest that this worker may run."""
        best, best_order = None, 0
        for lane in self.graph.active.values():
            if worker.may_run(lane):
                first = self._first(lane)
                if best is None or first < best_order:
                    best, best_order = lane, first
        return best

    def _first(self, lane: Lane) -> int:
        """The order of the lane's first node, which is ready: what left the lane meanwhile is dropped."""
        heap, nodes = lane.heap, self.graph.nodes
        while True:
            node = nodes.get(lane.first_key())
            if node is not None and node.state is State.QUEUED:
                return heap[0]
            lane.pop()

    # --- taking back ----------------------------------------------------------------------------------

    def take_back(self, now: float) -> float | None:
        """Ask for what waits behind a long run where another may run it now; when to look again (None: no need)."""
        slots = [slot for worker in self.workers.values() for slot in worker.slots if len(slot.held) > 1]
        wanted = [slot for slot in slots if not slot.asked and self._is_wanted(slot)]
        look_again = None
        for slot in wanted:
            if now < slot.progress_at + STALE:
                at = slot.progress_at + STALE
                look_again = at if look_again is None else min(look_again, at)
                continue
            slot.asked = True
            self.graph.effects.take_back.append(TakenBack(slot, list(slot.held)[1:]))
        return look_again

    def _is_wanted(self, slot: Slot) -> bool:
        """Whether an idle slot may run what this one holds, or an older node waits for this one."""
        last, _ = next(reversed(slot.held.values()))
        if any(not other.held and other.worker.may_run(last.lane) for other in self.hungry):
            return True
        lane = self.head(slot.worker)
        return lane is not None and self._first(lane) < order(last.instance.key, last.key)

    # --- leaving --------------------------------------------------------------------------------------

    def may_leave(self, worker: Worker) -> bool:
        """Whether what the worker asked to wait for has come (see `Until` in broker.proto)."""
        lanes = self.graph.lanes.values()
        if any(slot.held for slot in worker.slots) or any(lane.ready and worker.may_run(lane) for lane in lanes):
            return False
        if worker.presence.leave_when_idle:
            return True
        return not self.claimed and not any(lane.delayed and worker.may_run(lane) for lane in lanes)

    def unservable(self) -> list[tuple[Lane, str]]:
        """Lanes with queued nodes that no connected worker may run, and why."""
        found = []
        for lane in self.graph.active.values():
            if not any(worker.may_run(lane) for worker in self.workers.values()):
                found.append((lane, self._why_nobody(lane, list(self.workers.values()))))
        return found

    def _why_nobody(self, lane: Lane, workers: Sequence[Worker]) -> str:
        if not workers:
            return "no worker is connected"
        reasons = dict.fromkeys(f"{worker.why_not(lane)}" for worker in workers)
        return f"none of {len(workers)} connected workers may run it: " + "; ".join(reasons)
