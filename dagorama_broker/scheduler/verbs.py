"""The verbs of the heart: what spawners, workers and time do to it. Each changes everything it must, or refuses and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from dagorama_broker.errors import Malformed, NotAllowedNow, NotKnown, TooMuch
from dagorama_broker.model import Changes, Failure, Live, State
from dagorama_broker.scheduler.dispatch import EPOCH_BITS, Dispatch
from dagorama_broker.scheduler.graph import Graph, NewRun
from dagorama_broker.scheduler.parts import Effects, Granted, Node, Presence, Slot, Worker
from dagorama_broker.scheduler.restoring import rebuild
from dagorama_broker.scheduler.retrying import pause


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what one call or one node may ask for."""

    sources_per_node: int = 1_000_000
    nodes_per_attempt: int = 1_000_000
    bytes_per_attempt: int = 256 << 20
    deaths: int = 3  #: child processes that end while they run a node, before it fails
    losses: int = 20  #: workers or connections lost while they held it


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    lease: float = 30.0
    original_lease: float = 90.0
    reconnect_wait: float = 2.0  #: after a restart, for the workers on record


@dataclass(slots=True)
class Staged:
    """Children of an attempt that still runs: seen by nobody until its result is recorded."""

    runs: list[NewRun] = field(default_factory=list)
    nodes: int = 0
    size: int = 0


