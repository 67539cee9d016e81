"""Anything in any order: what holds after every step, and in the end everything has ended.

`SCHEDULER_EXAMPLES=5000 pytest tests/scheduler/test_scheduler_any_order.py` looks longer, and elsewhere each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dagorama_broker.errors import FailedPrecondition, InvalidArgument
from dagorama_broker.model.domain import ENDED, Rate, RetryPolicy, SharedLimit, State
from dagorama_broker.scheduler import Limits, Timing
from dagorama_broker.scheduler.rebind import UNCLAIMED
from tests.proof.progress import made
from tests.support.driver import WAITS, Hand, SchedulerDriver, function
from tests.support.invariants import check

EXAMPLES = int(os.environ.get("SCHEDULER_EXAMPLES", "0"))

FUNCTIONS = {
    "plain": function("plain"),
    "gpu": function("gpu", taint="GPU"),
    "retries": function("retries", retry=RetryPolicy(3, 0.0)),
    "pauses": function("pauses", retry=RetryPolicy(2, 1.0, 2.0)),
    "async": function("async", is_async=True, queue="plain"),
    "urgent": function("urgent", priority=5, queue="plain"),
    "limited": function("limited", max_concurrency=2),
    "delayed": function("delayed", delay=0.5),
    "eager": function("eager", stream_children=True, retry=RetryPolicy(3, 0.3)),
    "lasting": function("lasting", stream_children=True, queue="plain"),
    "rated": function("rated", rate=Rate(3, 0.7), retry=RetryPolicy(2, 0.0)),
    "rated by key": function(
        "rated by key", rate=Rate(1, 0.5), rate_by_key=True, max_concurrency=2, concurrency_of_all=True, queue="plain"
    ),
    "shares": function("shares", limit=SharedLimit("both", Rate(2, 0.5), 2)),
    "shares too": function("shares too", limit=SharedLimit("both", Rate(2, 0.5), 2), taint="GPU", max_concurrency=1),
    "waits": function(f"{WAITS}go"),
    "waits briefly": function(f"{WAITS}go", delay=3.0),
    "has a default": function(f"{WAITS}stop", delay=0.7, priority=1),
    "hurried": function("hurried", queue_timeout=2.0, taint="GPU", max_deaths=1),
}
WORKERS: list[dict[str, Any]] = [
    {"slots": 2, "tolerations": {"GPU"}},
    {"slots": 1},
    {"slots": 3, "exclude_queues": {"plain"}},
    {"slots": 1, "leave_when_drained": True, "tolerations": {"GPU"}},
]

picks = st.integers(0, 1_000)
#: Eager ones come often enough that something happens to what they have made.
functions = st.sampled_from([*sorted(FUNCTIONS), "eager", "eager", "eager", "lasting"])


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.driver = SchedulerDriver(limits=Limits(losses=4), timing=Timing(lease=5.0))
        self.hands: dict[str, Hand] = {}
        self.names: list[str] = []
        self.over: list[tuple[Hand, str, int]] = []  #: attempts that are somebody's no more
        self.granted: set[int] = set()
        self.taken_up: set[int] = set()
        self.made = 0
        self.draft: Generator[bool] | None = None  #: a call that is being made in slices
        self.drafted: list[str] = []  #: and its nodes

    @initialize(
        seeds=st.lists(st.lists(picks, max_size=3), min_size=3, max_size=8),
        of=functions,
        step=st.sampled_from([1, 2, 5_000]),
    )
    def begin(self, seeds: list[list[int]], of: str, step: int) -> None:
        self.driver.limits = self.driver.scheduler.limits = Limits(losses=4, step=step)
        self.worker_connects(0, 0)
        self.spawn(seeds, of)

    # --- clients -------------------------------------------------------------------------------------

    def new_names(self, count: int) -> list[str]:
        self.made += count
        return [f"n{number}" for number in range(self.made - count, self.made)]

    def texts(self, names: list[str], seeds: list[list[int]], others: list[str]) -> list[str]:
        """Nodes whose sources are picked from `others` and from those before them."""
        texts = []
        for place, (name, picked) in enumerate(zip(names, seeds, strict=True)):
            choice = others + names[:place]
            sources = sorted({choice[pick % len(choice)] for pick in picked}) if choice else []
            tolerant = [source + "?" * (len(source) % 3 == 0) for source in sources]
            key = ["", "", "@odd", "@even"][sum(picked) % 4]
            texts.append(f"{name} <- {' '.join(tolerant)}{key}")
        return texts

    @rule(
        seeds=st.lists(st.lists(picks, max_size=3), min_size=1, max_size=6),
        of=functions,
        priority=st.sampled_from([0, 0, 0, 9, -128]),
        fair=st.sampled_from(["", "", "a", "a", "b"]),
    )
    def spawn(self, seeds: list[list[int]], of: str, priority: int = 0, fair: str = "") -> None:
        names = self.new_names(len(seeds))
        self.driver.spawn(*self.texts(names, seeds, []), of=FUNCTIONS[of], priority=priority, fair=fair)
        self.names += names

    @precondition(lambda self: self.names)
    @rule(where=picks, seeds=st.lists(st.lists(picks, max_size=3), min_size=1, max_size=4), of=functions)
    def add(self, where: int, seeds: list[list[int]], of: str) -> None:
        instance = self.driver.instance_of(self.names[where % len(self.names)])
        mates = [name for name in self.names if self.driver.instance_of(name) == instance]
        names = self.new_names(len(seeds))
        self.driver.add(instance, *self.texts(names, seeds, mates), of=FUNCTIONS[of])
        self.names += names

    @precondition(lambda self: self.names and self.draft is None)
    @rule(
        where=picks,
        seeds=st.lists(st.lists(picks, max_size=3), min_size=1, max_size=6),
        of=functions,
        new=st.booleans(),
    )
    def begin_a_draft(self, where: int, seeds: list[list[int]], of: str, new: bool) -> None:
        """A large call, for an instance that is there or a new one; nothing of it is seen before it is decided."""
        driver, names, function = self.driver, self.new_names(len(seeds)), FUNCTIONS[of]
        instance = driver.fresh(16) if new else driver.instance_of(self.names[where % len(self.names)])
        mates = [name for name in self.names if driver.instance_of(name) == instance]
        run = driver.run(instance, driver.fresh(12), self.texts(names, seeds, mates), function)
        run.creates = ("work:Work", run.origin + bytes(4)) if new else None
        self.draft, self.drafted = driver.submit_in_slices(run), names

    @precondition(lambda self: self.draft is not None)
    @rule(give_up=st.sampled_from([False, False, False, True]))
    def go_on_with_the_draft(self, give_up: bool) -> None:
        assert self.draft is not None
        is_made = not give_up and next(self.draft)
        self.driver.step()
        if is_made:
            self.names += self.drafted
        assert all(self.driver.is_visible(name) is is_made for name in self.drafted)
        if is_made or give_up:
            self.draft.close()
            self.draft = None
            self.driver.step()

    @precondition(lambda self: self.names)
    @rule(picked=st.lists(picks, min_size=1, max_size=2), all=st.booleans())
    def cancel(self, picked: list[int], all: bool) -> None:
        """Some nodes, or an instance; those that have ended stay as they are."""
        names = [self.names[pick % len(self.names)] for pick in picked]
        if all:
            nodes = self.driver.scheduler.graph.unfinished_of(self.driver.instance_of(names[0]))
            names = [self.driver.name(node) for node in nodes]
        before = {name: self.driver.state(name) for name in names}
        claimed = self.driver.scheduler.claims.claimed
        running = [attempt for attempt, node in claimed.items() if self.driver.name(node) in names]
        self.driver.cancel(*names)
        assert {attempt for _, attempt in self.driver.effects.cancelled} >= set(running)
        self.driver.settle()
        for name, state in before.items():
            assert self.driver.state(name) is (state if state in ENDED else State.CANCELLED)

    def failed(self) -> list[str]:
        """Nodes that a retry changes: not those of dead attempts, nor those that depend on these alone."""
        driver = self.driver
        names = [name for name in self.names if driver.is_ended(name, State.FAILED)]
        names = [name for name in names if driver.is_ended(driver.root_cause(name), State.FAILED)]
        return [name for name in names if not driver.ledger.of_dead_attempt(driver.key(name))]

    @precondition(lambda self: self.failed())
    @rule(picked=st.lists(picks, min_size=1, max_size=3), downstream=st.booleans(), new_code=st.booleans())
    def retry(self, picked: list[int], downstream: bool, new_code: bool) -> None:
        """What failed has not, unless it still depends on what has ended badly; or nothing has changed."""
        driver = self.driver
        failed = self.failed()
        names = [failed[pick % len(failed)] for pick in picked]
        root_causes = {driver.root_cause(name) for name in names}
        driver.settle()
        before = driver.everything()
        try:
            queued, waiting, *_ = driver.revive(*names, downstream=downstream, new_code=new_code)
        except FailedPrecondition:
            assert driver.everything() == before
            return
        assert queued + waiting >= len(root_causes)
        for name in names:
            assert not driver.is_ended(name, State.FAILED) or driver.root_cause(name) not in root_causes
        for root_cause in root_causes:
            assert not driver.is_ended(root_cause)

    @precondition(lambda self: self.names)
    @rule(of=functions, hash=st.sampled_from(["h", "h2", "h3"]), all=st.booleans())
    def rebind(self, of: str, hash: str, all: bool) -> None:
        """What nobody holds goes over to other code; nothing else about it changes."""
        graph = self.driver.scheduler.graph
        queues = [queue for queue in graph.queues.values() if queue.function.name == of]
        hashes = sorted({queue.function.hash for queue in queues})[: None if all else 1]
        if not hashes:
            return
        own = [node for node in graph.nodes.values() if node.queue.function.name == of]
        before = {node.key: (node.state, node.queue.function.hash) for node in own}
        goes = {key for key, (state, old) in before.items() if state in UNCLAIMED and old in {*hashes} - {hash}}
        with self.driver.at_once():
            assert self.driver.rebind(of, hash, *hashes) == (len(goes), hash)
            for key, (state, old) in before.items():
                node = graph.nodes[key]
                assert (node.state, node.queue.function.hash) == (state, hash if key in goes else old)

    # --- workers --------------------------------------------------------------------------------------

    @rule(kind=st.integers(0, len(WORKERS) - 1), number=st.integers(0, 1))
    def worker_connects(self, kind: int, number: int) -> None:
        """Anew, or again: then it presents what it holds."""
        name = f"w{kind}{number}"
        if name in self.hands:
            self.hands[name].connect()
        else:
            self.hands[name] = self.driver.worker(name, **WORKERS[kind])

    @precondition(lambda self: self.known_here())
    @rule(pick=picks)
    def connection_breaks(self, pick: int) -> None:
        self.hand(pick).vanish()

    @precondition(lambda self: self.known_here())
    @rule(pick=picks)
    def worker_drains(self, pick: int) -> None:
        self.hand(pick).drain()

    @precondition(lambda self: self.known_here())
    @rule(pick=picks)
    def worker_forgets_all(self, pick: int) -> None:
        """It is killed, and another takes its name."""
        hand = self.hand(pick)
        self.over += [(hand, name, attempt) for name, attempt in hand.held.items()]
        hand.vanish()
        hand.held.clear()
        hand.connect()

    @precondition(lambda self: self.known_here())
    @rule(pick=picks, slot=picks)
    def slot_closes(self, pick: int, slot: int) -> None:
        hand = self.hand(pick)
        if self.driver.scheduler.claims.workers.get(hand.presence.id) is hand.worker:
            index = slot % hand.presence.slots
            self.over += [(hand, name, attempt) for name, attempt in hand.held.items() if hand.slot_of[name] == index]
            hand.close_slot(index)

    def known_here(self) -> list[Hand]:
        """Those who have talked to the present broker."""
        return [hand for _, hand in sorted(self.hands.items()) if hand.worker in self.driver.hands]

    def hand(self, pick: int) -> Hand:
        return self.known_here()[pick % len(self.known_here())]

    # --- outcomes -------------------------------------------------------------------------------------

    def holding(self) -> list[tuple[Hand, str]]:
        return [(hand, name) for hand in self.known_here() for name in hand.held]

    def one_held(self, pick: int) -> tuple[Hand, str]:
        held = self.holding()
        hand, name = held[pick % len(held)]
        self.over.append((hand, name, hand.held[name]))
        return hand, name

    @precondition(lambda self: self.holding())
    @rule(pick=picks, us=st.sampled_from([0, 50, 3_000, 100_000]))
    def complete(self, pick: int, us: int) -> None:
        hand, name = self.one_held(pick)
        hand.complete(name, us=us)

    @precondition(lambda self: self.holding())
    @rule(picked=st.lists(picks, min_size=2, max_size=6))
    def complete_some_at_once(self, picked: list[int]) -> None:
        with self.driver.at_once():
            for pick in picked:
                if self.holding():
                    self.complete(pick, 50)

    @precondition(lambda self: self.holding())
    @rule(
        pick=picks,
        seeds=st.lists(st.lists(picks, max_size=2), min_size=1, max_size=4),
        of=functions,
        refs=st.lists(picks, max_size=3),
        new=st.booleans(),
        named=st.sampled_from([True, True, False]),
        in_slices=st.booleans(),
    )
    def complete_with_children(
        self, pick: int, seeds: list[list[int]], of: str, refs: list[int], new: bool, named: bool, in_slices: bool
    ) -> None:
        """Which the value names, or others of its instance; a circle is refused and the run fails for it."""
        hand, name = self.one_held(pick)
        eager = self.is_eager(hand, name)
        mates = [mate for mate in self.names if self.driver.instance_of(mate) == self.driver.instance_of(name)]
        names = self.new_names(len(seeds))
        for place, text in enumerate(self.texts(names, seeds, [] if new else [m for m in mates if m != name][:5])):
            hand.make(name, text, of=FUNCTIONS[of], new=f"sub{self.made}" if new else "", attempt=hand.held[name])
            assert self.driver.is_visible(names[place]) is eager
        promised = {(names if named else mates)[ref % len(names if named else mates)] for ref in refs}
        try:
            taken = hand.complete(name, *sorted(promised), in_slices=in_slices)
        except InvalidArgument:
            hand.fail(name, "its result could not be taken")
            taken = False
        assert all(self.driver.is_visible(child) is (taken or eager) for child in names)
        self.names += names if taken or eager else []

    def is_eager(self, hand: Hand, name: str) -> bool:
        """Whether the worker still holds it and what it makes is there at once."""
        key, attempt = self.driver.key(name), hand.held[name]
        node = self.driver.scheduler.claims.held(hand.worker, key, attempt)
        return node is not None and node.queue.function.stream_children

    def eager(self) -> list[tuple[Hand, str]]:
        return [(hand, name) for hand, name in self.holding() if self.is_eager(hand, name)]

    @precondition(lambda self: self.eager())
    @rule(
        pick=picks,
        seeds=st.lists(st.lists(picks, max_size=2), min_size=1, max_size=4),
        of=functions,
        new=st.booleans(),
    )
    def make_eagerly(self, pick: int, seeds: list[list[int]], of: str, new: bool) -> None:
        """Children that are there while their creator runs."""
        hand, name = self.eager()[pick % len(self.eager())]
        mates = [mate for mate in self.names if self.driver.instance_of(mate) == self.driver.instance_of(name)]
        names = self.new_names(len(seeds))
        for text in self.texts(names, seeds, [] if new else [mate for mate in mates if mate != name][-5:]):
            assert hand.make(name, text, of=FUNCTIONS[of], new=f"sub{self.made}" if new else "")
            assert self.driver.is_visible(text.split()[0])
        self.names += names

    @precondition(lambda self: self.holding())
    @rule(pick=picks, staged=st.booleans(), pause=st.sampled_from([None, None, None, 0.2, 1.5]))
    def fail(self, pick: int, staged: bool, pause: float | None) -> None:
        hand, name = self.one_held(pick)
        staged = staged and not self.is_eager(hand, name)
        if staged:
            hand.make(name, "never seen")
        hand.fail(name, after=pause, pause_key=pause is not None)
        assert not staged or not self.driver.is_visible("never seen")

    @precondition(lambda self: self.holding())
    @rule(pick=picks, why=st.sampled_from(["", "", "it cannot import the function"]))
    def give_back(self, pick: int, why: str) -> None:
        hand, name = self.one_held(pick)
        hand.give_back(name, why)

    @precondition(lambda self: self.holding())
    @rule(pick=picks)
    def put_off(self, pick: int) -> None:
        hand, name = self.one_held(pick)
        hand.put_off(name)

    @rule(of=st.sampled_from(["plain", "limited", "eager"]))
    def pause_or_resume(self, of: str) -> None:
        if not self.driver.scheduler.resume(of):
            self.driver.scheduler.pause(of, "somebody")
        self.driver.step()

    @precondition(lambda self: self.holding())
    @rule(pick=picks)
    def child_dies(self, pick: int) -> None:
        hand, name = self.one_held(pick)
        slot = hand.slot_of[name]
        unstarted = [other for other in hand.held if other != name and hand.slot_of[other] == slot]
        hand.child_dies([name], unstarted)

    @precondition(lambda self: self.over)
    @rule(pick=picks, say=st.sampled_from(["complete", "fail", "give_back"]))
    def somebody_is_late(self, pick: int, say: str) -> None:
        hand, name, attempt = self.over[pick % len(self.over)]
        node = self.driver.scheduler.claims.claimed.get(attempt)
        if node is not None and node.slot is not None and node.slot.worker is hand.worker:
            return  # it was taken up again since
        method: Callable[..., bool] = getattr(hand, say)
        assert not method(name, attempt=attempt)

    @precondition(lambda self: self.names)
    @rule(where=picks, name=st.sampled_from(["go", "go", "stop"]), key=st.sampled_from(["", "", "a", "b"]))
    def signal(self, where: int, name: str, key: str) -> None:
        instance = self.driver.instance_of(self.names[where % len(self.names)])
        sent = self.driver.send(instance, name, key)
        again = self.driver.send(instance, name, key) if key and sent is not None else None
        assert again is None or again.is_known

    # --- time and death -------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 20.0]), beating=st.booleans())
    def time_passes(self, seconds: float, beating: bool) -> None:
        if beating:
            for hand in self.hands.values():
                hand.beat()
        self.driver.wait(seconds)

    @rule(seconds=st.sampled_from([2.6, 400.0]))
    def the_broker_stands_still(self, seconds: float) -> None:
        before = set(self.driver.scheduler.claims.workers)
        self.driver.pass_time(seconds)
        self.driver.step()
        assert set(self.driver.scheduler.claims.workers) == before

    @rule(downtime=st.sampled_from([0.0, 0.7, 100.0]), lost=st.booleans(), back=st.lists(picks, max_size=4))
    def the_broker_dies(self, downtime: float, lost: bool, back: list[int]) -> None:
        """Between two steps, or after it has decided something that is not stored yet."""
        driver = self.driver
        was_settled = not driver.scheduler.graph.unnotified and not driver.scheduler.graph.starting
        if lost and self.holding():
            driver.holds_still = True
            hand, name = self.one_held(back[0] if back else 0)
            attempt = hand.held[name]
            hand.complete(name)
            hand.held[name] = attempt  # it will not hear that it was taken
            driver.holds_still = False
            driver.step(commit=False)
        ledger = driver.ledger
        unfinished = {key for key in ledger.nodes if not ledger.has_ended(key) and not ledger.is_drafted(key)}
        driver.crash(downtime)
        self.draft = None
        waits = driver.ledger.mail.waits
        is_due = any(0.0 < waits[key].until <= driver.wall for key in unfinished & waits.keys())
        # The restart has also ended dependents of failed nodes that were not notified yet, and waits that timed out.
        assert driver.scheduler.graph.nodes.keys() <= unfinished
        assert len(driver.scheduler.graph.nodes) == len(unfinished) or is_due or not was_settled
        hands = sorted(self.hands.items())
        for pick in back if hands else []:
            hands[pick % len(hands)][1].connect()

    # --- what holds -----------------------------------------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        check(self.driver)
        for _, _, attempt in self.driver.effects.granted:
            self.granted.add(attempt)

    def teardown(self) -> None:
        """Everything heals: workers that may run anything come, and every node ends."""
        made()
        driver = self.driver
        if self.draft is not None:
            self.draft.close()
            driver.step()
        for queue in list(driver.scheduler.paused):
            driver.scheduler.resume(queue)
        driver.step()
        for _ in range(400):
            if not driver.scheduler.graph.nodes:
                break
            able = driver.worker(f"able{len(driver.hands)}", slots=4, tolerations={"GPU"})
            for _ in range(50):
                if not able.held:
                    break
                able.complete(next(iter(able.held)))
                check(driver)
            for instance in list(driver.scheduler.instances):
                driver.send(instance, "go")
            driver.wait(1.0)
        driver.wait(5.0)  # what is timed out of date goes when its time comes
        assert driver.in_memory() == {}, driver.in_memory()
        assert all(driver.ledger.has_ended(key) for key in driver.ledger.nodes)
        assert {driver.state(name) for name in self.names} <= ENDED


#: Failures are shrunk only when asked for: that takes minutes.
PHASES = tuple(Phase) if EXAMPLES else (Phase.explicit, Phase.generate)

TestLife = pytest.mark.slow(Life.TestCase)
TestLife.settings = settings(
    max_examples=EXAMPLES or 60,
    stateful_step_count=50,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    print_blob=False,
    phases=PHASES,
)
