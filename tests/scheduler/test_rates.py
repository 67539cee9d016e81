"""Rates of starts, and limits that functions share: never more than they allow, and nothing else is held up."""

from __future__ import annotations

import gc
import random
from sys import getallocatedblocks, getsizeof

import pytest

from dagorama_broker.model.domain import Function, Rate, RetryPolicy, SharedLimit, State
from dagorama_broker.scheduler import DemandQuery, FunctionQueue, ReadyAges, Reason, ReasonCode, WorkerInfo
from dagorama_broker.scheduler.gates import SPANS, Gate
from dagorama_broker.scheduler.rates import Rates
from dagorama_broker.scheduler.starts import gates_of
from tests.support.driver import Hand, SchedulerDriver, function
from tests.support.starts import Workshop, most_in_a_window

FEW = function("few", rate=Rate(3, 10.0))
BY_KEY = function("by key", rate=Rate(2, 10.0), rate_by_key=True)


def limited(name: str, starts: int = 0, at_once: int = 0, by: str = "shared", seconds: float = 10.0) -> Function:
    rate = Rate(starts, seconds) if starts else None
    return function(name, limit=SharedLimit(by, rate, at_once))


def names(count: int, prefix: str = "n") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def finish(hand: Hand) -> list[str]:
    """Complete what it holds, and what it is granted instead; return all of that in order."""
    done: list[str] = []
    while hand.held:
        done.append(next(iter(hand.held)))
        hand.complete(done[-1])
    return done


def reasons(driver: SchedulerDriver, name: str) -> list[Reason]:
    return driver.scheduler.reasons_of(driver.scheduler.nodes[driver.key(name)])


def gates(driver: SchedulerDriver) -> int:
    rates = driver.scheduler.graph.rates
    return len(rates.shared) + len(rates.of_functions) + sum(map(len, rates.of_keys.values()))


