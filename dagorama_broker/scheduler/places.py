"""The places of queued nodes in their order, with consecutive ones held as one range.

Children of one call are queued one after the other, so that most places follow the one before them: a million queued
nodes are a few ranges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import takewhile

KEY_BITS = 48
KEY_MASK = (1 << KEY_BITS) - 1


def rank(turn: int, instance: int, priority: int = 0) -> int:
    """Return an instance's place in the order of instances: by priority, turn and creation; smaller goes first."""
    return (turn << KEY_BITS | instance) - (priority << 2 * KEY_BITS)


class Places:
    """Places, which are integers, the smallest first. A place that comes after a larger one is put in its order."""

    __slots__ = ("_count", "_end", "_first", "_late", "_runs")

    def __init__(self) -> None:
        # In their order: finished runs, each a place or a range, and the last one, from `_first` up to `_end`.
        self._runs: deque[int | range] = deque()
        self._first = self._end = 0
        self._count = 0  # of all these places
        self._late: list[int] = []  # heap of places that came after a larger one

    def __len__(self) -> int:
        return self._count + len(self._late)

    def push(self, place: int) -> None:
        """Add a place."""
        end = self._end
        if place != end or not self._count:
            if place < end and self._count:
                heappush(self._late, place)
                return
            if self._count:
                self._finish_run()
            self._first = place
        self._end = place + 1
        self._count += 1

    def _finish_run(self) -> None:
        first, end = self._first, self._end
        self._runs.append(first if end - first == 1 else range(first, end))

    def first(self) -> int:
        """Return the smallest place; there must be one."""
        if self._runs:
            run = self._runs[0]
            oldest = run if isinstance(run, int) else run.start
        elif self._count:
            oldest = self._first
        else:
            return self._late[0]
        late = self._late
        return late[0] if late and late[0] < oldest else oldest

    def pop(self) -> int:
        """Remove the smallest place; return the key of its node."""
        late = self._late
        if late and self.first() == late[0]:
            return heappop(late) & KEY_MASK
        if self._runs:
            return self.pop_arrival() & KEY_MASK
        place = self._first
        self._first = place + 1
        self._count -= 1
        return place & KEY_MASK

    # --- places that did not come after a larger one --------------------------------------------------

    def first_arrival(self) -> int | None:
        """Return the place that arrived first, except places that came after a larger one; None: there is none.

        The node that arrived first is there, unless nodes left before their turn: a larger place that came before a
        smaller one stays for longer.
        """
        if not self._runs:
            return self._first if self._count else None
        run = self._runs[0]
        return run if isinstance(run, int) else run.start

    @property
    def last_arrival(self) -> int:
        """Return the largest place that has come, even if it has left since."""
        return self._end - 1

    def pop_arrival(self) -> int:
        """Remove the place that `first_arrival` returns, and return it."""
        runs = self._runs
        self._count -= 1
        if not runs:
            place = self._first
            self._first = place + 1
            return place
        run = runs.popleft()
        if isinstance(run, int):
            return run
        first, end = run.start, run.stop
        runs.appendleft(first + 1 if end - first == 2 else range(first + 1, end))
        return first

    # --- questions about all of them ------------------------------------------------------------------

    def holds(self, instance: int) -> bool:
        """Return whether there is a place of this instance, by its rank. Looks at all runs and late places."""
        low, high = instance << KEY_BITS + 8, (instance + 1) << KEY_BITS + 8
        if any(first < high and end > low for first, end in self._ranges()):
            return True
        return any(low <= place < high for place in self._late)

    def ahead_of(self, place: int) -> int:
        """Return the number of smaller places. Looks at all runs before it."""
        before = takewhile(lambda run: run[0] < place, self._ranges())
        return sum(min(end, place) - first for first, end in before) + sum(map(place.__gt__, self._late))

    def _ranges(self) -> Iterator[tuple[int, int]]:
        yield from ((run, run + 1) if isinstance(run, int) else (run.start, run.stop) for run in self._runs)
        if self._first < self._end:
            yield self._first, self._end

    def clear(self) -> None:
        """Remove all places."""
        self._runs.clear()
        self._first = self._end
        self._count = 0
        self._late.clear()
