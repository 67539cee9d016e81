"""Limits the workers of dagorama 0.1.10: a call creates one at no cost, and it lasts until its lease ends."""

from __future__ import annotations

from dagorama_broker.errors import Overloaded
from dagorama_broker.rpc.limits import Places, share
from dagorama_broker.scheduler import Scheduler, Worker

#: Workers of dagorama 0.1.10 at once.
MOST = 1_000
#: Seconds between two checks for workers that have left, if the limit is reached.
LOOK = 1.0


class LegacyWorkers:
    """Counts the workers of each caller."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._places = Places(MOST)
        self._made_by: dict[Worker, str] = {}
        self._look_at = 0.0

    def take_place(self, whose: str, now: float) -> None:
        """Count a worker that a caller is about to create. Raise Overloaded if the limit is reached."""
        if self._places.take(whose):
            return
        if now >= self._look_at:
            self._look_at = now + LOOK
            self._give_back()
            if self._places.take(whose):
                return
        raise Overloaded(
            f"{len(self._made_by)} workers of dagorama 0.1.10 are connected; {MOST:,} are allowed, {share(MOST)} of"
            f" them for one caller. Those that make no call for {self._scheduler.timing.original_lease:g} s are removed"
        )

    def made(self, worker: Worker, whose: str) -> None:
        """Note which caller has created a worker."""
        self._made_by[worker] = whose

    def _give_back(self) -> None:
        """Release the places of workers that have left."""
        known = self._scheduler.workers
        for worker in [worker for worker in self._made_by if known.get(worker.info.id) is not worker]:
            self._places.give_back(self._made_by.pop(worker))