class TestWhatHasNotRun:
    """It does not count: the rate is about calls of the function."""

    CACHED = function("cached", cached=True, rate=Rate(2, 10.0))

    def test_looking_keys_up_and_cached_values_cost_nothing(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("first", of=self.CACHED)
        hand.look_up("first", b"k" * 32)
        hand.compute("first", b"k" * 32)
        for name in names(5):
            driver.spawn(name, of=self.CACHED)
            hand.look_up(name, b"k" * 32)
            assert hand.complete(name, "first", us=0)
        driver.spawn("other", of=self.CACHED)
        hand.look_up("other", b"o" * 32)
        assert driver.state("other") is State.CLAIMED, "the second start of the window"
        hand.compute("other", b"o" * 32)
        driver.spawn("third", of=self.CACHED)
        assert driver.state("third") is State.QUEUED
        driver.wait(10.0)
        assert driver.state("third") is State.CLAIMED

    def test_a_node_that_was_to_get_a_cached_value_and_ran_counts(self, driver: SchedulerDriver) -> None:
        """Its worker could not check the proof."""
        hand = driver.worker()
        for name in names(2):
            driver.spawn(name, of=self.CACHED)
            hand.look_up(name, b"k" * 32)
            hand.compute(name, b"k" * 32)
        driver.spawn("third", of=self.CACHED)
        assert driver.state("third") is State.QUEUED

    def test_a_node_that_a_worker_returns_gives_its_own_start_back(self, driver: SchedulerDriver) -> None:
        cannot, can = driver.worker("cannot"), driver.worker("can")
        driver.spawn("a", of=FEW)
        driver.wait(4.0)
        driver.spawn("b", "c", of=FEW)
        assert cannot.give_back("a", "it cannot import the function")
        for name in "bac":
            assert can.complete(name)
        driver.spawn("d", of=FEW)
        driver.wait(6.0)
        assert driver.state("d") is State.QUEUED, "three have started at 4.0 s"
        driver.wait(4.0)
        assert driver.state("d") is State.CLAIMED

    def test_a_node_that_cannot_open_a_resource_has_started(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        of = function("once", rate=Rate(1, 10.0))
        driver.spawn("a", of=of)
        driver.scheduler.give_back(
            hand.worker, driver.key("a"), hand.held["a"], "it cannot open a resource", driver.now,
            code=ReasonCode.RESOURCE,
        )  # fmt: skip
        other = driver.worker("other")
        assert not other.held
        driver.wait(10.0)
        assert other.held.keys() == {"a"}

    def test_a_key_whose_only_start_was_given_back_is_forgotten_once(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a @x", of=BY_KEY)
        assert hand.give_back("a", "it cannot import the function")
        driver.cancel("a")
        driver.wait(20.0)
        assert gates(driver) == 1, "the one of nodes without a key"

    def test_a_start_is_taken_from_the_span_in_which_it_was_counted(self) -> None:
        gate: Gate[FunctionQueue] = Gate("work")
        gate.rate = Rate(3, 10.0)
        for now in (0.0, 3.0, 6.0):
            gate.start(now)
        gate.give_back(3.0)
        gate.give_back(4.0)
        assert (gate.used, gate.spans, gate.next_start()) == (2, 2, 10.0)
        gate.expire(10.0)
        gate.give_back(0.0)
        assert (gate.used, gate.next_start()) == (1, 16.0)


class TestAWindow:
    def test_a_start_counts_until_it_is_old_enough(self) -> None:
        gate: Gate[FunctionQueue] = Gate("work")
        gate.rate = Rate(2, 10.0)
        for now in (0.0, 3.0):
            gate.start(now)
        assert (gate.room, gate.next_start(), gate.wake_at()) == (0, 10.0, 10.0)
        gate.expire(9.999)
        assert gate.room == 0
        gate.expire(10.0)
        assert (gate.room, gate.next_start(), gate.wake_at()) == (1, 13.0, 13.0)

    def test_a_rate_of_any_size_takes_little_memory(self) -> None:
        gate: Gate[FunctionQueue] = Gate("work")
        chance, now = random.Random(1), 0.0
        gate.rate = Rate(1_000_000, 10.0)
        for _ in range(20_000):
            now += chance.expovariate(500.0)
            gate.start(now)
            assert gate.spans <= SPANS + 1
        assert gate.used <= 20_000

    @pytest.mark.parametrize("seed", range(20))
    def test_no_window_has_more_starts_than_allowed(self, seed: int) -> None:
        gate: Gate[FunctionQueue] = Gate("work")
        chance, now, starts = random.Random(seed), 0.0, list[float]()
        gate.rate = Rate(chance.choice([1, 2, 7, 50, 300]), chance.choice([0.5, 1.0, 60.0]))
        for _ in range(3_000):
            now += chance.choice([0.0, chance.expovariate(4 * gate.rate.starts / gate.rate.seconds)])
            gate.expire(now)
            if gate.room:
                gate.start(now)
                starts.append(now)
        assert most_in_a_window(starts, gate.rate.seconds) == gate.rate.starts


class TestARate:
    def test_it_lets_so_many_start_and_the_next_when_the_first_is_old_enough(self, driver: SchedulerDriver) -> None:
        driver.spawn(*names(5), of=FEW)
        hand = driver.worker()
        assert finish(hand) == ["n0", "n1", "n2"]
        driver.wait(9.99)
        assert not hand.held
        driver.wait(0.01)
        assert finish(hand) == ["n3", "n4"]

    def test_it_holds_up_no_other_function_and_asks_for_one_tick(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*names(5), of=FEW)
        finish(hand)
        driver.spawn("other")
        assert finish(hand) == ["other"]
        assert driver.next_tick is not None
        assert driver.now < driver.next_tick <= driver.now + 10.0

    def test_a_repeated_attempt_is_a_start(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=function("few", rate=Rate(2, 10.0), retry=RetryPolicy(3)))
        hand.fail("a")
        hand.fail("a")
        assert (driver.state("a"), hand.held) == (State.QUEUED, {})
        driver.wait(10.0)
        assert hand.held.keys() == {"a"}

    def test_a_lost_worker_has_started_what_it_held(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=function("one", rate=Rate(1, 10.0)))
        hand.vanish()
        other = driver.worker("other")
        assert not other.held
        hand.connect()  # it goes on with the same attempt, which is no other start
        assert hand.held.keys() == {"a"}
        finish(hand)
        driver.wait(10.0)
        driver.spawn("b", of=function("one", rate=Rate(1, 10.0)))
        assert {*hand.held, *other.held} == {"b"}

    def test_older_instances_go_first(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*names(3), of=FEW)
        finish(hand)
        driver.spawn("old", "old too", of=FEW)
        driver.spawn("urgent", of=FEW, priority=1)
        driver.spawn("young", of=FEW)
        driver.wait(10.0)
        assert finish(hand) == ["urgent", "old", "old too"]

    def test_it_holds_over_a_change_of_code(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b", of=function("few", rate=Rate(3, 10.0)))
        driver.spawn("c", "d", of=function("few", hash="new", rate=Rate(3, 10.0)))
        assert finish(hand) == ["a", "b", "c"]

    def test_what_waits_behind_another_node_starts_later(self, driver: SchedulerDriver) -> None:
        """Nodes that are granted together start one after the other, and each counts from its own start."""
        of = function("fast", rate=Rate(3, 10.0))
        hand = driver.worker()
        driver.spawn("first", of=of)
        hand.complete("first", us=10)
        driver.wait(10.0)
        driver.spawn(*names(5), of=of)
        assert list(hand.held) == ["n0", "n1", "n2"]
        driver.wait(12.0)
        hand.complete("n0", us=10)
        assert list(hand.held) == ["n1", "n2", "n3"]  # only the start of n0 is old enough
        hand.complete("n1", us=10)
        hand.complete("n2", us=10)
        assert list(hand.held) == ["n3"]

    def test_a_node_that_is_given_back_unstarted_gives_its_start_back(self, driver: SchedulerDriver) -> None:
        of = function("fast", rate=Rate(2, 20.0))
        hand = driver.worker()
        driver.spawn("first", of=of)
        hand.complete("first", us=10)
        driver.wait(20.0)
        driver.spawn("a", "b", of=of)
        assert list(hand.held) == ["a", "b"]
        with driver.at_once():
            other = driver.worker("other")
        driver.wait(1.0)
        assert hand.asked_back == ["b"]
        hand.give_back("b")
        assert other.held.keys() == {"b"}

    def test_nothing_goes_along_with_its_source(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b <- a", of=FEW)
        assert driver.worker().held.keys() == {"a"}

    def test_children_that_start_at_once_are_counted(self, driver: SchedulerDriver) -> None:
        driver.spawn("parent", of=function("eager", stream_children=True))
        hand = driver.worker(slots=5)
        hand.make("parent", *names(5), of=FEW)
        assert hand.held.keys() == {"parent", "n0", "n1", "n2"}

    def test_async_nodes_do_not_wait_behind_a_node(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("busy")
        driver.spawn("a", of=function("waits", is_async=True, rate=Rate(2, 10.0)))
        assert hand.held.keys() == {"busy"}
        hand.complete("busy")
        assert hand.held.keys() == {"a"}

    def test_the_queue_timeout_says_that_the_rate_was_used_up(self, driver: SchedulerDriver) -> None:
        of = function("few", rate=Rate(1, 60.0), queue_timeout=5.0)
        driver.spawn("a", "b", of=of)
        driver.worker(slots=2)
        driver.wait(5.0)
        assert "the rate of 1 per 60 s is used up" in driver.failure("b").message


class TestARateByKey:
    def test_each_key_has_its_own(self, driver: SchedulerDriver) -> None:
        driver.spawn("a1 @a", "a2 @a", "a3 @a", "b1 @b", of=BY_KEY)
        hand = driver.worker()
        assert finish(hand) == ["a1", "a2", "b1"]
        driver.wait(10.0)
        assert finish(hand) == ["a3"]

    def test_a_key_is_remembered_as_long_as_its_starts_count(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        for name in ("a1", "a2", "a3"):
            driver.spawn(f"{name} @a", of=BY_KEY)
            finish(hand)
        assert driver.state("a3") is State.QUEUED
        assert finish(hand) == []
        driver.wait(10.0)
        assert finish(hand) == ["a3"]

    def test_many_keys_are_forgotten_with_their_starts(self, driver: SchedulerDriver) -> None:
        hand, rates = driver.worker(), driver.scheduler.graph.rates
        for group in range(20):
            driver.spawn(*[f"{group}-{each} @{group}-{each}" for each in range(100)], of=BY_KEY)
            finish(hand)
        assert gates(driver) >= 2_000
        assert len(driver.scheduler.graph.keyed) == 0
        driver.wait(10.0)
        assert gates(driver) == 1  # the function's own, for nodes without a key
        assert rates.next_due is None

    def test_200_000_idle_keys_take_no_memory_when_their_windows_are_over(self) -> None:
        """Only what is about keys is at work here: as many nodes would take the test much longer."""
        count, rates = 200_000, Rates(lambda queue: None)
        own = FunctionQueue(1, BY_KEY)
        queue = FunctionQueue(1, BY_KEY, "any", -1, own)  # it is the queue of one key after the other
        rates.join(own)
        gc.disable()
        try:
            before = getallocatedblocks()
            for number in range(count):
                queue.key = f"tenant-{number}"
                rates.join_key(queue, 0.0)
                gate = gates_of(queue)[-1]
                if gate.start(number / count):
                    rates.watch(gate)
                rates.leave_key(queue)
            del gate
            assert len(rates.of_keys[BY_KEY.name]) == count + 1
            assert getallocatedblocks() - before > count
            rates.look(10.5, count)
            assert count / 3 < len(rates.of_keys[BY_KEY.name]) < count / 1.5
            rates.look(11.0, count)
        finally:
            gc.enable()
        assert rates.next_due is None
        assert list(rates.of_keys[BY_KEY.name]) == [""], "the function's own, for nodes without a key"
        assert getallocatedblocks() - before < 5_000
        assert getsizeof(rates.of_keys[BY_KEY.name]) < 500

    def test_a_number_at_once_may_hold_for_all_keys(self, driver: SchedulerDriver) -> None:
        of = function("by key", rate=Rate(2, 10.0), rate_by_key=True, max_concurrency=3, concurrency_of_all=True)
        driver.spawn("a1 @a", "a2 @a", "a3 @a", "b1 @b", "b2 @b", of=of)
        hand = driver.worker(slots=5)
        assert hand.held.keys() == {"a1", "a2", "b1"}
        assert ReasonCode.LIMIT in [reason.code for reason in reasons(driver, "b2")]
        hand.complete("a1")
        assert hand.held.keys() == {"a2", "b1", "b2"}

    def test_a_rate_of_all_keys_and_a_number_at_once_for_each(self, driver: SchedulerDriver) -> None:
        of = function("by key", rate=Rate(3, 10.0), max_concurrency=1)
        driver.spawn("a1 @a", "a2 @a", "b1 @b", "c1 @c", of=of)
        hand = driver.worker(slots=5)
        assert hand.held.keys() == {"a1", "b1", "c1"}
        assert finish(hand) == ["a1", "b1", "c1"]
        driver.wait(10.0)
        assert finish(hand) == ["a2"]

    def test_other_code_of_a_function_shares_the_rate_of_a_key(self, driver: SchedulerDriver) -> None:
        new = function("by key", hash="new", rate=Rate(2, 10.0), rate_by_key=True)
        driver.spawn("a1 @a", "a2 @a", of=BY_KEY)
        driver.spawn("a3 @a", "a4 @a", of=new)
        hand = driver.worker(slots=4)
        assert hand.held.keys() == {"a1", "a2"}
        driver.wait(10.0)
        assert hand.held.keys() == {"a1", "a2", "a3", "a4"}


class TestASharedLimit:
    def test_functions_share_its_starts_oldest_first(self, driver: SchedulerDriver) -> None:
        driver.spawn("a1", "a2", of=limited("one", 3))
        driver.spawn("b1", "b2", of=limited("two", 3))
        hand = driver.worker()
        assert finish(hand) == ["a1", "a2", "b1"]
        driver.wait(10.0)
        assert finish(hand) == ["b2"]

    def test_functions_share_its_places(self, driver: SchedulerDriver) -> None:
        driver.spawn("a1", "a2", of=limited("one", at_once=2))
        driver.spawn("b1 @x", "b2 @y", of=limited("two", at_once=2))
        hand = driver.worker(slots=4)
        assert hand.held.keys() == {"a1", "a2"}
        assert reasons(driver, "b1")[0].text == (
            "2 nodes of the limit 'shared' run, with any key, which is as many as it allows"
            " (max_concurrency=2, as one declares)"
        )
        hand.complete("a1")
        assert hand.held.keys() == {"a2", "b1"}

    def test_the_figures_that_come_last_hold_and_it_is_said(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a1", "a2", of=limited("one", 1))
        finish(hand)
        driver.spawn("b1", of=limited("two", 2))
        (changed,) = driver.effects.limits
        assert (changed.name, changed.declared_by, changed.function) == ("shared", "one", "two")
        assert f"{changed.before} -> {changed.now}" == "1 start per 10 s -> 2 starts per 10 s"
        assert finish(hand) == ["a2"]
        assert "the limit 'shared', as two declares, is used up" in reasons(driver, "b1")[0].text
        driver.spawn("c1", of=limited("two", 2))
        assert not driver.effects.limits

    def test_after_a_restart_the_figures_of_the_youngest_node_hold(self, driver: SchedulerDriver) -> None:
        driver.spawn("a1", of=limited("one", 1))
        driver.spawn("b1", of=limited("two", 2))
        driver.spawn("a2", of=limited("one", 1))
        driver.crash()
        assert driver.scheduler.graph.rates.shared["shared"].rate == Rate(1, 10.0)

    def test_it_is_forgotten_with_its_functions_and_its_starts(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=limited("one", 3))
        finish(hand)
        (id,) = driver.scheduler.graph.queue_by_id
        driver.scheduler.drop_functions([id])
        assert id in driver.scheduler.graph.queue_by_id  # a start counts still
        driver.wait(10.0)
        driver.scheduler.drop_functions([id])
        assert (driver.scheduler.graph.queue_by_id, gates(driver)) == ({}, 0)


class TestAfterARestart:
    @pytest.mark.parametrize("of", [FEW, BY_KEY, limited("one", 3)], ids=["rate", "key", "limit"])
    def test_nothing_starts_for_one_period(self, driver: SchedulerDriver, of: Function) -> None:
        driver.spawn("a @k", "b @k", of=of)
        driver.worker("before", slots=2)
        driver.crash()
        hand = driver.worker("after")
        driver.spawn("c @other", of=of)
        driver.wait(9.9)
        assert not hand.held
        (reason,) = [each for each in reasons(driver, "c") if each.code is ReasonCode.RATE]
        assert "does not know what was started before" in reason.text
        driver.wait(0.2)
        assert len(finish(hand)) == 3

    def test_a_new_function_need_not_wait(self, driver: SchedulerDriver) -> None:
        driver.crash()
        driver.spawn("a", of=FEW)
        assert driver.worker().held.keys() == {"a"}

    def test_a_worker_that_returns_goes_on_with_what_it_runs(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=limited("one", 3, at_once=1))
        driver.crash()
        hand.connect()
        assert hand.held.keys() == {"a"}
        gate = driver.scheduler.graph.rates.shared["shared"]
        assert (gate.claimed, gate.used) == (1, 3)


class TestWhatIsSaid:
    def test_when_the_next_start_is(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b", "c", "d", of=FEW)
        finish(hand)
        driver.spawn("x1 @t7", "x2 @t7", "x3 @t7", of=BY_KEY)
        finish(hand)
        driver.wait(6.8)
        reason = reasons(driver, "d")[0]
        assert (reason.code, reason.text) == (
            ReasonCode.RATE, "the rate of 3 per 10 s is used up; its next start is in 3.2 s"
        )  # fmt: skip
        assert reason.until == pytest.approx(driver.now + 3.2)
        assert reasons(driver, "x3")[0].text == (
            "the rate of 2 per 10 s for the key 't7' is used up; its next start is in 3.2 s"
        )

    def test_nodes_that_may_not_start_yet_are_no_demand(self, driver: SchedulerDriver) -> None:
        driver.spawn(*names(100), of=FEW)
        look = driver.scheduler.demand(ReadyAges(driver.scheduler.graph))
        assert look.demand(DemandQuery(WorkerInfo(b"pool", "pool"))).ready == 3

    def test_a_worker_that_leaves_when_all_is_done_waits_for_the_rate(self, driver: SchedulerDriver) -> None:
        driver.spawn(*names(4), of=FEW)
        hand = driver.worker(leave_when_drained=True)
        finish(hand)
        assert not hand.may_leave
        driver.wait(10.0)
        finish(hand)
        assert hand.may_leave


class TestWithRealStarts:
    """Workers that start nodes one after the other, and hold some in advance."""

    @pytest.mark.parametrize("seed", range(25))
    def test_no_window_has_more_starts_than_allowed(self, seed: int) -> None:
        chance, driver = random.Random(seed), SchedulerDriver()
        rate = Rate(chance.choice([1, 3, 10, 200]), chance.choice([1.0, 20.0]))
        short = chance.choice([0.0005, 0.02, 0.5])
        seconds = lambda: chance.choice([short, short, short, 2.0])  # noqa: E731
        shop, retry = Workshop(driver, seconds, chance), RetryPolicy(3)
        shop.fails, shop.late = 0.2, chance.choice([0.0, 0.05])
        kinds = [
            function("all", rate=rate, retry=retry), function("key", rate=rate, rate_by_key=True, retry=retry),
            function("one", limit=SharedLimit("both", rate)), function("two", limit=SharedLimit("both", rate, 2)),
            function("free"),
        ]  # fmt: skip
        shop.open(chance.randint(1, 3), chance.randint(1, 2))
        for group in range(6):
            for of in kinds:
                nodes = [f"{of.name}-{chance.choice('xy')}-{group}-{each}" for each in range(chance.randint(0, 40))]
                driver.spawn(*[f"{name} @{name.split('-')[1]}" for name in nodes], of=of)
            shop.run(chance.choice([0.0, 0.3, rate.seconds, 3.0]))
            if chance.random() < 0.3:
                shop.open(1)
                shop.vanish()
        shop.run(3 * rate.seconds)
        both = sorted(shop.times("one") + shop.times("two"))
        for times in (shop.times("all"), shop.times("key-x"), shop.times("key-y"), both):
            assert most_in_a_window(times, rate.seconds) <= rate.starts

    def test_a_hundred_a_second_over_five_workers_are_used_to_97_percent(self) -> None:
        chance, driver = random.Random(17), SchedulerDriver()
        shop = Workshop(driver, lambda: chance.uniform(0.001, 0.02), chance)
        shop.late = 0.003
        for group in range(70):
            driver.spawn(*names(100, f"{group}-"), of=function("hundred", rate=Rate(100, 1.0)))
        shop.open(5)
        shop.run(60.0)
        assert most_in_a_window(shop.times(), 1.0) == 100
        assert len(shop.starts) >= 0.97 * 6_000
