"""Moves nodes from state to state, and keeps the queues, pauses and expiries that go with a state.

The second layer of `Graph`: it knows no dependencies.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from dagorama_broker.errors import IllegalTransition
from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import PausedQueueRow, ProgressRow
from dagorama_broker.scheduler.caching import Caching
from dagorama_broker.scheduler.names import Names
from dagorama_broker.scheduler.objects import Node
from dagorama_broker.scheduler.places import KEY_MASK
from dagorama_broker.scheduler.queues import FunctionQueue, Head, oldest, order
from dagorama_broker.scheduler.run_times import FailureCounts
from dagorama_broker.scheduler.transitions import BACKOFF, CLAIMED, QUEUED, TRANSITIONS, WAITING


def _recount(queue: FunctionQueue, before: State, state: State) -> None:
    """Update the counts of a function after a move in the queue of one of its concurrency keys, except for leaving."""
    base = queue.base
    if before is CLAIMED:
        base.keyed_claimed -= 1
    if state is CLAIMED:
        base.keyed_claimed += 1
    elif state is QUEUED:
        base.keyed_ready += 1
    queue.recount()


class States(Names):
    def __init__(self) -> None:
        super().__init__()
        self.active: dict[
            int, FunctionQueue
        ] = {}  #: functions' own queues with a queued node, with any key, by function
        self.delayed: dict[int, FunctionQueue] = {}  #: queues with a node in BACKOFF
        self.counts = [0] * len(State)  #: nodes by state; ended ones since the start of this broker
        self.pauses: list[tuple[float, int]] = []  #: heap of (when, key) of nodes in BACKOFF
        self.followed = 0.0  #: `wall` when the pauses of nodes that start at a date were last computed
        self.expiries: list[tuple[float, int]] = []  #: heap of (when, key) of queued nodes with a queue timeout
        self.expires_at: dict[int, float] = {}  #: of nodes that are queued now
        self.failures_size = 0  #: bytes of failures of unfinished nodes
        self.caching = Caching()

    def move(self, node: Node, state: State) -> None:
        """Assign a state: the only function that does."""
        before = node.state
        if state not in TRANSITIONS[before]:
            raise IllegalTransition(f"node {node.key}: {before.name} -> {state.name}")
        node.state = state
        counts = self.counts
        counts[before] -= 1
        counts[state] += 1
        queue = node.queue
        if before is QUEUED:
            self._leave_queue(queue)
            if not node.key & self.sampled:
                self.recording.left(node.key, state is CLAIMED, self.now)
            if queue.function.queue_timeout:
                del self.expires_at[node.key]
        elif before is CLAIMED:
            queue.claimed -= 1
            if queue.is_counted:
                self._leave_claim(queue)
        elif before is BACKOFF:
            self._leave_delayed(queue)
        if state is QUEUED:
            queue.ready += 1
            self.active[queue.id] = queue.base if queue.key else queue
            if not node.key & self.sampled:
                self.recording.queued(node.key, self.now)
        elif state is CLAIMED:
            queue.claimed += 1
        elif state is BACKOFF:
            self._delay(queue)
        if queue.key:
            _recount(queue, before, state)

    def _leave_claim(self, queue: FunctionQueue) -> None:
        if queue.limit:
            self.stirred[queue] = None
        for gate in queue.base.gates:
            gate.claimed -= 1
            if gate.claimed == gate.max_concurrency - 1:
                self.rates.opened(gate)

    def _leave_queue(self, queue: FunctionQueue) -> None:
        queue.ready -= 1
        base = queue
        if queue.key:
            base = queue.base
            base.keyed_ready -= 1
        if not queue.ready:
            queue.clear()
            if not base.ready and not base.keyed_ready:
                del self.active[base.id]

    def _leave_delayed(self, queue: FunctionQueue) -> None:
        queue.delayed -= 1
        if queue.key:
            queue.base.keyed_delayed -= 1
        if not queue.delayed:
            del self.delayed[queue.number]

    def change_queue(self, node: Node, queue: FunctionQueue) -> None:
        """Move an unclaimed node to the queue of another function; it keeps its state and its position."""
        old = node.queue
        if node.state is QUEUED:
            self._leave_queue(old)
        elif node.state is BACKOFF:
            self._leave_delayed(old)
        node.queue = queue
        if old.key:
            old.recount()
            node.queue = self.queue_for_key(queue, old.key)
            self._leave_keyed(old)
            self.register_keyed(node)
        queue = node.queue
        if node.state is QUEUED:
            queue.ready += 1
            self.active[queue.id] = queue.base
            self._line_up(node)
        elif node.state is BACKOFF:
            self._delay(queue)
        if queue.key:
            _recount(queue, WAITING, node.state)

    def _line_up(self, node: Node) -> None:
        queue = node.queue
        queue.push(order(node.instance.rank, node.key, queue.function.priority))
        self.stirred[queue] = None

    def _delay(self, queue: FunctionQueue) -> None:
        queue.delayed += 1
        if queue.key:
            queue.base.keyed_delayed += 1
        self.delayed[queue.number] = queue

    def take_up(self, node: Node) -> None:
        """Enter a node that was made before, in the state in which it was left."""
        self.nodes[node.key] = node
        if node.queue.key:
            self.register_keyed(node)
        self.counts[node.state] += 1
        node.instance.live += 1
        if node.state is BACKOFF:
            self._delay(node.queue)

    def take_out(self, node: Node) -> None:
        """Remove a node that was entered by a call which was refused afterwards."""
        del self.nodes[node.key]
        self.counts[node.state] -= 1
        if node.queue.key:
            self._leave_keyed(node.queue)
        self.made_with.pop(node.key, None)
        self.rebindings.pop(node.key, None)

    # --- queued nodes ---------------------------------------------------------------------------------

    def queue(self, node: Node) -> None:
        """Queue a node for the workers, at its position in the order."""
        self.move(node, QUEUED)
        self._line_up(node)
        if node.queue.function.queue_timeout:
            self._expire(node, self.now + node.queue.function.queue_timeout)

    def back(self, node: Node) -> None:
        """Return a claimed node: to the queue, or to WAITING if it was claimed together with its source."""
        if node.pending:
            self.move(node, WAITING)
        else:
            self.queue(node)

    def _expire(self, node: Node, when: float) -> None:
        self.expires_at[node.key] = when
        heappush(self.expiries, (when, node.key))
        if len(self.expiries) > 2 * len(self.expires_at) + 64:  # most have left the queue long before their time
            self.expiries = [(when, key) for key, when in self.expires_at.items()]
            heapify(self.expiries)

    def expired(self, now: float) -> Iterator[Node]:
        """Take nodes that were queued for too long out of the heap, and yield them."""
        while self.expiries and self.expiries[0][0] <= now:
            when, key = heappop(self.expiries)
            if self.expires_at.get(key) == when:
                yield self.nodes[key]

    def first(self, queue: FunctionQueue) -> int:
        """Return the place of the oldest queued node of an active queue; places of nodes that have left are dropped."""
        while len(queue) != queue.ready:
            node = self.nodes.get(queue.first() & KEY_MASK)
            if node is not None and node.state is QUEUED and node.queue is queue:
                break
            queue.pop()
        return queue.first()

    def head(self, queue: FunctionQueue) -> Head | None:
        """Return the oldest claimable node of a function, with any concurrency key; None: none, or it is paused."""
        return None if queue.is_paused or (queue.gates and queue.is_closed) else oldest(queue, self.first)

    def set_paused(self, name: str, row: PausedQueueRow | None) -> None:
        """Stop granting nodes of a queue, or resume it; nodes that workers hold continue."""
        if row is not None:
            self.paused[name] = row
            self.changes.paused.append(row)
        elif self.paused.pop(name, None) is not None:
            # The store applies `resumed` first.
            self.changes.paused = [paused for paused in self.changes.paused if paused.queue != name]
            self.changes.resumed.append(name)
        for queue in self.queues.values():
            if queue.function.queue == name:
                queue.is_paused = row is not None
                if queue.id in self.active:
                    self.stirred[queue] = None

    # --- paused nodes and failed attempts ---------------------------------------------------------------

    def pause(self, node: Node, seconds: float) -> None:
        """Queue a node after a pause."""
        self.move(node, BACKOFF)
        trouble = self.trouble(node)
        trouble.retry_at, trouble.pause, trouble.note = self.now + seconds, seconds, ""
        heappush(self.pauses, (trouble.retry_at, node.key))
        self.record_trouble(node)

    def _make_ready(self, node: Node) -> None:
        """Queue or pause a node whose sources have all completed."""
        seconds = node.queue.function.delay
        if node.rare is not None:
            if node.delay is not None:
                seconds = node.delay.pause(seconds, self.now + self.wall)
            if node.twin is not None or (node.failures is not None and node.failures.attempts):
                seconds = 0.0  # it was ready before
        if seconds > 0.0:
            self.pause(node, seconds)
        else:
            self.queue(node)

    def follow_wall(self) -> None:
        """Move the ends of pauses that end at a date: the clock was set, or the machine has slept."""
        before, self.followed = self.followed, self.wall
        for _, key in list(self.pauses):
            node = self.nodes.get(key)
            if node is None or node.state is not BACKOFF or node.delay is None:
                continue
            trouble = self.trouble(node)
            if not node.delay.ends(trouble.retry_at + before):
                continue
            ready = trouble.retry_at - trouble.pause
            earliest = min(trouble.retry_at, ready + node.queue.function.delay)
            when = max(node.delay.until - self.wall, earliest)
            if when != trouble.retry_at:
                trouble.retry_at, trouble.pause = when, when - ready
                heappush(self.pauses, (when, key))

    def due(self, now: float) -> Iterator[Node]:
        """Take nodes whose pause is over out of the heap, and yield them."""
        while self.pauses and self.pauses[0][0] <= now:
            node = self.nodes.get(heappop(self.pauses)[1])
            if node is not None and node.state is BACKOFF and self.trouble(node).retry_at <= now:
                yield node

    def trouble(self, node: Node) -> FailureCounts:
        """Return the record of a node's failed attempts; make it if there is none."""
        if node.failures is None:
            node.failures = FailureCounts()
        return node.failures

    def keep_failure(self, trouble: FailureCounts, failure: bytes | None) -> None:
        """Set the last failure of an unfinished node, or clear it."""
        self.failures_size += len(failure or b"") - len(trouble.failure or b"")
        trouble.failure = failure

    def record_trouble(self, node: Node) -> None:
        """Write the row of a node's failed attempts."""
        trouble = node.failures
        assert trouble is not None
        retry_at = trouble.retry_at + self.wall if trouble.retry_at else 0.0
        self.changes.progress.append(
            ProgressRow(
                node.key,
                trouble.failed_attempts,
                trouble.crashes,
                trouble.worker_losses,
                retry_at,
                trouble.failure,
                trouble.pause,
                node.attempt,
                trouble.lost_attempt,
            )
        )
