"""A worker: the product's own session and stream, over simulated children that run the programs of the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import FIRST_FOUND
from dagorama.worker.supervisor.calls import WorkCalls
from dagorama.worker.supervisor.session import Held, Session
from dagorama.worker.supervisor.stream import Stream

from .loop import Host, SimulatedLoop
from .network import Link, Network, Stub
from .programs import (
    FOUND,
    PAUSABLE,
    PAUSE,
    cache_key,
    cache_proof,
    cached_value,
    columns,
    kept_value,
    name_in,
    own_value,
)
from .watcher import RING, Value, Watcher

#: The hash of the code that a worker says it has, if it is asked.
DEPLOYED = "h9"


@dataclass(slots=True)
class Given:
    """A node as the child gets it."""

    key: int
    attempt: int
    id: bytes
    instance: bytes
    function: pb.Function
    name: str
    run: int
    sources: Sequence[int]
    values: dict[int, bytes]
    refs: Mapping[int, Sequence[int]]
    failed: frozenset[int]
    beside: Sequence[int] = ()  #: sources that are granted with it; it takes their values from their runs here
    made_with: str = ""
    rebinding: pb.SignedRebinding | None = None
    known: int = 0  #: as GrantBody.cache
    announced: bytes = b""  #: as GrantBody.announced_key
    found: pb.CachedNode | None = None


def read_grant(body: bytes) -> list[Given]:
    read = pb.GrantBody.FromString(body)
    values = dict(zip(read.value_node, read.value, strict=True))
    refs = dict(zip(read.value_node, _split(read.value_ref, read.value_ref_count, len(read.value)), strict=True))
    sources = _split(read.source, read.source_count, len(read.node))
    failed = frozenset(read.failed)
    more = _split(read.more_fused, read.more_fused_count, 0)
    beside = [
        (source, *(more[at] if at < len(more) else ())) if source else () for at, source in enumerate(read.fused_source)
    ]
    return [
        Given(
            key,
            read.attempt[at],
            read.id[at],
            read.instances[read.instance[at]],
            read.functions[read.function[at]],
            name_in(read.arguments[at]),
            read.failed_attempts[at] if read.failed_attempts else 0,
            sources[at],
            values,
            refs,
            failed,
            beside[at] if at < len(beside) else (),
            read.made_with[at] if read.made_with else "",
            [None, *read.rebindings][read.rebinding[at] if at < len(read.rebinding) else 0],
            (known := read.cache[at] if at < len(read.cache) else 0),
            read.announced_key[at] if at < len(read.announced_key) else b"",
            read.found[known - FIRST_FOUND] if known >= FIRST_FOUND else None,
        )
        for at, key in enumerate(read.node)
    ]


def _split(flat: Sequence[int], counts: Sequence[int], size: int) -> list[list[int]]:
    rest = iter(flat)
    return [list(islice(rest, count)) for count in counts or [0] * size]


class Child:
    """A slot: one sync node at a time, async ones next to it."""

    def __init__(self, worker: SimulatedWorker, number: int) -> None:
        self.worker, self.number = worker, number
        self.held: dict[int, Given] = {}  #: by attempt, in the order given
        self.running: dict[int, asyncio.TimerHandle] = {}
        self.pieces: list[bytes] = []
        self.gathered = pb.Results()
        self.answered: list[Given] = []
        self.flushing = False
        self.own: dict[int, str] = {}  #: values of runs here that have no promises, by node
        self.had: set[int] = set()  #: nodes that it was given

    @property
    def state(self) -> Held:
        return self.held_of([*self.answered, *self.held.values()])

    def held_of(self, given: Sequence[Given]) -> Held:
        return Held(self.number, [each.key for each in given], [each.attempt for each in given])

    def grant(self, grant: pb.Grant) -> None:
        self.pieces.append(grant.body)
        if not grant.last:
            return
        body, self.pieces = b"".join(self.pieces), []
        for given in read_grant(body):
            self.worker.watcher.given_to(self.worker.name, self.worker.hello, given)
            self.worker.watcher.require(
                self.had.issuperset(given.beside), "sources first", f"{given.name} goes along with what is not here"
            )
            self.had.add(given.key)
            self.held[given.attempt] = given
        self.go_on()

    def go_on(self) -> None:
        """Start what can start."""
        sync_runs = any(not self.held[attempt].function.is_async for attempt in self.running)
        for attempt, given in list(self.held.items()):
            if attempt in self.running or (sync_runs and (given.beside or not given.function.is_async)):
                continue
            if any(source not in self.own for source in given.beside):
                self.take_back([attempt])  # a run here has left no value for it
                continue
            if not given.function.hash:
                self.take_back([attempt], pb.CODE_MISMATCH, DEPLOYED)
                continue
            own = self._cache_key(given) if given.function.cached else b""
            if given.function.cached and (not given.known or given.announced not in (b"", own)):
                self.worker.watcher.looked_up(given)
                self.take_back([attempt], pb.CACHE_KEY, cache_key=own)
                continue
            sync_runs = sync_runs or not given.function.is_async
            self._start(given)
        if not self.running and self.answered:
            self.flush()

    def _cache_key(self, given: Given) -> bytes:
        return cache_key(self.worker.watcher.plan.programs[given.name].cache)

    def _cache_proof(self, given: Given) -> bytes:
        return cache_proof(self.worker.watcher.plan.programs[given.name].cache)

    def _start(self, given: Given) -> None:
        worker = self.worker
        program = worker.watcher.plan.programs[given.name]
        worker.watcher.started(worker.name, given)
        if given.found is not None:
            self.running[given.attempt] = worker.loop.call_later(0.0, self._take_over, given, given.found)
            return
        if program.children and program.ahead:
            children = self._with_children(given, pb.Results())
            worker.session.report(Held(self.number, [], []), children.SerializeToString())
            worker.changed()
        self.running[given.attempt] = worker.loop.call_later(program.seconds, self._finish, given)

    def _finish(self, given: Given) -> None:
        worker = self.worker
        program = worker.watcher.plan.programs[given.name]
        deaths = worker.deaths.get(given.name, 0)
        if deaths < program.dies:
            worker.deaths[given.name] = deaths + 1
            self.die()
            return
        del self.running[given.attempt], self.held[given.attempt]
        worker.watcher.finished(worker, given)
        self.answered.append(given)
        if given.run < program.fails:
            worker.watcher.failed(given.name, given.run)
            pauses = program.function in PAUSABLE
            self.gathered.failures.append(
                pb.Failure(
                    node=given.key,
                    attempt=given.attempt,
                    type="builtins.ValueError",
                    message="boom",
                    traceback="t",
                    retry_after=PAUSE if pauses else None,
                    pause_key=pauses,
                )
            )
        else:
            self._complete(given, program)
        if not self.flushing:
            self.flushing = True
            worker.loop.call_later(0.001, self.flush)
        self.go_on()

    def _take_over(self, given: Given, found: pb.CachedNode) -> None:
        """Complete with the value of the node that the broker has found, if that has the right key."""
        worker, results = self.worker, self.gathered
        right = found.proof == self._cache_proof(given)
        worker.watcher.require(right, "the right cached value", f"{given.name} was offered that of {found.proof!r}")
        del self.running[given.attempt], self.held[given.attempt]
        worker.watcher.finished(worker, given)
        worker.found.add(given.attempt)
        worker.watcher.rates.has_not_run(given.attempt)
        self.answered.append(given)
        results.hits.append(len(results.node))
        results.node.append(given.key)
        results.attempt.append(given.attempt)
        results.value.append(Value(given.name, given.attempt, worker.name, FOUND).packed())
        results.microseconds.append(0)
        results.foreign.append(found.node)
        results.ref.append(-len(results.foreign))
        results.ref_count.append(1)
        if not self.flushing:
            self.flushing = True
            worker.loop.call_later(0.001, self.flush)
        self.go_on()

    def _complete(self, given: Given, program: Any) -> None:
        results, worker = self.gathered, self.worker
        values = [self._read(given, source) for source in given.sources]
        own = cached_value(program.cache) if program.cache else own_value(given.name, values)
        value = Value(given.name, given.attempt, worker.name, own)
        if program.cache:
            results.cached.append(len(results.node))
            results.cache_key.append(self._cache_key(given))
            results.cache_proof.append(self._cache_proof(given))
        if not program.returns:
            self.own[given.key] = value.own
        results.node.append(given.key)
        results.attempt.append(given.attempt)
        results.value.append(value.packed())
        results.microseconds.append(int(program.seconds * 1e6))
        if program.children and not program.ahead:
            self._with_children(given, results)
        places = {child.name: place for place, child in enumerate(program.children)}
        for name in program.returns:
            if name in places:
                results.ref.append(places[name])
            else:
                results.foreign.append(worker.watcher.known[name])
                results.ref.append(-len(results.foreign))
        results.ref_count.append(len(program.returns))

    def _with_children(self, given: Given, results: pb.Results) -> pb.Results:
        """The children that this attempt makes, in the node's own instance."""
        watcher = self.worker.watcher
        program = watcher.plan.programs[given.name]
        origin = self.worker.loop.chance.randbytes(12)
        watcher.parents[origin] = given.key, given.attempt
        made = columns(program.children, 0, watcher.known, origin)
        first = len(results.functions)
        results.functions.extend(made.pop("functions"))
        made["function"] = [index + first for index in made["function"]]
        results.children.append(
            pb.Children(
                node=given.key,
                attempt=given.attempt,
                nodes=pb.Nodes(instance=given.instance, **made),
            )
        )
        return results

    def _read(self, given: Given, source: int) -> str:
        """A source's value with its promises kept, from what came with the grant."""
        if source in given.failed:
            return "failed"
        if source in given.beside:
            return self.own[source]
        envelope = given.values.get(source)
        if envelope is None:
            self.worker.watcher.break_off("values come along", f"{given.name} lacks a value that it needs")
            return "missing"
        return kept_value(Value.of(envelope).own, [self._read(given, ref) for ref in given.refs[source]])

    def flush(self) -> None:
        self.flushing = False
        if not self.answered:
            return
        held, body = self.held_of(self.answered), self.gathered.SerializeToString()
        failed = [failure.attempt for failure in self.gathered.failures]
        self.worker.sent(self.number, held, body, failed)
        self.answered, self.gathered = [], pb.Results()

    # --- what the broker, or fate, wants ----------------------------------------------------------------

    def take_back(
        self,
        attempts: Sequence[int],
        reason: pb.ReturnReason.ValueType = pb.UNSTARTED,
        hash: str = "",
        cache_key: bytes = b"",
    ) -> None:
        taken = [self.held.pop(a) for a in attempts if a in self.held and a not in self.running]
        if taken:
            for given in taken:
                self.worker.watcher.rates.has_not_run(given.attempt)
            held = self.held_of(taken)
            returned = pb.Return(node=held.nodes, attempt=held.attempts, reason=reason, hash=hash)
            returned.cache_key.extend([cache_key] * bool(cache_key))
            self.worker.session.give_back(self.number, returned)
            self.worker.changed()

    def drop(self, attempts: Sequence[int]) -> None:
        for attempt in attempts:
            self.held.pop(attempt, None)
            if (run := self.running.pop(attempt, None)) is not None:
                run.cancel()
        self.go_on()

    def die(self) -> None:
        """The process ends; another takes its place."""
        running = [self.held[attempt] for attempt in self.running]
        unstarted = [given for attempt, given in self.held.items() if attempt not in self.running]
        if not (running or unstarted):
            return
        for timer in self.running.values():
            timer.cancel()
        self.running, self.held = {}, {}
        self.worker.watcher.died([given.name for given in running])
        self.worker.watcher.note("death", self.worker.name, self.number)
        self.worker.session.died(
            self.held_of([*running, *unstarted]),
            pb.SlotDeath(
                slot=self.number,
                running=[given.attempt for given in running],
                unstarted=[given.attempt for given in unstarted],
                cause="killed by signal SIGKILL",
            ),
        )
        self.worker.changed()


