"""Connects workers, keeps their leases, and takes their claims away: from lost workers, slots and overdue attempts.

The fifth layer of `Scheduler`.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappush

from dagorama_broker.errors import FailedPrecondition, InvalidArgument
from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.model.queries import Live
from dagorama_broker.scheduler.cached_values import CachedValues
from dagorama_broker.scheduler.effects import Granted
from dagorama_broker.scheduler.limits import KEYS_LEFT_OUT, Limits, Timing
from dagorama_broker.scheduler.objects import Node, Worker
from dagorama_broker.scheduler.recording import RetryReason
from dagorama_broker.scheduler.requests import WorkerInfo
from dagorama_broker.scheduler.restore import rebuild
from dagorama_broker.scheduler.transitions import BACKOFF

#: Losses of one node after which it is granted to other workers only when its own has had time to return.
FLAPPING = 10


class Workers(CachedValues):
    def __init__(self, epoch: int, limits: Limits | None = None, timing: Timing | None = None) -> None:
        super().__init__(epoch, limits, timing)
        self.awaited: set[bytes] = set()  #: workers of the last broker that may still reconnect
        self.dispatch_paused_until: float | None = None  #: nothing is granted before

    def restore(self, live: Live, now: float, wall: float) -> None:
        """Load what an earlier broker left; `wall` is what to add to `now` for seconds since 1970."""
        self.graph.now, self.graph.wall, self.graph.followed = now, wall, wall
        for when, node in rebuild(self.graph, live):
            if when <= now:
                self._end_pause(node)
            else:
                heappush(self.graph.pauses, (when, node.key))
        self.graph.last_stored = live.next_node - 1
        if self.claims.epoch > 1:
            self.graph.next_node += KEYS_LEFT_OUT
        self.eager_attempts.rebuild(live)
        self.awaited = {id for id, _ in live.workers}
        if self.awaited:
            self.dispatch_paused_until = now + self.timing.reconnect_wait

    # --- coming and going ---------------------------------------------------------------------------

    def connect(self, presence: WorkerInfo, held: Iterable[tuple[int, int, int]], now: float) -> Worker:
        """Connect a worker that holds these nodes, as (node key, attempt, slot). Void claims are refused.

        It replaces an earlier session under its ID. `held` is trusted: the caller has checked that these attempts were
        granted to this worker. Raises FailedPrecondition if another session is open under an ID that is not proven.
        """
        known = self.claims.workers.get(presence.id)
        if known is not None:
            if not presence.is_proven:
                raise FailedPrecondition(
                    "another worker is connected under this ID, and this one cannot prove that the ID is its own:"
                    " send the secret that the ID is made of, or use another ID"
                )
            self.disconnect(known, now)
        worker = self.claims.add(presence, now, self.timing.lease)
        if presence.is_proven:  # a worker without proof cannot present claims after a restart
            self._put_on_record(presence)
        for key, attempt, slot in held:
            self._take_up(worker, key, attempt, slot, now)
        return worker

    def _put_on_record(self, presence: WorkerInfo) -> None:
        self.awaited.discard(presence.id)
        changes = self.graph.changes
        if presence.id in changes.workers_left:  # the store applies these after `workers_joined`
            changes.workers_left.remove(presence.id)
        changes.workers_joined.append((presence.id, presence.name))

    def _take_up(self, worker: Worker, key: int, attempt: int, index: int, now: float) -> None:
        """Restore a claim that the worker presents, or refuse it."""
        node = self.graph.nodes.get(key)
        if node is not None and self.claims.held(worker, key, attempt) is node:
            return
        is_there = node is not None and 0 <= index < len(worker.slots) and worker.mismatch(node.queue) is None
        if node is None or not is_there or not self.claims.may_reclaim(node, attempt, worker.info.protocol):
            self.refuse(worker, attempt)
            return
        if node.state is BACKOFF:
            self._end_pause(node)
        if node.slot is not None:
            self.staged.take_out(node.attempt)
        else:
            self._take_back_loss(node, attempt)
        self.claims.reclaim(worker.slots[index], node, attempt, now)

    def _take_back_loss(self, node: Node, attempt: int) -> None:
        """Uncount the loss of a worker that returns with this attempt: it has held the node all the time."""
        trouble = node.failures
        if trouble is not None and trouble.lost_attempt == attempt:
            trouble.worker_losses -= 1
            trouble.lost_attempt = 0
            self.graph.record_trouble(node)

    def connect_original(self, presence: WorkerInfo, now: float) -> Worker:
        """Connect a worker of the legacy protocol, which asks for nodes one at a time; its pings keep its lease."""
        return self.claims.add(presence, now, self.timing.original_lease)

    def record_contact(self, worker: Worker, now: float) -> None:
        """Renew the lease of a worker."""
        worker.heard_at = now

    def disconnect(self, worker: Worker, now: float, *, counts: bool = True) -> None:
        """Remove a worker that is gone: the nodes that it held return to their positions in the order.

        The loss counts against these nodes, unless `counts` is False, until the worker returns with the same attempt.
        """
        id = worker.info.id
        if self.claims.workers.get(id) is not worker:
            return
        if worker.info.is_proven:
            self.graph.changes.workers_left.append(id)
        for node in self.claims.remove(worker):
            if not counts:
                self.graph.back(node)
                continue
            self._count_loss(node, worker)

    def _count_loss(self, node: Node, worker: Worker) -> None:
        trouble = self.graph.trouble(node)
        trouble.worker_losses += 1
        trouble.lost_attempt = node.attempt
        again = trouble.worker_losses < self.limits.losses
        self.graph.recording.retries[RetryReason.WORKER_LOST] += again
        if again and self._is_flapping(node):
            self.graph.pause(node, self.timing.reconnect_wait)
            return
        text = f"{trouble.worker_losses} workers or connections were lost while they held it"
        self._again_or_fail(node, again, "dagorama.errors.WorkerLost", text, worker)

    def _is_flapping(self, node: Node) -> bool:
        """Return whether the node's connections break so often that its worker gets time to return with it.

        Legacy workers cannot return with a node, and the children of a lost attempt are cancelled at once.
        """
        ours = node.queue.function.protocol is WireProtocol.V1
        return ours and self.graph.trouble(node).worker_losses >= FLAPPING and node.key not in self.eager_attempts.open

    def leave(self, worker: Worker) -> None:
        """Grant the worker nothing more; it finishes what it holds."""
        self.claims.rest(worker)

    def close_slot(self, worker: Worker, index: int, now: float) -> None:
        """Close a slot for good: its nodes are returned uncounted, and it is granted nothing more.

        Raises InvalidArgument if the worker has no such slot.
        """
        if index >= len(worker.slots):
            raise InvalidArgument(f"the worker has {len(worker.slots)} slots, and closes one numbered {index}")
        slot = worker.slots[index]
        for attempt, (node, _) in list(slot.held.items()):
            self.give_back(worker, node.key, attempt, "", now)
        slot.closed = True
        if worker.pool is not None:
            worker.pool.remove(slot)

    def _end_pause(self, node: Node) -> None:
        trouble = self.graph.trouble(node)
        trouble.retry_at = trouble.pause = 0.0
        self.graph.queue(node)

    def _take_away(self, node: Node, now: float) -> None:
        """Take a node from a worker that is alive but has not stopped it at its timeout; close the slot."""
        slot = node.slot
        assert slot is not None
        self.refuse(slot.worker, node.attempt)
        self._end_run(node, now)
        self.claims.invalidate_attempt(node)
        trouble = self.graph.trouble(node)
        trouble.worker_losses += 1
        text = f"its worker did not stop it at its timeout of {node.queue.function.timeout:g} seconds"
        again = trouble.worker_losses < self.limits.losses
        self.graph.recording.retries[RetryReason.TIMEOUT_IGNORED] += again
        self._again_or_fail(node, again, "dagorama.errors.WorkerLost", text, slot.worker)
        self.close_slot(slot.worker, slot.index, now)

    # --- workers that ask for nodes (legacy protocol) -----------------------------------------------

    def claim(self, worker: Worker, now: float) -> Granted | None:
        """Claim the next node for a worker that asks for one itself; None: there is none."""
        if worker.pool is None or (self.dispatch_paused_until is not None and now < self.dispatch_paused_until):
            return None
        head = self.claims.head(worker.pool)
        if head is None:
            return None
        slot, node = worker.slots[0], self.graph.nodes[head[2].pop()]
        return Granted(slot, node, self.claims.claim(slot, node))

    def attempt_of(self, worker: Worker, node: Node) -> int:
        """Return the attempt under which this worker holds the node. Raises FailedPrecondition otherwise."""
        if node.slot is None or node.slot.worker is not worker:
            raise FailedPrecondition("this node is not claimed by this worker")
        return node.attempt
