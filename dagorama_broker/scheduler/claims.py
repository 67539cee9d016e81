"""Keeps claims: which worker holds which node, under which attempt, and for how long.

A claim has an attempt of its own, by which a late report of an earlier claim is told from one of the current.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.scheduler.eager import EagerAttempts
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.objects import Node, Slot, Worker
from dagorama_broker.scheduler.requests import WorkerInfo
from dagorama_broker.scheduler.run_times import CachedRunTime
from dagorama_broker.scheduler.staged_children import Stage
from dagorama_broker.scheduler.starts import Starts
from dagorama_broker.scheduler.transitions import BACKOFF, CLAIMED, QUEUED, WAITING

EPOCH_BITS = 40


class Claims(Starts):
    def __init__(self, graph: Graph, epoch: int) -> None:
        super().__init__(graph, epoch << EPOCH_BITS)
        self.eager_attempts = EagerAttempts(graph)
        self.fused: dict[int, Node] = {}  #: by attempt: the dependent that is claimed together with its node
        self.staged = Stage()  #: by attempt: its children
        self.epoch = epoch
        self.first_attempt = self.last_attempt
        self.overruns: list[tuple[float, int]] = []  #: heap of (when, attempt) of claims with a timeout
        self.leases: list[tuple[float, int, Worker]] = []  #: heap of (deadline, tie, worker)
        self.loaded: dict[Slot, None] = {}  #: slots that may hold more nodes than the one that they run
        self._ties = 0

    # --- workers --------------------------------------------------------------------------------------

    def add(self, presence: WorkerInfo, now: float, lease: float) -> Worker:
        """Enter a worker that has connected."""
        number = self.graph.number_of_worker(presence.name)
        worker = self.workers[presence.id] = Worker(presence, number, now, lease)
        self.pools.join(worker)
        if presence.leave_when_idle:
            self.until_idle[worker] = None
        elif presence.leave_when_drained:
            self.until_drained[worker] = None
        self._watch(worker)
        return worker

    def _watch(self, worker: Worker) -> None:
        """Put the worker's lease in the heap; `silent` checks whether the worker was heard since."""
        self._ties += 1
        heappush(self.leases, (worker.heard_at + worker.lease, self._ties, worker))

    def rest(self, worker: Worker) -> None:
        """Grant the worker nothing more."""
        self.pools.leave(worker)
        self.until_idle.pop(worker, None)
        self.until_drained.pop(worker, None)

    def remove(self, worker: Worker) -> list[Node]:
        """Remove a worker. Return the nodes that it held, except nodes claimed together with their source."""
        self.rest(worker)
        held = [node for slot in worker.slots for node, _ in slot.held.values()]
        for node in held:
            node.slot = None
            del self.claimed[node.attempt]
            self.fused.pop(node.attempt, None)
            self.staged.take_out(node.attempt)
            if self.unstarted.pop(node.attempt, None) is not None:
                self._begin(node)
            self.started.pop(node.attempt, None)
        for slot in worker.slots:
            slot.held.clear()
        del self.workers[worker.info.id]
        for node in held:
            if node.pending:
                # It may still run there, on a value that is never recorded: that result must not count.
                self._wait_on(node)
                self.graph.trouble(node)
                self.graph.record_trouble(node)
        return [node for node in held if node.state is CLAIMED]

    def silent(self, now: float) -> list[Worker]:
        """Return the workers whose lease has run out."""
        lost = []
        while self.leases and self.leases[0][0] <= now:
            _, _, worker = heappop(self.leases)
            if self.workers.get(worker.info.id) is not worker:
                continue
            if worker.heard_at + worker.lease <= now:
                lost.append(worker)
            else:
                self._watch(worker)
        return lost

    # --- claims ---------------------------------------------------------------------------------------

    def claim(self, slot: Slot, node: Node, attempt: int = 0) -> int:
        """Claim a queued node for a slot, under a new attempt, or under the earlier one that a worker presents."""
        if node.queue.is_limited:
            self.count_start(slot, node, attempt)
        if not attempt:
            attempt = self.last_attempt = self.last_attempt + 1
        self.graph.move(node, CLAIMED)
        node.attempt, node.slot = attempt, slot
        instance = node.instance
        if instance.turn > instance.line.reached:
            instance.line.reached = instance.turn
        if self.eager_attempts.open:
            self.eager_attempts.granted(node)
        cost = node.queue.run_time.cost_us
        if node.queue.caches:
            cost = self._cost_of_cached(node)
        slot.held[attempt] = (node, cost)
        if node.queue.is_async:
            slot.async_us += cost
        else:
            slot.sync_us += cost
        self.claimed[attempt] = node
        timeout = node.queue.function.timeout
        if timeout:
            self._watch_run(attempt, self.graph.now + timeout + slot.worker.lease)
        return attempt

    def _cost_of_cached(self, node: Node) -> int:
        """Return what a node of a function with a cache adds to a slot: little, unless it is known that it runs."""
        run_time = node.queue.run_time
        if isinstance(run_time, CachedRunTime) and self.graph.caching.is_to_run(node):
            return run_time.run_us
        return run_time.cost_us

    def _watch_run(self, attempt: int, when: float) -> None:
        heappush(self.overruns, (when, attempt))
        if len(self.overruns) > 2 * len(self.claimed) + 64:  # most have ended long before their time
            self.overruns = [entry for entry in self.overruns if entry[1] in self.claimed]
            heapify(self.overruns)

    def overrun(self, now: float) -> Iterator[Node]:
        """Take nodes that their workers did not stop within a lease after their timeout out of the heap; yield them."""
        while self.overruns and self.overruns[0][0] <= now:
            _, attempt = heappop(self.overruns)
            node = self.claimed.get(attempt)
            if node is None or node.slot is None:
                continue
            slot = node.slot
            due = slot.progress_at + node.queue.function.timeout + slot.worker.lease
            if node.queue.is_async or (due <= now and next(iter(slot.held)) == attempt):
                yield node
            else:  # it waits behind another, or began later than it was granted
                heappush(self.overruns, (max(due, now + slot.worker.lease), attempt))

    def claim_fused(self, slot: Slot, node: Node) -> int:
        """Claim a node for the slot that holds all unfinished sources of the node.

        The claim is void if one of them ends without a value of its own, or leaves that slot.
        """
        for source in node.unfinished_sources:
            self.fused[source.attempt] = node
        return self.claim(slot, node)

    def unfuse(self, source: Node) -> list[int]:
        """Move the chain of nodes that were claimed together with this one to WAITING; return their attempts."""
        attempts = []
        node = self.fused.pop(source.attempt, None)
        while node is not None:
            attempts.append(node.attempt)
            follower = self.fused.pop(node.attempt, None)
            self._take_out(node)
            self._wait_on(node)
            node = follower
        return attempts

    def unfuse_early(self, node: Node) -> None:
        """Drop a claim that was reported before the source that it was claimed with; its result does not count."""
        self.take_out(node)
        self._wait_on(node)

    def _wait_on(self, node: Node) -> None:
        self.staged.take_out(node.attempt)
        self.invalidate_attempt(node)
        self.graph.move(node, WAITING)

    def reclaim(self, slot: Slot, node: Node, attempt: int, now: float) -> None:
        """Restore a claim from before a lost connection or a restart."""
        if node.slot is not None:  # the worker of an older claim came back before this one
            self.graph.effects.refused.append((node.slot.worker, node.attempt))
            self.take_out(node)
            self.graph.back(node)
        self.claim(slot, node, attempt)
        slot.progress_at = now
        self.loaded[slot] = None
        if slot.worker.pool is not None:
            slot.worker.pool.place(slot)

    def may_reclaim(self, node: Node, attempt: int, protocol: WireProtocol) -> bool:
        """Return whether an earlier claim still stands: the node was not granted or returned since."""
        if node.queue.function.protocol is not protocol:
            return False
        if node.slot is None and node.state is not QUEUED and node.state is not BACKOFF:
            return False
        if any(source.attempt > attempt for source in node.sources):
            return False  # it was claimed together with an attempt of its source that is not the recorded one
        if node.attempt == attempt:
            return node.slot is None and attempt > 0
        return node.attempt < attempt < self.first_attempt

    def held(self, worker: Worker, key: int, attempt: int) -> Node | None:
        """Return the node that this worker holds under this attempt; None: it does not hold it (fencing)."""
        node = self.claimed.get(attempt)
        if node is None or node.key != key or node.slot is None or node.slot.worker is not worker:
            return None
        return node

    def let_go(self, node: Node, now: float, leads_on: bool | None = None) -> None:
        """Remove a node that has run from its slot, which makes progress and may have room.

        `leads_on`: it has completed, and whether others were made by it or wait for it: they are granted to the same
        slot if that is empty. A node with the value of another one gives its start back.
        """
        if leads_on is not None and node.queue.caches and self.graph.caching.is_hit(node):
            self.uncount_start(node.attempt)
        if self.fused:
            self.unfuse(node)
        slot = self._take_out(node)
        if not (node.queue.is_async and slot.sync_us):  # else it says nothing about the sync node that runs
            slot.progress_at = now
        if leads_on and slot.worker.pool is not None:
            slot.worker.pool.prefer(slot)

    def take_out(self, node: Node) -> Slot:
        """Remove a node, and nodes claimed together with it, from its slot, whether it has run or not."""
        if self.fused:
            self.unfuse(node)
        return self._take_out(node)

    def _take_out(self, node: Node) -> Slot:
        if node.pending:
            for source in node.unfinished_sources:
                self.fused.pop(source.attempt, None)
        slot = node.slot
        assert slot is not None
        held, attempt = slot.held, node.attempt
        _, cost = held.pop(attempt)
        del self.claimed[attempt]
        node.slot = None
        if node.queue.is_async:
            slot.async_us -= cost
        else:
            slot.sync_us -= cost
        slot.asked = False
        pool = slot.worker.pool
        if pool is not None:
            pool.place(slot)
        if self.unstarted:
            self.moved_up[slot] = None
            if self.unstarted.pop(attempt, None) is not None:
                self._begin(node)  # as far as is known, it has run
        if self.started:
            self.started.pop(attempt, None)
        return slot

    def invalidate_attempt(self, node: Node) -> None:
        """Invalidate the node's attempt: later reports of it are refused."""
        self.last_attempt += 1
        node.attempt = self.last_attempt
