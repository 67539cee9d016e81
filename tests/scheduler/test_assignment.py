"""Who is given what, and how much: credit that grows with measured time, even shares, and taking back."""

import pytest

from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.scheduler.run_times import OVERLAP, WINDOW_US
from tests.support.driver import GPU, Hand, SchedulerDriver, function, retrying
from tests.support.operations import operations
from tests.support.simulated_workers import EXCHANGE, STALE, Simulation

FAST = 50e-6
WORK, OTHER, TAINTED = function("work"), function("other"), function("tainted", taint="GPU")
ASYNC = function("async", is_async=True)


def nodes(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


class TestCredit:
    def test_an_unknown_function_starts_at_one_node_per_slot(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=3)
        driver.spawn(*nodes(100))
        assert sorted(hand.slot_of.values()) == [0, 1, 2]

    def test_a_fast_function_is_held_by_the_hundreds(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(1_000))
        hand.complete("n0", us=50)
        assert 250 <= len(hand.held) <= WINDOW_US / 50

    def test_runs_that_failed_are_measured_too(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(1_000))
        hand.fail("n0", microseconds=50)
        assert 250 <= len(hand.held) <= WINDOW_US / 50
        hand.fail("n1", microseconds=2_000_000)
        assert len(hand.held) < 1_000
        for name in list(hand.held):
            hand.fail(name, microseconds=2_000_000)
        assert len(hand.held) == 1

    def test_a_failure_whose_run_time_is_unknown_teaches_nothing(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(100))
        hand.fail("n0")
        assert len(hand.held) == 1

    def test_a_function_that_costs_nothing_is_not_held_without_end(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(3_000))
        hand.complete("n0", us=0)
        assert len(hand.held) < 1_500

    @pytest.mark.parametrize("us", [20_000, 1_000_000, (1 << 32) - 1])
    def test_a_slot_holds_one_node_of_a_slow_function(self, driver: SchedulerDriver, us: int) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(10))
        for _ in range(3):
            hand.complete(next(iter(hand.held)), us=us)
            assert len(hand.held) == 1

    def test_one_slow_run_is_enough_to_hold_one(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(2_000))
        hand.complete("n0", us=50)
        for name in list(hand.held):
            hand.complete(name, us=2_000_000 if name == "n50" else 50)
            if name == "n50":
                held = len(hand.held)
            if name > "n50" and len(hand.held) == 1:
                break
        assert held > 1
        assert len(hand.held) <= held, "nothing was added while it was slow"

    def test_a_slot_never_holds_more_than_the_window_beside_its_first(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(40))
        hand.complete("n0", us=3_000)
        assert len(hand.held) == WINDOW_US // 3_015

    def test_async_nodes_overlap_however_long_they_take(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(300), of=ASYNC)
        assert len(hand.held) == OVERLAP
        hand.complete("n0", us=1_000_000)
        assert len(hand.held) == OVERLAP

    def test_fast_async_nodes_are_held_like_others(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn(*nodes(3_000), of=ASYNC)
        hand.complete("n0", us=50)
        assert OVERLAP < len(hand.held) <= WINDOW_US / 50

    def test_a_sync_node_runs_beside_async_ones_however_long_they_take(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("known to be slow")
        hand.complete("known to be slow", us=2_000_000)
        driver.spawn("a", "b", of=ASYNC)
        driver.wait(25.0)
        driver.spawn("sync", "next")
        assert hand.held.keys() == {"a", "b", "sync"}

    def test_an_async_node_does_not_wait_for_a_slow_sync_one(self, driver: SchedulerDriver) -> None:
        """The child reads on when it has run that one."""
        hand = driver.worker("one")
        driver.spawn("sync", "async", where={"async": ASYNC})
        assert hand.held.keys() == {"sync"}
        assert driver.worker("two").held.keys() == {"async"}

    def test_what_was_measured_under_one_concurrency_key_holds_for_all(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a @x")
        hand.complete("a", us=50)
        driver.spawn("b @y", "c @y", "d @z", "e")
        assert len(hand.held) == 4

    def test_a_slow_node_behind_fast_ones_is_left_for_others(self, driver: SchedulerDriver) -> None:
        hand = driver.worker("one")
        driver.spawn("slow", of=OTHER)
        hand.complete("slow", us=2_000_000)
        driver.spawn("f0", of=WORK)
        hand.complete("f0", us=50)
        driver.spawn("f1", "f2", "s1", "f3", where={"s1": OTHER})
        assert hand.held.keys() == {"f1", "f2"}
        assert driver.worker("two").held.keys() == {"s1"}


class TestShares:
    @pytest.mark.parametrize(("ready", "expected"), [(1, [1, 0, 0]), (4, [2, 1, 1]), (8, [3, 3, 2]), (9, [3, 3, 3])])
    def test_what_is_ready_is_spread_evenly(self, driver: SchedulerDriver, ready: int, expected: list[int]) -> None:
        hand = driver.worker("measures")
        driver.spawn("first")
        hand.complete("first", us=1_000)
        hand.drain()
        driver.hands.clear()
        hands = [driver.worker(name) for name in ("one", "two", "three")]
        driver.spawn(*nodes(ready))
        assert sorted((len(hand.held) for hand in hands), reverse=True) == expected

    @pytest.mark.parametrize(("us", "expected"), [(50, [7, 2, 0]), (5, [9, 0, 0]), (400, [3, 3, 3])])
    def test_what_takes_less_than_a_message_is_not_spread(
        self, driver: SchedulerDriver, us: int, expected: list[int]
    ) -> None:
        hands = [driver.worker(name) for name in ("one", "two", "three")]
        driver.spawn("first")
        next(hand for hand in hands if hand.held).complete("first", us=us)
        driver.spawn(*nodes(9))
        assert sorted((len(hand.held) for hand in hands), reverse=True) == expected

    def test_a_run_that_took_long_once_does_not_spread_it(self, driver: SchedulerDriver) -> None:
        hands = [driver.worker(name) for name in ("one", "two")]
        for us in (50, 50, 10_000):
            driver.spawn("before")
            next(hand for hand in hands if hand.held).complete("before", us=us)
        driver.spawn(*nodes(4))
        assert sorted(len(hand.held) for hand in hands) == [0, 4]

    def test_async_nodes_are_spread(self, driver: SchedulerDriver) -> None:
        hands = [driver.worker(name) for name in ("one", "two")]
        driver.spawn("first", of=ASYNC)
        next(hand for hand in hands if hand.held).complete("first", us=50)
        driver.spawn(*nodes(4), of=ASYNC)
        assert [len(hand.held) for hand in hands] == [2, 2]

    def test_an_empty_slot_goes_before_one_with_room(self, driver: SchedulerDriver) -> None:
        busy = driver.worker("busy")
        driver.spawn("first")
        busy.complete("first", us=50)
        driver.spawn("a", "b")
        idle = driver.worker("idle")
        driver.spawn("c")
        assert idle.held.keys() == {"c"}
        assert busy.held.keys() == {"a", "b"}

    def test_the_slot_that_waited_longest_comes_first(self, driver: SchedulerDriver) -> None:
        hands = {name: driver.worker(name) for name in ("one", "two", "three")}
        order = []
        for number in range(6):
            driver.spawn(f"n{number}")
            order.append(driver.holders()[f"n{number}"])
            hands[order[-1]].complete(f"n{number}")
        assert order == ["one", "two", "three"] * 2

    def test_a_chain_stays_where_it_began(self, driver: SchedulerDriver) -> None:
        """That process has the values, and all that the nodes have loaded."""
        hands = {name: driver.worker(name) for name in ("one", "two", "three")}
        driver.spawn("n0", *(f"n{number} <- n{number - 1}" for number in range(1, 5)))
        order = []
        for number in range(5):
            order.append(driver.holders()[f"n{number}"])
            hands[order[-1]].complete(f"n{number}")
        assert order == ["one"] * 5

    def test_children_begin_where_their_parent_ran(self, driver: SchedulerDriver) -> None:
        hands = {name: driver.worker(name) for name in ("one", "two")}
        driver.spawn("parent")
        hands["one"].make("parent", "child")
        hands["one"].complete("parent", "child")
        assert driver.holders() == {"child": "one"}

    def test_what_failed_runs_elsewhere_next_time(self, driver: SchedulerDriver) -> None:
        """The fault may be one of the machine."""
        hands = {name: driver.worker(name) for name in ("one", "two")}
        driver.spawn("n", "next <- n", of=retrying(3))
        hands["one"].fail("n")
        assert driver.holders() == {"n": "two"}
        hands["two"].complete("n")
        assert driver.holders() == {"next": "two"}

    def test_workers_that_cannot_help_take_no_share(self, driver: SchedulerDriver) -> None:
        able = driver.worker("able", slots=2, tolerations={"GPU"})
        driver.spawn("first", of=GPU)
        able.complete("first", us=50)
        for number in range(50):
            driver.worker(f"plain{number}")
        driver.spawn(*nodes(100), of=GPU)
        assert len(able.held) == 100

    def test_a_slot_that_is_stuck_is_given_nothing_more(self, driver: SchedulerDriver) -> None:
        """It had room by what its function took so far; what it is given would wait for who knows how long."""
        hand = driver.worker()
        driver.spawn("first")
        hand.complete("first", us=50)
        driver.spawn("takes long")
        driver.wait(0.005)
        driver.spawn("soon")
        assert hand.held.keys() == {"takes long", "soon"}
        driver.wait(0.006)
        driver.spawn("later")
        assert hand.held.keys() == {"takes long", "soon"}
        hand.complete("takes long", us=12_000)
        assert hand.held.keys() == {"soon", "later"}

    def test_a_slot_that_overlaps_async_nodes_is_never_stuck(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=ASYNC)
        driver.wait(1.0)
        driver.spawn("b", of=ASYNC)
        assert hand.held.keys() == {"a", "b"}


class TestTakingBack:
    def driver_with_one_loaded(self, driver: SchedulerDriver, us: int = 50) -> Hand:
        hand = driver.worker("laden")
        driver.spawn("first")
        hand.complete("first", us=us)
        driver.spawn("long", "b", "c")
        assert hand.held.keys() == {"long", "b", "c"}
        return hand

    def test_what_waits_behind_a_long_run_goes_to_who_is_idle(self, driver: SchedulerDriver) -> None:
        loaded = self.driver_with_one_loaded(driver)
        idle = driver.worker("idle")
        assert not loaded.asked_back
        driver.wait(STALE)
        assert loaded.asked_back == ["b", "c"]
        driver.wait(1.0)
        assert loaded.asked_back == ["b", "c"], "once is enough"
        with driver.at_once():
            loaded.give_back("b"), loaded.give_back("c")
        assert idle.held.keys() == {"b", "c"}
        assert loaded.held.keys() == {"long"}

    def test_it_is_not_asked_of_who_makes_progress(self, driver: SchedulerDriver) -> None:
        loaded = self.driver_with_one_loaded(driver)
        driver.worker("idle")
        for name in ("long", "b"):
            driver.wait(STALE * 0.9)
            loaded.complete(name, us=50)
        assert not loaded.asked_back

    def test_it_is_asked_again_after_progress(self, driver: SchedulerDriver) -> None:
        loaded = self.driver_with_one_loaded(driver)
        driver.worker("idle")
        driver.wait(STALE)
        loaded.complete("long", us=50)  # "b" had started before the request arrived
        loaded.asked_back.clear()
        driver.wait(STALE)
        assert loaded.asked_back == ["c"]

    def test_idle_workers_that_may_not_run_it_are_no_reason(self, driver: SchedulerDriver) -> None:
        loaded = self.driver_with_one_loaded(driver)
        driver.worker("idle", exclude_queues={"work"})
        driver.wait(1.0)
        assert not loaded.asked_back

    def test_it_is_enough_that_someone_may_run_some_of_it(self, driver: SchedulerDriver) -> None:
        loaded = driver.worker("laden", tolerations={"GPU"})
        driver.spawn("w", "g", where={"g": GPU})
        loaded.complete("w", us=50)
        loaded.complete("g", us=50)
        driver.spawn("long", "b", "last", where={"last": GPU})
        assert len(loaded.held) == 3
        driver.worker("plain")
        driver.wait(STALE)
        assert loaded.asked_back == ["b", "last"]

    def test_async_results_say_nothing_of_the_sync_node_that_runs(self, driver: SchedulerDriver) -> None:
        loaded = driver.worker("laden")
        driver.spawn("first")
        loaded.complete("first", us=50)
        driver.spawn("a1", "a2", "a3", of=ASYNC)
        driver.spawn("long", "waits")
        assert len(loaded.held) == 5
        driver.worker("idle")
        for name in ("a1", "a2", "a3"):
            driver.wait(STALE / 2)
            loaded.complete(name)
        assert loaded.asked_back[-1] == "waits"

    def test_async_nodes_beyond_those_that_overlap_are_taken_back(self, driver: SchedulerDriver) -> None:
        loaded = driver.worker("laden")
        driver.spawn(*nodes(1), of=ASYNC)
        loaded.complete("n0", us=50)
        driver.spawn(*[f"m{number}" for number in range(200)], of=ASYNC)
        assert len(loaded.held) == 200
        driver.worker("idle")
        driver.wait(STALE)
        assert loaded.asked_back[-1] == "m199"

    def test_an_older_instances_node_is_a_reason(self, driver: SchedulerDriver) -> None:
        older = driver.worker("older", tolerations={"GPU"}, include_queues={"gpus"})
        driver.spawn("source", "old <- source", where={"source": function("g", queue="gpus")})
        loaded = self.driver_with_one_loaded(driver)
        driver.wait(STALE)
        assert not loaded.asked_back
        older.complete("source")
        assert driver.holders().get("old") is None
        assert loaded.asked_back == ["b", "c"]
        with driver.at_once():
            loaded.give_back("b"), loaded.give_back("c")
        loaded.complete("long", us=50)
        assert next(iter(loaded.held)) == "old"

    def test_a_younger_node_is_none(self, driver: SchedulerDriver) -> None:
        loaded = self.driver_with_one_loaded(driver)
        driver.wait(STALE)
        driver.spawn("young")
        driver.wait(1.0)
        assert not loaded.asked_back

    def test_what_was_rebound_can_be_taken_back_too(self, driver: SchedulerDriver) -> None:
        loaded = self.driver_with_one_loaded(driver)
        driver.crash()
        loaded.connect()
        driver.worker("idle")
        assert not loaded.asked_back, "it was heard just now"
        driver.wait(STALE)
        assert loaded.asked_back == ["b", "c"]


class TestOnASimulatedClock:
    @pytest.mark.parametrize("workers", [1, 4])
    @pytest.mark.parametrize("instances", [1, 2])
    def test_a_thousand_fast_nodes_and_then_four_slow_ones_run_side_by_side(self, workers: int, instances: int) -> None:
        slow: list[int] = []
        simulation = Simulation(lambda node: 2.0 if node.key in slow else FAST)
        for number in range(workers):
            simulation.worker(f"w{number}", slots=4 // workers)
        if instances == 1:
            slow += simulation.spawn(*[WORK] * 1_004)[-4:]
        else:
            simulation.spawn(*[WORK] * 1_000)
            slow += simulation.spawn(*[WORK] * 4)
        assert simulation.run() < 2.0 + 0.1
        assert len({simulation.ran_on[key] for key in slow}) == 4
        starts = [simulation.started[key] for key in slow]
        assert max(starts) - min(starts) < 2 * STALE + 2 * EXCHANGE + 1_000 * FAST

    def test_slots_stay_busy_with_fast_nodes(self) -> None:
        simulation = Simulation(lambda node: FAST)
        simulation.worker("one", slots=2)
        simulation.spawn(*[WORK] * 4_000)
        assert simulation.run() < 4_000 * FAST / 2 * 1.15 + EXCHANGE

    def test_a_slow_node_is_never_waited_for(self) -> None:
        """Nodes of half a second, twice as many as slots: each slot runs two, and holds one at a time."""
        simulation = Simulation(lambda node: 0.5)
        simulation.worker("one", slots=4)
        simulation.spawn(*[WORK] * 8)
        assert simulation.run() < 1.0 + 3 * EXCHANGE
        assert {runner.most for runner in simulation.runners.values()} == {1}

    @pytest.mark.parametrize("seconds", [FAST, 1e-3, 5e-3])
    def test_an_older_instances_node_starts_within_the_window(self, seconds: float) -> None:
        """While young nodes fill every slot. The bound: 20 ms of work, and what messages and commits take."""
        simulation = Simulation(lambda node: 0.05 if node.queue.function is TAINTED else seconds)
        simulation.worker("able", tolerations=frozenset({"GPU"}), include_queues=frozenset({"tainted"}))
        simulation.worker("plain", slots=2)
        count = int(0.2 / seconds)
        old = simulation.spawn(TAINTED, *[OTHER] * 3, sources=[(), (0,), (0,), (0,)])
        simulation.spawn(*[WORK] * count)
        simulation.run(until=lambda: all(key in simulation.started for key in old))
        assert simulation.scheduler.graph.active, "young nodes still wait"
        assert max(map(simulation.delay, old)) < WINDOW_US / 1e6 + 2 * EXCHANGE

    def test_an_older_node_passes_what_waits_behind_runs_that_turn_out_long(self) -> None:
        """Slots hold hundreds of fast nodes, and then each takes 60 ms. The old one waits for one run, not for all."""
        slow_from = 100.06
        simulation = Simulation(
            lambda node: 0.1 if node.queue.function is TAINTED else FAST if simulation.now < slow_from else 0.06
        )
        simulation.worker("able", tolerations=frozenset({"GPU"}), include_queues=frozenset({"tainted"}))
        simulation.worker("plain", slots=2)
        old = simulation.spawn(TAINTED, OTHER, sources=[(), (0,)])
        simulation.spawn(*[WORK] * 4_000)
        simulation.run(until=lambda: old[1] in simulation.started)
        assert simulation.delay(old[1]) < 0.06 + STALE + 3 * EXCHANGE

    def test_within_one_slot_nodes_start_in_order(self) -> None:
        simulation = Simulation(lambda node: FAST)
        simulation.worker("one")
        keys = [key for _ in range(5) for key in simulation.spawn(*[WORK] * 100)]
        simulation.run()
        assert sorted(keys, key=simulation.started.__getitem__) == keys


class TestCost:
    """A thousand idle workers cost a step nothing: what is counted does not change with them."""

    def crowded(self, driver: SchedulerDriver, idle: int) -> None:
        for number in range(idle):
            driver.worker(f"idle{number}", slots=2, exclude_queues={"work"}, leave_when_drained=True)

    def step(self, driver: SchedulerDriver) -> int:
        return operations(lambda: driver.scheduler.tick(driver.now))

    def test_when_nothing_is_queued(self) -> None:
        costs = []
        for idle in (2, 500):
            driver = SchedulerDriver()
            driver.worker("holds")
            driver.spawn("keeps the others here")
            self.crowded(driver, idle)
            costs.append(self.step(driver))
        assert costs[1] <= costs[0] + 5

    def test_when_nodes_are_queued_that_they_may_not_run(self) -> None:
        costs = []
        for idle in (2, 500):
            driver = SchedulerDriver()
            driver.worker("holds")
            driver.spawn("a", "b", "c")
            self.crowded(driver, idle)
            costs.append(self.step(driver))
        assert costs[1] <= costs[0] + 5

    def test_when_one_of_them_is_given_a_node(self) -> None:
        costs = []
        for idle in (2, 500):
            driver = SchedulerDriver()
            for number in range(idle):
                driver.worker(f"idle{number}")
            with driver.at_once():
                driver.spawn("a")
                costs.append(self.step(driver))
        assert costs[1] <= costs[0] + 5

    def test_a_busy_worker_costs_a_step_little(self) -> None:
        def busy(count: int) -> SchedulerDriver:
            driver = SchedulerDriver()
            hands = [driver.worker(f"w{number}") for number in range(count)]
            driver.spawn(*nodes(count))
            for hand in hands[:1]:
                hand.complete(next(iter(hand.held)), us=50)
            return driver

        few, many = self.step(busy(2)), self.step(busy(200))
        assert many <= few + 5


def test_leaving_workers_are_in_no_pool(driver: SchedulerDriver) -> None:
    hands = [driver.worker("one"), driver.worker("two"), driver.worker("three", tolerations={"GPU"})]
    hands[0].drain()
    hands[1].vanish()
    pools = driver.scheduler.claims.pools.of(WireProtocol.V1)
    assert [worker for pool in pools for worker in pool.workers.values()] == [hands[2].worker]


def test_a_share_that_a_slow_worker_cannot_take_goes_to_the_others(driver: SchedulerDriver) -> None:
    """Found by the machine: it stayed queued until something else happened, though a worker had room for it."""
    for of in (function(), GPU):
        driver.scheduler.graph.make_queue(of).run_time.measured(10)
    slow = driver.worker("slow", tolerations={"GPU"})
    driver.spawn("runs", "unstarted", of=GPU)
    driver.wait(1.0)
    with driver.at_once():
        slow.give_back("unstarted")
        driver.cancel("unstarted")
        other = driver.worker("other")
        driver.spawn("a", "b", "c", "d", "e")
    assert [name for name in "abcde" if name not in other.held] == []
