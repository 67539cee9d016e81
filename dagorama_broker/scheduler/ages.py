"""Tells for how long the oldest node of each queue has been ready, without a time for each node.

Places of a function's queue are in the order of their arrival. So it is enough to note the youngest place from time to
time: a node that is not younger than a note had arrived by then. Ages are accurate to the time between two notes, and
begin with this broker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from dagorama_broker.model.domain import State
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.places import KEY_MASK
from dagorama_broker.scheduler.queues import FunctionQueue

#: Notes of one queue; if there are more, every second one is dropped.
MOST_NOTES = 2_000
#: Concurrency keys of a function that are looked at for the age of its oldest node.
MOST_KEYS = 1_000


class _Note(NamedTuple):
    at: float
    place: int  #: the youngest one


class _Notes:
    """The notes of one queue, the oldest first."""

    def __init__(self, queue: FunctionQueue) -> None:
        self._queue = queue
        self._emptied = queue.emptied
        self._notes: deque[_Note] = deque()
        self._unknown_since: float | None = None

    def add(self, place: int | None, now: float) -> None:
        """Add a note. None: all nodes whose arrival is known have left, and others are queued."""
        if place is None:
            self._unknown_since = self._unknown_since if self._unknown_since is not None else now
            return
        self._unknown_since = None
        if self._emptied != self._queue.emptied:  # the notes are about nodes that have left
            self._emptied = self._queue.emptied
            self._notes.clear()
        if len(self._notes) >= MOST_NOTES:
            self._notes = deque(list(self._notes)[::2])
        if not self._notes or self._notes[-1].place != place:
            self._notes.append(_Note(now, place))

    def age(self, place: int | None, now: float) -> float:
        """Return for how long this place has been there, or, with None, for how long all known ones have left."""
        if place is None:
            return 0.0 if self._unknown_since is None else now - self._unknown_since
        if self._emptied != self._queue.emptied:
            return 0.0
        while self._notes and self._notes[0].place < place:
            self._notes.popleft()
        return now - self._notes[0].at if self._notes else 0.0


class ReadyAges:
    """The ages of the ready nodes of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._notes: dict[int, _Notes] = {}  # by the number of the queue of a function, or of a concurrency key
        self._fresh: dict[int, _Notes] = {}  # the next ones

    def note(self, now: float) -> None:
        """Note what is queued; to be called about once a second."""
        for queue in self.begin():
            self.note_queue(queue, now)
        self.end()

    # The same in portions, for a caller that lets others run meanwhile.

    def begin(self) -> list[FunctionQueue]:
        """Begin to note what is queued; return the queues to be noted."""
        self._fresh = {}
        return list(self._queues())

    def note_queue(self, queue: FunctionQueue, now: float) -> float:
        """Note one of the queues; return the age in seconds of its oldest node, 0 if it has none left."""
        if not queue.ready:
            return 0.0
        its = self._fresh[queue.number] = self._notes.get(queue.number) or _Notes(queue)
        first = self._first(queue)
        its.add(None if first is None else queue.last_arrival, now)
        return its.age(first, now)

    def end(self) -> None:
        """End what `begin` began."""
        self._notes = self._fresh

    def oldest(self, now: float) -> dict[str, float]:
        """Return the age in seconds of the oldest queued node by queue, of queues that have one."""
        ages: dict[str, float] = {}
        for queue in self._queues():
            name, age = queue.function.queue, self._age_of(queue, now)
            ages[name] = max(ages.get(name, 0.0), age)
        return ages

    def oldest_of(self, queue: FunctionQueue, now: float) -> float:
        """Return the age in seconds of the oldest claimable node of a function, with any of its first concurrency keys.

        Returns 0 if none of its nodes is claimable, or nothing was noted since they were queued.
        """
        oldest = self._age_of(queue, now) if queue.available > 0 else 0.0
        for _, _, keyed in islice(queue.heads, MOST_KEYS):
            if keyed.available > 0:
                oldest = max(oldest, self._age_of(keyed, now))
        return oldest

    def _age_of(self, queue: FunctionQueue, now: float) -> float:
        notes = self._notes.get(queue.number)
        return notes.age(self._first(queue), now) if notes is not None else 0.0

    def _queues(self) -> Iterator[FunctionQueue]:
        """Yield the queues of functions and concurrency keys that have a queued node."""
        candidates: Iterable[FunctionQueue] = self._graph.active.values()
        yield from (queue for queue in candidates if queue.ready)
        yield from (queue for queue in self._graph.keyed.values() if queue.ready)

    def _first(self, queue: FunctionQueue) -> int | None:
        """Return the place that arrived first and is still queued; None: all that are known have left."""
        first = queue.first_arrival()
        if len(queue) != queue.ready:
            while first is not None and not self._is_queued(first, queue):
                queue.pop_arrival()
                first = queue.first_arrival()
        return first

    def _is_queued(self, place: int, queue: FunctionQueue) -> bool:
        node = self._graph.nodes.get(place & KEY_MASK)
        return node is not None and node.state is State.QUEUED and node.queue is queue
