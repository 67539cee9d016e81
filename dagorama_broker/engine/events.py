"""Tells people what happens in an instance: nodes that are created, started and ended, from the changes of each step.

The rule: nothing is noted for instances that no one follows. A reader that is too slow loses events, and is told how
many; the work never waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple

from dagorama_broker.model.domain import Failure, State
from dagorama_broker.model.rows import Changes, NodeBlockRow
from dagorama_broker.scheduler import Effects, Node, Scheduler

#: Events that are kept for a reader.
MOST_KEPT = 10_000


class EventKind(IntEnum):
    """The kind of a change of a node; the wire uses the same numbers."""

    CREATED = 0
    STARTED = 1  #: granted to a worker
    RETRIED = 2  #: an attempt has failed or was lost, and there will be another
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5


_ENDS = {State.COMPLETED: EventKind.COMPLETED, State.FAILED: EventKind.FAILED, State.CANCELLED: EventKind.CANCELLED}


class NodeEvent(NamedTuple):
    kind: EventKind
    node: bytes  #: 16-byte ID
    function: str  #: its name
    time: float  #: seconds since 1970
    attempt: int = 0  #: from 1; 0: does not apply
    failure: bytes | None = None  #: packed
    retry_at: float = 0.0  #: seconds since 1970: when the next attempt may start


class InstanceEnded(NamedTuple):
    time: float  #: seconds since 1970
    failed: bool


class Reader:
    """The events of one instance that a reader has not taken yet."""

    def __init__(self) -> None:
        self._kept: deque[NodeEvent] = deque()
        self._lost = 0
        self.end: InstanceEnded | None = None  #: after the events that are kept
        self._news = asyncio.Event()

    def put(self, event: NodeEvent) -> None:
        if len(self._kept) == MOST_KEPT:
            self._kept.popleft()
            self._lost += 1
        self._kept.append(event)
        self._news.set()

    def finish(self, end: InstanceEnded) -> None:
        self.end = end
        self._news.set()

    async def wait(self) -> None:
        """Wait until there is something to take."""
        await self._news.wait()

    def take(self, most: int) -> tuple[int, list[NodeEvent]]:
        """Return how many events were lost before these, and up to `most` events."""
        lost, self._lost = self._lost, 0
        events = [self._kept.popleft() for _ in range(min(most, len(self._kept)))]
        if not self._kept and self.end is None:
            self._news.clear()
        return lost, events

    @property
    def is_over(self) -> bool:
        """Whether the instance has ended and all events were taken."""
        return self.end is not None and not self._kept


class EventFeed:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._readers: dict[int, list[Reader]] = {}  # by the key of the instance
        self._runs: dict[int, int] = {}  # by attempts that this step grants: which run of their nodes they are

    @property
    def has_readers(self) -> bool:
        return bool(self._readers)

    @contextmanager
    def follow(self, instance: int) -> Iterator[Reader]:
        """Gather the events of an instance, by its key, within the context."""
        reader = Reader()
        self._readers.setdefault(instance, []).append(reader)
        try:
            yield reader
        finally:
            self._readers[instance].remove(reader)
            if not self._readers[instance]:
                del self._readers[instance]

    def begin(self, effects: Effects) -> None:
        """Note which runs a step grants, before its commit: one that is granted ahead may fail meanwhile."""
        granted = (each for each in effects.granted if each.node.instance.key in self._readers)
        self._runs = {attempt: _run_of(node) for _, node, attempt in granted}

    def take(self, changes: Changes, effects: Effects) -> None:
        """Note what a step has changed, once it is durable."""
        now = self._scheduler.now + self._scheduler.wall
        for block in changes.blocks:
            if block.instance in self._readers:
                self._created(block, changes, now)
        failures = {row.key: row.failure for row in changes.outcomes if row.failure is not None}
        for row in changes.progress:
            node = self._scheduler.nodes.get(row.key)
            # A node that was never granted is delayed, not retried.
            if node is not None and row.attempt and node.instance.key in self._readers:
                self._put(node, EventKind.RETRIED, now, max(1, row.failed_attempts), row.failure, row.retry_at)
        for node in effects.ended:
            if node.instance.key in self._readers:
                self._put(node, _ENDS[node.state], now, 0, failures.get((node.root_cause or node).key))
        for _, node, attempt in effects.granted:
            if node.instance.key in self._readers:
                self._put(node, EventKind.STARTED, now, self._runs.get(attempt) or _run_of(node))
        for end in changes.instance_ends:
            if end.ended is not None:
                for reader in self._readers.get(end.key, ()):
                    reader.finish(InstanceEnded(end.ended, end.failed))

    def _created(self, block: NodeBlockRow, changes: Changes, now: float) -> None:
        queues, nodes = self._scheduler.function_queues, self._scheduler.nodes
        functions = {row.key: row.function for row in changes.nodes if row.instance == block.instance}
        for place in range(block.size):
            key = block.first_key + place
            node = nodes.get(key)
            queue = node.queue if node is not None else queues[functions[key]]
            id = block.origin + (block.first + place).to_bytes(4, "big")
            for reader in self._readers[block.instance]:
                reader.put(NodeEvent(EventKind.CREATED, id, queue.function.name, now))

    def _put(
        self, node: Node, kind: EventKind, now: float, attempt: int, failure: bytes | None = None, retry_at: float = 0.0
    ) -> None:
        if node.block is None:
            return
        id = node.block.id_of(node.key)
        for reader in self._readers[node.instance.key]:
            reader.put(NodeEvent(kind, id, node.queue.function.name, now, attempt, failure, retry_at))


def _run_of(node: Node) -> int:
    """Return which run of the node its present attempt is, from 1."""
    return 1 + (node.failures.failed_attempts if node.failures else 0)


def reason_of(event: NodeEvent) -> Failure | None:
    """Return why an attempt failed, if that is known."""
    return None if event.failure is None else Failure.unpacked(event.failure)
