"""Lives of instances that have a failure hook, which is called once if its instance ends failed.

Clients cancel some instances and nodes. They neither retry instances nor add nodes to ended ones, so that no hook may
be called twice.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama_broker.model.domain import ENDED, State
from dagorama_broker.model.rows import Changes

from .client import Instance, SimulatedClient
from .life import Life
from .programs import FUNCTIONS, Plan, Program, failure_in
from .watcher import Watcher

#: The end of the name of a hook's node.
HOOK = "hook"


class _Programs(dict[str, Program]):
    """Programs by name; the one of a hook is drawn when it is first asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __missing__(self, name: str) -> Program:
        if not name.endswith(HOOK):
            raise KeyError(name)
        chance = random.Random(f"{self._seed}/{name}")
        program = self[name] = Program(name, chance.choice(("plain", "retries", "async")))
        program.seconds = chance.choice((0.001, 0.01, 0.4))
        program.fails = chance.choice((0, 0, 1, FUNCTIONS["retries"].retry.max_attempts))
        return program


class HookedPlan(Plan):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.programs = _Programs(seed)


class HookedClient(SimulatedClient):
    def instance(self, prefix: str) -> Instance:
        return _HookedInstance(self, prefix)


class _HookedInstance(Instance):
    async def live(self) -> None:
        if not await self._submit(self.prefix, self.chance.randint(2, 6), create=True):
            return
        waiting = self.client.loop.create_task(self._wait(self._some_names()))
        if self.chance.random() < 0.2:
            await asyncio.sleep(self.chance.choice((0.0, 0.2, 1.0, 2.0)))
            await self._cancel()
        await waiting

    def _new_instance(self) -> pb.NewInstance:
        name = f"{self.prefix}{HOOK}"
        function = FUNCTIONS[self.watcher.plan.programs[name].function]
        creates = super()._new_instance()
        creates.hook.CopyFrom(pb.FailureHook(function=function, arguments=b"\1\1" + name.encode()))
        return creates


class HookedWatcher(Watcher):
    def committed(self, changes: Changes) -> None:
        before = set(self.keys)
        super().committed(changes)
        for name in self.keys.keys() - before:
            if name.endswith(HOOK):
                self._called(name)

    def _called(self, name: str) -> None:
        """A hook's node is on disk: all others of its instance have ended, and it tells of one that has failed."""
        self.note("called", name)
        ends = {other: self._state(other) for other in self._others(name)}
        unfinished = [other for other, state in ends.items() if state not in ENDED]
        self.require(not unfinished, "a hook is called at the end", f"{name} before the end of {unfinished}")
        if name.removesuffix(HOOK) in self.cancelling_all:
            cancelled = [other for other in self.submitted_at if ends.get(other) is State.CANCELLED]
            self.require(not cancelled, "a cancelled instance calls no hook", f"{name}: {cancelled}")
        told = json.loads(failure_in(self.disk.tables.nodes[self.keys[name]].arguments))
        failed = [self.ids[other].hex() for other, state in ends.items() if state is State.FAILED]
        self.require(told["node"] in failed, "a hook is told what failed", f"{name} is told of {told['node']}")

    def _others(self, name: str) -> list[str]:
        """Return the nodes on disk of the instance of a hook, but for the hook."""
        prefix = name.removesuffix(HOOK)
        return [other for other in self.keys if other.startswith(prefix) and other != name]

    def _state(self, name: str) -> State | None:
        row = self.seen.get(self.keys[name])
        return None if row is None else State(row.state)

    def given_to(self, worker: str, presence: Any, given: Any) -> None:
        super().given_to(worker, presence, given)
        if given.name.endswith(HOOK):
            is_there = given.name in self.keys
            self.require(is_there, "told is durable", f"{given.name} is given out, and not on disk")

    def check_end(self, submitted: dict[str, list[Any]]) -> None:
        super().check_end(submitted)
        for prefix, programs in submitted.items():
            name = f"{prefix}{HOOK}"
            if programs[0].name not in self.keys:
                continue
            failed = [other for other in self._others(name) if self._state(other) is State.FAILED]
            if name in self.keys:
                self.require(bool(failed), "a hook is called for a failure", f"{name}, and nothing has failed")
                self._check_outcome(name, self.is_to_be_cancelled(name))
            elif not self.is_to_be_cancelled(name):
                self.require(not failed, "each failed instance calls its hook", f"{name}: {failed}")


class HookedLife(Life):
    CLIENT = HookedClient
    HAS_PERSON = False
    WATCHER = HookedWatcher
    PLAN = HookedPlan
