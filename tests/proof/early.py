"""Kills between a grant and the commit of what was granted, which nodes are started before (`engine/ahead.py`).

A real broker is killed while a commit is held up and a worker already has nodes of it. Afterwards the client submits
again what was not acknowledged, and the worker returns with what it has run. All that was acknowledged must be there,
each node must have a value that was made for it, and no key may ever stand for two nodes.
`python -m tests.proof.early [--kills N] [--seed N]` ends with 1 if that does not hold, or if it
does not notice a broker that uses keys again.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from argparse import ArgumentParser
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc.aio

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from tests.support.postgres_server import NoServer, new_schema, running_server
from tests.support.raw import Dag, Given, RawWorker, envelope, identity, results, submit

from .progress import made, patience

HERE = Path(__file__).parents[2]
#: Nodes of an instance: two, and one that depends on both.
SHAPE: dict[str, Any] = {"source_count": [0, 0, 2], "source": [0, 1]}
NODES = 3
#: Seconds without a grant after which a commit that is held up is taken for another one.
OTHER_COMMIT = 2.0
#: Kills after which a broker that uses keys again must have been noticed.
WEAKER = 4


@dataclass
class Ledger:
    """The facts that the client and the worker know."""

    dags: list[Dag] = field(default_factory=list)
    submitted: set[bytes] = field(default_factory=set)  #: instances that were acknowledged
    values: dict[bytes, bytes] = field(default_factory=dict)  #: by ID of a node, whose result was acknowledged
    keys: dict[int, bytes] = field(default_factory=dict)  #: which node each key stood for
    held: dict[tuple[int, int], Given] = field(default_factory=dict)  #: by key and attempt: not yet acknowledged
    proofs: list[pb.HeldGrant] = field(default_factory=list)
    kills: int = 0
    early: int = 0  #: nodes that a worker had before the commit, when the broker was killed
    returned: int = 0  #: results of these that the worker brought to the next broker
    violations: list[str] = field(default_factory=list)

    def take(self, given: Given) -> None:
        known = self.keys.setdefault(given.key, given.id)
        if known != given.id:
            self.violations.append(f"key {given.key} stands for {known.hex()} and for {given.id.hex()}")
        self.held[given.key, given.attempt] = given

    def __str__(self) -> str:
        return (
            f"{self.kills} kills with {self.early} nodes granted before their commit, {self.returned} results brought"
            f" back, {len(self.submitted)} instances and {len(self.values)} results acknowledged,"
            f" {len(self.violations)} violations"
        )


class Stage:
    """A broker process, a client, and a worker that has lived through the brokers before it."""

    def __init__(self, process: Process, stub: Any, ledger: Ledger, who: dict[str, bytes]) -> None:
        self.process, self.stub, self.ledger = process, stub, ledger
        held = list(ledger.held)
        self.worker = RawWorker(
            stub, **who, slots=1, grants=ledger.proofs, held_slot=[0] * len(held),
            held_node=[key for key, _ in held], held_attempt=[attempt for _, attempt in held],
        )  # fmt: skip

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(patience(60)):
            return (await self.process.stdout.readline()).decode().strip()

    async def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        while await self.line() != "heard":
            pass

    def take(self) -> list[Given]:
        """Enter what the worker was granted since the last call."""
        given, self.worker.given = self.worker.given, []
        self.ledger.proofs += self.worker.grants
        self.worker.grants = []
        for node in given:
            self.ledger.take(node)
        return given

    async def report(self, nodes: list[Given]) -> dict[bytes, bytes]:
        """Report values that name their node and attempt; return them by the node's ID."""
        values = {node.id: node.id + node.attempt.to_bytes(8, "big") for node in nodes}
        together = pb.Results()
        for node in nodes:
            together.MergeFrom(results(node, value=values[node.id]))
        self.sequence = await self.worker.report(together)
        return values

    async def finish(self) -> None:
        """Submit what was not acknowledged, and run all that comes until every instance has ended."""
        ledger = self.ledger
        # New nodes first: they get the keys of the lost ones, if the broker uses keys again.
        ledger.dags.insert(0, Dag())
        for dag in ledger.dags:
            if dag.instance not in ledger.submitted:
                await submit(self.stub, dag.submission(*[b"n"] * NODES, **SHAPE))
                ledger.submitted.add(dag.instance)
        back = list(ledger.held.values())
        ledger.returned += len(back)
        while back or len(ledger.values) < NODES * len(ledger.submitted):
            if not back:
                await self.worker.until(lambda: self.worker.given, patience(60))
                back = self.take()
            values = await self.report(back)
            await self.worker.durable(self.sequence)
            for node in back:
                ledger.held.pop((node.key, node.attempt), None)
                if node.attempt not in self.worker.refused:
                    ledger.values.setdefault(node.id, values[node.id])
            back = self.take()

    async def check(self) -> None:
        """Compare what the broker has with what was acknowledged."""
        for dag in self.ledger.dags:
            ids = [dag.id(counter) for counter in range(NODES)]
            request = pb.WaitRequest(instance=dag.instance, node=ids)
            found: dict[bytes, bytes] = {}
            async for reply in self.stub.Wait(request, timeout=patience(60)):
                found.update(zip(reply.value_node, reply.value, strict=True))
            for id in ids:
                expected = envelope(self.ledger.values[id])
                if found.get(id) != expected:
                    was = found.get(id, b"").hex() or "nothing"
                    self.ledger.violations.append(f"node {id.hex()}: {expected.hex()} was acknowledged, found {was}")

    async def _early(self) -> list[Given]:
        """Return what the worker is granted while a commit is held up; a commit of something else is let through."""
        while True:
            while await self.line() != "held":
                pass
            with suppress(TimeoutError):
                await self.worker.until(lambda: self.worker.given, OTHER_COMMIT)
                return self.take()
            await self.say("go")

    async def die_early(self, chance: random.Random) -> None:
        """Hold a commit up, and kill the broker when the worker has a node that this commit makes, or makes ready."""
        ledger, doing = self.ledger, list[asyncio.Task[Any]]()
        if chance.random() < 0.5:
            dags = [Dag() for _ in range(chance.randrange(1, 4))]
            ledger.dags += dags
            await self.say("hold")
            requests = [dag.submission(*[b"n"] * NODES, **SHAPE) for dag in dags]
            doing.append(asyncio.create_task(submit(self.stub, *requests)))
        else:
            dag = Dag()
            ledger.dags.append(dag)
            await submit(self.stub, dag.submission(*[b"n"] * NODES, **SHAPE))
            ledger.submitted.add(dag.instance)
            await self.worker.until(lambda: self.worker.given, patience(60))
            sources = self.take()
            if len(sources) == 1:  # an unknown function is granted one by one
                await self.report(sources)
                await self.worker.durable(self.sequence)  # its commit must not be the one that is held up
                await self.worker.until(lambda: self.worker.given, patience(60))
                sources = self.take()
            await self.say("hold")
            await self.report(sources)
        early = await self._early()
        if chance.random() < 0.5:
            await self.report(early)  # it has run before the broker dies
        self.process.kill()
        await self.process.wait()
        for each in doing:
            each.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await each
        ledger.kills += 1
        ledger.early += len(early)
        made()


