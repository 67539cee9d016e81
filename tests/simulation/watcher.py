"""Watches one life from outside: what is on disk, what is told to whom, and whether it may be. Each check has a name.

It knows the promises of the design, not how the scheduler keeps them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import TO_RUN
from dagorama.errors import TamperedValue, UnverifiedValue
from dagorama.values import rebind
from dagorama.values.envelope import FOUND_HEAD, found_parts
from dagorama.values.keys import SigningKey
from dagorama.values.signing import Keyring
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.domain import ENDED, Failure, State, WireProtocol, unpack_keys
from dagorama_broker.model.rows import Changes, NodeRow, OutcomeRow, ProgressRow, RetriedRow, TurnRow
from dagorama_broker.scheduler import Effects, Node, Worker
from dagorama_testing.loop import START
from tests.support import invariants

from .loop import WALL, SimulatedLoop
from .programs import FOUND, FUNCTIONS, SIGNING_KEY, Computation, Plan, cache_key, cache_proof, name_in
from .rates import RateWatch, is_limited
from .store import Disk

if TYPE_CHECKING:
    from .network import Link
    from .worker import Given, SimulatedWorker

#: Seconds after which a connected worker has heard of what was cancelled.
TOLD = 1.0
#: Seconds after a disturbance for which a worker may count as silent: a lease, and the time to notice.
SILENCE = 4.5
#: Steps between two looks at all of the scheduler's own books.
BOOKS_EVERY = 8
BOOKS = (
    invariants.states_are_counted,
    invariants.queues_have_what_is_queued,
    invariants.claims_are_held_once,
    invariants.nobody_waits_for_what_has_ended,
    invariants.readers_are_counted,
    invariants.pauses_have_their_end,
    invariants.slots_are_where_they_belong,
)


#: The signing key of the person, which workers hold.
RING = Keyring([SigningKey(b"a person's".ljust(32))])
#: One that nobody holds.
STRANGER = Keyring([SigningKey(b"a stranger's".ljust(32))])


class Violation(AssertionError):
    """A promise was broken; `check` is its name."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


@dataclass(slots=True)
class Value:
    """A value as the simulated user code writes it."""

    name: str
    attempt: int
    worker: str
    own: str

    def packed(self) -> bytes:
        return b"\1\0" + "|".join((self.name, str(self.attempt), self.worker, self.own)).encode()

    @classmethod
    def of(cls, envelope: bytes) -> Value:
        if envelope[:2] == FOUND_HEAD:  # the broker has put it together of what the caller and a worker have signed
            return cls(found_parts(envelope).announcement[8:].rstrip(b"\0").decode(), 0, "", FOUND)
        name, attempt, worker, own = envelope[2:].decode().split("|")
        return cls(name, int(attempt), worker, own)


