"""How many slots a pool of workers needs: what its workers run, and exactly what they would be granted."""

from __future__ import annotations

from math import ceil
from random import Random
from typing import Any

import pytest

from dagorama_broker.model.domain import Function, RetryPolicy, State
from dagorama_broker.scheduler import Demand, DemandQuery, ReadyAges, Timing, WorkerInfo
from dagorama_broker.scheduler import demand as module
from dagorama_broker.scheduler.refusals import REMEMBERED, Refusals, rules_of
from dagorama_broker.scheduler.run_times import OVERHEAD_US, OVERLAP
from tests.support.driver import KEY, Hand, SchedulerDriver, function
from tests.support.simulated_workers import Simulation

WORK, OTHER, TAINTED = function("work"), function("other"), function("tainted", taint="GPU")
ASYNC = function("async", is_async=True)


@pytest.fixture
def driver() -> SchedulerDriver:
    """Workers are not lost while time passes."""
    return SchedulerDriver(timing=Timing(lease=10_000.0))


def nodes(count: int, key: str = "") -> list[str]:
    return [f"n{number} {key}" for number in range(count)]


def pool(**rules: object) -> WorkerInfo:
    sets = {name: frozenset(value) if isinstance(value, set) else value for name, value in rules.items()}
    return WorkerInfo(bytes(16), "", **{"key_ids": frozenset({KEY}), **sets})  # type: ignore[arg-type]  # its fields


def demand(driver: SchedulerDriver, horizon: float = 10.0, share: float = 1.0, **rules: object) -> Demand:
    look = driver.scheduler.demand(ReadyAges(driver.scheduler.graph))
    return look.demand(DemandQuery(pool(**rules), horizon, share))


def granted(driver: SchedulerDriver, slots: int = 400, **rules: Any) -> int:
    """Connect a worker with these rules and many slots; return how many of them it is granted nodes for."""
    hand = driver.worker("granted", slots=slots, **rules)
    return len(set(hand.slot_of.values()))


def measure(driver: SchedulerDriver, of: Function, us: int) -> None:
    """Let a worker run a node of a function, and leave."""
    driver.spawn("measured", of=of)
    hand = driver.worker("measures", tolerations={of.taint} if of.taint else frozenset())
    hand.complete("measured", us=us)
    hand.vanish()


