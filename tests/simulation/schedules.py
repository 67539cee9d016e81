"""Lives in which somebody puts schedules, which go on through everything that fails, and removes them in the end.

The nodes that they start are drawn by the name of their time, so the plain computation knows them as it knows others.
The wall clock does not jump.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import datetime
from itertools import pairwise
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.rows import Changes
from dagorama_testing.loop import START

from .life import Life, Result
from .loop import WALL
from .network import COPIED
from .person import SimulatedPerson
from .programs import FUNCTIONS, Plan, Program
from .watcher import Watcher

#: Overlap, catch-up and seconds between two times.
RULES = (("allow", "all", 1.0), ("skip", "last", 1.0), ("queue", "last", 1.5), ("replace", "last", 2.0))
#: Seconds by which a broker that has just come back may be late, and a timer early.
LATE, EARLY = 1.5, 0.01
#: Stands between the ID of a schedule and a time in the name of a node.
AT = "@"


class _Programs(dict[str, Program]):
    """Programs by name; one of a schedule is drawn when it is first asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __missing__(self, name: str) -> Program:
        if AT not in name:
            raise KeyError(name)
        chance = random.Random(f"{self._seed}/{name}")
        program = self[name] = Program(name, function_of(name), seconds=chance.choice((0.001, 0.01, 0.4, 1.2, 3.0)))
        if program.function == "retries":
            program.fails = chance.choice((0, 1, FUNCTIONS["retries"].retry.max_attempts))
        elif chance.random() < 0.1:
            program.fails = 1
        return program


def function_of(name: str) -> str:
    """Return the function of a schedule: the last character of its ID says which."""
    return ("plain", "retries", "async")[int(name.partition("/")[0][-1]) % 3]


class ScheduledPlan(Plan):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.programs = _Programs(seed)


class Planner(SimulatedPerson):
    """Puts schedules, says some of it again, and removes them when all has healed."""

    watcher: ScheduledWatcher

    def start(self, within: float) -> None:
        self.busy = 1
        self.loop.on(self.host, self._plan(within))

    async def _plan(self, within: float) -> None:
        began = self.loop.now
        chosen = self.chance.sample(range(len(RULES)), self.chance.choice((1, 2, 3)))
        for number in chosen:
            await asyncio.sleep(self.chance.uniform(0.0, 1.0))
            for _ in range(self.chance.choice((1, 1, 2))):
                await self._put(f"k{number}", *RULES[number])
        # A copy of a call that comes after the removal would put the schedule again, as another one.
        await asyncio.sleep(max(began + within + 3.0, self.loop.now + COPIED) - self.loop.now)
        for number in chosen:
            self.watcher.removing[f"k{number}"] = self.loop.now
            await self._call("RemoveSchedule", pb.RemoveScheduleRequest(id=f"k{number}"), pb.RemoveScheduleReply)
        self.busy = 0

    async def _put(self, id: str, overlap: str, catch_up: str, every: float) -> None:
        function = FUNCTIONS[function_of(f"{id}/")]
        request = pb.PutScheduleRequest(
            id=id, definition="work:Task", function=function, arguments=b"\1\1" + f"{id}/{AT}".encode(),
            every=every, overlap=overlap, catch_up=catch_up,
        )  # fmt: skip
        if await self._call("PutSchedule", request, pb.PutScheduleReply) is not None:
            self.watcher.acknowledged_schedule(id)


class ScheduledWatcher(Watcher):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.put_at: dict[str, float] = {}  #: when the schedule was first acknowledged
        self.removing: dict[str, float] = {}  #: when it was first asked to go
        self.fired: dict[str, list[str]] = {}  #: names of the nodes of each schedule
        self.cancelling.update(f"k{number}" for number, rule in enumerate(RULES) if rule[0] == "replace")

    def acknowledged_schedule(self, id: str) -> None:
        self.put_at.setdefault(id, self.loop.now)
        self.require(id in self.disk.tables.schedules, "acknowledged is durable", f"schedule {id} is not on disk")

    def committed(self, changes: Changes) -> None:
        known = {id: len(names) for id, names in self.fired.items()}
        super().committed(changes)
        for id, names in self.fired.items():
            for place, (before, name) in enumerate(pairwise(names), 1):
                if place >= known.get(id, 0):
                    self._follows(id, before, name)

    def _made(self, key: int, name: str) -> None:
        super()._made(key, name)
        if AT in name:
            id = name.partition("/")[0]
            self.note("fired", id, name.partition(AT)[2])
            early = time_of(name) - self.loop.now
            self.require(early < EARLY, "not before its time", f"{name} is started {early:.3f} s too early")
            self.fired.setdefault(id, []).append(name)

    def _follows(self, id: str, before: str, name: str) -> None:
        overlap, _, every = RULES[int(id[1:])]
        apart = time_of(name) - time_of(before)
        self.require(apart > 0, "times in their order", f"{name} after {before}")
        if overlap == "allow":
            self.require(abs(apart - every) < EARLY, "no time is lost", f"{name} after {before}")
        else:
            over = self.has_ended(self.keys[before])
            self.require(over, "one at a time", f"{name} is started while {before} has not ended")

    def check_end(self, submitted: dict[str, list[Any]]) -> None:
        super().check_end(submitted)
        for id, names in self.fired.items():
            for name in names:
                self._check_outcome(name, self.is_to_be_cancelled(name))
            self.note("schedule", id, len(names))
        for id, removing in self.removing.items():
            overlap, _, every = RULES[int(id[1:])]
            times = [time_of(name) for name in self.fired.get(id, ())]
            if overlap == "allow" and id in self.put_at:
                first = times[0] if times else self.loop.now
                self.require(first < self.put_at[id] + every + EARLY, "no time is lost", f"{id} begins at {first}")
                last = times[-1] if times else 0.0
                self.require(last > removing - every - LATE, "no time is lost", f"{id} ends at {last}, not {removing}")

    def check_empty(self, broker: Broker) -> None:
        super().check_empty(broker)
        left = sorted({*broker.scheduler.schedules, *self.disk.tables.schedules})
        self.require(not left, "nothing is left behind", f"schedules {left}")


def time_of(name: str) -> float:
    """Return when a node should start by the loop's clock; its name ends with the time and the length of that."""
    return datetime.fromisoformat(name.partition(AT)[2][:-1]).timestamp() - WALL + START


class ScheduledLife(Life):
    WATCHER = ScheduledWatcher
    PLAN = ScheduledPlan
    PERSON = Planner
    WALL_JUMPS = False

    def run(self) -> Result:
        logger = logging.getLogger("dagorama_broker")
        kept, logger.disabled = logger.disabled, True  # that times are missed is what it is about
        try:
            return super().run()
        finally:
            logger.disabled = kept
