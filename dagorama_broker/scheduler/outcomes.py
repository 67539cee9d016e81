"""Takes outcomes: attempts complete, fail, are cancelled or returned, and what follows for their nodes and children.

The third layer of `Scheduler`. Each verb changes everything it must, or refuses and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dagorama_broker.model.domain import ENDED, LONGEST_PAUSE, Failure
from dagorama_broker.scheduler.children import Children
from dagorama_broker.scheduler.drafts import Draft
from dagorama_broker.scheduler.eager import aborted_failure
from dagorama_broker.scheduler.ends import Tally
from dagorama_broker.scheduler.key_pauses import nothing_to_pause
from dagorama_broker.scheduler.mismatch import Mismatch, ReasonCode
from dagorama_broker.scheduler.objects import Node, Worker
from dagorama_broker.scheduler.rebind import bind, is_unbound
from dagorama_broker.scheduler.recording import RetryReason
from dagorama_broker.scheduler.staged_children import StagedChildren, own_origin, promised, refuse_cycle
from dagorama_broker.scheduler.submission import SubmissionPlan
from dagorama_broker.scheduler.transitions import CANCELLED, FAILED

#: Type of the failure of a node whose process died.
PROCESS_DIED = "dagorama.errors.ProcessDied"
#: Seconds until a node that is put off is granted again.
PUT_OFF = 5.0


class Outcomes(Children):
    # --- results ------------------------------------------------------------------------------------

    def complete(
        self,
        worker: Worker,
        key: int,
        attempt: int,
        value: bytes,
        microseconds: int,
        refs: Sequence[int],
        foreign: Sequence[bytes],
        known: Mapping[bytes, Node],
        large: Sequence[bytes],
        now: float,
        draft: Draft | None = None,
    ) -> bool:
        """Record a value, and make the children of its attempt. Return False if the worker does not hold the attempt.

        `draft` has the children, found out and entered, if there are many; it is carried out if this returns True.

        Raises InvalidArgument, NotFound, Conflict or ResourceExhausted if children or references are refused;
        then nothing has changed.
        """
        node = self._reported(worker, key, attempt)
        if node is None:
            return False
        named: tuple[Node, ...] = ()
        if makes := bool(refs) or attempt in self.staged:
            named = self._make_children(node, refs, foreign, known, draft)
        if self.eager_attempts.open:
            self.eager_attempts.release(node)
        node.queue.run_time.measured(microseconds)
        if not named:  # a node that was claimed together with it ran on this value
            self.claims.fused.pop(attempt, None)
        self.claims.let_go(node, now, leads_on=makes or bool(node.dependents))
        self.graph.complete(node, value, named, large, microseconds, worker.number)
        return True

    def _make_children(
        self,
        node: Node,
        refs: Sequence[int],
        foreign: Sequence[bytes],
        known: Mapping[bytes, Node],
        draft: Draft | None,
    ) -> tuple[Node, ...]:
        """Make the staged children of the attempt; return the nodes that its result names."""
        staged = self.staged.get(node.attempt)
        if staged is None and draft is None:  # its result names nodes, and it has made none
            plan = SubmissionPlan(self.graph, (), known)
            named = promised(plan, self.eager_attempts.origin_of(node.key), refs, foreign)
            refuse_cycle(plan, node, (), named)
            return named
        staged = staged or StagedChildren()
        staged.check(node, self.limits)
        plan = draft.plan if draft is not None else SubmissionPlan(self.graph, staged.blocks, known)
        own = self.eager_attempts.origin_of(node.key) or own_origin(node, staged.blocks)
        named = promised(plan, own, refs, foreign)
        refuse_cycle(plan, node, staged.blocks, named)
        if draft is not None:
            draft.carry_out(node.key)
        else:
            plan.make(node.key)
        if self.staged.take_out(node.attempt):
            self.eager_attempts.follow(node, plan.blocks)
        return named

    def fail(
        self,
        worker: Worker,
        key: int,
        attempt: int,
        failure: Failure,
        now: float,
        jitter: float,
        microseconds: int = 0,
        *,
        final: bool = False,
        after: float | None = None,
        pause_key: bool = False,
    ) -> bool:
        """Record an attempt that failed after this time: retry the node, or fail it and its descendants.

        `jitter` is in [0, 1). `final`: do not retry, even if the policy allows it; `after`: seconds until the retry,
        instead of the policy's, and with `pause_key` also until another node with its key starts.
        """
        node = self._reported(worker, key, attempt)
        if node is None:
            return False
        self._end_run(node, now)
        if microseconds:
            node.queue.run_time.measured(microseconds)
        else:  # a worker of dagorama 0.1.10 does not tell
            node.queue.figures.ran(microseconds)
        trouble, policy = self.graph.trouble(node), node.queue.function.retry
        trouble.failed_attempts += 1
        failure = failure._replace(
            function=node.queue.function.name,
            attempts=trouble.failed_attempts,
            ended=self.graph.now + self.graph.wall,
            microseconds=microseconds,
            worker=worker.info.name,
        )
        if pause_key and not self.claims.pause_key(node, after or 0.0):
            failure, final = nothing_to_pause(failure), True
        failure = failure.after(trouble.failure)
        self.graph.keep_failure(trouble, failure.packed())
        if final or policy is None or trouble.failed_attempts >= policy.max_attempts:
            self._fail(node, failure, worker.number)
            return True
        self.graph.recording.retries[RetryReason.FAILED] += 1
        self.claims.invalidate_attempt(node)
        seconds = (
            policy.delay(trouble.failed_attempts, jitter) if after is None else min(max(after, 0.0), LONGEST_PAUSE)
        )
        self.graph.pause(node, seconds)
        return True

    def _reported(self, worker: Worker, key: int, attempt: int) -> Node | None:
        """Return the node whose outcome a worker reports; None: it does not hold the attempt, and is notified."""
        node = self.claims.held(worker, key, attempt)
        if node is not None and node.pending:
            self.claims.unfuse_early(node)
            node = None
        if node is None:
            self.refuse(worker, attempt)
        return node

    # --- without a result ---------------------------------------------------------------------------

    def give_back(
        self,
        worker: Worker,
        key: int,
        attempt: int,
        why: str,
        now: float,
        deployed: str = "",
        code: ReasonCode = ReasonCode.RETURNED,
    ) -> bool:
        """Return a node without an outcome, uncounted. With a reason, the worker is not granted its function again.

        `deployed`: the hash of the code that the worker has instead; `code`: of the reason.
        """
        node = self._taken_back(worker, key, attempt, code is ReasonCode.RESOURCE)  # which the function has asked for
        if node is None:
            return False
        asks = bool(deployed) and is_unbound(self.claims, node)
        if why and not asks:
            self.claims.refuse(worker, node.queue, Mismatch(code, why))
        if deployed:
            worker.deployed[node.queue.id] = deployed
        self.graph.back(node)
        if asks:
            bind(self.claims, node, deployed)
        return True

    def put_off(self, worker: Worker, key: int, attempt: int, why: str) -> bool:
        """Return a node without an outcome, uncounted: nothing is wrong with the worker, and it is granted again soon.

        Meanwhile other nodes go first.
        """
        node = self._taken_back(worker, key, attempt)
        if node is None:
            return False
        if node.pending:
            self.graph.back(node)
        else:
            self.graph.pause(node, PUT_OFF)
            self.graph.trouble(node).note = why
        return True

    def _taken_back(self, worker: Worker, key: int, attempt: int, has_run: bool = False) -> Node | None:
        """Take a node from its worker, with what the attempt has made; None: the worker does not hold the attempt."""
        node = self.claims.held(worker, key, attempt)
        if node is not None:
            self.staged.take_out(attempt)
            self.eager_attempts.abort(node)
            self.claims.uncount_start(attempt, has_run)
            self.claims.take_out(node)
            self.claims.invalidate_attempt(node)
        return node

    def died(self, worker: Worker, running: Sequence[int], unstarted: Sequence[int], cause: str, now: float) -> None:
        """Record the death of a child process: it counts against the running nodes, not against the unstarted ones."""
        self.graph.recording.died(cause)
        claimed, unharmed = self.claims.claimed, set(unstarted)
        # Running nodes first: one that was claimed together with a source that failed is counted all the same.
        for attempt in running:
            node = claimed.get(attempt)
            if node is None or attempt in unharmed or self.claims.held(worker, node.key, attempt) is None:
                continue
            self._end_run(node, now)
            trouble = self.graph.trouble(node)
            trouble.crashes += 1
            again = trouble.crashes < (node.queue.function.max_deaths or self.limits.deaths)
            this = text = f"its process ended while it ran: {cause}"
            if trouble.crashes > 1:
                text = f"its process ended {trouble.crashes} times while it ran; the last time: {cause}"
            if again:
                self.claims.invalidate_attempt(node)
                self.graph.recording.retries[RetryReason.PROCESS_DIED] += 1
                self.graph.keep_failure(trouble, self._failure_of(node, PROCESS_DIED, this, worker).packed())
            self._again_or_fail(node, again, PROCESS_DIED, text, worker)
        for attempt in unstarted:
            if attempt in claimed:
                self.give_back(worker, claimed[attempt].key, attempt, "", now)

    def cancel(self, nodes: Iterable[Node], now: float, tally: Tally | None = None) -> int:
        """Cancel nodes and all that depends on them; running ones are signalled. Return how many were cancelled.

        Work that exceeds this step is put off: the tally counts on as long as it is open.
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
            attempts = [node.attempt, *self.claims.unfuse(node)]
            self.graph.effects.cancelled += [(node.slot.worker, attempt) for attempt in attempts]
            self._end_run(node, now)
        self.eager_attempts.abort(node)
        self.graph.end_badly(node, CANCELLED, node, failure, tally)

    def _bury(self, now: float, tally: Tally | None = None) -> None:
        """Cancel the children of aborted attempts, and their children in turn."""
        while self.eager_attempts.aborted:
            eager_attempt = self.eager_attempts.aborted.pop()
            self.eager_attempts.record_aborted(eager_attempt)
            failure = aborted_failure(eager_attempt)
            for node in list(self.eager_attempts.unfinished(eager_attempt)):
                self._cancel(node, failure(node), now, tally)

    def refuse(self, worker: Worker, attempt: int) -> None:
        """Notify a worker that it no longer holds an attempt."""
        self.graph.effects.refused.append((worker, attempt))

    def _end_run(self, node: Node, now: float) -> None:
        self.staged.take_out(node.attempt)
        self.eager_attempts.abort(node)
        self.claims.let_go(node, now)

    def _again_or_fail(self, node: Node, again: bool, type: str, text: str, worker: Worker | None = None) -> None:
        """Queue a node again, and record what went wrong; or fail it. `worker` held it last."""
        if again:
            self.graph.record_trouble(node)
            self.graph.back(node)
            return
        self._fail(node, self._failure_of(node, type, text, worker), 0 if worker is None else worker.number)

    def _failure_of(self, node: Node, type: str, text: str, worker: Worker | None) -> Failure:
        """Return a failure that no exception has caused, with the failed attempts before it."""
        trouble = self.graph.trouble(node)
        ended, name = self.graph.now + self.graph.wall, "" if worker is None else worker.info.name
        failure = Failure(node.queue.function.name, type, text, "", b"", trouble.attempts, ended=ended, worker=name)
        return failure.after(trouble.failure)

    def _fail(self, node: Node, failure: Failure, worker: int) -> None:
        self.eager_attempts.abort(node)
        trouble = self.graph.trouble(node)
        trouble.retry_at = 0.0
        self.graph.keep_failure(trouble, None)  # it is kept with the outcome
        self.graph.record_trouble(node)
        self.graph.end_badly(node, FAILED, node, failure.packed(), microseconds=failure.microseconds, worker=worker)
