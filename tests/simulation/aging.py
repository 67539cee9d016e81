"""Lives in which instances are removed soon after they have ended, and in which a person retries what failed.

Clients wait, attach again, say again what they submitted, add nodes to what has ended, and return promises of other
instances, while these go. Nobody cancels, and the wall clock does not jump.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.retention_policy import RetentionPolicy

from .aging_watcher import AgingWatcher
from .client import Instance, SimulatedClient
from .life import Life
from .programs import Program

#: The grace is short so that the broker looks often.
KEEPING = RetentionPolicy(ended=1.5, failed=3.0, grace=0.2)
#: Seconds, beyond the longest time that is kept, in which all that has ended is removed: a look for each link.
GOING = 15.0
#: Seconds in which a request arrives when nothing is broken.
ARRIVING = 1.0
#: What a person cannot mend: that no worker tolerates a node's taint.
QUEUE_TIMEOUT = "dagorama.errors.QueueTimeout"


class AgingClient(SimulatedClient):
    is_early = False  #: whether a retry was just refused because an earlier one, of which the answer was lost, goes on

    def instance(self, prefix: str) -> Instance:
        return _AgingInstance(self, prefix)

    def refused(self, method: str, error: grpc.aio.AioRpcError) -> None:
        """An instance may be gone, and what runs again is not retried meanwhile."""
        text = error.details() or ""
        goes_on = error.code() is grpc.StatusCode.FAILED_PRECONDITION and "has not ended and depends on" in text
        self.is_early = goes_on and method == "Retry"
        if error.code() is grpc.StatusCode.NOT_FOUND:
            cast(AgingWatcher, self.watcher).told_gone(method, text)
        elif not self.is_early:
            super().refused(method, error)


class _AgingInstance(Instance):
    client: AgingClient
    watcher: AgingWatcher

    def __init__(self, client: SimulatedClient, prefix: str) -> None:
        super().__init__(client, prefix)
        self.tolerates = self.chance.random() < 0.5  #: its nodes take failures for values, and make no children
        self.retries = self.chance.random() < 0.5
        self.joined = 0
        self.lasting: list[str] = []  #: acknowledged nodes that others may depend on

    async def live(self) -> None:
        if not await self._submit(self.prefix, self.chance.randint(2, 6), create=True):
            return
        await self._wait(self._some_names())
        if self.retries and not await self._retry():
            return
        self.watcher.offered.append((self.prefix, self.lasting))
        for _ in range(self.chance.randint(0, 4)):
            await asyncio.sleep(self.chance.choice((0.0, 0.3, 1.0, 2.5, 4.0, *[self._until_it_goes(self.prefix)] * 5)))
            acts: tuple[Callable[[], Awaitable[bool]], ...] = (self._attach, self._say_again, self._join, self._join)
            if not await self.chance.choice(acts)():
                return

    def _until_it_goes(self, name: str) -> float:
        """Seconds until about the moment at which the instance of a node, or of this prefix, is removed."""
        return max(0.001, self.watcher.time_left(name) + self.chance.uniform(-0.01, 0.05))

    # --- after the end: each says whether to go on ------------------------------------------------------

    async def _attach(self) -> bool:
        await self._wait(self._some_names())
        return True

    async def _say_again(self) -> bool:
        return await self.client.call("SubmitStream", self.submission, pb.SubmitReply) is not None

    async def _join(self) -> bool:
        self.joined += 1
        if not await self._submit(f"{self.prefix}j{self.joined}.", self.chance.randint(1, 3), create=False):
            return False
        await self._wait(self._some_names())
        return True

    async def _retry(self) -> bool:
        """A person looks until the instance has ended, mends what failed and has it run again."""
        if not await self._has_ended():
            return False
        repaired = self.watcher.mend(self._to_mend())
        if not repaired:
            return True
        retry = pb.RetryRequest(instance=self.id, downstream=self.tolerates or self.chance.random() < 0.5)
        while await self.client.call("Retry", retry, pb.RetryReply) is None:
            if not (self.client.is_early and await self._has_ended()):
                self.watcher.leave_broken(repaired)
                return False
        self.watcher.acknowledged_retry(repaired)
        await self._look()
        await self._wait(list(self.ids))
        return True

    async def _has_ended(self) -> bool:
        """Whether the instance is there, once it has ended."""
        while (info := await self._look()) is not None and not info.ended:
            await asyncio.sleep(0.3)
        return info is not None

    async def _look(self) -> pb.InstanceInfo | None:
        request = pb.GetInstanceRequest(instance=self.id)
        info: pb.InstanceInfo | None = await self.client.call("GetInstance", request, pb.InstanceInfo)
        if info is not None and info.ended:
            self.watcher.told_ended(self.id)
        return info

    def _to_mend(self) -> list[Program]:
        computation = self.watcher.computation
        made = list(computation.all_made(self.programs))
        beyond = ("", "upstream", QUEUE_TIMEOUT)
        return [program for program in made if computation.run(program.name).failure not in beyond]

    async def _submit(self, prefix: str, count: int, create: bool) -> bool:
        is_made = await super()._submit(prefix, count, create)
        if is_made:
            programs = self.client.submitted[prefix]
            self.lasting += [program.name for program in programs if not self._is_of_another(program)]
        return is_made

    # --- what it submits ----------------------------------------------------------------------------------

    def _grow(self, prefix: str, count: int) -> list[Program]:
        programs = self.watcher.plan.grow(prefix, count, self.lasting)
        for program in programs:
            self._restrict(program)
        offered = [names for other, names in self.watcher.offered if other != self.prefix]
        if offered and self.chance.random() < 0.5:
            programs += self._returning(f"{prefix}f", self.chance.choice(offered))
        return programs

    def _restrict(self, program: Program) -> None:
        """What runs again when a failure is mended has made no children: they would be made twice."""
        if self.tolerates:
            children = {child.name for child in program.children}
            program.children = []
            program.returns = tuple(name for name in program.returns if name not in children)
        else:
            program.tolerates = ()
            for child in program.children:
                self._restrict(child)

    def _returning(self, name: str, others: list[str]) -> list[Program]:
        """A node that returns a promise of another instance, which may be gone by then; nothing depends on it."""
        if self.retries:  # which is to have failures of this instance only run again
            others = [other for other in others if not self.watcher.computation.outcome(other).failure]
        if not others:
            return []
        other = self.chance.choice(others)
        seconds = self.chance.choice((0.001, 0.1, 0.4, self._until_it_goes(other), self._until_it_goes(other)))
        program = Program(name, "plain", seconds=min(seconds, KEEPING.failed), returns=(other,))
        self.watcher.plan.programs[name] = program
        return [program]

    def _is_of_another(self, program: Program) -> bool:
        return any(not name.startswith(self.prefix) for name in program.returns)

    async def _take(self, names: list[str], request: pb.WaitRequest) -> None:
        began, faulty = self.client.loop.now, self.client.network.faulty
        try:
            await super()._take(names, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND and not faulty:
                late = self.watcher.removed_at.get(self.id, began) <= began + ARRIVING
                self.watcher.require(late, "who waits when it ends is told", f"{self.prefix}: {error.details()}")
            raise


class AgingLife(Life):
    CLIENT = AgingClient
    HAS_PERSON = False  # its clients are the persons who retry
    WATCHER = AgingWatcher
    KEEPING = KEEPING
    WALL_JUMPS = False

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        cast(AgingWatcher, self.watcher).keeping = KEEPING

    def _look_back(self) -> None:
        super()._look_back()
        watcher = cast(AgingWatcher, self.watcher)
        seconds = max(KEEPING.ended, KEEPING.failed) + GOING
        self.loop.run_until(self.loop.now + seconds, lambda: watcher.violation is not None or watcher.is_all_gone())
        watcher.check_gone()
