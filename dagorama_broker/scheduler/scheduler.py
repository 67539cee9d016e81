"""The verbs of the heart: what spawners, workers and time do to it.

Each changes everything it must, or refuses and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappush
from itertools import islice

from dagorama_broker.errors import Malformed, NotAllowedNow
from dagorama_broker.model import ENDED, Adoption, Changes, Failed, Failure, Live, World
from dagorama_broker.scheduler.assignment import Feeding
from dagorama_broker.scheduler.backoff import LONGEST_PAUSE, pause
from dagorama_broker.scheduler.claims import Dispatch
from dagorama_broker.scheduler.drafts import Draft
from dagorama_broker.scheduler.eager import epitaph
from dagorama_broker.scheduler.graph import Graph, Tally
from dagorama_broker.scheduler.limits import Limits, Timing
from dagorama_broker.scheduler.objects import Effects, Granted, Node, Presence, Worker
from dagorama_broker.scheduler.obstacles import left_behind
from dagorama_broker.scheduler.rebind import Adoptable, AdoptedFunction, adopt, adopt_deployed, bind, is_unbound
from dagorama_broker.scheduler.restore import rebuild
from dagorama_broker.scheduler.retry import ORPHANED, Revived, orphans, refuse, revive, with_dependents
from dagorama_broker.scheduler.staged_children import Staged, own_origin, promised, refuse_circle
from dagorama_broker.scheduler.submission import NewRun, Plan
from dagorama_broker.scheduler.transitions import BACKOFF, CANCELLED, FAILED

#: Losses of one node from which on it is granted to others only when its worker has had time to return.
FLAPPING = 10


class Scheduler:
    def __init__(self, epoch: int, limits: Limits | None = None, timing: Timing | None = None) -> None:
        self.epoch = epoch
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.graph = Graph()
        self.dispatch = Dispatch(self.graph, epoch)
        self.feeding = Feeding(self.dispatch)
        self.broods = self.dispatch.broods
        self.staged = self.dispatch.staged
        self.awaited: set[bytes] = set()  #: workers of the last broker that may still come back
        self.hold_until: float | None = None  #: nothing is handed out before
        self.ticked_at: float | None = None
        self.reruns = 0  #: calls of `retry` that took values back
        self.revivals = 0  #: calls of `retry`: what was read from the store before may be otherwise

    # --- start and end of a step ----------------------------------------------------------------------

    def restore(self, live: Live, now: float, wall: float) -> None:
        """Take up what an earlier broker left; `wall` is what to add to `now` for seconds since 1970."""
        self.graph.now, self.graph.wall = now, wall
        for when, node in rebuild(self.graph, live):
            heappush(self.graph.pauses, (when, node.key))
        self.broods.rebuild(live)
        self.awaited = {id for id, _ in live.workers}
        if self.awaited:
            self.hold_until = now + self.timing.reconnect_wait

    def at(self, now: float, wall: float) -> None:
        """Say what time it is before other verbs are called; `now` is monotonic."""
        self.graph.now, self.graph.wall = now, wall

    def tick(self, now: float) -> float | None:
        """Do what time asks for and hand out what can be; when to be called again (None: at the next change)."""
        self._forgive(now)
        self.graph.left = self.limits.step
        puts_off = self.graph.go_on()
        for worker in self.dispatch.silent(now):
            self.disconnect(worker, now)
        self._end_pauses(now)
        for node in islice(self.graph.expired(now), self.limits.step):
            self._give_up(node)
        for node in self.dispatch.overrun(now):
            self._take_away(node, now)
        if self.hold_until is not None and (now >= self.hold_until or not self.awaited):
            self.graph.changes.workers_left += self.awaited
            self.awaited, self.hold_until = set(), None
        self._bury(now)
        stale_at = None
        if self.hold_until is None:
            puts_off |= self._feed(now)
            stale_at = self.feeding.take_back(now)
            self._tell_who_may_leave()
        return now if puts_off or self.graph.untold else self._next_tick(now, stale_at)

    def _feed(self, now: float) -> bool:
        """Hand out what can be. Return whether there is more to hand out at once."""
        is_more = self.feeding.feed(now)
        while self.broods.forsaken:  # a node was granted again whose last attempt had made others
            self._bury(now)
            effects, claimed = self.graph.effects, self.dispatch.claimed
            effects.granted = [granted for granted in effects.granted if granted.attempt in claimed]
            is_more = self.feeding.feed(now)
        return is_more

    def _next_tick(self, now: float, stale_at: float | None) -> float | None:
        times = [stale_at, self.hold_until]
        times += [heap[0][0] for heap in (self.graph.pauses, self.graph.expiries, self.dispatch.overruns) if heap]
        if self.dispatch.leases:
            # Called this often, it can tell a standstill of the broker from the silence of a worker.
            times += [self.dispatch.leases[0][0], now + self.timing.shortest_lease / 4]
        return min((time for time in times if time is not None), default=None)

    def _forgive(self, now: float) -> None:
        """Where the broker itself stood still (stopped, suspended), its workers are not to blame for the silence."""
        before, self.ticked_at = self.ticked_at, now
        if before is None or now - before < self.timing.shortest_lease / 2:
            return
        for worker in self.dispatch.workers.values():
            worker.heard_at = now
            for slot in worker.slots:
                slot.progress_at = max(slot.progress_at, now) if slot.held else slot.progress_at

    def _end_pauses(self, now: float) -> None:
        for node in islice(self.graph.due(now), self.limits.step):
            self._end_pause(node)

    def _end_pause(self, node: Node) -> None:
        trouble = self.graph.trouble(node)
        trouble.retry_at = trouble.pause = 0.0
        self.graph.queue(node)

    def _give_up(self, node: Node) -> None:
        function = node.lane.function
        reason = self.dispatch.why_nobody(node.lane) or "workers that may run it had other work"
        text = f"it was queued for {function.queue_timeout:g} seconds (queue_timeout): {reason}"
        self._again_or_fail(node, False, "dagorama.errors.QueueTimeout", text)

    def _take_away(self, node: Node, now: float) -> None:
        """A worker that goes on beating has not stopped a run at its timeout: that slot is not trusted any more."""
        slot = node.slot
        assert slot is not None
        self.refuse(slot.worker, node.attempt)
        self._end_run(node, now)
        self.dispatch.spend(node)
        trouble = self.graph.trouble(node)
        trouble.lost += 1
        text = f"its worker did not stop it at its timeout of {node.lane.function.timeout:g} seconds"
        self._again_or_fail(node, trouble.lost < self.limits.losses, "dagorama.errors.WorkerLost", text)
        self.close_slot(slot.worker, slot.index, now)

    def drain(self) -> tuple[Changes, Effects]:
        """What has changed since the last drain, and what to tell once that is durable."""
        graph = self.graph
        changes, effects = graph.changes, graph.effects
        graph.changes, graph.effects = Changes(), Effects()
        return changes, effects

    # --- spawners -------------------------------------------------------------------------------------

    def submit(self, runs: Sequence[NewRun], known: Mapping[bytes, Node]) -> None:
        """Make instances and nodes, all or none. Raises Malformed, NotKnown, Conflict or TooMuch.

        `known` has ended nodes, read back from the store, by the ids that the runs name.
        """
        for run in runs:
            self.limits.check_sources(run.sources)
        Plan(self.graph, runs, known).make()

    def draft(self, runs: Sequence[NewRun], known: Mapping[bytes, Node]) -> Draft:
        """Begin to make instances and nodes in slices; see `Draft`."""
        return Draft(self.graph, self.limits, runs, known)

    def finish(self) -> None:
        """Do what earlier steps have put off; a broker waits until nothing is, so as not to stand still."""
        self.graph.finish()
    def drop_functions(self, ids: Iterable[int]) -> None:
        """Let go of functions that no stored node names, as far as nothing in memory uses their lanes."""
        ids = set(ids)
        self.dispatch.tidy(ids)
        self.dispatch.forget_lanes({id for id in ids if self.graph.drop_lane(id)})

    # --- workers come and go --------------------------------------------------------------------------

    def connect(self, presence: Presence, held: Iterable[tuple[int, int, int]], now: float) -> Worker:
        """A worker presents itself and what it holds: (node key, attempt, slot). What is not its now is refused.

        It replaces an earlier session under its id. `held` is believed: the caller has seen proof that these attempts
        were granted to this worker. Raises NotAllowedNow if another session is open under an id that is not proven.
        """
        known = self.dispatch.workers.get(presence.id)
        if known is not None:
            if not presence.is_proven:
                raise NotAllowedNow(
                    "another worker is connected under this id, and this one cannot prove that the id is its own:"
                    " send the secret that the id is made of, or use another id"
                )
            self.disconnect(known, now)
        worker = self.dispatch.add(presence, now, self.timing.lease)
        if presence.is_proven:  # another could not take up anything after a restart
            self._put_on_record(presence)
        for key, attempt, slot in held:
            self._take_up(worker, key, attempt, slot, now)
        return worker

    def _put_on_record(self, presence: Presence) -> None:
        self.awaited.discard(presence.id)
        changes = self.graph.changes
        if presence.id in changes.workers_left:  # which a store takes in after those who joined
            changes.workers_left.remove(presence.id)
        changes.workers_joined.append((presence.id, presence.name))

    def _take_up(self, worker: Worker, key: int, attempt: int, index: int, now: float) -> None:
        """Adopt a claim that the worker presents, or refuse it."""
        node = self.graph.nodes.get(key)
        if node is not None and self.dispatch.held(worker, key, attempt) is node:
            return
        is_there = node is not None and 0 <= index < len(worker.slots) and worker.why_not(node.lane) is None
        if node is None or not is_there or not self.dispatch.may_adopt(node, attempt, worker.presence.world):
            self.refuse(worker, attempt)
            return
        if node.state is BACKOFF:
            self._end_pause(node)
        if node.slot is not None:
            self.staged.take_out(node.attempt)
        else:
            self._take_back_loss(node, attempt)
        self.dispatch.adopt(worker.slots[index], node, attempt, now)

    def _take_back_loss(self, node: Node, attempt: int) -> None:
        """Uncount the loss of the worker that returns with this attempt: it never let go of the node."""
        trouble = node.trouble
        if trouble is not None and trouble.lost_attempt == attempt:
            trouble.lost -= 1
            trouble.lost_attempt = 0
            self.graph.record_trouble(node)

    def connect_original(self, presence: Presence, now: float) -> Worker:
        """A worker of the original's calls: it asks for nodes one at a time and is held to its pings."""
        return self.dispatch.add(presence, now, self.timing.original_lease)

    def heard(self, worker: Worker, now: float) -> None:
        worker.heard_at = now

    def disconnect(self, worker: Worker, now: float, *, counts: bool = True) -> None:
        """The worker is gone: what it held goes back to its place in the order.

        The loss counts against what it held, unless `counts` is False, until the worker returns with the same attempt.
        """
        id = worker.presence.id
        if self.dispatch.workers.get(id) is not worker:
            return
        if worker.presence.is_proven:
            self.graph.changes.workers_left.append(id)
        for node in self.dispatch.remove(worker):
            if not counts:
                self.graph.back(node)
                continue
            self._count_loss(node)

    def _count_loss(self, node: Node) -> None:
        trouble = self.graph.trouble(node)
        trouble.lost += 1
        trouble.lost_attempt = node.attempt
        again = trouble.lost < self.limits.losses
        if again and self._is_flapping(node):
            self.graph.pause(node, self.timing.reconnect_wait)
            return
        text = f"{trouble.lost} workers or connections were lost while they held it"
        self._again_or_fail(node, again, "dagorama.errors.WorkerLost", text)

    def _is_flapping(self, node: Node) -> bool:
        """Whether connections break so often that a run must not be given up each time: its worker may be on its way
        back. Nodes of the original's workers, which cannot take them up again, are not meant, nor those that have made
        others."""
        ours = node.lane.function.world is World.OURS
        return ours and self.graph.trouble(node).lost >= FLAPPING and node.key not in self.broods.open

    def leave(self, worker: Worker) -> None:
        """The worker takes nothing more and finishes what it holds."""
        self.dispatch.rest(worker)

    def close_slot(self, worker: Worker, index: int, now: float) -> None:
        """One slot of the worker is gone for good: what it held comes back uncounted, and it is granted nothing more.

        Raises Malformed where the worker has no such slot.
        """
        if index >= len(worker.slots):
            raise Malformed(f"the worker has {len(worker.slots)} slots, and closes one numbered {index}")
        slot = worker.slots[index]
        for attempt, (node, _) in list(slot.held.items()):
            self.give_back(worker, node.key, attempt, "", now)
        slot.closed = True
        if worker.pool is not None:
            worker.pool.remove(slot)

    # --- outcomes -------------------------------------------------------------------------------------

    def may_stage(self, worker: Worker, key: int, attempt: int, cost: int) -> bool:
        """Whether a running attempt may stage children that take so many bytes of memory.

        If not, nothing that it stages is kept any more, and its result will be refused.
        """
        return self.dispatch.held(worker, key, attempt) is None or self.staged.has_room(attempt, cost, self.limits)

    def stage(self, worker: Worker, key: int, attempt: int, run: NewRun) -> bool:
        """Keep children of a running attempt until its result comes. False: the attempt is not this worker's."""
        if self.dispatch.held(worker, key, attempt) is None:
            return False
        self.staged.take_in(attempt, run, self.limits)
        return True

    def make(self, worker: Worker, key: int, attempt: int, run: NewRun, known: Mapping[bytes, Node]) -> bool:
        """Make children of a running attempt of an eager function: they are visible at once. What it has made before
        is not made again. False: the attempt is not this worker's.

        `known` has ended nodes that the run names. Raises Malformed, NotKnown, Conflict or TooMuch.
        """
        node = self.dispatch.held(worker, key, attempt)
        if node is None:
            return False
        self.broods.make(node, run, known, self.limits)
        return True

    def complete(
        self, worker: Worker, key: int, attempt: int, value: bytes, microseconds: int,
        refs: Sequence[int], foreign: Sequence[bytes], known: Mapping[bytes, Node], large: Sequence[bytes], now: float,
        draft: Draft | None = None,
    ) -> bool:
        """Record a value, and make its attempt's children visible. False: the attempt is not this worker's.

        `draft` has the children, found out and entered, if there are many; it is carried out if this returns True.

        Raises Malformed, NotKnown, Conflict or TooMuch where children or references cannot be taken; then nothing has
        changed.
        """
        node = self._reported(worker, key, attempt)
        if node is None:
            return False
        named: tuple[Node, ...] = ()
        if refs or attempt in self.staged:
            named = self._make_children(node, refs, foreign, known, draft)
        if self.broods.open:
            self.broods.release(node)
        node.lane.pace.measured(microseconds)
        if not named:  # what was sent along with it ran on this value
            self.dispatch.along.pop(attempt, None)
        self.dispatch.let_go(node, now)
        self.graph.complete(node, value, named, large)
        return True

    def _reported(self, worker: Worker, key: int, attempt: int) -> Node | None:
        """The node of which a worker reports an outcome; None: the attempt is not this worker's, and it is told."""
        node = self.dispatch.held(worker, key, attempt)
        if node is not None and node.pending:
            self.dispatch.void_early(node)
            node = None
        if node is None:
            self.refuse(worker, attempt)
        return node

    def _make_children(
        self, node: Node, refs: Sequence[int], foreign: Sequence[bytes], known: Mapping[bytes, Node],
        draft: Draft | None,
    ) -> tuple[Node, ...]:
        """Make what the attempt has staged; returns the nodes that its result names."""
        staged = self.staged.get(node.attempt) or Staged()
        staged.check(node, self.limits)
        plan = draft.plan if draft is not None else Plan(self.graph, staged.runs, known)
        own = self.broods.origin_of(node.key) or own_origin(node, staged.runs)
        named = promised(plan, own, refs, foreign)
        refuse_circle(plan, node, staged.runs, named)
        if draft is not None:
            draft.carry_out(node.key)
        else:
            plan.make(node.key)
        if self.staged.take_out(node.attempt):
            self.broods.follow(node, plan.runs)
        return named

    def fail(
        self, worker: Worker, key: int, attempt: int, failure: Failure, now: float, jitter: float,
        *, final: bool = False, after: float | None = None,
    ) -> bool:
        """A run failed: another follows, or the node and its descendants fail. `jitter` is in [0, 1).

        `final`: no other run, whatever the policy says; `after`: seconds until the next run, instead of the policy's.
        """
        node = self._reported(worker, key, attempt)
        if node is None:
            return False
        self._end_run(node, now)
        trouble, policy = self.graph.trouble(node), node.lane.function.retry
        trouble.runs += 1
        failure = failure._replace(function=node.lane.function.name, attempts=trouble.runs)
        if trouble.failure is not None:
            failure = failure.after(Failure.unpacked(trouble.failure))
        self.graph.keep_failure(trouble, failure.packed())
        if final or policy is None or trouble.runs >= policy.max_attempts:
            self._fail(node, failure)
            return True
        self.dispatch.spend(node)
        seconds = pause(policy, trouble.runs, jitter) if after is None else min(max(after, 0.0), LONGEST_PAUSE)
        self.graph.pause(node, seconds)
        return True

    def cancel(self, nodes: Iterable[Node], now: float, tally: Tally | None = None) -> int:
        """Cancel nodes and all that depends on them; those that run are told. Return how many were cancelled.

        What this step cannot do is put off: as long as the tally is open, it counts on.
        """
        tally = tally or Tally()
        for node in nodes:
            self._cancel(node, None, now, tally)
        self._bury(now, tally)
        return tally.count

    def _cancel(self, node: Node, failure: bytes | None, now: float, tally: Tally | None = None) -> None:
        if node.state in ENDED:
            return  # it depended on another that was cancelled
        if node.slot is not None:
            attempts = [node.attempt, *self.dispatch.void(node)]
            self.graph.effects.cancelled += [(node.slot.worker, attempt) for attempt in attempts]
            self._end_run(node, now)
        self.broods.forsake(node)
        self.graph.end_badly(node, CANCELLED, node, failure, tally)

    def _bury(self, now: float, tally: Tally | None = None) -> None:
        """Cancel what attempts have made that came to nothing, and what that has made, in turn."""
        while self.broods.forsaken:
            brood = self.broods.forsaken.pop()
            self.broods.bury(brood)
            failure = epitaph(brood)
            for node in list(self.broods.unfinished(brood)):
                self._cancel(node, failure(node), now, tally)

    def give_back(
        self, worker: Worker, key: int, attempt: int, why: str, now: float, deployed: str = ""
    ) -> bool:
        """A node comes back without an outcome, uncounted. With a reason, the worker is not offered the like again.

        `deployed`: the hash of the code that it has instead.
        """
        node = self.dispatch.held(worker, key, attempt)
        if node is None:
            return False
        self.staged.take_out(attempt)
        self.broods.forsake(node)
        self.dispatch.take_out(node)
        asks = bool(deployed) and is_unbound(self.dispatch, node)
        if why and not asks:
            self.dispatch.pools.refuse(worker, node.lane, why)
        if deployed:
            worker.deployed[node.lane.id] = deployed
        self.dispatch.spend(node)
        self.graph.back(node)
        if asks:
            bind(self.dispatch, node, deployed)
        return True

    def died(
        self, worker: Worker, running: Sequence[int], unstarted: Sequence[int], cause: str, now: float
    ) -> None:
        """A child process ended by itself: the nodes that ran are counted, those that only waited are not."""
        claimed, unharmed = self.dispatch.claimed, set(unstarted)
        # First what ran: where it was sent along with a node whose result came to nothing, it is counted all the same.
        for attempt in running:
            node = claimed.get(attempt)
            if node is None or attempt in unharmed or self.dispatch.held(worker, node.key, attempt) is None:
                continue
            self._end_run(node, now)
            trouble = self.graph.trouble(node)
            trouble.deaths += 1
            again = trouble.deaths < (node.lane.function.max_deaths or self.limits.deaths)
            if again:
                self.dispatch.spend(node)
            text = f"its process ended {trouble.deaths} times while it ran; the last time: {cause}"
            self._again_or_fail(node, again, "dagorama.errors.ProcessDied", text)
        for attempt in unstarted:
            if attempt in claimed:
                self.give_back(worker, claimed[attempt].key, attempt, "", now)

    def refuse(self, worker: Worker, attempt: int) -> None:
        """Tell a worker that an attempt is not its any more."""
        self.graph.effects.refused.append((worker, attempt))

    def _end_run(self, node: Node, now: float) -> None:
        self.staged.take_out(node.attempt)
        self.broods.forsake(node)
        self.dispatch.let_go(node, now)

    def _again_or_fail(self, node: Node, again: bool, type: str, text: str) -> None:
        """Back to the queue, with what went wrong on record; or it fails for it."""
        if again:
            self.graph.record_trouble(node)
            self.graph.back(node)
            return
        trouble = self.graph.trouble(node)
        attempts = trouble.runs + trouble.deaths + trouble.lost
        failure = Failure(node.lane.function.name, type, text, "", b"", attempts)
        if trouble.failure is not None:
            failure = failure.after(Failure.unpacked(trouble.failure))
        self._fail(node, failure)

    def _fail(self, node: Node, failure: Failure) -> None:
        self.broods.forsake(node)
        trouble = self.graph.trouble(node)
        trouble.retry_at = 0.0
        self.graph.keep_failure(trouble, None)  # it is kept with the outcome
        self.graph.record_trouble(node)
        self.graph.end_badly(node, FAILED, node, failure.packed())

    # --- what a person does ---------------------------------------------------------------------------

    def retry(
        self, failed: Failed, now: float, downstream: bool = False, new_code: Iterable[Node] | None = None,
        adoptions: Sequence[Adoption] = (),
    ) -> Revived:
        """Have nodes that failed run again, and what failed because of them wait for them; see `reviving`.

        `new_code`: these nodes, the unfinished ones that are given, and those that wait for any of them, are run by
        the code that is deployed then, as far as `adoptions` allow it.
        Raises NotAllowedNow if an unfinished node takes one of these failures as a value or, with `downstream`,
        has been given one of them or what one of the nodes returned, or is about to; then nothing has changed.
        """
        self.finish()
        refuse(self.graph, failed, downstream)
        for node in orphans(self.graph, failed):
            self._cancel(node, ORPHANED(node), now)
        self._bury(now)
        self.finish()
        revived = revive(self.dispatch, failed)
        self.revivals += 1
        self.reruns += revived.completed > 0
        if new_code is None:
            return revived
        nodes = with_dependents(self.graph, failed, new_code)
        return revived._replace(adopted=adopt_deployed(self.dispatch, nodes, adoptions))

    def adopt(self, asked: AdoptedFunction, adoption: Adoption | None) -> Adoptable:
        """Have unfinished nodes of a function, by its name, run by other code, and return which; see `adopting`.

        Raises NotKnown or NotAllowedNow, and then nothing has changed.
        """
        return adopt(self.dispatch, asked, adoption)

    # --- the original's workers -----------------------------------------------------------------------

    def claim(self, worker: Worker, now: float) -> Granted | None:
        """The next node for a worker that asks for one itself; None: there is none."""
        if worker.pool is None or (self.hold_until is not None and now < self.hold_until):
            return None
        head = self.dispatch.head(worker.pool)
        if head is None:
            return None
        slot, node = worker.slots[0], self.graph.nodes[head[2].pop()]
        return Granted(slot, node, self.dispatch.claim(slot, node))

    def attempt_of(self, worker: Worker, node: Node) -> int:
        """The attempt under which this worker holds the node. Raises NotAllowedNow where it does not."""
        if node.slot is None or node.slot.worker is not worker:
            raise NotAllowedNow("this node is not claimed by this worker")
        return node.attempt

    # --- leaving --------------------------------------------------------------------------------------

    def _tell_who_may_leave(self) -> None:
        satisfied, effects = self.dispatch.satisfied(), self.graph.effects
        for worker in satisfied:
            effects.left[worker] = left_behind(self.dispatch, worker)
        for worker in satisfied:
            self.leave(worker)
            effects.done.append(worker)
