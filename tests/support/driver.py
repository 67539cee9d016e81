"""A scheduler to tell stories with: nodes have names, time stands still until told, and a broker can die at any point.

Graphs are written as `"a", "b <- a", "c <- a b? @key"`: `?` takes a failure for a value, `@` is a concurrency key.
Every verb is followed by a step (tick, drain, commit, tell) unless it happens inside `with driver.at_once():`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import chain, count

from dagorama.api.contract import FIRST_HOOK, hooked_arguments
from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import Failure, Function, Rebinding, RetryPolicy, State, WireProtocol
from dagorama_broker.model.hooks import Hook
from dagorama_broker.model.queries import Failed
from dagorama_broker.model.rows import Changes, OutcomeRow
from dagorama_broker.model.schedules import packed_function
from dagorama_broker.model.signals import NewSignal, WaitRow
from dagorama_broker.scheduler import (
    AnnouncedKey,
    Effects,
    Limits,
    NewNodes,
    Node,
    Retried,
    Scheduler,
    Start,
    Timing,
    Worker,
    WorkerInfo,
)
from dagorama_broker.scheduler.mail import Sent
from dagorama_broker.scheduler.rebind import ReboundFunction, code_of, rebindable
from dagorama_broker.scheduler.restore import ended_nodes
from tests.support.ledger import Ledger

START = 1_000.0
WALL = 1_700_000_000.0
#: The signing key of rebindings, which workers hold unless it is said otherwise.
KEY = "0f"
#: Id of the signing key of callers who announce cache keys, and of workers who compute values.
SIGNING_KEY = b"key id 1"


def function(name: str = "work", **rules: object) -> Function:
    return Function(**{"name": name, "hash": "h", "queue": name, **rules})  # type: ignore[arg-type]


def retrying(max_attempts: int, interval: float = 0.0, base: float = 1.0, **more: float) -> Function:
    return function("retrying", retry=RetryPolicy(max_attempts, interval, base, **more))


#: The beginning of the names of functions whose nodes wait for a signal; their delay stands for the timeout.
WAITS = "waits for "


def waits_of(function: Function, arguments: bytes) -> WaitRow:
    """Return what nodes of a function wait for."""
    name = function.name.removeprefix(WAITS)
    return WaitRow(0, 0, name, function.delay, 0.0, int(function.priority > 0), b"", arguments)


WORK = function()
GPU = function("gpu", queue="work", taint="GPU")


class Hand:
    """A worker's side: what it was given, in order, and what else it was told."""

    def __init__(self, driver: SchedulerDriver, presence: WorkerInfo) -> None:
        self.driver = driver
        self.presence = presence
        self.worker: Worker
        self.held: dict[str, int] = {}  #: node -> attempt, as far as the worker knows
        self.slot_of: dict[str, int] = {}
        self.asked_back: list[str] = []
        self.refused: list[int] = []
        self.cancelled: list[int] = []
        self.may_leave = False
        self.connect()

    def connect(self) -> None:
        """Present what is held. After a lost connection, or to the next broker."""
        driver = self.driver
        held = [(driver.key(name), attempt, self.slot_of.get(name, 0)) for name, attempt in self.held.items()]
        if self.presence.protocol is WireProtocol.LEGACY:
            self.worker = driver.scheduler.connect_original(self.presence, driver.now)
        else:
            self.worker = driver.scheduler.connect(self.presence, held, driver.now)
        driver.hands[self.worker] = self
        driver.step()

    def beat(self) -> None:
        self.driver.scheduler.record_contact(self.worker, self.driver.now)
        self.driver.step()

    def vanish(self) -> None:
        """Break its connection; it keeps the nodes that it holds."""
        self.driver.scheduler.disconnect(self.worker, self.driver.now)
        self.driver.step()

    def drain(self) -> None:
        self.driver.scheduler.leave(self.worker)
        self.driver.step()

    def ask(self) -> str | None:
        """Return the name of a node to run, by the calls of dagorama 0.1.10."""
        granted = self.driver.scheduler.claim(self.worker, self.driver.now)
        self.driver.step()
        if granted is None:
            return None
        name = self.driver.name(granted.node)
        self.held[name] = granted.attempt
        return name

    # --- outcomes; each returns whether the scheduler took it ---

    def complete(
        self,
        name: str,
        *promises: str,
        us: int = 100_000,
        value: bytes = b"value",
        attempt: int | None = None,
        in_slices: bool = False,
    ) -> bool:
        """With `promises`, the value names these nodes: children of the attempt, or others.

        `in_slices`: children are a draft, and the broker makes a step after each slice of it.
        """
        driver, attempt = self.driver, attempt or self.held[name]
        own = driver.origin_of(attempt)
        ids = [driver.ids[promise] for promise in promises]
        foreign = [id for id in ids if id[:12] != own]
        refs = [int.from_bytes(id[12:], "big") if id[:12] == own else -1 - foreign.index(id) for id in ids]
        staged = driver.scheduler.staged.get(attempt)
        sources = [id for block in (staged.blocks if staged else ()) for id in block.foreign]
        known = driver.known([*foreign, *(id for id in ids if id[:12] == own), *sources])
        key = driver.key(name)
        draft = driver.scheduler.draft(staged.blocks, known) if in_slices and staged else None
        taken = False
        try:
            if draft is not None:
                driver.carry_on(draft.find_out(), draft.enter())
            taken = driver.scheduler.complete(
                self.worker, key, attempt, value, us, refs, foreign, known, (), driver.now, draft
            )
        finally:
            if draft is not None and not draft.is_carried_out:
                driver.carry_on(draft.give_up())
        self._answered(name, attempt)
        return taken

    def fail(
        self, name: str, message: str = "boom", jitter: float = 0.0, attempt: int | None = None, **how: object
    ) -> bool:
        driver, attempt = self.driver, attempt or self.held[name]
        failure = Failure("", "builtins.ValueError", message, f"Traceback: {message}", b"", 0)
        key = driver.key(name)
        taken = driver.scheduler.fail(self.worker, key, attempt, failure, driver.now, jitter, **how)  # type: ignore[arg-type]  # its options
        self._answered(name, attempt)
        return taken

    def give_back(self, name: str, why: str = "", attempt: int | None = None, deployed: str = "") -> bool:
        attempt = attempt or self.held[name]
        key = self.driver.key(name)
        taken = self.driver.scheduler.give_back(self.worker, key, attempt, why, self.driver.now, deployed)
        self._answered(name, attempt)
        return taken

    def look_up(self, name: str, cache_key: bytes, attempt: int | None = None) -> bool:
        """Report the cache key of a node that has not started."""
        attempt = attempt or self.held[name]
        taken = self.driver.scheduler.look_up(self.worker, self.driver.key(name), attempt, cache_key)
        self._answered(name, attempt)
        return taken

    def compute(self, name: str, cache_key: bytes, *promises: str, us: int = 100_000) -> bool:
        """Complete a node with a value for the cache."""
        key, attempt = self.driver.key(name), self.held[name]
        self.driver.scheduler.computed(self.worker, key, attempt, cache_key, SIGNING_KEY + name.encode())
        return self.complete(name, *promises, us=us)

    def put_off(self, name: str, why: str = "a value is away") -> bool:
        attempt = self.held[name]
        taken = self.driver.scheduler.put_off(self.worker, self.driver.key(name), attempt, why)
        self._answered(name, attempt)
        return taken

    def child_dies(self, running: Sequence[str] = (), unstarted: Sequence[str] = (), cause: str = "SIGSEGV") -> None:
        ran, waited = ([self.held.pop(name) for name in names] for names in (running, unstarted))
        self.driver.scheduler.died(self.worker, ran, waited, cause, self.driver.now)
        self.driver.step()

    def close_slot(self, index: int) -> None:
        """One of its child processes is gone for good."""
        self.held = {name: attempt for name, attempt in self.held.items() if self.slot_of[name] != index}
        self.driver.scheduler.close_slot(self.worker, index, self.driver.now)
        self.driver.step()

    def make(self, parent: str, *nodes: str, of: Function = WORK, new: str = "", attempt: int | None = None) -> bool:
        """The running attempt makes nodes: in its own instance, or in the `new` one."""
        driver, attempt = self.driver, attempt or self.held[parent]
        block = driver.run_of_attempt(attempt, driver.instance_of(parent), new, nodes, of)
        key = driver.key(parent)
        if not driver.scheduler.is_eager(self.worker, key, attempt):
            return driver.scheduler.report_children(self.worker, key, attempt, block, {})
        return driver.make(self.worker, key, attempt, block)

    def _answered(self, name: str, attempt: int) -> None:
        if self.held.get(name) == attempt:
            del self.held[name]
        self.driver.step()


