"""Moves nodes from state to state, and keeps the queues, pauses and expiries that go with a state.

The middle layer of `Graph`: it knows no dependencies.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from dagorama_broker.errors import IllegalMove
from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import ProgressRow
from dagorama_broker.scheduler.names import Names
from dagorama_broker.scheduler.objects import Node, Trouble
from dagorama_broker.scheduler.queues import KEY_MASK, Head, Lane, oldest, order
from dagorama_broker.scheduler.transitions import BACKOFF, CLAIMED, QUEUED, TRANSITIONS, WAITING


def _recount(lane: Lane, before: State, state: State) -> None:
    """Update the counts of a function after a move in the queue of one of its concurrency keys, except for leaving."""
    base = lane.base
    if before is CLAIMED:
        base.keyed_claimed -= 1
    if state is CLAIMED:
        base.keyed_claimed += 1
    elif state is QUEUED:
        base.keyed_ready += 1
    lane.recount()


class States(Names):
    def __init__(self) -> None:
        super().__init__()
        self.active: dict[int, Lane] = {}  #: functions' own queues with a queued node, with any key, by function
        self.stirred: dict[Lane, None] = {}  #: queues whose oldest claimable node may have changed
        self.delayed: dict[int, Lane] = {}  #: queues with a node in BACKOFF
        self.counts = [0] * len(State)  #: nodes by state; ended ones since the start of this broker
        self.pauses: list[tuple[float, int]] = []  #: heap of (when, key) of nodes in BACKOFF
        self.expiries: list[tuple[float, int]] = []  #: heap of (when, key) of queued nodes with a queue timeout
        self.expires_at: dict[int, float] = {}  #: of nodes that are queued now
        self.failures_size = 0  #: bytes of failures of unfinished nodes

    def move(self, node: Node, state: State) -> None:
        """Assign a state: the only function that does."""
        before = node.state
        if state not in TRANSITIONS[before]:
            raise IllegalMove(f"node {node.key}: {before.name} -> {state.name}")
        node.state = state
        counts = self.counts
        counts[before] -= 1
        counts[state] += 1
        lane = node.lane
        if before is QUEUED:
            self._leave_queue(lane)
            if lane.function.queue_timeout:
                del self.expires_at[node.key]
        elif before is CLAIMED:
            lane.claimed -= 1
            if lane.limit:
                self.stirred[lane] = None
        elif before is BACKOFF:
            self._leave_delayed(lane)
        if state is QUEUED:
            lane.ready += 1
            self.active[lane.id] = lane.base if lane.key else lane
        elif state is CLAIMED:
            lane.claimed += 1
        elif state is BACKOFF:
            self._delay(lane)
        if lane.key:
            _recount(lane, before, state)

    def _leave_queue(self, lane: Lane) -> None:
        lane.ready -= 1
        base = lane
        if lane.key:
            base = lane.base
            base.keyed_ready -= 1
        if not lane.ready:
            lane.clear()
            if not base.ready and not base.keyed_ready:
                del self.active[base.id]

    def _leave_delayed(self, lane: Lane) -> None:
        lane.delayed -= 1
        if lane.key:
            lane.base.keyed_delayed -= 1
        if not lane.delayed:
            del self.delayed[lane.number]

    def change_lane(self, node: Node, lane: Lane) -> None:
        """Move an unclaimed node to the queue of another function; it keeps its state and its position."""
        old = node.lane
        if node.state is QUEUED:
            self._leave_queue(old)
        elif node.state is BACKOFF:
            self._leave_delayed(old)
        node.lane = lane
        if old.key:
            old.recount()
            node.lane = self.lane_of(lane, old.key)
            self._leave_keyed(old)
            self.enter_keyed(node)
        lane = node.lane
        if node.state is QUEUED:
            lane.ready += 1
            self.active[lane.id] = lane.base
            self._line_up(node)
        elif node.state is BACKOFF:
            self._delay(lane)
        if lane.key:
            _recount(lane, WAITING, node.state)

    def _line_up(self, node: Node) -> None:
        lane = node.lane
        lane.push(order(node.instance.key, node.key, lane.function.priority))
        self.stirred[lane] = None

    def _delay(self, lane: Lane) -> None:
        lane.delayed += 1
        if lane.key:
            lane.base.keyed_delayed += 1
        self.delayed[lane.number] = lane

    def take_up(self, node: Node) -> None:
        """Enter a node that was made before, in the state in which it was left."""
        self.nodes[node.key] = node
        if node.lane.key:
            self.enter_keyed(node)
        self.counts[node.state] += 1
        node.instance.live += 1
        if node.state is BACKOFF:
            self._delay(node.lane)

    def take_out(self, node: Node) -> None:
        """Remove a node that was entered by a call which was refused afterwards."""
        del self.nodes[node.key]
        self.counts[node.state] -= 1
        if node.lane.key:
            self._leave_keyed(node.lane)
        self.made_with.pop(node.key, None)
        self.adoptions.pop(node.key, None)

    # --- queued nodes ---------------------------------------------------------------------------------

    def queue(self, node: Node) -> None:
        """Queue a node for the workers, at its position in the order."""
        self.move(node, QUEUED)
        self._line_up(node)
        if node.lane.function.queue_timeout:
            self._expire(node, self.now + node.lane.function.queue_timeout)

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

    def first(self, lane: Lane) -> int:
        """Return the place of the oldest queued node of an active queue; places of nodes that have left are dropped."""
        while len(lane) != lane.ready:
            node = self.nodes.get(lane.first() & KEY_MASK)
            if node is not None and node.state is QUEUED and node.lane is lane:
                break
            lane.pop()
        return lane.first()

    def head(self, lane: Lane) -> Head | None:
        """Return the oldest claimable node of a function, with any concurrency key."""
        return oldest(lane, self.first)

    # --- paused nodes and failed attempts ---------------------------------------------------------------

    def pause(self, node: Node, seconds: float) -> None:
        """Queue a node after a pause."""
        self.move(node, BACKOFF)
        trouble = self.trouble(node)
        trouble.retry_at, trouble.pause = self.now + seconds, seconds
        heappush(self.pauses, (trouble.retry_at, node.key))
        self.record_trouble(node)

    def _make_ready(self, node: Node) -> None:
        """Queue or pause a node whose sources have all completed."""
        if node.lane.function.delay:
            self.pause(node, node.lane.function.delay)
        else:
            self.queue(node)

    def due(self, now: float) -> Iterator[Node]:
        """Take nodes whose pause is over out of the heap, and yield them."""
        while self.pauses and self.pauses[0][0] <= now:
            node = self.nodes.get(heappop(self.pauses)[1])
            if node is not None and node.state is BACKOFF and self.trouble(node).retry_at <= now:
                yield node

    def trouble(self, node: Node) -> Trouble:
        """Return the record of a node's failed attempts; make it if there is none."""
        if node.trouble is None:
            node.trouble = Trouble()
        return node.trouble

    def keep_failure(self, trouble: Trouble, failure: bytes | None) -> None:
        """Set the last failure of an unfinished node, or clear it."""
        self.failures_size += len(failure or b"") - len(trouble.failure or b"")
        trouble.failure = failure

    def record_trouble(self, node: Node) -> None:
        """Write the row of a node's failed attempts."""
        trouble = node.trouble
        assert trouble is not None
        retry_at = trouble.retry_at + self.wall if trouble.retry_at else 0.0
        self.changes.progress.append(
            ProgressRow(
                node.key, trouble.runs, trouble.deaths, trouble.lost, retry_at, trouble.failure, trouble.pause,
                node.attempt, trouble.lost_attempt,
            )
        )
