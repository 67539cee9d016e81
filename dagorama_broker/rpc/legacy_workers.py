"""How many workers the original's calls may make: they cost nothing to ask for and last until their lease ends."""

from __future__ import annotations

from dagorama_broker.errors import Full
from dagorama_broker.rpc.limits import Places, share
from dagorama_broker.scheduler import Scheduler, Worker

#: Workers of dagorama 0.1.10 at once.
MOST = 1_000
#: Seconds between two looks for those that are gone, if there is no room.
LOOK = 1.0


class OriginalWorkers:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._places = Places(MOST)
        self._made_by: dict[Worker, str] = {}
        self._look_at = 0.0

    def take_place(self, whose: str, now: float) -> None:
        """Before a caller makes a worker. Raises Full."""
        if self._places.take(whose):
            return
        if now >= self._look_at:
            self._look_at = now + LOOK
            self._give_back()
            if self._places.take(whose):
                return
        raise Full(
            f"{len(self._made_by)} workers of dagorama 0.1.10 are connected; {MOST:,} are allowed, {share(MOST)} of"
            f" them for one caller. Those that do not call for {self._scheduler.timing.original_lease:g} s make room"
        )

    def made(self, worker: Worker, whose: str) -> None:
        self._made_by[worker] = whose

    def _give_back(self) -> None:
        """The places of workers that are gone."""
        known = self._scheduler.workers
        for worker in [worker for worker in self._made_by if known.get(worker.presence.id) is not worker]:
            self._places.give_back(self._made_by.pop(worker))