class SchedulerDriver:
    def __init__(
        self, ledger: Ledger | None = None, timing: Timing | None = None, limits: Limits | None = None
    ) -> None:
        self.ledger = ledger or Ledger()
        self.now, self.wall = START, WALL
        self.timing, self.limits = timing, limits
        self.hands: dict[Worker, Hand] = {}
        self.ids: dict[str, bytes] = {}
        self.names: dict[bytes, str] = {}
        self.instances: dict[str, bytes] = {}  #: by node
        self.hooks = 0  #: nodes of failure hooks
        self.changes, self.effects = Changes(), Effects()  #: of the last step
        self.rebindings: dict[bytes, Rebinding] = {}  #: by what was signed
        self.next_tick: float | None = None
        self._attempts: dict[tuple[int, bytes], tuple[bytes, int]] = {}  # its origin in an instance, and counters used
        self.holds_still = False  #: no step follows a verb
        self._numbers = count(1)
        self._start()

    def _start(self) -> None:
        self.scheduler = Scheduler(self.ledger.open(), self.limits, self.timing)
        self.scheduler.restore(self.ledger.live(), self.now, self.wall - self.now)
        self.step()

    # --- time and steps -------------------------------------------------------------------------------

    def step(self, commit: bool = True) -> None:
        """Do the work of the broker between two waits. Without `commit` the changes are lost, as in a crash."""
        if self.holds_still:
            return
        self.scheduler.at(self.now, self.wall - self.now)
        self.next_tick = self.scheduler.tick(self.now)
        self.changes, self.effects = self.scheduler.drain()
        if commit:
            self.ledger.commit(self.changes)
            self._name_hooks(self.changes)
            self._tell(self.effects)

    def _name_hooks(self, changes: Changes) -> None:
        """Name the nodes of failure hooks, which the scheduler has made."""
        for block in changes.blocks:
            if block.first >= FIRST_HOOK:
                self.hooks += 1
                id = block.origin + block.first.to_bytes(4, "big")
                self._name(f"hook {self.hooks}", id, self.ledger.instances[block.instance].id)

    def told(self, name: str) -> str:
        """Return the message of the failure that a hook's node was made for."""
        _, failure = hooked_arguments(self.ledger.nodes[self.key(name)].arguments)
        return str(json.loads(failure)["message"])

    def _tell(self, effects: Effects) -> None:
        for slot, node, attempt in effects.granted:
            hand, name = self.hands[slot.worker], self.name(node)
            hand.held[name], hand.slot_of[name] = attempt, slot.index
        for taken in effects.take_back:
            hand = self.hands[taken.slot.worker]
            names = {attempt: name for name, attempt in hand.held.items()}
            hand.asked_back += [names[attempt] for attempt in taken.attempts]
        for worker, attempt in effects.refused:
            if worker in self.hands:  # else it is one of an earlier broker's, or gone
                hand = self.hands[worker]
                hand.refused.append(attempt)
                hand.held = {name: other for name, other in hand.held.items() if other != attempt}
        for worker, attempt in effects.cancelled:
            if worker in self.hands:
                self.hands[worker].cancelled.append(attempt)
        for worker in effects.done:
            self.hands[worker].may_leave = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let everything in this context happen within one step of the broker."""
        self.holds_still = True
        yield
        self.holds_still = False
        self.step()

    def wait(self, seconds: float) -> None:
        """Let time pass, ticking whenever the scheduler asks for it."""
        end = self.now + seconds
        while self.next_tick is not None and self.next_tick < end:
            self.pass_time(max(0.0, self.next_tick - self.now))
            self.step()
        self.pass_time(end - self.now)
        self.step()

    def pass_time(self, seconds: float) -> None:
        """Without a tick: the broker stands still."""
        self.now += seconds
        self.wall += seconds

    def crash(self, downtime: float = 0.0) -> None:
        """Let the broker die and another start on the same ledger; changes that were not drained are lost."""
        self.hands.clear()
        self.now += 5_000.0  # another machine's monotonic clock
        self.wall += downtime
        self._start()

    # --- making ---------------------------------------------------------------------------------------

    def spawn(
        self,
        *nodes: str,
        of: Function = WORK,
        where: Mapping[str, Function] | None = None,
        priority: int = 0,
        delays: Mapping[str, NodeDelay] | None = None,
        hook: Function | None = None,
        fair: str = "",
        announced: Mapping[str, bytes] | None = None,
        signed_by: bytes = SIGNING_KEY,
    ) -> bytes:
        """A new instance; `where` has the functions of nodes that are not `of`, `delays` the delays of single nodes.

        `announced` has cache keys that their caller knows, and has signed with the key `signed_by`.

        The nodes of its failure hook are called "hook 1", "hook 2" and so on, in the order in which they are made.
        """
        instance = self.fresh(16)
        block = self.run(instance, self.fresh(12), nodes, of, where or {})
        names = [text.partition("<-")[0].partition("@")[0].strip() for text in nodes]
        block.delays = {names.index(name): delay for name, delay in (delays or {}).items()}
        block.cache_keys = {
            names.index(name): AnnouncedKey(key, signed_by + bytes(32)) for name, key in (announced or {}).items()
        }
        block.creates = ("work:Work", block.origin + bytes(4))
        called = Hook(packed_function(hook), b"\1\1signed") if hook is not None else None
        is_plain = not (priority or called or fair)
        block.start = None if is_plain else Start(priority=priority, hook=called, fair=fair)
        self.submit(block)
        return instance

    def add(self, instance: bytes, *nodes: str, of: Function = WORK) -> None:
        """Nodes for an instance that is there."""
        self.submit(self.run(instance, self.fresh(12), nodes, of))

    def submit(self, *blocks: NewNodes) -> None:
        stored = [self.ledger.stored(block.instance) for block in blocks if block.creates is None]
        known = self.reach([id for block in blocks for id in block.foreign])
        self.scheduler.submit(blocks, known, [instance for instance in stored if instance is not None])
        self.step()

    def submit_in_slices(self, *blocks: NewNodes) -> Generator[bool]:
        """As the broker makes what is large: yield whether it is made, after each slice. Closed before, it is not."""
        scheduler = self.scheduler
        added_to = [block.instance for block in blocks if block.creates is None]
        for id in added_to:
            scheduler.pin_instance(id, self.ledger.stored(id))
        draft = scheduler.draft(blocks, self.known([id for block in blocks for id in block.foreign]))
        try:
            for _ in chain(draft.find_out(), draft.enter()):
                yield False
            scheduler.at(self.now, self.wall - self.now)
            draft.carry_out(0)
        finally:
            if scheduler is self.scheduler:
                for id in added_to:
                    scheduler.unpin_instance(id)
                if not draft.is_carried_out:
                    self.carry_on(draft.give_up())
        self.step()
        yield True

    def carry_on(self, *slices: Iterable[int]) -> None:
        """A step after each slice."""
        for _ in chain(*slices):
            self.step()

    def settle(self) -> None:
        """Steps until nothing is put off."""
        while self.scheduler.graph.unnotified or self.scheduler.graph.starting:
            self.step()

    def make(self, worker: Worker, key: int, attempt: int, block: NewNodes) -> bool:
        """As the broker does for an eager function: what the run names is read back first."""
        stored = self.ledger.stored(block.instance) if block.creates is None else None
        own = [block.origin + ref.to_bytes(4, "big") for refs in block.sources or () for ref in refs if ref >= 0]
        known = self.reach([*block.foreign, *own])
        made = self.scheduler.report_children(worker, key, attempt, block, known, [stored] if stored else ())
        self.step()
        return made

    def run(
        self,
        instance: bytes,
        origin: bytes,
        nodes: Sequence[str],
        of: Function = WORK,
        where: Mapping[str, Function] | None = None,
        first: int = 0,
    ) -> NewNodes:
        foreign: list[bytes] = []
        sources: list[Sequence[int]] = []
        tolerant: list[Sequence[int]] = []
        functions: list[Function] = []
        keys: list[str] = []
        for counter, text in enumerate(nodes, first):
            text, _, key = text.partition("@")
            name, _, rest = text.partition("<-")
            name, after = name.strip(), rest.split()
            functions.append((where or {}).get(name, of))
            keys.append(key)
            sources.append([self._reference(source.rstrip("?"), origin, foreign) for source in after])
            tolerant.append([place for place, source in enumerate(after) if source.endswith("?")])
            self._name(name, origin + counter.to_bytes(4, "big"), instance)
        arguments = [f"arguments of {text}".encode() for text in nodes]
        waiting = [place for place, its in enumerate(functions) if its.name.startswith(WAITS)]
        for place in waiting:
            sources[place], tolerant[place] = [], []
        different, named = list(dict.fromkeys(functions)), list(dict.fromkeys(filter(None, keys)))
        return NewNodes(
            instance, origin, first, different, list(map(different.index, functions)), arguments, sources, foreign,
            tolerant=tolerant, keys=named, key=[1 + named.index(key) if key else 0 for key in keys] if named else (),
            waits={place: waits_of(functions[place], arguments[place]) for place in waiting},
        )  # fmt: skip

    def send(self, instance: bytes, name: str, key: str = "") -> Sent | None:
        """Send a signal to an instance; None: it has ended, or refuses it."""
        found = self.scheduler.instance(instance)
        if found is None:
            return None
        self.scheduler.at(self.now, self.wall - self.now)
        try:
            sent = self.scheduler.send_signal(found, NewSignal(name, b"1", b"digest", key))
        except FailedPrecondition:
            return None
        self.step()
        return sent

    def cancel(self, *names: str) -> int:
        nodes = [node for name in names if (node := self.scheduler.graph.find(self.ids[name])) is not None]
        cancelled = self.scheduler.cancel(nodes, self.now)
        self.step()
        return cancelled

    def retry(self, *names: str) -> tuple[int, int]:
        """How many nodes run again and how many wait again."""
        return self.revive(*names)[:2]

    def revive(self, *names: str, downstream: bool = False, new_code: bool = False) -> Retried:
        """As the broker does: what failed is looked up, a node that failed because of another stands for that one."""
        self.settle()
        outcomes = [self.outcome(name) for name in names if not self.is_unfinished(name)]
        root_causes = {outcome.root_cause for outcome in outcomes if outcome.state == State.FAILED}
        root_causes -= self.scheduler.graph.nodes.keys()
        if downstream:
            used = {self.key(name) for name in names} & self.ledger.used_failures
            failed = self.ledger.downstream(root_causes, used - self.scheduler.graph.nodes.keys())
        else:
            failed = self.ledger.failed(root_causes)
        unsettled = root_causes | {row.key for row in failed.nodes if row.state == State.COMPLETED}
        if any(map(self.ledger.is_unsettled, unsettled)):
            raise FailedPrecondition("the run that made one of them has not ended, or was aborted")
        assert self.scheduler.is_within_reach(failed)
        rebindings = self._for_deployed(failed) if new_code else ()
        revived = self.scheduler.retry(failed, self.now, downstream, () if new_code else None, rebindings)
        self.step()
        return revived

    def _for_deployed(self, failed: Failed) -> list[Rebinding]:
        """Return the rebindings of a person who wants new code for all functions of each instance."""
        graph = self.scheduler.graph
        made = [(row.instance, self.ledger.functions[self.ledger.nodes[row.key].function]) for row in failed.nodes]
        wanted = {(self.ledger.instances[key].id, function.name, function.code) for key, function in made}
        wanted |= {(node.instance.id, node.queue.function.name, code_of(graph, node)) for node in graph.nodes.values()}
        return [self.signed(name, {code}, instance=instance) for instance, name, code in sorted(wanted)]

    def signed(
        self, name: str, made_with: Collection[str], hash: str = "", instance: bytes = b"", key: str = KEY
    ) -> Rebinding:
        """Return a rebinding that a holder of a key has signed."""
        signed = f"{next(self._numbers)}".encode()
        rebinding = self.rebindings[signed] = Rebinding(name, frozenset(made_with), hash, instance, key, signed)
        return rebinding

    def rebind(
        self, name: str, hash: str = "", *made_with: str, instance: bytes = b"", key: str = KEY
    ) -> tuple[int, str]:
        """As the command does: it looks, and has signed what there is. Returns how many nodes, and the code's hash."""
        asked = ReboundFunction(name, hash, made_with, instance)
        found = rebindable(self.scheduler.claims, asked)
        rebound = self.scheduler.rebind(asked, self.signed(name, found.made_with, found.hash, instance, key))
        self.step()
        return len(rebound.nodes), rebound.hash

    def is_unfinished(self, name: str) -> bool:
        return self.scheduler.graph.find(self.ids[name]) is not None

    def is_ended(self, name: str, state: State | None = None) -> bool:
        """Whether it has ended, or ended so."""
        return not self.is_unfinished(name) and state in (None, self.state(name))

    def _reference(self, source: str, origin: bytes, foreign: list[bytes]) -> int:
        id = self.ids[source]
        if id[:12] == origin:
            return int.from_bytes(id[12:], "big")
        if id not in foreign:
            foreign.append(id)
        return -1 - foreign.index(id)

    def _name(self, name: str, id: bytes, instance: bytes) -> None:
        self.ids[name], self.names[id], self.instances[name] = id, name, instance

    def run_of_attempt(self, attempt: int, parents: bytes, new: str, nodes: Sequence[str], of: Function) -> NewNodes:
        instance = new.encode().ljust(16, b"-") if new else parents
        known = self._attempts.get((attempt, instance))
        origin, first = known or (self.fresh(12), 0)
        self._attempts[attempt, instance] = origin, first + len(nodes)
        block = self.run(instance, origin, nodes, of, first=first)
        if new and not known:
            block.creates = (f"work:{new}", b"")
        return block

    def origin_of(self, attempt: int) -> bytes:
        """Under which the attempt has made nodes of its own instance."""
        own = [
            origin
            for (other, instance), (origin, _) in self._attempts.items()
            if other == attempt and not instance.endswith(b"-")
        ]
        return own[0] if own else b""

    def reach(self, ids: Sequence[bytes]) -> dict[bytes, Node]:
        """Return nodes that have ended, which the broker reads back before it asks the scheduler."""
        keys = {id: self.ledger.key_of(id) for id in ids if self.scheduler.graph.find(id) is None and self._is_made(id)}
        keys = {id: key for id, key in keys.items() if self.ledger.has_ended(key)}
        nodes = ended_nodes(self.scheduler.graph, self.ledger.ended(keys.values()))
        return {id: nodes[key] for id, key in keys.items()}

    def known(self, ids: Sequence[bytes]) -> dict[bytes, Node]:
        """Return ended nodes and live ones, which may have ended by the time that they are needed."""
        live = {id: node for id in ids if (node := self.scheduler.graph.find(id)) is not None}
        return live | self.reach(ids)

    def _is_made(self, id: bytes) -> bool:
        try:
            return bool(self.ledger.key_of(id))
        except KeyError:
            return False

    def fresh(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "little")

    # --- workers --------------------------------------------------------------------------------------

    def worker(self, name: str = "worker", slots: int = 1, **rules: object) -> Hand:
        rules = {key: frozenset(value) if isinstance(value, set) else value for key, value in rules.items()}
        rules = {"key_ids": frozenset({KEY}), "fuses_joins": True, **rules}
        return Hand(self, WorkerInfo(name.encode().ljust(16, b"."), name, slots, **rules))  # type: ignore[arg-type]  # its fields

    # --- looking --------------------------------------------------------------------------------------

    def key(self, name: str) -> int:
        node = self.scheduler.graph.find(self.ids[name])
        return node.key if node is not None else self.ledger.key_of(self.ids[name])

    def name(self, node: Node) -> str:
        assert node.block is not None
        return self.names[node.block.id_of(node.key)]

    def instance_of(self, name: str) -> bytes:
        return self.instances[name]

    def state(self, name: str) -> State:
        node = self.scheduler.graph.find(self.ids[name])
        return node.state if node is not None else State(self.outcome(name).state)

    def states(self, *names: str) -> list[str]:
        return [self.state(name).name for name in names]

    def is_visible(self, name: str) -> bool:
        """Whether anyone could learn of the node: the scheduler or the ledger has it."""
        return self.scheduler.graph.find(self.ids[name]) is not None or self._is_made(self.ids[name])

    def outcome(self, name: str) -> OutcomeRow:
        return self.ledger.outcomes[self.ledger.key_of(self.ids[name])]

    def failure(self, name: str) -> Failure:
        """As a caller would read it: the node's own, or the root cause's."""
        outcome = self.outcome(name)
        packed = self.ledger.outcomes[outcome.root_cause or outcome.key].failure
        assert packed is not None
        return Failure.unpacked(packed)

    def root_cause(self, name: str) -> str:
        key = self.outcome(name).root_cause
        return next(name for id, name in self.names.items() if self._is_made(id) and self.ledger.key_of(id) == key)

    def holders(self) -> dict[str, str]:
        """Node -> name of the worker that holds it, as the scheduler sees it."""
        claimed = self.scheduler.claims.claimed.values()
        return {self.name(node): node.slot.worker.info.name for node in claimed if node.slot is not None}

    def in_memory(self) -> dict[str, int]:
        """Return the sizes of the unfinished work in the scheduler, by kind; empty when all has ended."""
        scheduler, graph = self.scheduler, self.scheduler.graph
        kinds: dict[str, Sized] = {
            "nodes": graph.nodes,
            "instances": graph.instances,
            "origins": graph.origins,
            "active queues": graph.active,
            "delayed queues": graph.delayed,
            "claims": scheduler.claims.claimed,
            "staged": scheduler.staged,
            "keyed": graph.keyed,
            "eager attempts": scheduler.eager_attempts.open,
            "forsaken": scheduler.eager_attempts.aborted,
            "reserved": graph.reserved,
            "drafted": graph.drafted,
            "starting": graph.starting,
            "untold": graph.unnotified,
            "pauses": graph.pauses,
            "expiries": graph.expiries,
            "expires at": graph.expires_at,
        }
        return {kind: len(held) for kind, held in kinds.items() if held}

    def everything(self) -> bytes:
        """All that the scheduler is, but for what it has to say about refused attempts."""
        effects = self.scheduler.graph.effects
        refused, effects.refused = effects.refused, []
        try:
            return pickle.dumps(self.scheduler)
        finally:
            effects.refused = refused

    def finish(self, *hands: Hand, us: int = 100_000, most: int = 1_000) -> list[str]:
        """Let workers complete all nodes that they are given, and return the nodes in the order they ran.

        Unless `us` says otherwise they are so slow that no worker is given more than it runs.
        """
        ran: list[str] = []
        for _ in range(most):
            held = [(hand, name) for hand in hands for name in hand.held]
            if not held:
                return ran
            hand, name = held[0]
            ran.append(name)
            hand.complete(name, us=us)
        raise AssertionError("it goes on forever")
