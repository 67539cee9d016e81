"""Who holds what: workers come and go, nodes are claimed and let go, and attempts tell one claim from another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush

from dagorama_broker.model.domain import ENDED, World
from dagorama_broker.scheduler.eager import Broods
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.objects import Node, Pool, Presence, Slot, Worker
from dagorama_broker.scheduler.pools import Pools
from dagorama_broker.scheduler.queues import Head, Lane
from dagorama_broker.scheduler.staged_children import Stage
from dagorama_broker.scheduler.transitions import BACKOFF, CLAIMED, QUEUED, WAITING

EPOCH_BITS = 40


class Dispatch:
    def __init__(self, graph: Graph, epoch: int) -> None:
        self.graph = graph
        self.broods = Broods(graph)
        self.workers: dict[bytes, Worker] = {}
        self.pools = Pools(self.offer_all)
        self.claimed: dict[int, Node] = {}  #: by attempt
        self.along: dict[int, Node] = {}  #: by attempt: the dependent that is claimed beside the node of that attempt
        self.staged = Stage()  #: by attempt: what it has made
        self.first_attempt = epoch << EPOCH_BITS
        self.last_attempt = self.first_attempt
        self.overruns: list[tuple[float, int]] = []  #: heap of (when, attempt) of claims with a timeout
        self.leases: list[tuple[float, int, Worker]] = []  #: heap of (deadline, tie, worker)
        self.until_idle: dict[Worker, None] = {}  #: who leaves when nothing is queued for them
        self.until_drained: dict[Worker, None] = {}  #: who leaves when nothing will be, either
        self.laden: dict[Slot, None] = {}  #: slots that may hold more than what they run
        self._ties = 0

    # --- workers --------------------------------------------------------------------------------------

    def add(self, presence: Presence, now: float, lease: float) -> Worker:
        worker = self.workers[presence.id] = Worker(presence, now, lease)
        self.pools.join(worker)
        if presence.leave_when_idle:
            self.until_idle[worker] = None
        elif presence.leave_when_drained:
            self.until_drained[worker] = None
        self._watch(worker)
        return worker

    def _watch(self, worker: Worker) -> None:
        """Put the worker's lease in the heap; whoever pops it looks whether it was heard since."""
        self._ties += 1
        heappush(self.leases, (worker.heard_at + worker.lease, self._ties, worker))

    def rest(self, worker: Worker) -> None:
        """Give the worker nothing more."""
        self.pools.leave(worker)
        self.until_idle.pop(worker, None)
        self.until_drained.pop(worker, None)

    def remove(self, worker: Worker) -> list[Node]:
        """Forget a worker; what it held is claimed by nobody and returned, but for what was sent along with that."""
        self.rest(worker)
        held = [node for slot in worker.slots for node, _ in slot.held.values()]
        for node in held:
            node.slot = None
            del self.claimed[node.attempt]
            self.along.pop(node.attempt, None)
            self.staged.take_out(node.attempt)
        for slot in worker.slots:
            slot.held.clear()
        del self.workers[worker.presence.id]
        for node in held:
            if node.pending:
                # It may run there all the same, on a value that nobody will record: that result must never count.
                self._wait_on(node)
                self.graph.trouble(node)
                self.graph.record_trouble(node)
        return [node for node in held if node.state is CLAIMED]

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
                self._watch(worker)
        return lost

    def tidy(self, ids: Collection[int]) -> None:
        """Have granting hold on to none of these functions of which nothing can be claimed."""
        self.offer()
        idle = {lane for id in ids if not (lane := self.graph.lane_by_id[id]).servable}
        for lane in idle:
            lane.forget_heads()
        for world in World:
            for pool in self.pools.of(world):
                pool.withdraw(idle)

    def forget_lanes(self, ids: set[int]) -> None:
        """No node will ever be in these lanes again."""
        self.pools.forget(ids)
        for worker in self.workers.values():
            self.pools.allow(worker, ids)

    # --- claims ---------------------------------------------------------------------------------------

    def claim(self, slot: Slot, node: Node, attempt: int = 0) -> int:
        """Give a queued node to a slot under a new attempt, or under one that is adopted."""
        if not attempt:
            attempt = self.last_attempt = self.last_attempt + 1
        self.graph.move(node, CLAIMED)
        node.attempt, node.slot = attempt, slot
        if self.broods.open:
            self.broods.granted(node)
        cost = node.lane.pace.cost_us
        slot.held[attempt] = (node, cost)
        if node.lane.is_async:
            slot.async_us += cost
        else:
            slot.sync_us += cost
        self.claimed[attempt] = node
        timeout = node.lane.function.timeout
        if timeout:
            self._watch_run(attempt, self.graph.now + timeout + slot.worker.lease)
        return attempt

    def _watch_run(self, attempt: int, when: float) -> None:
        heappush(self.overruns, (when, attempt))
        if len(self.overruns) > 2 * len(self.claimed) + 64:  # most have ended long before their time
            self.overruns = [entry for entry in self.overruns if entry[1] in self.claimed]
            heapify(self.overruns)

    def overrun(self, now: float) -> Iterator[Node]:
        """Nodes that their workers should have stopped a lease ago, at their timeout; taken out of the heap."""
        while self.overruns and self.overruns[0][0] <= now:
            _, attempt = heappop(self.overruns)
            node = self.claimed.get(attempt)
            if node is None or node.slot is None:
                continue
            slot = node.slot
            due = slot.progress_at + node.lane.function.timeout + slot.worker.lease
            if node.lane.is_async or (due <= now and next(iter(slot.held)) == attempt):
                yield node
            else:  # it waits behind another, or began later than it was granted
                heappush(self.overruns, (max(due, now + slot.worker.lease), attempt))

    def claim_beside(self, source: Node, node: Node) -> int:
        """Give a node that waits for nothing but `source` to the slot that holds it, to run on its value.

        The claim is void where the source ends without a value of its own, or is held by that slot no more.
        """
        assert source.slot is not None
        self.along[source.attempt] = node
        return self.claim(source.slot, node)

    def void(self, source: Node) -> list[int]:
        """What was sent along with this node waits again, and what was sent along with that; the attempts."""
        attempts = []
        node = self.along.pop(source.attempt, None)
        while node is not None:
            attempts.append(node.attempt)
            follower = self.along.pop(node.attempt, None)
            self._take_out(node)
            self._wait_on(node)
            node = follower
        return attempts

    def void_early(self, node: Node) -> None:
        """It was reported before the source that it was sent along with: whatever that is, it does not count."""
        self.take_out(node)
        self._wait_on(node)

    def _wait_on(self, node: Node) -> None:
        self.staged.take_out(node.attempt)
        self.spend(node)
        self.graph.move(node, WAITING)

    def adopt(self, slot: Slot, node: Node, attempt: int, now: float) -> None:
        """Take up a claim from before a lost connection or a restart."""
        if node.slot is not None:  # the worker of an older claim came back before this one
            self.graph.effects.refused.append((node.slot.worker, node.attempt))
            self.take_out(node)
            self.graph.back(node)
        self.claim(slot, node, attempt)
        slot.progress_at = now
        self.laden[slot] = None
        if slot.worker.pool is not None:
            slot.worker.pool.place(slot)

    def may_adopt(self, node: Node, attempt: int, world: World) -> bool:
        """Whether a claim from before still stands: nobody was granted the node since, and it has not come back."""
        if node.lane.function.world is not world:
            return False
        if node.slot is None and node.state is not QUEUED and node.state is not BACKOFF:
            return False
        if any(source.attempt > attempt for source in node.sources):
            return False  # it was sent along with a run of its source that is not the recorded one
        if node.attempt == attempt:
            return node.slot is None and attempt > 0
        return node.attempt < attempt < self.first_attempt

    def held(self, worker: Worker, key: int, attempt: int) -> Node | None:
        """The node that this worker holds under this attempt; None: it holds no such thing (fencing)."""
        node = self.claimed.get(attempt)
        if node is None or node.key != key or node.slot is None or node.slot.worker is not worker:
            return None
        return node

    def let_go(self, node: Node, now: float) -> None:
        """Its run has ended: the slot makes progress and may have room."""
        slot = self.take_out(node)
        if not (node.lane.is_async and slot.sync_us):  # else it says nothing of the sync node that runs
            slot.progress_at = now

    def take_out(self, node: Node) -> Slot:
        """The slot holds the node no more, whether it has run or not; nor what was sent along with it."""
        if self.along:
            self.void(node)
        return self._take_out(node)

    def _take_out(self, node: Node) -> Slot:
        if node.pending:
            (source,) = (source for source in node.sources if source.state not in ENDED)
            self.along.pop(source.attempt, None)
        slot = node.slot
        assert slot is not None
        held, attempt = slot.held, node.attempt
        _, cost = held.pop(attempt)
        del self.claimed[attempt]
        node.slot = None
        if node.lane.is_async:
            slot.async_us -= cost
        else:
            slot.sync_us -= cost
        slot.asked = False
        pool = slot.worker.pool
        if pool is not None:
            pool.place(slot)
        return slot

    def spend(self, node: Node) -> None:
        """The node's attempt has come to an end; whoever presents it later is refused."""
        self.last_attempt += 1
        node.attempt = self.last_attempt

    # --- what there is for whom -----------------------------------------------------------------------

    def head(self, pool: Pool) -> Head | None:
        """The oldest node that workers of this pool may run, as its place and its lane; None: there is none."""
        self.offer()
        return pool.oldest(self.graph.head)

    def offer(self) -> None:
        """Tell the pools which functions have another head than before: that costs what has changed."""
        graph = self.graph
        stirred, graph.stirred = graph.stirred, {}
        for lane in stirred:
            if lane.key and lane.available > 0:
                lane.list_head(graph.first(lane))
        for base in dict.fromkeys([lane.base for lane in stirred]):
            head = graph.head(base)
            for pool in self.pools.of(base.function.world):
                if pool.may_run(base):
                    pool.offer(base, head)

    def offer_all(self, pool: Pool) -> None:
        """Tell a pool that is new what there is."""
        for base in self.graph.active.values():
            if base.function.world is pool.world and pool.may_run(base):
                pool.offer(base, self.graph.head(base))

    def satisfied(self) -> list[Worker]:
        """Workers for which what they asked to wait for has come (see `Until` in broker.proto)."""
        if self.graph.starting or self.graph.untold:
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
        """Whether nothing runs, or will by itself run, that could lead to more."""
        if any(node.lane.function.world is World.OURS for node in self.claimed.values()):
            return False
        return not any(pool.may_run(lane) for pool in self.pools.of(World.OURS) for lane in self.graph.delayed.values())

    def unservable(self, lanes: Iterable[Lane] | None = None) -> list[tuple[Lane, str]]:
        """Those of these lanes whose nodes no connected worker may run, and why.

        By default, of the functions' own lanes that have queued nodes.
        """
        lanes = self.graph.active.values() if lanes is None else lanes
        return [(lane, reason) for lane in lanes if (reason := self.why_nobody(lane)) is not None]

    def deployed(self, lane: Lane) -> list[str]:
        """Hashes of other code that connected workers have of this lane's function."""
        return sorted({hash for worker in self.workers.values() if (hash := worker.deployed.get(lane.id))})

    def lacks_key_of_adoption(self, lane: Lane) -> bool:
        """Whether its nodes were adopted under a signing key that none of the connected workers holds."""
        key = lane.function.adopted_under
        ours = [worker.presence for worker in self.workers.values() if worker.presence.world is World.OURS]
        return bool(key and ours) and not any(key in presence.key_ids for presence in ours)

    def needs_adoption(self, lane: Lane) -> bool:
        """Whether only an adoption lets its nodes run: workers have other code, or not the key of the last adoption."""
        return bool(self.why_nobody(lane) and self.deployed(lane)) or self.lacks_key_of_adoption(lane)

    def why_nobody(self, lane: Lane) -> str | None:
        """Why no connected worker may run nodes of this lane; None: one may."""
        world = lane.function.world
        if any(pool.may_run(lane) for pool in self.pools.of(world)):
            return None
        workers = [worker for worker in self.workers.values() if worker.presence.world is world]
        if not workers:
            ours = world is World.OURS
            return "no worker is connected (start one with `worker`)" if ours else "none of its workers is connected"
        reasons = dict.fromkeys(worker.why_not(lane) or "it takes nothing more (start another)" for worker in workers)
        many = len(workers) > 1
        nobody = f"none of {len(workers)} connected workers may" if many else "the only connected worker may not"
        return f"{nobody} run it: " + "; ".join(reasons)
