"""Clients: they submit until they are answered, add to what they have, cancel now and then, and wait for the ends."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from dagorama.api import broker_pb2 as pb

from .loop import Host
from .network import Link, Network, WaitCall, unary
from .programs import FOUND, Program, cached_value, columns, kept_value
from .watcher import Value, Watcher

#: After which a client says the same again.
AGAIN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
    }
)
#: Keys of instances.
FAIR = ("", "", "a", "a", "b")
#: Seconds in which an undisturbed broker answers.
PROMPT = 0.1


class SimulatedClient:
    def __init__(self, network: Network, watcher: Watcher, name: str) -> None:
        self.network, self.watcher, self.name = network, watcher, name
        self.loop, self.chance = network.loop, network.loop.chance
        self.host = Host(name)
        self.link = Link(network, self.host)
        self.submitted: dict[str, list[Program]] = {}  #: by prefix, whether or not it was answered
        self.busy = 0

    def instance(self, prefix: str) -> Instance:
        """What is done with one; nothing has been done yet."""
        return Instance(self, prefix)

    def start(self, instances: int, within: float) -> None:
        for number in range(instances):
            self.busy += 1
            self.loop.on(self.host, self._live(f"{self.name}i{number}/", self.chance.uniform(0.0, within)))

    async def _live(self, prefix: str, pause: float) -> None:
        try:
            await asyncio.sleep(pause)
            await self.instance(prefix).live()
        finally:
            self.busy -= 1

    async def call(self, method: str, request: Any, reply_type: Any, most: int = 1_000) -> Any:
        """Until it is answered; None: it was given up after so many times."""
        for _ in range(most):
            started, calm = self.loop.now, self.watcher.calm
            try:
                reply = await unary(self.link, method, request, reply_type, 2.0)
            except grpc.aio.AioRpcError as error:
                if error.code() not in AGAIN:
                    self.refused(method, error)
                    return None
                self.watcher.require(not calm, "prompt", f"{method} is not answered: {error.details()}")
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))
            else:
                self.watcher.require(not calm or self.loop.now - started < PROMPT, "prompt", f"{method} took long")
                return reply
        return None

    def refused(self, method: str, error: grpc.aio.AioRpcError) -> None:
        """The broker has said no."""
        self.watcher.break_off("no call is refused", f"{method}: {error.code().name}: {error.details()}")


class Instance:
    """One instance and what its client does with it."""

    def __init__(self, client: SimulatedClient, prefix: str) -> None:
        self.client, self.prefix, self.watcher, self.chance = client, prefix, client.watcher, client.chance
        self.id, self.origin = self.chance.randbytes(16), self.chance.randbytes(12)
        self.programs: list[Program] = []
        self.ids: dict[str, bytes] = {}
        self.submission = pb.SubmitRequest()  #: the last one

    async def live(self) -> None:
        if not await self._submit(self.prefix, self.chance.randint(2, 6), create=True):
            return
        waiting = [self.client.loop.create_task(self._wait(self._some_names()))]
        if self.chance.random() < 0.4:
            await asyncio.sleep(self.chance.choice((0.0, 0.3, 3.0)))
            await self._submit(f"{self.prefix}b", self.chance.randint(1, 3), create=False)
        if self.chance.random() < 0.2:
            await asyncio.sleep(self.chance.choice((0.0, 0.2, 1.0, 2.0)))
            await self._cancel()
        waiting.append(self.client.loop.create_task(self._wait(self._some_names())))
        await asyncio.gather(*waiting)

    def _some_names(self) -> list[str]:
        names = list(self.ids)
        return self.chance.sample(names, self.chance.randint(1, len(names)))

    async def _submit(self, prefix: str, count: int, create: bool) -> bool:
        """Whether it was answered."""
        client, first = self.client, len(self.programs)
        programs = self._grow(prefix, count)
        client.submitted[prefix] = programs
        self.programs += programs
        for place, program in enumerate(programs, first):
            self.ids[program.name] = self.watcher.known[program.name] = self.origin + place.to_bytes(4, "big")
            self.watcher.submitted_at[program.name] = client.loop.now
        made = columns(programs, first, self.ids, self.origin)
        functions = made.pop("functions")
        if create:
            self.watcher.instances.append(self.id)
            made["creates"] = self._new_instance()
            made["creates"].fair = FAIR[self.id[0] % len(FAIR)]
        request = self.submission = pb.SubmitRequest(functions=functions, nodes=[pb.Nodes(instance=self.id, **made)])
        most = 1 if self.chance.random() < 0.1 else 1_000
        reply = await client.call("SubmitStream", request, pb.SubmitReply, most=most)
        if reply is not None:
            self.watcher.acknowledged_submission([program.name for program in programs])
        return reply is not None

    def _new_instance(self) -> pb.NewInstance:
        return pb.NewInstance(definition="work:Task", entry=self.origin + bytes(4))

    def _grow(self, prefix: str, count: int) -> list[Program]:
        return self.watcher.plan.grow(prefix, count, [program.name for program in self.programs])

    async def _cancel(self) -> None:
        """All of it, or a node and what depends on it."""
        names = [] if self.chance.random() < 0.5 else [self.chance.choice(list(self.ids))]
        self.watcher.cancelling.add(self.prefix.rstrip("/"))
        if not names:
            self.watcher.cancelling_all.add(self.prefix)
        if any(name not in self.watcher.keys for name in names):
            return  # it was submitted without an answer, and never arrived
        request = pb.CancelRequest(instance=self.id, node=[self.ids[name] for name in names])
        reply = await self.client.call("Cancel", request, pb.CancelReply)
        if reply is None:
            return
        ended = names or [program.name for program in self.client.submitted[self.prefix]]
        self.watcher.acknowledged_cancel(self.id, ended, reply.cancelled)

    # --- waiting --------------------------------------------------------------------------------------

    async def _wait(self, names: list[str]) -> None:
        """Until all of these have ended; a wait that breaks off is begun again."""
        names = [name for name in names if name in self.watcher.keys]
        while names:
            request = pb.WaitRequest(instance=self.id, node=[self.ids[name] for name in names])
            try:
                await self._take(names, request)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in AGAIN:
                    self.client.refused("Wait", error)
                    return
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))

    async def _take(self, names: list[str], request: pb.WaitRequest) -> None:
        values: dict[str, str] = {}
        states: dict[str, int] = {}
        async for reply in WaitCall(self.client.link, request).replies():
            for id, envelope in zip(reply.value_node, reply.value, strict=True):
                name = self.watcher.told_value(envelope, id)
                values[name] = Value.of(envelope).own
            failures = iter(reply.failure)
            for place, state in zip(reply.index, reply.state, strict=True):
                failure = next(failures) if state != pb.COMPLETED else None
                self.watcher.told_end(names[place], state, failure.type if failure is not None else "")
                states[names[place]] = state
        self.watcher.require(len(states) == len(names), "told of every end", f"{self.prefix}: {states}")
        for name, end in states.items():
            if end == pb.COMPLETED:
                self._check_value(name, values)

    def _check_value(self, name: str, values: dict[str, str]) -> None:
        found = self._assembled(name, values)
        expected = self.watcher.computation.outcome(name).value
        right = found == expected or self.watcher.is_to_be_cancelled(name)
        self.watcher.require(right, "the plain computation", f"{name} resolves to {found}, not {expected}")

    def _assembled(self, name: str, values: dict[str, str]) -> str:
        if name not in values:
            self.watcher.break_off("values come along", f"{name} was not sent to the client")
            return ""
        if values[name] == FOUND:
            return cached_value(self.watcher.plan.programs[name].cache)
        returns = self.watcher.plan.programs[name].returns
        return kept_value(values[name], [self._assembled(ref, values) for ref in returns])
