"""Somebody who has heard all that a worker says and is told, but for its secret, and would have its nodes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from hashlib import sha256

import grpc

from dagorama.api import broker_pb2 as pb

from .loop import Host
from .network import Link, Network, WorkCall
from .watcher import Value, Watcher
from .worker import Given, SimulatedWorker

#: Seconds that it stays connected.
STAY = 0.05


class Thief:
    """It presents what its victim holds, under an ID of its own or the victim's, and reports values for it."""

    def __init__(self, network: Network, watcher: Watcher, name: str, victim: SimulatedWorker) -> None:
        self.loop, self.name = network.loop, name
        self.host = Host(name)
        self.link = Link(network, self.host)
        self._victim = victim
        self._stolen = [given for child in victim.children for given in child.held.values()]
        watcher.links[name] = self.link

    def start(self) -> None:
        self.loop.on(self.host, self._steal())

    async def _steal(self) -> None:
        call = WorkCall(self.link)
        # A broker may refuse it at any point.
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            # It wants nothing but what it presents.
            await call.write(pb.WorkerMessage(hello=self._hello(), draining=True))
            await call.write(pb.WorkerMessage(reports=[pb.Report(sequence=1, body=self._results(self._stolen))]))
            await asyncio.sleep(STAY)
        call.cancel()

    def _hello(self) -> pb.Hello:
        stolen, theirs, chance = self._stolen, self._victim.hello, self.loop.chance
        worker, secret = chance.choice((
            (theirs.worker, b""), (theirs.worker, chance.randbytes(32)), self._own(chance.randbytes(32)),
        ))  # fmt: skip
        return pb.Hello(
            protocol=1,
            worker=worker,
            secret=secret,
            name=self.name,
            slots=theirs.slots,
            tolerations=theirs.tolerations,
            held_node=[given.key for given in stolen],
            held_attempt=[given.attempt for given in stolen],
            held_slot=[0] * len(stolen),
            grants=self._victim.proofs,
        )

    def _own(self, secret: bytes) -> tuple[bytes, bytes]:
        return sha256(secret).digest()[:16], secret

    def _results(self, stolen: list[Given]) -> bytes:
        values = [Value(given.name, given.attempt, self.name, "stolen").packed() for given in stolen]
        return pb.Results(
            node=[given.key for given in stolen],
            attempt=[given.attempt for given in stolen],
            value=values,
            microseconds=[1] * len(stolen),
        ).SerializeToString()