@asynccontextmanager
async def stage(store: str, ledger: Ledger, who: dict[str, bytes], *weaker: str) -> AsyncIterator[Stage]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.proof.early_broker", store, *weaker, cwd=HERE, stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(patience(60)):
        port = int(await process.stdout.readline())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        its = Stage(process, BrokerStub(channel), ledger, who)
        await its.worker.connect(grants=[])
        try:
            yield its
        finally:
            await its.worker.vanish()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def prove(store: str, kills: int, seed: int, *weaker: str) -> Ledger:
    """Kill a broker this often, and return what became of what was acknowledged."""
    ledger, who, chance = Ledger(), identity(), random.Random(seed)
    for _ in range(kills):
        async with stage(store, ledger, who, *weaker) as its:
            await its.finish()
            if ledger.violations:
                return ledger
            await its.die_early(chance)
    async with stage(store, ledger, who, *weaker) as its:
        await its.finish()
        await its.check()
    return ledger


def on_postgres(kills: int, seed: int) -> Ledger | None:
    """Prove it with a PostgreSQL of this process; None: there is no usable one here."""
    with TemporaryDirectory(prefix="dagorama-early-") as values:
        os.environ["DAGORAMA_VALUES"] = f"file://{values}"
        try:
            with running_server() as server, new_schema(server.url) as store:
                return asyncio.run(prove(store, kills, seed))
        except NoServer as error:
            print(f"without PostgreSQL: {error}")
            return None
        finally:
            del os.environ["DAGORAMA_VALUES"]


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.proof.early", description="Kills between a grant and its commit.")
    parser.add_argument("--kills", type=int, default=20, help="on SQLite; half as many on PostgreSQL")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="dagorama-early-") as folder:
        sqlite = asyncio.run(prove(f"sqlite:///{folder}/broker.sqlite3", options.kills, options.seed))
        weaker = asyncio.run(prove(f"sqlite:///{folder}/weaker.sqlite3", WEAKER, options.seed, "weaker"))
    postgres = on_postgres(options.kills // 2, options.seed)
    ledgers = [sqlite, *([postgres] if postgres is not None else [])]
    for violation in [each for ledger in ledgers for each in ledger.violations][:20]:
        print(violation)
    print("a broker that uses keys again:", "noticed" if weaker.violations else "NOT NOTICED")
    print("; ".join(map(str, reversed(ledgers))))
    holds = all(not ledger.violations and ledger.early >= ledger.kills for ledger in ledgers)
    return 0 if holds and weaker.violations else 1


if __name__ == "__main__":
    sys.exit(main())
