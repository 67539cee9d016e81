"""Ends nodes and notifies their dependents, in bounded steps.

The fourth layer of `Graph`. Nothing here recurses or scans all nodes: a chain or a fan-in of 100,000 is normal work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from dagorama_broker.model.domain import ENDED, State
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.rows import InstanceEnd, OutcomeRow, ResolvedRow
from dagorama_broker.scheduler.ends import RecentFailure, Tally, cause_of, noticed
from dagorama_broker.scheduler.hits import Hits
from dagorama_broker.scheduler.instances import Instance
from dagorama_broker.scheduler.limits import STEP
from dagorama_broker.scheduler.mail import leave
from dagorama_broker.scheduler.objects import UNSTARTED, Node
from dagorama_broker.scheduler.transitions import CLAIMED, COMPLETED, FAILED, RESOLVING, WAITING

#: Nodes that are started before a step looks at how much it has done: some of them complete at once.
PORTION = 1_000
#: Failures that are kept for nodes of other instances which share them.
LAST_FAILURES = 16


class Starting(Protocol):
    """Nodes that were made, and that the scheduler starts in steps."""

    def start(self, most: int) -> int:
        """Start up to `most` nodes and return how many; fewer: all are started."""
        ...


class _Unnotified(NamedTuple):
    """Dependents of an ended node that a later step notifies."""

    node: Node
    dependents: list[Node]
    at: int  #: the first one that was not notified
    tally: Tally | None


class Endings(Hits):
    def __init__(self) -> None:
        super().__init__()
        self.starting: deque[Starting] = deque()  #: large calls with nodes that have not been started
        self.unnotified: deque[_Unnotified] = deque()  #: ended nodes with dependents that have not been notified
        self.left = STEP  #: nodes that this step may still start, notify or queue
        self.calling: deque[Instance] = deque()  #: instances that have ended but for the node of their hooks
        #: packed failures of the nodes that failed last, by their keys: nodes of other instances may share them
        self.last_failures: deque[tuple[int, bytes]] = deque(maxlen=LAST_FAILURES)
        self.noticed: list[RecentFailure] | None = None  #: nodes that end while a retry reads the store

    def end_badly(
        self,
        node: Node,
        state: State,
        root_cause: Node,
        failure: bytes | None = None,
        tally: Tally | None = None,
        microseconds: int = 0,
        worker: int = 0,
    ) -> None:
        """Fail or cancel a node, and with it every descendant.

        `microseconds` is how long its last attempt ran, `worker` the number of the worker that ran it.
        """
        node.root_cause = None if root_cause is node else root_cause
        self._record_bad_end(node, state, failure, microseconds, worker)
        if tally is not None:
            tally.count += 1
        self._tell([node], tally=tally)

    def _record_bad_end(
        self, node: Node, state: State, failure: bytes | None, microseconds: int = 0, worker: int = 0
    ) -> None:
        resolving = node.state is RESOLVING
        self.move(node, state)
        if not node.instance.failed:
            node.instance.failed = True
            self.changes.instance_ends.append(InstanceEnd(node.instance.key, None, True))
        if state is FAILED:
            self._note_failure(node, failure)
        root_cause, ended = (node.root_cause or node).key, self.now + self.wall
        if resolving:
            self.changes.resolved.append(ResolvedRow(node.key, int(state), root_cause, ended))
        else:
            self.changes.outcomes.append(
                OutcomeRow(
                    node.key, int(state), node.attempt, b"", None, root_cause, failure, ended, microseconds, worker
                )
            )

    def _note_failure(self, node: Node, failure: bytes | None) -> None:
        """Note the first failure of an instance for its hook; dependents share the failure of another node."""
        if failure is not None:
            self.last_failures.append((node.key, failure))
        instance, root_cause = node.instance, node.root_cause or node
        hook = instance.hook
        if hook is None or hook.is_deaf or hook.is_due:
            return
        if failure is not None or root_cause.instance.key != instance.key:
            self.set_hook(instance, hook.noting(cause_of(root_cause, self.last_failures)))

    def set_hook(self, instance: Instance, hook: HookRow) -> None:
        """Change the failure hook of an instance."""
        instance.hook = hook
        self.changes.hooks.append(hook)

    def _resolve(self, node: Node) -> None:
        """Complete a node whose promises have all completed."""
        self.move(node, COMPLETED)
        self.changes.resolved.append(ResolvedRow(node.key, int(COMPLETED), 0, self.now + self.wall))

    # --- notifying dependents -------------------------------------------------------------------------

    def _tell(self, ended: list[Node], least: int = 0, tally: Tally | None = None) -> None:
        """Notify the dependents of ended nodes, and theirs in turn.

        Work that exceeds this step is put off, except for the first `least` dependents of the first node.
        """
        while ended:
            node = ended.pop()
            dependents, node.dependents = node.dependents, None
            self._forget(node)
            if dependents:
                self._tell_dependents(_Unnotified(node, dependents, 0, tally), least, ended)
            least = 0

    def _tell_dependents(self, unnotified: _Unnotified, least: int, ended: list[Node]) -> None:
        node, dependents, at, tally = unnotified
        end = at + max(self.left, least)
        if end < len(dependents):
            if tally is not None:
                tally.open += 1
            self.unnotified.append(_Unnotified(node, dependents, max(at, end), tally))
            dependents = dependents[at:end]
        elif at:
            dependents = dependents[at:]
        self.left -= len(dependents)
        if node.state is COMPLETED:
            self._one_less(dependents, ended)
        else:
            before = len(ended)
            self._fail_all(dependents, node, ended)
            if tally is not None:
                tally.count += len(ended) - before

    def go_on(self) -> bool:
        """Do some of what earlier steps have put off. Return whether there is more."""
        while self.starting and self.left > 0:
            most = min(self.left, PORTION)
            started = self.starting[0].start(most)
            self.left -= started
            if started < most:
                self.starting.popleft()
        while self.unnotified and self.left > 0:
            unnotified = self.unnotified.popleft()
            ended: list[Node] = []
            if unnotified.tally is not None:
                unnotified.tally.open -= 1
            self._tell_dependents(unnotified, 0, ended)
            self._tell(ended, tally=unnotified.tally)
        return bool(self.starting or self.unnotified)

    def finish(self) -> None:
        """Do all that earlier steps have put off."""
        while self.starting or self.unnotified:
            self.left = STEP
            self.go_on()

    def look_up(self, node: Node, cache_key: bytes) -> None:
        """Queue a claimed node whose cache key is known, unless it waits for a node that computes the same."""
        if self.follows(node, cache_key):
            self.move(node, WAITING)
        else:
            self.back(node)

    def follows(self, node: Node, cache_key: bytes) -> bool:
        """Note the cache key of a node; return whether it waits from now on for a node that computes the same."""
        leader = self.caching.report(node, cache_key, self.now + self.wall)
        if leader is None:
            return False
        node.pending = 1
        leader.dependents = leader.dependents or []
        leader.dependents.append(node)
        return True

    def _one_less(self, dependents: list[Node], ended: list[Node]) -> None:
        """Count down what dependents wait for; queue, or complete, dependents that wait for nothing else."""
        for dependent in dependents:
            dependent.pending -= 1
            if dependent.pending or dependent.state in ENDED or dependent.state is CLAIMED:
                continue
            if dependent.state is WAITING:
                rare = dependent.rare
                if rare is not None and rare.twin is not None and self.take_over(dependent):
                    ended.append(dependent)
                else:
                    self._make_ready(dependent)
            else:
                self._resolve(dependent)
                ended.append(dependent)

    def _fail_all(self, dependents: list[Node], failed: Node, ended: list[Node]) -> None:
        """Fail or cancel dependents along with their source, unless they take its failure as a value."""
        for dependent in dependents:
            if dependent.state in ENDED:
                continue
            is_tolerant = failed.key in dependent.tolerates or dependent.twin is failed
            if is_tolerant and dependent.state is WAITING:
                self._one_less([dependent], ended)
            else:
                dependent.root_cause = failed.root_cause or failed
                self._record_bad_end(dependent, failed.state, None)
                ended.append(dependent)

    # --- leaving memory -------------------------------------------------------------------------------

    def _forget(self, node: Node) -> None:
        """Remove an ended node; only nodes that reference it keep it in memory."""
        del self.nodes[node.key]
        if node.pending != UNSTARTED:
            self.edges -= len(node.sources) + len(node.refs)
        if node.queue.key:
            self._leave_keyed(node.queue)
        if node.queue.caches:
            self.caching.ended(node, self.changes, self.now + self.wall)
        if self.made_with:
            self.made_with.pop(node.key, None)
            self.rebindings.pop(node.key, None)
        if node.rare is not None:
            if node.failures is not None:
                self.keep_failure(node.failures, None)
                node.failures = None
            if node.rare.wait is not None:
                leave(self, node)
        self.effects.ended.append(node)
        if self.noticed is not None:
            self.noticed.append(noticed(node))
        if node.sources:
            if node.pending != UNSTARTED:
                self._let_go(node.sources)
            node.sources = ()
        if node.refs and node.state is not COMPLETED:
            self._let_go(node.refs)
            node.refs = ()  # the value that they were part of is never read
        elif node.refs and not node.consumers:
            self._let_go(node.refs)
        instance = node.instance
        instance.live -= 1
        if not instance.live:
            if instance.hook is not None and instance.hook.is_due:
                instance.live = 1  # stands for the node of the hook, which is made in the same step
                self.calling.append(instance)
            else:
                self.end_instance(instance)

    def reopen_instance(self, instance: Instance) -> None:
        """Record that an instance which had ended gets nodes."""
        self.instances[instance.id] = instance
        self.changes.instance_ends.append(InstanceEnd(instance.key, None, instance.failed))
        if instance.hook is not None:
            self.changes.hooks.append(instance.hook)

    def end_instance(self, instance: Instance) -> None:
        """Record the end of an instance, and remove it."""
        self.changes.instance_ends.append(InstanceEnd(instance.key, self.now + self.wall, instance.failed))
        self._forget_instance(instance)

    def _let_go(self, others: Iterable[Node]) -> None:
        """Count down the readers of nodes whose values an ended node no longer needs."""
        for other in others:
            other.consumers -= 1
            # One that is yet to be forgotten, having ended of the same cause, releases what it names by itself.
            if not other.consumers and other.state in ENDED and self.nodes.get(other.key) is not other:
                self._unread(other)

    def _unread(self, ended: Node) -> None:
        """Report a value that no unfinished node will be given, and the values that it names."""
        stack = [ended]
        while stack:
            other = stack.pop()
            self.effects.unread.append(other.key)
            for ref in other.refs:
                ref.consumers -= 1
                if not ref.consumers:
                    stack.append(ref)
