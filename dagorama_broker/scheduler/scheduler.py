"""The scheduler, as clients, workers and time drive it. No IO, no clock, no randomness; time comes as an argument.

`Scheduler` has eight layers, each in its own module: views, children, outcomes, cached values, workers,
administration, signals, and here steps, submissions and retries. Each verb changes everything it must, or refuses and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from dagorama_broker.model.delays import CLOSE
from dagorama_broker.model.domain import Rebinding
from dagorama_broker.model.key_pauses import PausedKey
from dagorama_broker.model.queries import Failed, StoredInstance
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler.assignment import Assigner
from dagorama_broker.scheduler.drafts import Draft
from dagorama_broker.scheduler.effects import Effects
from dagorama_broker.scheduler.ends import RecentFailure
from dagorama_broker.scheduler.hooks import call_hooks
from dagorama_broker.scheduler.limits import Limits, Timing
from dagorama_broker.scheduler.objects import Node
from dagorama_broker.scheduler.obstacles import left_behind
from dagorama_broker.scheduler.queues import QueueGate
from dagorama_broker.scheduler.reasons import Causes, Reason, Situation, causes_of, closed_reason, reasons_of
from dagorama_broker.scheduler.rebind import Rebindable, ReboundFunction, rebind, rebind_deployed
from dagorama_broker.scheduler.recording import RetryReason
from dagorama_broker.scheduler.requests import NewNodes
from dagorama_broker.scheduler.retry import ORPHANED, Retried, orphans, refuse, retry_failed, with_dependents
from dagorama_broker.scheduler.signals import Signals
from dagorama_broker.scheduler.submission import SubmissionPlan


class Scheduler(Signals):
    def __init__(self, epoch: int, limits: Limits | None = None, timing: Timing | None = None) -> None:
        super().__init__(epoch, limits, timing)
        self.feeding = Assigner(self.claims)
        self.ticked_at: float | None = None
        self.reruns = 0  #: calls of `retry` that dropped values
        self.revivals = 0  #: calls of `retry`: what was read from the store before may be outdated

    # --- steps --------------------------------------------------------------------------------------

    def at(self, now: float, wall: float) -> None:
        """Set the time, before other verbs are called; `now` is monotonic."""
        self.graph.now, self.graph.wall = now, wall
        if abs(wall - self.graph.followed) > CLOSE:
            self.graph.follow_wall()

    def tick(self, now: float) -> float | None:
        """Do what is due and grant nodes; return when to call it again (None: at the next change)."""
        self._forgive(now)
        self.graph.left = self.limits.step
        puts_off = self.graph.go_on()
        for worker in self.claims.silent(now):
            self.disconnect(worker, now)
        self._end_pauses(now)
        self.claims.begin_first()
        self.graph.rates.look(now, self.limits.step)
        self.graph.end_key_pauses(self.limits.step)
        for node in islice(self.graph.expired(now), self.limits.step):
            self._give_up(node)
        self._end_waits()
        for node in self.claims.overrun(now):
            self._take_away(node, now)
        if self.dispatch_paused_until is not None and (now >= self.dispatch_paused_until or not self.awaited):
            self.graph.changes.workers_left += self.awaited
            self.awaited, self.dispatch_paused_until = set(), None
        self._bury(now)
        call_hooks(self.graph)
        stale_at = None
        if self.dispatch_paused_until is None:
            puts_off |= self._feed(now)
            stale_at = self.feeding.take_back(now)
            self._tell_who_may_leave()
        puts_off |= call_hooks(self.graph)  # of instances whose last nodes were cancelled meanwhile
        return now if puts_off or self.graph.unnotified else self._next_tick(now, stale_at)

    def _feed(self, now: float) -> bool:
        """Grant queued nodes to workers. Return whether there are more to grant at once."""
        is_more = self.feeding.assign(now)
        while self.eager_attempts.aborted:  # a node was granted again whose last attempt had made children
            self._bury(now)
            effects, claimed = self.graph.effects, self.claims.claimed
            effects.granted = [granted for granted in effects.granted if granted.attempt in claimed]
            is_more = self.feeding.assign(now)
        return is_more

    def _next_tick(self, now: float, stale_at: float | None) -> float | None:
        times = [
            stale_at, self.dispatch_paused_until, self.graph.rates.next_due, self.graph.mail.next_deadline(),
            self.graph.key_pauses.next_due,
        ]  # fmt: skip
        times += [heap[0][0] for heap in (self.graph.pauses, self.graph.expiries, self.claims.overruns) if heap]
        if self.claims.leases:
            # Called this often, it can tell that the broker stood still from the silence of a worker.
            times += [self.claims.leases[0][0], now + self.timing.shortest_lease / 4]
        return min((time for time in times if time is not None), default=None)

    def _forgive(self, now: float) -> None:
        """Restart all leases if the broker itself was stopped or suspended: the silence is not the workers' fault."""
        before, self.ticked_at = self.ticked_at, now
        if before is None or now - before < self.timing.shortest_lease / 2:
            return
        for worker in self.claims.workers.values():
            worker.heard_at = now
            for slot in worker.slots:
                slot.progress_at = max(slot.progress_at, now) if slot.held else slot.progress_at

    def _end_pauses(self, now: float) -> None:
        for node in islice(self.graph.due(now), self.limits.step):
            self._end_pause(node)

    def _give_up(self, node: Node) -> None:
        function = node.queue.function
        reason = self.claims.unschedulable_reason(node.queue) or closed_reason(self.claims, node.queue)
        reason = reason or "workers that may run it had other work"
        text = f"it was queued for {function.queue_timeout:g} seconds (queue_timeout): {reason}"
        self._again_or_fail(node, False, "dagorama.errors.QueueTimeout", text)

    def _tell_who_may_leave(self) -> None:
        satisfied, effects = self.claims.satisfied(), self.graph.effects
        for worker in satisfied:
            effects.left[worker] = left_behind(self.claims, worker)
        for worker in satisfied:
            self.leave(worker)
            effects.done.append(worker)

    def drain(self) -> tuple[Changes, Effects]:
        """Return the rows to commit since the last drain, and what to send once they are durable."""
        graph = self.graph
        call_hooks(graph)  # of what has ended since the last tick
        changes, effects = graph.changes, graph.effects
        graph.changes, graph.effects, graph.unwritten = Changes(), Effects(), set()
        return changes, effects

    def finish(self) -> None:
        """Do all that earlier steps have put off. A broker waits until nothing is, so that this does not block it."""
        self.graph.finish()

    # --- submissions --------------------------------------------------------------------------------

    def submit(
        self, blocks: Sequence[NewNodes], known: Mapping[bytes, Node], stored: Collection[StoredInstance] = ()
    ) -> None:
        """Make instances and nodes, all or none. Raises InvalidArgument, NotFound, Conflict or ResourceExhausted.

        `known` has ended nodes by the IDs that the blocks name, `stored` instances that are not in memory; both were
        read from the store.
        """
        for block in blocks:
            self.limits.check_sources(block.sources)
        with self._loaded(stored):
            SubmissionPlan(self.graph, blocks, known).make()

    def draft(self, blocks: Sequence[NewNodes], known: Mapping[bytes, Node]) -> Draft:
        """Begin to make instances and nodes in slices; see `Draft`."""
        return Draft(self.graph, self.limits, blocks, known)

    def pin_instance(self, id: bytes, stored: StoredInstance | None) -> None:
        """Let drafts add nodes to an instance, whether it ends meanwhile or not, until `unpin_instance`.

        `stored` is the instance if it is not in memory.
        """
        instance = self.graph.instances.get(id)
        if instance is None:
            assert stored is not None
            instance = self.graph.loaded_instance(stored)
        self.graph.drafted[id] = instance

    def unpin_instance(self, id: bytes) -> None:
        """Let an instance leave memory when it has ended."""
        instance = self.graph.drafted.pop(id, None)
        if instance is not None and id not in self.graph.instances:
            self.graph.mail.forget(instance.key)

    # --- explanations -------------------------------------------------------------------------------

    def reasons_of(self, node: Node) -> list[Reason]:
        """Return why an unfinished node is not running, or where it runs."""
        return reasons_of(self.claims, node, self._situation())

    def causes_of(self, nodes: Iterable[Node]) -> Causes:
        """Return the causes for which these nodes have not ended."""
        return causes_of(self.claims, nodes, self._situation())

    def _situation(self) -> Situation:
        if self.dispatch_paused_until is None:
            return Situation(self.graph.now)
        return Situation(self.graph.now, len(self.awaited), self.dispatch_paused_until)

    def limits_in_use(self, most: int) -> list[QueueGate]:
        """Return shared limits, limits of functions, and rates of keys that have nodes, at most `most`."""
        return self.graph.rates.listed(most)

    def next_start(self, gate: QueueGate) -> float:
        """Return when a limit that allows no start now allows one; 0: now; infinite: that is not known."""
        what = PausedKey(gate.name, gate.key or "", int(self.is_shared(gate)))
        return max(self.graph.key_pauses.end_of(what), gate.next_start() if gate.is_used_up else 0.0)

    def is_shared(self, gate: QueueGate) -> bool:
        """Return whether this is a shared limit, and not one of a function."""
        return self.graph.rates.shared.get(gate.name) is gate

    # --- operations on request ----------------------------------------------------------------------

    def record_ends(self) -> list[RecentFailure]:
        """Return a list to which each node is added that ends from now on, until `stop_recording_ends`."""
        self.graph.noticed = []
        return self.graph.noticed

    def stop_recording_ends(self) -> None:
        """End what `record_ends` began."""
        self.graph.noticed = None

    def retry(
        self,
        failed: Failed,
        now: float,
        downstream: bool = False,
        new_code: Iterable[Node] | None = None,
        rebindings: Sequence[Rebinding] = (),
    ) -> Retried:
        """Retry failed nodes; nodes that failed because of them wait for them again. See `scheduler/retry.py`.

        `new_code`: these nodes, the given unfinished ones and nodes that wait for any of them are run by the code that
        is deployed then, as far as `rebindings` allow it.

        Raises FailedPrecondition if an unfinished node takes one of these failures as a value or, with `downstream`,
        has been given one of them or what one of the nodes returned, or is about to; then nothing has changed.
        """
        self.finish()
        refuse(self.graph, failed, downstream)
        for node in orphans(self.graph, failed):
            self._cancel(node, ORPHANED(node), now)
        self._bury(now)
        self.finish()
        revived = retry_failed(self.claims, failed)
        self.revivals += 1
        self.reruns += revived.completed > 0
        self.graph.recording.retries[RetryReason.REQUESTED] += revived.queued
        if new_code is None:
            return revived
        nodes = with_dependents(self.graph, failed, new_code)
        return revived._replace(rebound=rebind_deployed(self.claims, nodes, rebindings))

    def rebind(self, asked: ReboundFunction, rebinding: Rebinding | None) -> Rebindable:
        """Bind unfinished nodes of a function, by its name, to other code, and return which; see `rebind`.

        Raises NotFound or FailedPrecondition, and then nothing has changed.
        """
        return rebind(self.claims, asked, rebinding)
