"""Faults of schedules; lives with schedules have to find them."""

from __future__ import annotations

from typing import Any

from dagorama_broker.engine import schedules
from dagorama_broker.engine.firings import block_of, decide
from dagorama_broker.engine.schedules import Schedules
from dagorama_broker.scheduler import Scheduler
from dagorama_broker.store.memory.store import MemoryStore

from .mutants import MUTANTS, mutant

_EARLIER = set(MUTANTS)


@mutant("a time is recorded before its instance", (Schedules, "_fire"))
def _(fire: Any) -> Any:
    async def recorded_first(self: Schedules, row: Any, now: float) -> None:
        decision = decide(row, now, self._is_running(row))
        if decision.cancels:
            await fire(self, row, now)
            return
        self._scheduler.put_schedule(decision.row)
        await self._commits.wait_durable()
        blocks = [block_of(row, time) for time in decision.start]
        loaded = await self._submissions.load(blocks)
        for block in blocks:
            self._submissions.make(block, loaded)

    return recorded_first


@mutant("schedules are forgotten at a restart", (MemoryStore, "live"))
def _(live: Any) -> Any:
    def without(self: MemoryStore) -> Any:
        found = live(self)
        found.schedules.clear()
        return found

    return without


@mutant("a schedule does not look whether its last instance runs", (Schedules, "_is_running"))
def _(is_running: Any) -> Any:
    return lambda self, row: False


@mutant("all missed times but the last are dropped", (schedules, "decide"))
def _(decide: Any) -> Any:
    return lambda row, now, is_running: decide(row._replace(catch_up="last"), now, is_running)


@mutant("a changed schedule is answered before it is durable", (Scheduler, "put_schedule"))
def _(put_schedule: Any) -> Any:
    def unrecorded(self: Scheduler, row: Any) -> None:
        self.graph.schedules[row.name] = row

    return unrecorded


#: The mutants of this module, which lives with schedules have to find.
SCHEDULES = MUTANTS.keys() - _EARLIER
