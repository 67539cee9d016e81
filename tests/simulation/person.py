"""A person who has nodes run by other code and has failed ones run again, at random moments, as the command does.

Everybody's code comes to the same, whatever its hash: what is shown is by which code a node is run, and who allows it.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.values.rebind import sign

from .client import AGAIN
from .loop import Host
from .network import Link, Network, unary
from .watcher import RING, Watcher

#: What the broker may say to somebody who asks for what is not possible just then.
REFUSALS = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND})
HASHES = ("h", "h2", "h3")


class SimulatedPerson:
    def __init__(self, network: Network, watcher: Watcher) -> None:
        self.loop, self.watcher = network.loop, watcher
        # Of its own, so that lives without a person are as they were.
        self.chance = random.Random(f"{watcher.plan.seed}/person")
        self.host = Host("person")
        self.link = Link(network, self.host)
        self.busy = 0
        self.named: dict[str, set[str]] = {}  #: hashes that nodes of a function were rebound by

    def start(self, within: float) -> None:
        """Act a few times within so many seconds, or not at all."""
        times = sorted(self.chance.uniform(0.3, within) for _ in range(self.chance.choice((0, 3, 6, 10))))
        if times:
            self.busy = 1
            self.loop.on(self.host, self._live(times))

    async def _live(self, times: list[float]) -> None:
        began = self.loop.now
        for time in times:
            await asyncio.sleep(max(0.0, began + time - self.loop.now))
            await self.chance.choice(
                (self._rebind, self._rebind, self._rebind, self._retry, self._retry_with_new_code)
            )()
        self.busy = 0

    async def _call(self, method: str, request: Any, reply_type: Any) -> Any:
        """Until it is answered; None: it was refused, as it may be."""
        while True:
            try:
                return await unary(self.link, method, request, reply_type, 2.0)
            except grpc.aio.AioRpcError as error:
                if error.code() in REFUSALS:
                    return None
                if error.code() not in AGAIN:
                    text = f"{method}: {error.code().name}: {error.details()}"
                    self.watcher.break_off("no call is refused", text)
                    return None
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))

    async def _rebind(self) -> None:
        """Nodes of one function that were made with, or are run by, some code; in all instances or in one."""
        unfinished = self.watcher.unfinished
        if not unfinished:
            return
        node, hash = self.chance.choice(unfinished), self.chance.choice(HASHES)
        name = self.watcher.plan.programs[node].function
        made_with = sorted({"h", *self.named.get(name, ())})
        if self.chance.random() < 0.3:
            made_with = [self.chance.choice(made_with)]
        instance = self.watcher.instance_of(node) if self.chance.random() < 0.5 else b""
        asked: dict[str, Any] = {"function": name, "hash": hash, "from_hash": made_with, "instance": instance}
        found = await self._call("Rebind", pb.RebindRequest(look=True, **asked), pb.RebindReply)
        if found is None or not found.made_with:
            return
        if self.chance.random() < 0.3:
            await self._ask_for_too_much(pb.RebindRequest(**asked))
        rebinding = pb.Rebinding(function=name, made_with=found.made_with, hash=hash, instance=instance)
        signed = self._signed(rebinding)
        reply = await self._call("Rebind", pb.RebindRequest(rebinding=signed, **asked), pb.RebindReply)
        if reply is not None:
            self.named.setdefault(name, set()).add(hash)
            if hash not in rebinding.made_with:  # else nodes have their own code again, which nothing need allow
                self.watcher.acknowledged_rebinding(signed, reply.rebound)

    async def _ask_for_too_much(self, request: pb.RebindRequest) -> None:
        """By what was signed for nodes of other code."""
        other = pb.Rebinding(function=request.function, made_with=["other"], hash=request.hash)
        request.rebinding.CopyFrom(sign(other, RING))
        reply = await self._call("Rebind", request, pb.RebindReply)
        self.watcher.require(reply is None or not reply.rebound, "what is not signed is refused", f"{request}")

    async def _retry(self) -> None:
        if self.watcher.instances:
            request = pb.RetryRequest(instance=self.chance.choice(self.watcher.instances))
            await self._call("Retry", request, pb.RetryReply)

    async def _retry_with_new_code(self) -> None:
        if not self.watcher.instances:
            return
        request = pb.RetryRequest(instance=self.chance.choice(self.watcher.instances), new_code=True, look=True)
        found = await self._call("Retry", request, pb.RetryReply)
        if found is None:
            return
        request.look = False
        request.rebindings.extend(
            self._signed(pb.Rebinding(
                function=each.function, made_with=each.made_with, deployed=True, instance=request.instance
            ))
            for each in found.rebindable
        )  # fmt: skip
        await self._call("Retry", request, pb.RetryReply)

    def _signed(self, rebinding: pb.Rebinding) -> pb.SignedRebinding:
        signed = sign(rebinding, RING)
        self.watcher.signed.add(signed.SerializeToString())
        return signed