class Scheduler:
    def __init__(self, epoch: int, limits: Limits | None = None, timing: Timing | None = None) -> None:
        self.epoch = epoch
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.graph = Graph()
        self.dispatch = Dispatch(self.graph, epoch)
        self.staged: dict[int, Staged] = {}  #: by attempt
        self.pauses: list[tuple[float, int]] = []  #: heap of (when, key) of nodes in BACKOFF
        self.awaited: set[bytes] = set()  #: workers of the last broker that may still come back
        self.hold_until: float | None = None  #: nothing is handed out before
        self.ticked_at: float | None = None

    # --- start and end of a step ----------------------------------------------------------------------

    def restore(self, live: Live, now: float, wall: float) -> None:
        """Take up what an earlier broker left; `wall` is what to add to `now` for seconds since 1970."""
        self.graph.now, self.graph.wall = now, wall
        for when, node in rebuild(self.graph, live):
            heappush(self.pauses, (when, node.key))
        self.awaited = {id for id, _ in live.workers}
        self.graph.changes.workers_left += self.awaited
        if self.awaited:
            self.hold_until = now + self.timing.reconnect_wait

    def at(self, now: float, wall: float) -> None:
        """Say what time it is before other verbs are called; `now` is monotonic."""
        self.graph.now, self.graph.wall = now, wall

    def tick(self, now: float) -> float | None:
        """Do what time asks for and hand out what can be; returns when to be called again (None: at the next change)."""
        self._forgive(now)
        self.ticked_at = now
        for worker in self.dispatch.silent(now):
            self.disconnect(worker, now)
        while self.pauses and self.pauses[0][0] <= now:
            node = self.graph.nodes.get(heappop(self.pauses)[1])
            if node is not None and node.state is State.BACKOFF:
                self.graph.trouble(node).retry_at = 0.0
                self.graph.queue(node)
        if self.hold_until is not None and (now >= self.hold_until or not self.awaited):
            self.hold_until = None
        stale_at = None
        if self.hold_until is None:
            self.dispatch.feed(now)
            stale_at = self.dispatch.take_back(now)
            self._tell_who_may_leave()
        times = [stale_at, self.hold_until, self.pauses[0][0] if self.pauses else None]
        times.append(self.dispatch.leases[0][0] if self.dispatch.leases else None)
        return min((time for time in times if time is not None), default=None)

    def _forgive(self, now: float) -> None:
        """Where the broker itself stood still (stopped, suspended), its workers are not to blame for the silence."""
        if self.ticked_at is None or now - self.ticked_at < min(self.timing.lease, self.timing.original_lease) / 2:
            return
        for worker in self.dispatch.workers.values():
            worker.heard_at = now

    def drain(self) -> tuple[Changes, Effects]:
        """What has changed since the last drain, and what to tell once that is durable."""
        graph = self.graph
        changes, effects = graph.changes, graph.effects
        graph.changes, graph.effects = Changes(), Effects()
        return changes, effects

    # --- spawners -------------------------------------------------------------------------------------

    def submit(self, runs: Sequence[NewRun], known: Mapping[bytes, Node]) -> None:
        """Make instances and nodes, all or none. Raises Malformed, NotKnown, Conflict or TooMuch."""
        for run in runs:
            self._check_bounds(run)
        self.graph.add(runs, known)

    def _check_bounds(self, run: NewRun) -> None:
        most = self.limits.sources_per_node
        if run.sources is not None and any(len(sources) > most for sources in run.sources):
            raise TooMuch(f"a node has more than {most} sources")

    # --- workers come and go --------------------------------------------------------------------------

    def connect(self, presence: Presence, held: Iterable[tuple[int, int, int]], now: float) -> Worker:
        """A worker presents itself and what it still holds: (node key, attempt, slot). What is not its any more is refused."""
        known = self.dispatch.workers.get(presence.id)
        if known is not None:
            self.disconnect(known, now)
        worker = self.dispatch.add(presence, now, self.timing.lease)
        self.awaited.discard(presence.id)
        self.graph.changes.workers_joined.append((presence.id, presence.name))
        for key, attempt, slot in held:
            node = self.graph.nodes.get(key)
            if node is None or slot >= len(worker.slots) or not self._may_adopt(node, attempt):
                self.graph.effects.refused.append((worker, attempt))
                continue
            self.dispatch.claim(worker.slots[slot], node, attempt)
        return worker

    def connect_original(self, presence: Presence, now: float) -> Worker:
        """A worker of the original's calls: it asks for nodes one at a time and is held to its pings."""
        return self.dispatch.add(presence, now, self.timing.original_lease)

    def _may_adopt(self, node: Node, attempt: int) -> bool:
        """Whether a claim from before still stands: the node waits, and nobody was granted it since."""
        if node.state is not State.QUEUED:
            return False
        earlier_epoch = attempt >> EPOCH_BITS < self.epoch
        return node.attempt == attempt or (earlier_epoch and not node.attempt)

    def heard(self, worker: Worker, now: float) -> None:
        worker.heard_at = now

    def disconnect(self, worker: Worker, now: float) -> None:
        """The worker is gone: what it held goes back to its place in the order."""
        if self.dispatch.workers.get(worker.presence.id) is not worker:
            return
        if worker.presence.id not in self.awaited:
            self.graph.changes.workers_left.append(worker.presence.id)
        for node in self.dispatch.remove(worker):
            self.staged.pop(node.attempt, None)
            trouble = self.graph.trouble(node)
            trouble.lost += 1
            if trouble.lost >= self.limits.losses:
                text = f"{trouble.lost} workers or connections were lost while they held it"
                self._fail(node, self._failure(node, "dagorama.WorkerLost", text))
            else:
                self.graph.record_trouble(node)
                self.graph.queue(node)

    def leave(self, worker: Worker) -> None:
        """The worker takes nothing more and finishes what it holds."""
        self.dispatch.rest(worker)

    # --- outcomes -------------------------------------------------------------------------------------

    def stage(self, worker: Worker, key: int, attempt: int, run: NewRun) -> bool:
        """Keep children of a running attempt until its result comes. False: the attempt is not this worker's."""
        if self.dispatch.held(worker, key, attempt) is None:
            return False
        staged = self.staged.setdefault(attempt, Staged())
        staged.runs.append(run)
        staged.nodes += len(run.lanes)
        staged.size += sum(map(len, run.arguments))
        return True

    def complete(
        self, worker: Worker, key: int, attempt: int, value: bytes, microseconds: int,
        refs: Sequence[int], foreign: Sequence[bytes], known: Mapping[bytes, Node], large: Sequence[bytes], now: float,
    ) -> bool:
        """Record a value, and make its attempt's children visible. False: the attempt is not this worker's.

        Raises Malformed, NotKnown, Conflict or TooMuch where children or references cannot be taken; nothing has changed then.
        """
        node = self.dispatch.held(worker, key, attempt)
        if node is None:
            self.refuse(worker, attempt)
            return False
        staged = self.staged.get(attempt)
        promised: tuple[Node, ...] = ()
        if staged is not None:
            self._check_staged(staged)
        if staged is not None or refs:
            promised = self._add_children(node, staged, refs, foreign, known)
        self.staged.pop(attempt, None)
        node.lane.measured(microseconds)
        self.dispatch.let_go(node, now)
        self.graph.complete(node, value, promised, large)
        return True

    def _check_staged(self, staged: Staged) -> None:
        limits = self.limits
        if staged.nodes > limits.nodes_per_attempt:
            raise TooMuch(f"it made {staged.nodes} nodes; {limits.nodes_per_attempt} are allowed")
        if staged.size > limits.bytes_per_attempt:
            raise TooMuch(f"its nodes carry {staged.size} bytes; {limits.bytes_per_attempt} are allowed")
        for run in staged.runs:
            self._check_bounds(run)

    def _add_children(
        self, node: Node, staged: Staged | None, refs: Sequence[int], foreign: Sequence[bytes],
        known: Mapping[bytes, Node],
    ) -> tuple[Node, ...]:
        """The promised nodes. Looked up before anything is made, so that a bad reference changes nothing."""
        runs = staged.runs if staged is not None else []
        own = next((run for run in runs if run.instance == node.instance.id), None)
        for run in runs:
            if run.creates is None and run.instance != node.instance.id:
                raise Malformed("an attempt may make nodes in its own instance and in new ones only")
        ids: list[bytes] = []
        for ref in refs:
            if ref < 0:
                ids.append(foreign[-1 - ref])
            elif own is None:
                raise Malformed("a result names a child, and the attempt has made none")
            else:
                ids.append(own.origin + ref.to_bytes(4, "big"))
        others = {id: self._promised(id, known) for id in ids if _place(id, runs) is None}
        if others or any(run.foreign for run in runs):
            self._refuse_circle(node, [*others.values(), *self._foreign_sources(runs)])
        made = self.graph.add(runs, known)
        return tuple(others.get(id) or _child(id, runs, made) for id in ids)

    def _promised(self, id: bytes, known: Mapping[bytes, Node]) -> Node:
        found = self.graph.find(id) or known.get(id)
        if found is None:
            raise NotKnown(f"the result names node {id.hex()}, which is not known to this broker")
        return found

    def _foreign_sources(self, runs: Sequence[NewRun]) -> list[Node]:
        found = (self.graph.find(id) for run in runs for id in run.foreign)
        return [node for node in found if node is not None]

    def _refuse_circle(self, node: Node, promised: Sequence[Node]) -> None:
        """Raise where a node would wait for one that waits for it."""
        seen, stack = set(promised), list(promised)
        while stack:
            other = stack.pop()
            if other is node:
                raise Malformed("its result names a node that waits for it: neither could ever end")
            for next in (*other.sources, *(other.refs if other.state is State.RESOLVING else ())):
                if next not in seen:
                    seen.add(next)
                    stack.append(next)

    def fail(self, worker: Worker, key: int, attempt: int, failure: Failure, now: float, jitter: float) -> bool:
        """A run failed: another follows, or the node and its descendants fail. `jitter` is in [0, 1)."""
        node = self.dispatch.held(worker, key, attempt)
        if node is None:
            self.refuse(worker, attempt)
            return False
        self._let_go(node, now)
        trouble, policy = self.graph.trouble(node), node.lane.function.retry
        trouble.runs += 1
        failure = failure._replace(function=node.lane.function.name, attempts=trouble.runs)
        trouble.failure = failure.packed()
        if policy is None or trouble.runs >= policy.max_attempts:
            self._fail(node, failure)
            return True
        trouble.retry_at = now + pause(policy, trouble.runs, jitter)
        self.graph.move(node, State.BACKOFF)
        heappush(self.pauses, (trouble.retry_at, node.key))
        self.graph.record_trouble(node)
        return True

    def give_back(self, worker: Worker, key: int, attempt: int, why: str, now: float) -> bool:
        """A node comes back without an outcome, uncounted. With a reason, the worker is not offered the like again."""
        node = self.dispatch.held(worker, key, attempt)
        if node is None:
            return False
        self._let_go(node, now)
        if why:
            worker.refuse(node.lane, why)
        self.graph.queue(node)
        return True

    def died(
        self, worker: Worker, running: Sequence[int], unstarted: Sequence[int], cause: str, now: float
    ) -> None:
        """A child process ended by itself: the nodes that ran are counted, those that only waited are not."""
        for attempt in unstarted:
            node = self.dispatch.claimed.get(attempt)
            if node is not None:
                self.give_back(worker, node.key, attempt, "", now)
        for attempt in running:
            node = self.dispatch.claimed.get(attempt)
            if node is None or self.dispatch.held(worker, node.key, attempt) is None:
                continue
            self._let_go(node, now)
            trouble = self.graph.trouble(node)
            trouble.deaths += 1
            if trouble.deaths >= self.limits.deaths:
                text = f"its process ended {trouble.deaths} times while it ran; the last time: {cause}"
                self._fail(node, self._failure(node, "dagorama.ProcessDied", text))
            else:
                self.graph.record_trouble(node)
                self.graph.queue(node)

    def refuse(self, worker: Worker, attempt: int) -> None:
        """Tell a worker that an attempt is not its any more."""
        self.graph.effects.refused.append((worker, attempt))

    def _let_go(self, node: Node, now: float) -> None:
        self.staged.pop(node.attempt, None)
        self.dispatch.let_go(node, now)

    def _fail(self, node: Node, failure: Failure) -> None:
        self.graph.end_badly(node, State.FAILED, node, failure.packed())

    def _failure(self, node: Node, type: str, message: str) -> Failure:
        trouble = self.graph.trouble(node)
        attempts = trouble.runs + trouble.deaths + trouble.lost
        return Failure(node.lane.function.name, type, message, "", b"", attempts)

    # --- the original's workers -----------------------------------------------------------------------

    def claim(self, worker: Worker, now: float) -> Granted | None:
        """The next node for a worker that asks for one itself; None: there is none."""
        if self.hold_until is not None and now < self.hold_until:
            return None
        lane = self.dispatch.head(worker)
        if lane is None:
            return None
        slot: Slot = worker.slots[0]
        node = self.graph.nodes[lane.pop()]
        return Granted(slot, node, self.dispatch.claim(slot, node))

    def attempt_of(self, worker: Worker, node: Node) -> int:
        """The attempt under which this worker holds the node. Raises NotAllowedNow where it does not."""
        if node.slot is None or node.slot.worker is not worker:
            raise NotAllowedNow("this node is not claimed by this worker")
        return node.attempt

    # --- leaving --------------------------------------------------------------------------------------

    def _tell_who_may_leave(self) -> None:
        for worker in self.dispatch.workers.values():
            if worker.asks_done and not worker.told_done and self.dispatch.may_leave(worker):
                worker.told_done = True
                self.leave(worker)
                self.graph.effects.done.append(worker)


def _place(id: bytes, runs: Sequence[NewRun]) -> tuple[int, int] | None:
    """Which of the runs makes the node of this id, and as which of its nodes."""
    counter = int.from_bytes(id[12:], "big")
    for index, run in enumerate(runs):
        if run.origin == id[:12] and run.first <= counter < run.first + len(run.lanes):
            return index, counter - run.first
    return None


def _child(id: bytes, runs: Sequence[NewRun], made: Sequence[Sequence[Node]]) -> Node:
    place = _place(id, runs)
    assert place is not None
    index, offset = place
    return made[index][offset]
