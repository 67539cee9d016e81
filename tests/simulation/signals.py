"""Lives in which somebody sends signals to nodes that wait for them, while everything else fails.

Each signal has a key and a value of its own. So a signal that two nodes got, that got lost, or that overtook another
is found on the disk. The wall clock does not jump.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import Changes, OutcomeRow
from dagorama_broker.model.signals import SignalRow, WaitEnd
from dagorama_broker.scheduler import Effects

from .life import FAULTY, Life
from .person import SimulatedPerson
from .watcher import Watcher

NAMES = ("approval", "answer")
ARGUMENTS = b"arguments of a wait"
#: Seconds after which some of the waits end by themselves.
TIMEOUT = 2.5
#: Seconds by which the end of a wait may differ from its timeout on the clock of the loop.
CLOSE = 1e-3


class Sender(SimulatedPerson):
    """Creates nodes that wait, sends signals, says some again, and sends what is missing when all has healed."""

    watcher: SignalWatcher

    def start(self, within: float) -> None:
        self.busy = 1
        self.id, self.origin, self.made, self.sent = self.chance.randbytes(16), self.chance.randbytes(12), 0, 0
        self.watcher.instance = self.id
        self.loop.on(self.host, self._act(within))

    async def _act(self, within: float) -> None:
        began = self.loop.now
        await self._wait_for(self.chance.randint(1, 3), create=True)
        while self.loop.now < began + within:
            await asyncio.sleep(self.chance.choice((0.0, 0.1, 0.5, 1.5)))
            kind = self.chance.random()
            if kind < 0.4:
                await self._wait_for(self.chance.randint(1, 3), create=False)
            elif kind < 0.5 and self.made > 1:
                await self._wait_again(self.chance.randrange(1, self.made))
            else:
                await self._send(self.chance.choice(NAMES))
        while True:
            left = self.watcher.waiting()
            if not left and self.loop.now > began + FAULTY:
                break
            for name in left:
                await self._send(name)
            await asyncio.sleep(0.5)
        self.busy = 0

    async def _wait_for(self, count: int, create: bool) -> None:
        """Submit nodes that wait; the first of all waits until the end, so that the instance goes on."""
        waits, names = [], []
        for place in range(count):
            is_last = self.made + place == 0
            name = "end" if is_last else self.chance.choice(NAMES)
            kind = self.chance.random()
            timeout = TIMEOUT if kind < 0.5 and not is_last else 0.0
            waits.append(pb.SignalWait(node=place, name=name, timeout=timeout, has_default=kind < 0.25))
            names.append(pb.Function(name=f"dagorama:wait_for({name})", queue="signals"))
        nodes = pb.Nodes(
            instance=self.id, origin=self.origin, first=self.made, function=list(range(count)),
            arguments=[ARGUMENTS] * count, waits=waits,
        )  # fmt: skip
        if create:
            nodes.creates.CopyFrom(pb.NewInstance(definition="work:Task", entry=self.origin + bytes(4)))
        self.made += count
        await self._call("SubmitStream", pb.SubmitRequest(functions=names, nodes=[nodes]), pb.SubmitReply)

    async def _wait_again(self, number: int) -> None:
        """Let a node wait again if it has ended with a signal, its default or a timeout."""
        asked: dict[str, Any] = {"instance": self.id, "node": [self.origin + number.to_bytes(4, "big")]}
        found = await self._call("Retry", pb.RetryRequest(look=True, downstream=True, **asked), pb.RetryReply)
        if found is not None:
            await self._call("Retry", pb.RetryRequest(downstream=True, waits=found.waits, **asked), pb.RetryReply)

    async def _send(self, name: str) -> None:
        self.sent += 1
        number = self.sent
        request = pb.SendSignalRequest(instance=self.id, name=name, value=b"%d" % number, key=f"k{number}")
        for _ in range(self.chance.choice((1, 1, 2))):
            if await self._call("SendSignal", request, pb.SendSignalReply) is not None:
                self.watcher.acknowledged_signal(name, number)


class SignalWatcher(Watcher):
    """Looks at the nodes that wait apart from the others, which the plain computation knows."""

    instance = b""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.keys_of_waits: set[int] = set()
        self.again: set[int] = set()  #: keys of nodes that have waited again
        self.given: dict[int, int] = {}  #: keys of the nodes that got each signal, by its number
        self.acknowledged: dict[int, str] = {}  #: names by number

    def waiting(self) -> list[str]:
        """Return the names that unfinished nodes on disk wait for, the last to end last."""
        tables = self.disk.tables
        names = [row.name for key, row in tables.mail.waits.items() if key not in tables.outcomes]
        others = sorted(name for name in names if name != "end")
        return others or names

    def acknowledged_signal(self, name: str, number: int) -> None:
        self.note("sent", name, number)
        self.acknowledged[number] = name
        known = {row.key for row in self.disk.tables.mail.signals.values()}
        self.require(f"k{number}" in known, "acknowledged is durable", f"signal {number} is not on disk")

    def committed(self, changes: Changes) -> None:
        self.keys_of_waits |= {row.key for row in changes.nodes if row.arguments == ARGUMENTS}
        waits = self.keys_of_waits
        self.again |= {row.key for row in changes.retried if row.key in waits}
        for outcome in changes.outcomes:
            if outcome.key in waits:
                self._check_end(outcome)
        super().committed(replace(
            changes, nodes=[row for row in changes.nodes if row.key not in waits],
            outcomes=[row for row in changes.outcomes if row.key not in waits],
            progress=[row for row in changes.progress if row.key not in waits],
            blocks=[row for row in changes.blocks if row.first_key not in waits],
            retried=[row for row in changes.retried if row.key not in waits],
        ))  # fmt: skip

    def _check_end(self, row: OutcomeRow) -> None:
        wait = self.disk.tables.mail.waits[row.key]
        self.note("wait ended", row.key, wait.name, int(wait.end))
        self.require(row.state != State.CANCELLED, "a wait ends once", f"node {row.key} was cancelled")
        if (number := _number_in(row)) is not None:
            before = self.given.get(number)
            self.require(before is None, "given once", f"signal {number} to {before} and {row.key}")
            self.given[number] = row.key
        if wait.end in (WaitEnd.TIMED_OUT, WaitEnd.DEFAULT):
            early = wait.until - row.ended
            self.require(
                wait.timeout > 0.0 and early < CLOSE, "not before its timeout", f"node {row.key}: {early:.3f} s"
            )

    def _stepped(self, broker: Broker, changes: Changes, effects: Effects) -> None:
        super()._stepped(broker, changes, effects)
        for name in (*NAMES, "end"):
            instance = broker.scheduler.instance(self.instance)
            box = broker.scheduler.graph.mail.find(instance.key, name) if instance is not None else None
            both = box is not None and box.kept and box.waiting
            self.require(not both, "no signal is held back", f"{name} is kept, and a node waits")

    def check_end(self, submitted: Any) -> None:
        super().check_end(submitted)
        tables = self.disk.tables
        for name in (*NAMES, "end"):
            before = 0
            for key in sorted(key for key, row in tables.mail.waits.items() if row.name == name):
                self.require(key in tables.outcomes, "a wait ends once", f"node {key} waits again")
                number = _number_in(tables.outcomes[key]) if key in tables.outcomes else None
                if number is not None and key not in self.again:
                    self.require(number > before, "in order", f"signal {number} of {name} after {before}")
                    before = number
        kept = {_number_of(row) for row in tables.mail.signals.values() if row.value is not None}
        for number, name in self.acknowledged.items():
            self.require((number in self.given) != (number in kept), "none is lost", f"signal {number} of {name}")


def _number_in(outcome: OutcomeRow) -> int | None:
    """Return the number of the signal in the value of a node; None: it took its default, or failed."""
    if outcome.value is None:
        return None
    text = outcome.value[6 + len(ARGUMENTS) :]
    return int(text) if text else None


def _number_of(row: SignalRow) -> int:
    return int(row.key[1:])


class SignalLife(Life):
    WATCHER = SignalWatcher
    WALL_JUMPS = False

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.hosts.remove(self.person.host)
        self.person = Sender(self.network, self.watcher)
        self.hosts.append(self.person.host)
