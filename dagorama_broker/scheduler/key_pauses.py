"""Keeps the pauses that nodes ask for: none with the same key, or the same shared limit, starts until they are over.

If the other side of a call says when to try again, this applies to all nodes of the same limit. The pauses are stored,
so that a restart of the broker does not end them. A paused queue costs nothing until its pause is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush

from dagorama_broker.model.domain import LONGEST_PAUSE, Failure
from dagorama_broker.model.key_pauses import KeyPauseRow, PausedKey
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler.queues import FunctionQueue


def pausable_key(queue: FunctionQueue) -> PausedKey | None:
    """Return what a node of this queue pauses: its key, else the shared limit, else its function; None: nothing."""
    function = queue.function
    if queue.key or function.rate_by_key:
        return PausedKey(function.name, queue.key)
    if function.limit is not None:
        return PausedKey(function.limit.name, "", 1)
    limited = function.rate is not None or function.max_concurrency
    return PausedKey(function.name, "") if limited else None


def nothing_to_pause(failure: Failure) -> Failure:
    """Return the failure of a node that asked for a pause, and whose function has nothing that could be paused."""
    text = (
        f"{failure.function} has no rate, limit or max_concurrency, so that RetryLater(..., pause_key=True) finds "
        "nothing to pause: give it one, or leave pause_key out"
    )
    return failure._replace(message=text, exception=b"")


class KeyPauses:
    def __init__(self, queues: Mapping[int, FunctionQueue], keyed: Mapping[tuple[int, str], FunctionQueue]) -> None:
        """`queues`: of functions, by ID; `keyed`: of keys, by the function's ID and the key."""
        self.rows: dict[PausedKey, KeyPauseRow] = {}
        self._ends: dict[PausedKey, float] = {}  # by the scheduler's clock
        self._timers: list[tuple[float, PausedKey]] = []  # heap; outdated unless `_ends` says the same
        self._queues, self._keyed = queues, keyed

    @property
    def next_due(self) -> float | None:
        """The time at which the first pause must be checked."""
        return self._timers[0][0] if self._timers else None

    def end_of(self, what: PausedKey) -> float:
        """Return when a pause is over; 0: there is none."""
        return self._ends.get(what, 0.0)

    def held(self, queue: FunctionQueue) -> list[PausedKey]:
        """Return the pauses that hold the nodes of a queue."""
        found, limit = [PausedKey(queue.function.name, queue.key)], queue.function.limit
        if limit is not None:
            found.append(PausedKey(limit.name, "", 1))
        return [what for what in found if what in self._ends]

    def pause(self, what: PausedKey, seconds: float, node: int, now: float, wall: float, changes: Changes) -> bool:
        """Pause a key for a node that asks for it; return False if a pause that lasts longer holds already."""
        seconds = min(seconds, LONGEST_PAUSE)
        end = now + seconds
        if seconds <= 0.0 or end <= self._ends.get(what, now):
            return False
        row = KeyPauseRow(*what, end + wall, seconds, node)
        changes.key_pauses.append(row)
        self._enter(what, row, end)
        return True

    def restore(self, rows: Iterable[KeyPauseRow], now: float, wall: float) -> None:
        """Take up pauses of an earlier broker. None lasts longer than was asked for, even if the wall clock jumped."""
        for row in rows:
            self._enter(row.paused, row, now + min(max(0.0, row.until - wall - now), row.seconds))

    def _enter(self, what: PausedKey, row: KeyPauseRow, end: float) -> None:
        self.rows[what], self._ends[what] = row, end
        heappush(self._timers, (end, what))
        if len(self._timers) > 2 * len(self._ends) + 64:  # most were replaced by later ones
            self._timers = [(end, what) for what, end in self._ends.items()]
            heapify(self._timers)

    def end(self, now: float, most: int, changes: Changes) -> Iterator[PausedKey]:
        """End up to `most` pauses that are over, and yield them."""
        while most and self._timers and self._timers[0][0] <= now:
            end, what = heappop(self._timers)
            if self._ends.get(what) != end:
                continue
            self.end_early(what, changes)
            most -= 1
            yield what

    def end_early(self, what: PausedKey, changes: Changes) -> None:
        """End a pause, whether it is over or not."""
        del self._ends[what], self.rows[what]
        changes.key_pauses = [row for row in changes.key_pauses if row.paused != what]
        changes.key_pauses_over.append(what)

    def of_queue(self, name: str) -> list[PausedKey]:
        """Return the pauses of keys, functions and shared limits that hold nodes of a queue with this name."""
        functions = [queue.function for queue in self._queues.values() if queue.function.queue == name]
        names = {function.name for function in functions}
        limits = {function.limit.name for function in functions if function.limit is not None}
        return [what for what in self.rows if what.name in (limits if what.of_limit else names)]

    # --- queues ---------------------------------------------------------------------------------------

    def apply(self, queue: FunctionQueue) -> None:
        """Hold the nodes of a queue as the pauses say, now that it has entered or that they have changed."""
        queue.hold(PausedKey(queue.function.name, queue.key) in self._ends)
        limit = queue.function.limit
        if limit is not None and not queue.key:
            queue.gates[0].is_paused = PausedKey(limit.name, "", 1) in self._ends

    def apply_to_all(self, what: PausedKey, stir: Callable[[FunctionQueue], None]) -> None:
        """Hold or release all queues that a pause is about; `stir` is called with each."""
        for queue in self._queues.values():
            function, found = queue.function, queue if not what.key else self._keyed.get((queue.id, what.key))
            is_of = (function.limit is not None and function.limit.name) if what.of_limit else function.name
            if found is None or is_of != what.name:
                continue
            self.apply(found)
            if found.key:
                found.recount()
            stir(found)