class Watcher:
    def __init__(self, loop: SimulatedLoop, disk: Disk, plan: Plan) -> None:
        self.loop, self.disk, self.plan = loop, disk, plan
        self.computation = Computation(plan)
        self.chance = random.Random(plan.seed)
        self.violation: Violation | None = None
        self.trace: list[tuple[Any, ...]] = []
        self.calm = False  #: nothing is broken any more
        self.wall_jumped = False
        self.names: dict[int, str] = {}  #: on disk, by key
        self.ids: dict[str, bytes] = {}  #: on disk
        self.known: dict[str, bytes] = {}  #: IDs of nodes that were submitted, or are on disk
        self.given_names: dict[int, str] = {}  #: of nodes that a worker has received, on disk or not, by key
        self.answered: set[str] = set()  #: nodes of which a run has ended
        self.keys: dict[str, int] = {}
        self.parents: dict[bytes, tuple[int, int]] = {}  #: by origin: node and attempt that made the nodes
        self.attempts: dict[int, tuple[int, str]] = {}  #: node and worker of each attempt that was ever granted
        self.latest: dict[int, int] = {}  #: by key: the last attempt that the present broker granted
        self.seen: dict[int, OutcomeRow] = {}
        self.not_before: dict[str, float] = {}  #: by name: when it may start
        self.failed_at: dict[tuple[str, int], float] = {}  #: by name and run: when a worker first saw it fail
        self.deaths: Counter[str] = Counter()  #: of child processes while they ran it
        self.links: dict[str, Link] = {}  #: of workers, by name
        self.stepped_at = 0.0
        self.there: set[bytes] = set()  #: workers that the broker had when it stepped last
        self.runs: dict[str, int] = {}  #: that failed, by name
        self.awaited: set[bytes] = set()  #: workers on record when the present broker began
        self.awaited_until = 0.0
        self.cancelled_at: dict[int, float] = {}
        self.cancelling: set[str] = set()  #: instances of which something was to be cancelled
        self.cancelling_all: set[str] = set()  #: prefixes of instances that were to be cancelled as a whole
        self.submitted_at: dict[str, float] = {}
        self.instances: list[bytes] = []  #: that were to be made
        self._rows: dict[int, NodeRow] = {}  # of nodes that no run names yet
        self.signed: set[bytes] = set()  #: rebindings of the person
        self.retried: set[str] = set()  #: what went on, having failed
        self.had_turn: set[int] = set()  #: keys of instances that have ended: they get no other turn if they go on
        self.must_find: set[str] = set()  #: nodes whose cached value was on disk when their key was reported
        self.forgets = False  #: instances are removed, and with them cached values
        self.disturbed_at = 0.0  #: when something was done to the broker last
        self.serving_since = 0.0  #: when the present broker began
        self.steps = self.commits = self.starts = self.restarts = 0
        self.rates = RateWatch(FUNCTIONS)
        disk.committed = self.committed

    # --- saying what is wrong -------------------------------------------------------------------------

    def note(self, *what: Any) -> None:
        self.trace.append((round(self.loop.now, 6), *what))

    def require(self, holds: bool, check: str, text: str) -> None:
        if not holds:
            self.break_off(check, text)

    def break_off(self, check: str, text: str) -> None:
        if self.violation is None:
            self.violation = Violation(check, f"at {self.loop.now:.4f}: {text}")
            self.note("VIOLATION", check, text)

    # --- the broker -----------------------------------------------------------------------------------

    def watch(self, broker: Broker) -> None:
        """A new broker, on the same disk."""
        self.latest.clear()
        self.stepped_at = 0.0
        self.awaited = set(self.disk.tables.workers)
        instances = self.disk.tables.instances
        self.had_turn = {key for key in self.had_turn if key in instances and instances[key].ended is not None}
        self.awaited_until = self.loop.now + broker.scheduler.timing.reconnect_wait - 1e-6
        drain = broker.scheduler.drain

        def drained() -> tuple[Changes, Effects]:
            changes, effects = drain()
            try:
                self._stepped(broker, changes, effects)
            except AssertionError as error:
                self.break_off("the scheduler's books", f"{error!r}"[:300])
            return changes, effects

        broker.scheduler.drain = drained  # type: ignore[method-assign]

    def _stepped(self, broker: Broker, changes: Changes, effects: Effects) -> None:
        """Decided, not yet on disk."""
        self.steps += 1
        for outcome in changes.outcomes:
            if outcome.state in (State.COMPLETED, State.RESOLVING):
                latest = self.latest.get(outcome.key, outcome.attempt)
                self.require(
                    latest == outcome.attempt,
                    "fencing",
                    f"node {outcome.key}: a result under attempt"
                    f" {outcome.attempt} is taken, but {latest} was granted since",
                )
        scheduler = broker.scheduler
        self._check_standstill(broker)
        self._check_silence(broker)
        self.awaited.difference_update(id for id, _ in changes.workers_joined)
        if effects.granted:
            held_back = not self.awaited or self.loop.now >= self.awaited_until
            self.require(held_back, "nothing before they are back", f"{len(self.awaited)} workers may still return")
        for slot, node, attempt in effects.granted:
            self._granted(broker, slot.worker, node, attempt)
        wrong = self.rates.look(scheduler, self.loop.now)
        self.require(not wrong, "rates", wrong)
        if scheduler.dispatch_paused_until is None:
            self._check_order(broker, effects)
            self._check_idle(broker)
        if any(node.queue.caches for _, node, _ in effects.granted):
            self._check_flights(broker)
        if self.steps % BOOKS_EVERY == 0:
            for book in BOOKS:
                book(scheduler)

    def _granted(self, broker: Broker, worker: Worker, node: Node, attempt: int) -> None:
        name = worker.info.name
        self.note("grant", node.key, attempt, name)
        self.require(attempt not in self.attempts, "attempts are never reused", f"attempt {attempt} was given before")
        before = self.latest.get(node.key)
        self.require(
            before is None or before not in broker.scheduler.claims.claimed,
            "granted once at a time",
            f"node {node.key} is granted while attempt {before} stands",
        )
        paused = broker.scheduler.graph.key_pauses.held(node.queue)
        self.require(not paused, "no paused key", f"node {node.key} is granted although {paused} is paused")
        earliest = self._earliest(node)
        self.attempts[attempt] = node.key, name
        self.latest[node.key] = attempt
        self.require(
            self.wall_jumped or self.loop.now >= earliest - 1e-6,
            "not before its time",
            f"node {node.key} is granted {earliest - self.loop.now:.3f} s too early",
        )
        most = node.queue.function.max_concurrency
        if most:
            queue = node.queue
            running = sum(o.queue is queue and o.state is State.CLAIMED for o in broker.scheduler.graph.nodes.values())
            self.require(running <= most, "max_concurrency", f"{running} nodes of {queue.function.name} run at once")

    def _earliest(self, node: Node) -> float:
        """When it may be granted: a delay of its call begins when its sources have ended."""
        name = self.names.get(node.key, "")
        earliest, program = self.not_before.get(name, 0.0), self.plan.programs.get(name)
        if program is None or not program.later or any(key == node.key for key, _ in self.attempts.values()):
            return earliest
        ends = [row.ended for source in program.sources if (row := self.seen.get(self.keys[source])) is not None]
        return max(earliest, max(ends, default=0.0) - WALL + START + program.later if ends else 0.0)

    def _check_silence(self, broker: Broker) -> None:
        """Nobody counts as there who has not been heard for long."""
        for worker in broker.scheduler.claims.workers.values():
            heard_at = max(self.links[worker.info.name].heard_at, self.disturbed_at)
            self.require(self.loop.now < heard_at + SILENCE, "who is silent is given up", worker.info.name)

    def _check_standstill(self, broker: Broker) -> None:
        """Where the broker itself stood still, no worker is given up for its silence."""
        before, self.stepped_at = self.stepped_at, self.loop.now
        there, self.there = self.there, set(broker.scheduler.claims.workers)
        if before and self.loop.now - before >= broker.scheduler.timing.lease / 2:
            ids = {worker.info.id for worker in broker.sessions}
            lost = [id.hex() for id in there & ids - self.there]
            self.require(not lost, "a standstill is forgiven", f"{lost}")
            self.disturbed_at = max(self.disturbed_at, self.loop.now)  # a slow commit is a standstill, too

    def _check_order(self, broker: Broker, effects: Effects) -> None:
        """No older node is left for a worker that was given a younger one."""
        if not effects.granted:
            return
        queued = [node for node in broker.scheduler.graph.nodes.values() if node.state is State.QUEUED]
        for slot, given, _ in effects.granted:
            if given.pending:
                continue  # it goes along with the one source that it waits for
            place = self._place(given)
            for node in queued:
                older = self._place(node) < place and _may_run(slot.worker, node) and _has_room(broker, node)
                self.require(not older, "oldest first", f"node {node.key} is left behind node {given.key}")

    def _check_idle(self, broker: Broker) -> None:
        """Nobody is idle who could run something."""
        graph = broker.scheduler.graph
        if not graph.counts[State.QUEUED]:
            return
        idle = [w for w in broker.scheduler.claims.workers.values() if w.pool and any(not s.held for s in w.slots)]
        for node in graph.nodes.values() if idle else ():
            if node.state is State.QUEUED and _has_room(broker, node):
                wrong = next((worker for worker in idle if _may_run(worker, node)), None)
                self.require(wrong is None, "nobody is idle for nothing", f"node {node.key} is queued")

    def _place(self, node: Node) -> tuple[int, int, int, int]:
        """By the turn that is on disk, if it is there yet and not over."""
        key, row = node.instance.key, self.disk.tables.marks.turns.get(node.instance.key)
        turn = node.instance.turn if row is None or key in self.had_turn else row.turn
        return turn, key, -FUNCTIONS[node.queue.function.name].priority, node.key

    def _check_turns(self, made: Sequence[TurnRow]) -> None:
        """No two unfinished instances of a key have the same turn."""
        tables = self.disk.tables
        turns = Counter(
            (row.fair, row.turn)
            for key, row in tables.marks.turns.items()
            if tables.instances[key].ended is None and key not in self.had_turn
        )
        wrong = next((row for row in made if turns[row.fair, row.turn] > 1), None)
        self.require(wrong is None, "each its turn", f"{wrong}")

    # --- the disk -------------------------------------------------------------------------------------

    def committed(self, changes: Changes) -> None:
        """On disk, not yet told."""
        self.commits += 1
        self._check_turns(changes.turns)
        self.had_turn.update(end.key for end in changes.instance_ends if end.ended is not None)
        outcomes = {row.key: row for row in changes.outcomes}
        for revived in changes.retried:
            self._goes_on(revived)
        for run in changes.blocks:
            parent = self.parents.get(run.origin)
            if parent is not None:
                self._check_parent(run.first_key, parent, outcomes)
        for row in self._decided(changes):
            self._made(row.key, name_in(row.arguments))
        for outcome in changes.outcomes:
            self._ended(outcome)
        for progress in changes.progress:
            self._pauses(self.names[progress.key], progress)
        for resolved in changes.resolved:
            self.require(self.seen[resolved.key].state == State.RESOLVING, "one result", f"node {resolved.key}")
            self.note("resolved", resolved.key, int(resolved.state))
            self.seen[resolved.key] = self.seen[resolved.key]._replace(state=resolved.state)
            if resolved.state == State.CANCELLED:
                self.cancelled_at[resolved.key] = self.loop.now

    def _decided(self, changes: Changes) -> list[NodeRow]:
        """Nodes that are made now: rows of those of a large call come before, with commits of others."""
        self._rows.update((row.key, row) for row in changes.nodes)
        for given_up in changes.given_up:
            for key in range(given_up.first_key, given_up.last_key + 1):
                self._rows.pop(key, None)
        keys = [key for run in changes.blocks for key in range(run.first_key, run.first_key + run.size)]
        return [self._rows.pop(key) for key in keys]

    def _goes_on(self, row: RetriedRow) -> None:
        """A person had it retried: it has failed, and all its runs are before it."""
        name, outcome = self.names[row.key], self.seen[row.key]
        self.note("goes on", row.key, row.state)
        self.require(outcome.state == State.FAILED, "what failed is retried", f"{name} goes on and had not failed")
        self.retried.add(name)
        self.runs.pop(name, None)
        self.failed_at = {place: when for place, when in self.failed_at.items() if place[0] != name}
        if row.state == State.RESOLVING:
            self.seen[row.key] = outcome._replace(state=row.state)
        else:
            del self.seen[row.key]

    def _made(self, key: int, name: str) -> None:
        self.note("made", key, name)
        self.require(name not in self.keys, "made once", f"node {name} is made twice")
        self.names[key], self.keys[name] = name, key
        self.ids[name] = self.known[name] = self.disk.ids([key])[key]
        program = self.plan.programs[name]
        delay = max(FUNCTIONS[program.function].delay, program.later)
        if delay or program.at:
            at = START + program.at if program.at else 0.0
            self.not_before[name] = max(self.submitted_at.get(name, 0.0) + delay, at)

    def _pauses(self, name: str, row: ProgressRow) -> None:
        """A run is on record as failed: the next one is after the pause."""
        policy = FUNCTIONS[self.plan.programs[name].function].retry
        self.require(
            row.failed_attempts >= self.runs.get(name, 0),
            "runs are counted",
            f"{name} has failed {row.failed_attempts} times only",
        )
        self.require(row.crashes <= self.deaths[name], "deaths are counted", f"{name} has died {row.crashes} times?")
        self.runs[name] = row.failed_attempts
        granted = sum(key == row.key for key, _ in self.attempts.values())
        self.require(
            0 <= row.worker_losses <= granted,
            "losses are taken back",
            f"{name}: {granted} grants, {row.worker_losses} losses",
        )
        failed_at = self.failed_at.pop((name, row.failed_attempts), None)
        if failed_at is not None and row.failed_attempts < policy.max_attempts:
            self.not_before[name] = failed_at + policy.interval * policy.base ** (row.failed_attempts - 1)

    def _check_parent(self, key: int, parent: tuple[int, int], outcomes: dict[int, OutcomeRow]) -> None:
        node, attempt = parent
        outcome = outcomes.get(node) or self.disk.outcome(node)
        self.require(
            outcome is not None and outcome.attempt == attempt,
            "children with their parent",
            f"node {key} is visible, and its parent {node} has no result of attempt {attempt}",
        )

    def _ended(self, row: OutcomeRow) -> None:
        self.note("ended", row.key, int(row.state), row.attempt)
        self.require(row.key not in self.seen, "one result", f"node {row.key} has a second result")
        self.seen[row.key] = row
        if row.state == State.CANCELLED:
            self.cancelled_at[row.key] = self.loop.now
        if row.value is None:
            return
        value, name = Value.of(row.value), self.names[row.key]
        program = self.plan.programs[name]
        for source in program.sources:
            other = self.seen.get(self.keys[source])
            well = other is not None and (other.state == State.COMPLETED or source in program.tolerates)
            self.require(well, "failures spread", f"{name} has a value, and its source {source} has not")
        self.require(value.name == name, "the right value", f"{name} has a value of {value.name}")
        self.require(value.attempt == row.attempt, "fencing", f"{name}: the value is of attempt {value.attempt}")
        if row.value[:2] == FOUND_HEAD:
            self._check_found(row, name, program.cache)
        else:
            granted = self.attempts.get(value.attempt)
            self.require(
                granted == (row.key, value.worker), "fencing", f"{name}: {value.worker} has not been granted it"
            )
        if value.own == FOUND:
            named = [self.plan.programs[other].cache for other in self.refs_of(row.key)]
            self.require(
                named == [program.cache], "the right cached value", f"{name} names nodes with the keys {named}"
            )
            return
        right = self.is_to_be_cancelled(name) or value.own == self.computation.run(name).value
        self.require(right, "the right value", f"{name} was computed wrongly")

    def _check_found(self, row: OutcomeRow, name: str, cache: str) -> None:
        """A node has completed without a worker: its caller has signed the cache key, and a worker the value of it."""
        found, named = found_parts(row.value or b""), [self.ids[other] for other in self.refs_of(row.key)]
        signed = cache_key(cache), cache_proof(cache), self.instance_of(name)
        right = (found.key, found.proof, found.instance) == signed and named == [found.other]
        right = right and found.announcement.startswith(SIGNING_KEY)
        self.require(right, "the right cached value", f"{name} has what was not signed for it")

    def is_to_be_cancelled(self, name: str) -> bool:
        """Somebody has asked, so that it may be cancelled, and have others come to something else."""
        return name.split("/")[0] in self.cancelling

    @property
    def unfinished(self) -> list[str]:
        """Nodes on disk that have not ended."""
        return [name for name, key in self.keys.items() if not self.has_ended(key)]

    def instance_of(self, name: str) -> bytes:
        """The ID of the instance of a node on disk."""
        return self.disk.tables.instances[self.disk.tables.nodes[self.keys[name]].instance].row.id

    def has_ended(self, key: int) -> bool:
        row = self.seen.get(key)
        return row is not None and State(row.state) in ENDED

    # --- what others are told -------------------------------------------------------------------------

    def acknowledged_submission(self, names: list[str]) -> None:
        for name in names:
            self.require(name in self.keys, "acknowledged is durable", f"node {name} is acknowledged, not on disk")

    def acknowledged_report(self, key: int, attempt: int, worker: str) -> None:
        outcome, progress = self.seen.get(key), self.disk.tables.progress.get(key)
        durable = outcome is not None or (progress is not None and progress.attempt >= attempt)
        self.require(durable, "acknowledged is durable", f"{worker}: node {key}, attempt {attempt}, is not on disk")

    def acknowledged_cancel(self, instance: bytes, names: list[str], count: int) -> None:
        self.note("cancelled", instance.hex(), count)
        for name in names:
            if name not in self.retried:
                has_ended = self.has_ended(self.keys[name])
                self.require(has_ended, "cancelled is durable", f"{name} has not ended")

    def told_end(self, name: str, state: int, failure: str) -> None:
        """A client hears how a node ended."""
        row = self.seen.get(self.keys.get(name, 0))
        is_so = (row is not None and row.state == state) or name in self.retried
        self.require(is_so, "told is durable", f"{name} is told to be {state}")
        if state == State.FAILED:
            self._check_failure(name, failure)

    def told_value(self, envelope: bytes, id: bytes) -> str:
        value = Value.of(envelope)
        self.require(self.ids.get(value.name) == id, "the right value", f"the value of {value.name} under another ID")
        row = self.seen.get(self.keys[value.name])
        self.require(row is not None and row.value == envelope, "told is durable", f"{value.name}: not what is on disk")
        return value.name

    def acknowledged_rebinding(self, signed: pb.SignedRebinding, count: int) -> None:
        """Of so many nodes at least it is on record."""
        self.note("rebound", count)
        rebinds = self.disk.tables.rebinds
        ids = {row.id for row in rebinds.rebindings.values() if row.signed == signed.SerializeToString()}
        on_disk = sum(row.rebinding in ids for row in rebinds.rebound.values())
        self.require(on_disk >= count, "acknowledged is durable", f"{count} nodes were rebound, {on_disk} are on disk")

    # --- workers --------------------------------------------------------------------------------------

    def given_to(self, worker: str, presence: Any, given: Given) -> None:
        """A worker has received a node."""
        self.note("received", given.key, given.attempt, worker)
        self.rates.received(given.attempt)
        name, program = given.name, self.plan.programs[given.name]
        if given.id[:12] in self.parents:
            self.require(given.key in self.names, "told is durable", f"{name} is a child, given out and not on disk")
        known = self.given_names.setdefault(given.key, name)
        self.require(known == name, "no key is used twice", f"key {given.key} was of {known}, and is of {name}")
        self.require(self.names.get(given.key, name) == name, "the right node", f"{name} comes under another key")
        self.require(self.ids.get(name, given.id) == given.id, "the right node", f"{name} comes under another ID")
        function = FUNCTIONS[program.function]
        self.require(given.function.name == program.function, "the right function", f"{name}: {given.function.name}")
        tolerated = not function.taint or function.taint in presence.tolerations
        self.require(tolerated, "taints", f"{name} needs {function.taint}, {worker} does not have it")
        excluded = (function.queue or function.name) in presence.exclude_queues
        self.require(not excluded, "queues", f"{name} is of a queue that {worker} excludes")
        for source in program.sources:
            row = self.seen.get(self.keys.get(source, 0))
            ended = (row is not None and State(row.state) in ENDED) or source in self.answered
            beside = any(self.given_names.get(key) == source for key in given.beside)
            self.require(ended or beside, "sources first", f"{name} is given out before {source} has ended")

        self._check_code(given, function.hash)

        self._check_cached(given, program.cache)

    def looked_up(self, given: Given) -> None:
        """A worker reports the cache key of a node."""
        cache = self.plan.programs[given.name].cache
        if any(self.plan.programs[self.names[row.node]].cache == cache for row in self.disk.tables.cached.values()):
            self.must_find.add(given.name)
        else:
            self.must_find.discard(given.name)

    def _check_cached(self, given: Given, cache: str) -> None:
        is_told_to_run = bool(cache) and given.known == TO_RUN
        wrong = is_told_to_run and given.name in self.must_find and not self.forgets
        self.require(not wrong, "a cached value is used", f"{given.name} runs, and the value of {cache} was on disk")

    def _check_flights(self, broker: Broker) -> None:
        """The value of a key is computed by one node at a time."""
        running: Counter[bytes] = Counter()
        for node in broker.scheduler.graph.nodes.values():
            if node.queue.function.cached and node.state is State.CLAIMED and broker.scheduler.found_for(node) is True:
                running[broker.scheduler.graph.caching.keys[node.key]] += 1
        self.require(not running or max(running.values()) == 1, "computed once at a time", f"{running}")

    def _check_code(self, given: Given, made_with: str) -> None:
        """Code that it was not made with runs it only if the person allows that, and no lie passes for it."""
        code = given.function.hash
        if code == made_with and not given.made_with:
            return
        said = given.rebinding
        self.require(
            said is not None and said.SerializeToString() in self.signed,
            "what is signed names the code",
            f"{given.name} would be run by {code!r} without a signature for it",
        )
        if said is None or self.violation is not None:
            return
        self.require(given.made_with == made_with, "what is signed names the code", f"made with {given.made_with}?")
        allowed = pb.Rebinding.FromString(said.rebinding)
        fits = (
            allowed.function == given.function.name and made_with in allowed.made_with
            and (allowed.deployed or allowed.hash == code) and allowed.instance in (b"", given.instance)
        )  # fmt: skip
        self.require(fits, "what is signed names the code", f"{given.name} is to be run by {code!r}: {allowed}")
        self._check_lies(given, said)

    def _check_lies(self, given: Given, said: pb.SignedRebinding) -> None:
        """A worker takes what was signed, and nothing like it."""
        wanted = rebind.Wanted(given.id, given.instance, given.function.name, given.made_with, given.function.hash)
        self.require(self._is_taken(said, wanted), "what is signed is run", f"{given.name} is not run")
        other = pb.Rebinding.FromString(said.rebinding)
        other.instance = bytes(16)
        lies = [None, rebind.sign(other, RING), rebind.sign(pb.Rebinding.FromString(said.rebinding), STRANGER)]
        lies.append(pb.SignedRebinding(rebinding=other.SerializeToString(), key_id=said.key_id, mac=said.mac))
        for lie in lies:
            self.require(not self._is_taken(lie, wanted), "a lie is refused", f"{given.name} would be run")

    def _is_taken(self, said: pb.SignedRebinding | None, wanted: rebind.Wanted) -> bool:
        try:
            rebind.check_rebinding(said, wanted, RING)
        except (TamperedValue, UnverifiedValue):
            return False
        return True

    def started(self, worker: str, given: Given) -> None:
        """It begins to run."""
        self.starts += 1
        self.note("start", given.key, given.attempt, worker)

    def finished(self, worker: SimulatedWorker, given: Given) -> None:
        """Its run is over, whatever came of it."""
        self.answered.add(given.name)
        cancelled_at = self.cancelled_at.get(given.key)
        if cancelled_at is None or self.loop.now - cancelled_at < TOLD:
            return
        if worker.connected_at < self.serving_since:
            return  # it has not found the broker that cancelled it: there was nobody to tell it
        quiet = max(worker.disturbed_at, worker.link.touched_at, worker.connected_at, self.disturbed_at)
        self.require(cancelled_at < quiet, "who runs it is told", f"{worker.name} ran on with {given.name}, cancelled")

    def given_up(self, worker: SimulatedWorker) -> None:
        """The broker says that it was silent for longer than its lease."""
        disturbed = max(worker.disturbed_at, worker.link.touched_at, worker.connected_at)
        silent = self.loop.now < disturbed + SILENCE
        self.require(silent or not worker.host.alive, "who speaks is not given up", f"{worker.name} was not silent")

    def replaced(self, worker: SimulatedWorker, broker: Broker | None) -> None:
        """The broker hangs up because somebody else has come under the worker's ID."""
        other = broker and broker.scheduler.claims.workers.get(worker.hello.worker)
        name = other.info.name if other else worker.name
        self.require(name == worker.name, "an ID is no credential", f"{name} has ended the session of {worker.name}")

    def died(self, names: list[str]) -> None:
        """A child process ended while these ran."""
        self.deaths.update(names)

    def failed(self, name: str, run: int) -> None:
        """A worker has seen a run fail; whether that counts, the disk will say."""
        self.failed_at.setdefault((name, run + 1), self.loop.now)

    # --- the end --------------------------------------------------------------------------------------

    def check_end(self, submitted: dict[str, list[Any]]) -> None:
        """Everything has healed and drained: what is on disk is what the plain computation says."""
        for programs in submitted.values():
            if programs[0].name not in self.keys:
                continue
            for program in self.computation.all_made(programs):
                self._check_outcome(program.name, self.is_to_be_cancelled(program.name))
        made = Counter(name.split("/")[0] for name in self.names.values())
        self.note("end", sorted(made.items()))

    def _check_outcome(self, name: str, may_be_cancelled: bool) -> None:
        key = self.keys.get(name)
        if key is None:
            self.require(may_be_cancelled, "children with their parent", f"{name} was never made")
            return
        row = self.seen.get(key)
        if row is None or State(row.state) not in ENDED:
            self.break_off("every node ends", f"{name} has not ended")
        elif row.state == State.CANCELLED:
            self.require(may_be_cancelled, "cancelled by nobody", name)
        elif not may_be_cancelled:
            expected = self.computation.outcome(name)
            completed = row.state == State.COMPLETED
            self.require(
                completed == (not expected.failure),
                "the plain computation",
                f"{name} is {State(row.state).name}, expected {expected}: {self._failure_text(key)}",
            )
            if not completed:
                self._check_failure(name, self._failure_type(key))

    def _failure_type(self, key: int) -> str:
        failure = self._failure(key)
        return failure.type if failure is not None else ""

    def _failure_text(self, key: int) -> str:
        failure = self._failure(key)
        return f"{failure.type}: {failure.message}" if failure is not None else ""

    def _failure(self, key: int) -> Failure | None:
        row = self.disk.outcome(key)
        root_cause = self.disk.outcome(row.root_cause) if row is not None and row.root_cause else row
        return Failure.unpacked(root_cause.failure) if root_cause is not None and root_cause.failure else None

    def _check_failure(self, name: str, type: str) -> None:
        run = self.computation.run(name)
        if run.failure and run.failure != "upstream" and not self.is_to_be_cancelled(name):
            self.require(type in (run.failure, ""), "the right failure", f"{name} failed with {type}")

    def refs_of(self, key: int) -> list[str]:
        row = self.seen[key]
        return [self.names[ref] for ref in unpack_keys(row.refs)]

    def check_empty(self, broker: Broker) -> None:
        """Nothing is left in the broker's memory of what has ended."""
        graph, scheduler = broker.scheduler.graph, broker.scheduler
        kinds: dict[str, Sized] = {
            "nodes": graph.nodes,
            "instances": graph.instances,
            "origins": graph.origins,
            "queues": graph.active,
            "delayed": graph.delayed,
            "keyed": graph.keyed,
            "claims": scheduler.claims.claimed,
            "staged": scheduler.staged,
            "expiries": graph.expires_at,
            "arguments": range(broker.payloads.arguments.size),
            "values": {key: 1 for key in broker.payloads.values.kept if key not in broker.recent},
            "watches": broker.watching._watches,
            "rebindings": graph.rebindings,
            "made with": graph.made_with,
            "cache keys": graph.caching.keys,
            "computed": graph.caching.computed,
            "leaders": graph.caching.leaders,
            "alone": graph.caching.alone,
            "claimed": {queue.id: 1 for queue in graph.queues.values() if queue.claimed},
            "held": {slot.index: 1 for w in scheduler.claims.workers.values() for slot in w.slots if slot.held},
        }
        left = {kind: len(found) for kind, found in kinds.items() if found}
        self.require(not left, "nothing is left behind", f"{left}")


def _may_run(worker: Worker, node: Node) -> bool:
    """By what the worker said and what the function is."""
    own, function = worker.info, FUNCTIONS[node.queue.function.name]
    queue = function.queue or function.name
    if worker.pool is None or own.protocol is not WireProtocol.V1 or node.queue.id in worker.refuses:
        return False
    if node.queue.function.rebound_under not in ("", *own.key_ids):
        return False
    return queue not in own.exclude_queues and (not function.taint or function.taint in own.tolerations)


def _has_room(broker: Broker, node: Node) -> bool:
    most = FUNCTIONS[node.queue.function.name].max_concurrency
    if is_limited(FUNCTIONS[node.queue.function.name]):
        return False  # its rate may be used up; if it never has room, the node does not end
    if broker.scheduler.graph.key_pauses.held(node.queue):
        return False  # the same
    if not most:
        return True
    return sum(o.queue is node.queue and o.state is State.CLAIMED for o in broker.scheduler.graph.nodes.values()) < most