class SimulatedWorker:
    def __init__(
        self,
        network: Network,
        watcher: Watcher,
        name: str,
        deaths: dict[str, int],
        slots: int,
        tolerations: Sequence[str],
        exclude: Sequence[str],
    ) -> None:
        self.loop: SimulatedLoop = network.loop
        self.watcher, self.name, self.deaths = watcher, name, deaths
        self.host = Host(name)
        self.link = Link(network, self.host)
        secret = self.loop.chance.randbytes(32)
        self.hello = pb.Hello(
            protocol=1,
            worker=sha256(secret).digest()[:16],
            secret=secret,
            name=name,
            slots=slots,
            tolerations=tolerations,
            exclude_queues=exclude,
            key_ids=RING.ids,
            fuses_joins=True,
        )
        self.session = Session(self.hello)
        self.children = [Child(self, number) for number in range(slots)]
        self.stream = Stream(
            WorkCalls(Stub(self.link), None).open,  # type: ignore[arg-type]  # it has the one call that is used
            self.session,
            lambda: [child.state for child in self.children],
            self._on_message,
            lambda: None,
        )
        self.leaving = self.gone = False
        self.found: set[int] = set()  #: attempts that took over a cached value
        self.connected_at = 0.0  #: the present stream's beginning
        self.disturbed_at = 0.0  #: when it was stopped or cut off last
        self._reports: dict[int, tuple[Held, frozenset[int]]] = {}
        self._refused: set[int] = set()
        self._told_cancelled: set[int] = set()

    @property
    def proofs(self) -> list[pb.HeldGrant]:
        """Of the grants that it has had, as far as it remembers them."""
        grants = self.session._proofs._grants
        return [pb.HeldGrant(node=each.nodes, attempt=each.attempts, proof=each.proof) for each in grants]

    def start(self) -> None:
        self.loop.on(self.host, self._live())

    async def _live(self) -> None:
        await self.stream.live()
        self.gone = True

    def changed(self) -> None:
        self.stream.wake()

    def sent(self, slot: int, held: Held, body: bytes, failed: Sequence[int]) -> None:
        self.session.report(held, body)
        self._reports[self.session._sequence] = held, frozenset(failed)
        self.changed()

    def _on_message(self, message: pb.BrokerMessage) -> None:
        if message.HasField("welcome"):
            self.connected_at = self.loop.now
        for grant in message.grants:
            self.children[grant.slot].grant(grant)
        for wanted in message.take_back:
            self.children[wanted.slot].take_back(list(wanted.attempt))
        self._refused.update(message.refused)
        self._told_cancelled.update(message.cancel)
        if message.refused or message.cancel:
            for child in self.children:
                child.drop([*message.refused, *message.cancel])
        if message.acknowledged:
            self._acknowledged(message.acknowledged)
        if self.leaving:
            self._try_to_leave()

    def _acknowledged(self, sequence: int) -> None:
        for number in [number for number in self._reports if number <= sequence]:
            held, _ = self._reports.pop(number)
            for key, attempt in zip(held.nodes, held.attempts, strict=True):
                if attempt in self.found:
                    continue  # if the value was gone by then, it has none
                if attempt not in self._refused and attempt not in self._told_cancelled:
                    self.watcher.acknowledged_report(key, attempt, self.name)

    async def lose_idle_child(self) -> None:
        """A child ends between two nodes: what waits in it comes back uncounted."""
        child = self.loop.chance.choice(self.children)
        if not child.running:
            child.die()

    # --- leaving --------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """SIGTERM: nothing more, finish what runs."""
        self.leaving = True
        self.session.drain()
        for child in self.children:
            child.take_back(list(child.held))
        self.changed()
        self.loop.call_later(0.5, self._try_to_leave)

    def _try_to_leave(self) -> None:
        if self.session.settled and not any(child.held or child.answered for child in self.children):
            self.stream.close()
        else:
            self.loop.call_later(0.5, self._try_to_leave)