class TestWhatIsGranted:
    """Each of these asks for the demand first, and then connects a worker with the same rules."""

    def test_of_plain_nodes_that_have_never_run_each_needs_a_slot(self, driver: SchedulerDriver) -> None:
        driver.spawn(*nodes(7))
        asked = demand(driver)
        assert (asked.ready, asked.unmeasured, asked.slots, asked.running) == (7, 7, 7, 0)
        assert granted(driver) == asked.slots

    def test_a_taint_counts_for_those_who_tolerate_it(self, driver: SchedulerDriver) -> None:
        driver.spawn(*nodes(3), of=TAINTED)
        assert demand(driver) == Demand()
        tolerant = demand(driver, tolerations={"GPU"})
        assert granted(driver) == 0
        assert driver.worker("other", slots=9, tolerations={"GPU"}).held.keys() == set(map(str.strip, nodes(3)))
        assert tolerant.slots == 3

    def test_queues_that_the_pool_excludes_or_does_not_include_do_not_count(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b", "c", where={"c": OTHER})
        excluding, including = demand(driver, exclude_queues={"work"}), demand(driver, include_queues={"other", "x"})
        assert (excluding.slots, including.slots, demand(driver, include_queues={"x"}).slots) == (1, 1, 0)
        assert granted(driver, include_queues={"x"}) == 0
        driver.worker("second", slots=9, exclude_queues={"work"})
        assert driver.holders() == {"c": "second"}

    def test_nodes_that_are_signed_with_another_key_do_not_count(self, driver: SchedulerDriver) -> None:
        driver.spawn(*nodes(2), of=function("signed", key_id="aa"))
        assert demand(driver) == Demand(missing_key=2)
        assert demand(driver, exclude_queues={"signed"}) == Demand()
        assert demand(driver, key_ids={"aa", KEY}).slots == 2
        assert granted(driver) == 0
        assert len(driver.worker("second", slots=9, key_ids={"aa", KEY}).held) == 2

    def test_nodes_count_whatever_key_signed_them_if_the_keys_of_the_pool_are_not_known(
        self, driver: SchedulerDriver
    ) -> None:
        driver.spawn(*nodes(2), of=function("signed", key_id="aa"))
        driver.spawn("tainted", of=TAINTED)
        found = driver.scheduler.demand(ReadyAges(driver.scheduler.graph)).demand(DemandQuery(pool(), any_key=True))
        assert (found.slots, found.ready, found.missing_key) == (2, 2, 0)

    def test_a_paused_queue_counts_again_when_it_is_resumed(self, driver: SchedulerDriver) -> None:
        driver.spawn(*nodes(4))
        driver.scheduler.pause("work", "")
        assert demand(driver) == Demand()
        assert granted(driver) == 0
        driver.scheduler.resume("work")
        assert demand(driver).slots == 4
        driver.step()
        assert len(driver.holders()) == 4

    def test_no_more_count_than_the_limit_of_a_function_leaves(self, driver: SchedulerDriver) -> None:
        limited = function("limited", max_concurrency=3)
        driver.spawn(*nodes(10), of=limited)
        hand = driver.worker("holds two", slots=2, include_queues={"limited"})
        asked = demand(driver)
        assert (asked.ready, asked.slots) == (1, 1)
        assert granted(driver) == 1
        assert demand(driver).ready == 0
        hand.complete(next(iter(hand.held)))
        assert len(driver.holders()) == 3

    def test_each_concurrency_key_has_a_limit_of_its_own(self, driver: SchedulerDriver) -> None:
        limited = function("limited", max_concurrency=2)
        driver.spawn(*[f"a{n} @a" for n in range(5)], *[f"b{n} @b" for n in range(5)], "c @c", of=limited)
        assert demand(driver).slots == 5
        assert granted(driver) == 5

    def test_delayed_nodes_count_if_they_are_due_soon(self, driver: SchedulerDriver) -> None:
        soon, late = function("soon", delay=29.0), function("late", delay=31.0)
        driver.spawn("now", "a", "b", "c", where={"a": soon, "b": soon, "c": late})
        asked = demand(driver)
        assert (asked.ready, asked.slots) == (3, 3)
        assert granted(driver) == 1
        driver.wait(30.0)
        assert driver.holders().keys() == {"now", "a", "b"}
        assert demand(driver).ready == 1

    def test_a_retry_in_backoff_counts_when_it_is_due_soon(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", of=function("retried", retry=RetryPolicy(3, 100.0)))
        hand = driver.worker()
        hand.fail("a")
        assert demand(driver, include_queues={"retried"}).slots == 0
        driver.wait(75.0)
        assert demand(driver, include_queues={"retried"}).slots == 1
        assert driver.state("a") is State.BACKOFF
        driver.wait(26.0)
        assert hand.held.keys() == {"a"}

    def test_delayed_nodes_count_within_the_limit_of_their_function(self, driver: SchedulerDriver) -> None:
        driver.spawn(*nodes(6), of=function("limited", delay=5.0, max_concurrency=2))
        driver.spawn(*[f"k{n} @k" for n in range(6)], of=function("keyed", delay=5.0, max_concurrency=3))
        assert demand(driver).slots == 5
        assert granted(driver) == 0
        driver.wait(6.0)
        assert len(driver.holders()) == 5

    def test_a_cancelled_delayed_node_does_not_count(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b", of=function("soon", delay=5.0))
        driver.cancel("a")
        assert demand(driver).slots == 1

    def test_async_nodes_share_slots_as_they_do_when_they_are_granted(self, driver: SchedulerDriver) -> None:
        driver.spawn(*nodes(2 * OVERLAP + 1), of=ASYNC)
        asked = demand(driver)
        assert (asked.ready, asked.slots) == (2 * OVERLAP + 1, 3)
        assert granted(driver, slots=3) == 3
        assert demand(driver).ready == 0
        running = demand(driver)
        assert (running.running, running.running_slots, running.slots) == (2 * OVERLAP + 1, 3, 3)

    @pytest.mark.parametrize("seed", range(60))
    def test_whatever_the_state_the_demand_is_what_is_granted(self, driver: SchedulerDriver, seed: int) -> None:
        chance = Random(seed)
        self._live(driver, chance)
        rules = _random_rules(chance)
        asked = demand(driver, **rules)
        held = len(driver.holders())
        hand = driver.worker("granted", slots=200, **rules)
        now = len(driver.holders()) - held
        assert now == len(set(hand.slot_of.values()))
        if not driver.scheduler.graph.delayed:
            assert asked.ready == now
        assert asked.ready >= now
        driver.wait(module.SOON)  # nothing ends meanwhile
        assert len(driver.holders()) - held == asked.ready
        again = demand(driver, **rules)
        assert again.running == asked.running + asked.ready
        assert again.slots == again.running + again.ready

    def _live(self, driver: SchedulerDriver, chance: Random) -> None:
        """Fill the broker with nodes, paused queues, failures, and workers of other pools whose slots are all busy."""
        functions = [
            function("plain"), function("tainted", taint="GPU"), function("limited", max_concurrency=2),
            function("tainted and limited", taint="FPGA", max_concurrency=1), function("signed", key_id="aa"),
            function("soon", delay=20.0), function("late", delay=500.0), function("shared", queue="plain", priority=3),
            function("soon and limited", delay=25.0, max_concurrency=3, queue="limited"),
            function("retried", retry=RetryPolicy(5, 20.0)), function("retried late", retry=RetryPolicy(5, 300.0)),
        ]  # fmt: skip
        made = 0
        for _ in range(chance.randrange(1, 8)):
            of = chance.choice(functions)
            names = [f"{made + n} {chance.choice(['', '', '@a', '@b'])}" for n in range(chance.randrange(1, 9))]
            made += len(names)
            driver.spawn(*names, of=of)
        hands = [
            driver.worker(f"other {number}", slots=chance.randrange(1, 4), **_random_rules(chance))
            for number in range(chance.randrange(3))
        ]
        for hand in hands:
            for name in [name for name in hand.held if chance.random() < 0.4]:
                hand.fail(name)
        for hand in hands:  # an idle slot would take what becomes due
            for slot in set(range(hand.presence.slots)) - {hand.slot_of[name] for name in hand.held}:
                hand.close_slot(slot)
        for queue in ("plain", "limited", "retried"):
            if chance.random() < 0.2:
                driver.scheduler.pause(queue, "")
        driver.step()


def _random_rules(chance: Random) -> dict[str, Any]:
    queues = ["plain", "limited", "soon", "signed", "retried", "tainted"]
    return {
        "include_queues": frozenset(chance.sample(queues, chance.randrange(1, 5)) if chance.random() < 0.4 else ()),
        "exclude_queues": frozenset(chance.sample(queues, chance.randrange(1, 3)) if chance.random() < 0.3 else ()),
        "tolerations": frozenset(tag for tag in ("GPU", "FPGA") if chance.random() < 0.5),
        "key_ids": frozenset({KEY, "aa"} if chance.random() < 0.5 else {KEY}),
    }


class TestPace:
    def test_many_short_nodes_need_one_slot(self, driver: SchedulerDriver) -> None:
        measure(driver, WORK, us=50)
        driver.spawn(*nodes(10_000))
        asked = demand(driver)
        assert (asked.ready, asked.unmeasured, asked.slots) == (10_000, 0, 1)
        assert asked.seconds == pytest.approx(0.65)

    def test_long_nodes_need_a_slot_each(self, driver: SchedulerDriver) -> None:
        measure(driver, WORK, us=10_000_000)
        driver.spawn(*nodes(100))
        assert demand(driver).slots == 100
        assert granted(driver) == 100

    def test_nodes_in_between_need_the_slots_that_run_them_within_the_horizon(self, driver: SchedulerDriver) -> None:
        measure(driver, WORK, us=1_000_000)
        driver.spawn(*nodes(100))
        assert demand(driver).slots == ceil(100 * 1.000015 / 10)
        assert demand(driver, horizon=50.0).slots == 3
        assert demand(driver, horizon=0.5).slots == 100

    @pytest.mark.parametrize("seconds", [0.00005, 0.01, 0.7, 3.0])
    def test_the_slots_that_are_asked_for_run_the_work_in_about_the_horizon(self, seconds: float) -> None:
        """A slot may have begun its last node just before; with one slot fewer it would take longer."""
        simulation = Simulation(lambda node: seconds)
        simulation.worker("measures")
        simulation.spawn(WORK)
        simulation.run()
        (worker,) = simulation.scheduler.workers.values()
        simulation.scheduler.disconnect(worker, simulation.now)
        simulation.spawn(*[WORK] * 1_000)
        look = simulation.scheduler.demand(ReadyAges(simulation.scheduler.graph))
        asked = look.demand(DemandQuery(WorkerInfo(bytes(16), ""), horizon=10.0))
        before = simulation.now
        simulation.worker("asked for", slots=asked.slots)
        simulation.run()
        assert simulation.now - before <= 10.0 + 2 * seconds
        assert asked.slots == 1 or 1_000 * (seconds + OVERHEAD_US / 1e6) / (asked.slots - 1) > 10.0

    def test_work_is_added_up_over_functions_before_it_is_divided(self, driver: SchedulerDriver) -> None:
        functions = [function(f"f{number}", queue="work") for number in range(20)]
        for each in functions:
            measure(driver, each, us=400_000)
        driver.spawn(*[f"n{number}" for number in range(20)], where={f"n{n}": functions[n] for n in range(20)})
        assert demand(driver).slots == 1

    def test_a_share_divides_what_is_ready_and_not_what_runs(self, driver: SchedulerDriver) -> None:
        driver.spawn(*nodes(14))
        driver.worker(slots=4)
        asked = demand(driver, share=0.5)
        assert (asked.running, asked.ready, asked.slots) == (4, 10, 9)
        assert demand(driver, share=0.01).slots == 5


class TestWorkers:
    def test_nodes_that_a_slot_holds_behind_the_running_one_are_not_running(self, driver: SchedulerDriver) -> None:
        measure(driver, WORK, us=50)
        driver.spawn(*nodes(100))
        assert len(driver.worker().held) == 100
        asked = demand(driver)
        assert (asked.running, asked.ready, asked.slots, asked.busy) == (1, 0, 1, 1)

    def test_workers_with_other_rules_do_not_count(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b")
        driver.worker("gpu", tolerations={"GPU"})
        asked, theirs = demand(driver), demand(driver, tolerations={"GPU"})
        assert (asked.connected, asked.running, asked.ready) == (0, 0, 1)
        assert (theirs.connected, theirs.busy, theirs.running, theirs.ready) == (1, 1, 1, 1)

    def test_a_worker_with_another_key_is_of_the_same_pool(self, driver: SchedulerDriver) -> None:
        driver.spawn("a")
        driver.worker(key_ids={"old"})
        assert demand(driver, key_ids={"new"}).running == 1

    def test_a_leaving_worker_is_told_apart(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b")
        hand = driver.worker()
        hand.drain()
        asked = demand(driver)
        assert (asked.connected, asked.leaving, asked.busy, asked.running, asked.ready) == (1, 1, 1, 1, 1)
        assert (asked.running_slots, asked.leaving_slots) == (1, 1)
        hand.vanish()
        asked = demand(driver)
        assert (asked.connected, asked.running, asked.ready, asked.slots) == (0, 0, 2, 2)

    def test_the_oldest_ready_node_is_that_of_the_pool(self, driver: SchedulerDriver) -> None:
        ages = ReadyAges(driver.scheduler.graph)
        driver.spawn("old", of=TAINTED)
        ages.note(driver.now)
        driver.wait(40.0)
        driver.spawn("young @key", of=function("limited", max_concurrency=1))
        ages.note(driver.now)
        driver.wait(2.0)
        look = driver.scheduler.demand(ages)
        assert look.demand(DemandQuery(pool())).oldest_ready == 2.0
        assert look.demand(DemandQuery(pool(tolerations={"GPU"}))).oldest_ready == 42.0


class TestRefusals:
    """Nodes that no worker of the pool can run hold no worker up, and start none."""

    def refused(self, driver: SchedulerDriver) -> Hand:
        driver.spawn("a", "b")
        hand = driver.worker()
        hand.give_back("a", "it has other code")
        return hand

    def test_what_all_workers_have_returned_does_not_count(self, driver: SchedulerDriver) -> None:
        self.refused(driver)
        asked = demand(driver)
        assert (asked.ready, asked.unservable, asked.slots, asked.connected) == (0, 2, 0, 1)
        assert demand(driver, tolerations={"GPU"}).ready == 2

    def test_it_counts_if_one_worker_of_the_pool_has_not_returned_it(self, driver: SchedulerDriver) -> None:
        self.refused(driver)
        driver.worker("other")
        asked = demand(driver)
        assert (asked.running, asked.ready, asked.unservable) == (1, 1, 0)

    def test_it_is_remembered_when_the_workers_have_left_and_after_a_while_one_slot_is_asked_for(
        self, driver: SchedulerDriver
    ) -> None:
        hand = self.refused(driver)
        driver.wait(5.0)
        hand.vanish()
        assert (demand(driver).slots, demand(driver).unservable) == (0, 2)
        driver.wait(REMEMBERED - 6.0)
        assert demand(driver).slots == 0
        driver.wait(2.0)
        assert (demand(driver).slots, demand(driver).unservable) == (1, 1)
        hand.held.clear()
        hand.connect()
        name = next(iter(hand.held))
        hand.give_back(name, "it still has other code")
        assert (demand(driver).slots, demand(driver).unservable) == (0, 2)

    def test_a_worker_with_the_right_code_ends_it_at_once_and_for_good(self, driver: SchedulerDriver) -> None:
        self.refused(driver).vanish()
        new = driver.worker("new")
        assert (demand(driver).running, demand(driver).ready) == (1, 1)
        new.vanish()
        assert (demand(driver).slots, demand(driver).unservable) == (2, 0)

    def test_a_pool_with_a_token_of_its_own_has_its_own_workers_and_refusals(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b")
        hand = driver.worker(owner="one")
        assert (demand(driver, owner="one").running, demand(driver, owner="two").running) == (1, 0)
        assert demand(driver).running == 1, "of all pools with these rules"
        hand.give_back("a", "it has other code")
        assert (demand(driver, owner="one").slots, demand(driver, owner="two").slots, demand(driver).slots) == (0, 2, 0)

    def test_a_function_that_is_gone_is_forgotten(self, driver: SchedulerDriver) -> None:
        hand = self.refused(driver)
        (queue,) = driver.scheduler.function_queues
        refusals = driver.scheduler.claims.refusals
        assert refusals.of(rules_of(hand.presence)).keys() == {queue}
        driver.scheduler.claims.forget_queues({queue})
        assert not refusals.of(rules_of(hand.presence))

    def test_no_more_than_a_bounded_number_is_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dagorama_broker.scheduler.refusals.MOST", 10)
        refusals = Refusals()
        pools = [pool(include_queues={f"q{number}"}) for number in range(9)]
        for each in pools:
            for queue in range(3):
                refusals.note(each, queue, 5.0)
        assert [len(refusals.of(rules_of(each))) for each in pools] == [0] * 6 + [3] * 3


class TestCost:
    def test_not_every_delayed_node_is_looked_at(
        self, driver: SchedulerDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST_DELAYED", 16)
        driver.spawn(*nodes(100), of=function("soon", delay=5.0))
        driver.spawn(*[f"late {n}".replace(" ", "") for n in range(100)], of=function("late", delay=500.0))
        assert demand(driver).ready == 16

    def test_a_look_answers_for_all_pools(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b", where={"b": TAINTED})
        look = driver.scheduler.demand(ReadyAges(driver.scheduler.graph))
        assert [look.demand(DemandQuery(pool(**rules))).slots for rules in ({}, {"tolerations": {"GPU"}})] == [1, 2]
