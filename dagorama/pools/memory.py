"""The little that one process of a pool remembers: starts that failed, and since when workers are idle.

If the process dies, the next one begins without a pause, and counts idle times from its own start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dagorama.api import broker_pb2
from dagorama.pools.decision import Member
from dagorama.pools.engine import Phase
from dagorama.pools.worker_spec import WorkerSpec

#: Seconds of the first pause, which is doubled each time, and of the longest.
PAUSE, LONGEST_PAUSE = 5.0, 300.0
#: A worker that ends within this many seconds has not worked; one with a shorter idle time lives for at least half of
#: that.
QUICK_END = 10.0


class Starts:
    """Counts starts that came to an end too early, and says when the next may be made.

    Times are read from a monotonic clock.
    """

    def __init__(self, idle: float | None) -> None:
        self._quick = QUICK_END if idle is None else min(QUICK_END, idle / 2)
        self._began: dict[str, float] = {}  # when members that were started here were first seen in their phase
        self._runs: set[str] = set()
        self._pause = PAUSE
        self._until = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until workers may be started; 0.0: now."""
        return max(0.0, self._until - now)

    def failed(self, now: float) -> float:
        """Note that starts failed, and return the seconds of the pause that follows."""
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        self._until = now + pause
        return pause

    def started(self, ids: Iterable[str], now: float) -> None:
        """Note that the engine was asked for these."""
        self._began.update(dict.fromkeys(ids, now))

    def forget(self, ids: Iterable[str]) -> None:
        """Expect that these end."""
        for id in ids:
            self._began.pop(id, None)

    def ended_early(self, alive: Mapping[str, Phase], now: float) -> int:
        """Return how many have ended within seconds of their start; an end is told once."""
        early = 0
        for id, began in list(self._began.items()):
            if id not in alive:
                early += id not in self._runs or now - began < self._quick
            elif alive[id] is Phase.RUNNING and id not in self._runs:
                self._runs.add(id)
                self._began[id] = now
                continue
            elif id not in self._runs or now - began < self._quick:
                continue
            else:
                self._pause = PAUSE  # this one works
            del self._began[id]
            self._runs.discard(id)
        return early


class Idleness:
    """Compares looks at the broker's workers. Times are read from a monotonic clock."""

    def __init__(self, worker: WorkerSpec) -> None:
        self._worker = worker
        self._since: dict[str, float] = {}

    def members(
        self, alive: Mapping[str, Phase], workers: list[broker_pb2.WorkerInfo] | None, now: float
    ) -> list[Member]:
        """Return the members with their idle times, if the workers of the broker are known.

        Pending members are idle. A running one whose worker the broker does not know is just starting, or cannot reach
        it, and is not counted as idle.
        """
        idle = set() if workers is None else self._idle(alive, workers)
        self._since = {id: self._since.get(id, now) for id in idle}
        return [Member(id, phase, now - self._since[id] if id in idle else None) for id, phase in alive.items()]

    def _idle(self, alive: Mapping[str, Phase], workers: list[broker_pb2.WorkerInfo]) -> set[str]:
        held = {worker.name: worker.held for worker in workers}
        return {id for id, phase in alive.items() if phase is Phase.PENDING or self._holds_nothing(id, held)}

    def _holds_nothing(self, id: str, held: Mapping[str, int]) -> bool:
        return held.get(self._worker.name_of(id)) == 0
