"""The rules that a function may carry: delay, queue_timeout, priority, max_concurrency, max_deaths; and a failure."""

import pytest

from dagorama_broker.model.domain import State
from tests.support.driver import SchedulerDriver, function, retrying

DELAYED = function("delayed", delay=3.0)
PATIENT = function("patient", queue_timeout=5.0)
PAIR = function("pair", max_concurrency=2)


class TestDelay:
    def test_the_first_run_starts_when_the_delay_is_over(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=DELAYED)
        driver.wait(2.9)
        assert (hand.held, driver.state("a")) == ({}, State.BACKOFF)
        driver.wait(0.1)
        assert "a" in hand.held

    def test_it_begins_when_the_sources_are_there_and_only_once(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a", where={"b": DELAYED})
        driver.wait(10.0)
        hand.complete("a")
        assert driver.state("b") is State.BACKOFF
        driver.wait(3.0)
        hand.give_back("b")
        assert driver.state("b") is State.CLAIMED

    def test_a_restart_goes_on_with_what_is_left_of_it(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", of=DELAYED)
        driver.wait(1.0)
        driver.crash(downtime=0.5)
        hand = driver.worker()
        driver.wait(1.4)
        assert hand.held == {}
        driver.wait(0.2)
        assert "a" in hand.held

    def test_nothing_is_drained_while_a_node_is_delayed(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(leave_when_drained=True)
        assert hand.may_leave  # nothing was there
        other = driver.worker("other", leave_when_drained=True) if driver.spawn("a", of=DELAYED) else None
        assert other is not None
        assert not other.may_leave


class TestQueueTimeout:
    def test_times_out_of_date_do_not_gather(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        for number in range(500):
            driver.spawn(f"n{number}", of=PATIENT)
            hand.complete(f"n{number}")
        assert len(driver.scheduler.graph.expiries) < 100

    def test_a_node_that_no_worker_may_run_fails_in_time_with_the_reason(self, driver: SchedulerDriver) -> None:
        driver.worker(exclude_queues=frozenset({"patient"}))
        driver.spawn("a", "b <- a", of=PATIENT)
        driver.wait(4.9)
        assert driver.state("a") is State.QUEUED
        driver.wait(0.1)
        assert driver.states("a", "b") == ["FAILED", "FAILED"]
        assert driver.failure("b").type == "dagorama.errors.QueueTimeout"
        assert "excludes queue 'patient'" in driver.failure("b").message

    def test_what_runs_in_time_may_take_its_time(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=PATIENT)
        driver.wait(4.0)
        for _ in range(5):
            driver.wait(4.0)
            hand.beat()
        assert driver.state("a") is State.CLAIMED

    def test_a_node_that_comes_back_has_its_whole_time_again(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=PATIENT)
        driver.wait(4.0)
        hand.drain()
        hand.give_back("a")
        driver.wait(4.0)
        assert driver.state("a") is State.QUEUED
        driver.wait(1.0)
        assert driver.state("a") is State.FAILED
        assert driver.in_memory() == {}


class TestPriority:
    def test_higher_goes_first_within_an_instance(self, driver: SchedulerDriver) -> None:
        driver.spawn("low", "plain", "high", where={"low": function("low", priority=-1), "plain": function("plain"),
                                                   "high": function("high", priority=5)})  # fmt: skip
        hand = driver.worker()
        ran = []
        while hand.held:
            ran += (names := list(hand.held))
            hand.complete(names[0])
        assert ran == ["high", "plain", "low"]

    def test_an_older_instance_goes_before_any_priority(self, driver: SchedulerDriver) -> None:
        driver.spawn("old")
        driver.spawn("new", of=function("urgent", priority=127))
        assert driver.worker().held.keys() == {"old"}


class TestMaxConcurrency:
    def test_no_more_are_claimed_at_once_on_all_workers(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b", "c", of=PAIR)
        hands = [driver.worker(f"w{number}") for number in range(3)]
        assert sorted(name for hand in hands for name in hand.held) == ["a", "b"]
        next(hand for hand in hands if "a" in hand.held).complete("a")
        assert sorted(name for hand in hands for name in hand.held) == ["b", "c"]

    def test_it_holds_up_no_other_function(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b", "c", of=PAIR)
        driver.spawn("other")
        driver.worker("one", slots=2)
        assert driver.worker("two").held.keys() == {"other"}

    @pytest.mark.parametrize("how", ["vanish", "give back", "fail", "die", "cancel"])
    def test_a_place_is_free_again_however_a_run_ends(self, driver: SchedulerDriver, how: str) -> None:
        driver.spawn("a", "b", of=function("alone", max_concurrency=1))
        hand, other = driver.worker("one"), driver.worker("two")
        assert (list(hand.held), list(other.held)) == (["a"], [])
        other.drain()
        if how == "vanish":
            hand.vanish()
        elif how == "give back":
            hand.give_back("a")
        elif how == "fail":
            hand.fail("a")
        elif how == "die":
            hand.child_dies(running=["a"])
        else:
            driver.cancel("a")
        third = driver.worker("three")
        assert len({*hand.held, *third.held} - {"a"} if how in ("fail", "cancel") else {"x"}) == 1
        queue = next(queue for queue in driver.scheduler.graph.queues.values() if queue.function.name == "alone")
        assert queue.claimed == len(driver.scheduler.claims.claimed) <= 1

    def test_a_restart_does_not_leak_places(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b", of=function("alone", max_concurrency=1))
        driver.crash()
        hand.connect()
        assert hand.held.keys() == {"a"}
        hand.complete("a")
        assert hand.held.keys() == {"b"}


class TestConcurrencyKey:
    def keyed(self, driver: SchedulerDriver, *keys: str) -> None:
        """A node named for each key, of a function of which one may run for each."""
        run = driver.run(driver.fresh(16), driver.fresh(12), keys, function("keyed", max_concurrency=1))
        run.creates = ("work:Work", b"")
        run.keys = sorted({key[0] for key in keys})
        run.key = [1 + run.keys.index(key[0]) for key in keys]
        driver.submit(run)

    def test_each_key_has_its_own_places(self, driver: SchedulerDriver) -> None:
        self.keyed(driver, "a1", "a2", "b1")
        hand = driver.worker(slots=3)
        assert sorted(hand.held) == ["a1", "b1"]
        hand.complete("a1")
        assert sorted(hand.held) == ["a2", "b1"]

    def test_it_survives_a_restart(self, driver: SchedulerDriver) -> None:
        self.keyed(driver, "a1", "a2", "b1")
        driver.crash()
        assert sorted(driver.worker(slots=3).held) == ["a1", "b1"]

    def test_keys_without_nodes_are_forgotten(self, driver: SchedulerDriver) -> None:
        self.keyed(driver, "a1", "b1")
        hand = driver.worker(slots=2)
        hand.complete("a1")
        hand.complete("b1")
        assert len(driver.scheduler.graph.keyed) == 0


def test_a_function_may_die_as_often_as_it_says(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", of=function("fragile", max_deaths=1))
    hand.child_dies(running=["a"], cause="killed by SIGKILL")
    assert driver.state("a") is State.FAILED
    assert "killed by SIGKILL" in driver.failure("a").message


class TestWhatAFailureSays:
    def test_a_final_one_is_the_last_whatever_the_policy_says(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=retrying(5))
        hand.fail("a", final=True)
        assert (driver.state("a"), driver.failure("a").attempts) == (State.FAILED, 1)

    def test_it_may_bring_its_own_pause(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=retrying(5, 1.0))
        hand.fail("a", after=30.0)
        driver.crash()
        hand.connect()
        for _ in range(29):
            driver.wait(1.0)
            hand.beat()
        assert hand.held == {}
        driver.wait(1.0)
        assert "a" in hand.held

    def test_the_last_one_carries_those_before(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=retrying(3))
        for message in ("first", "second", "third"):
            hand.fail("a", message)
        failure = driver.failure("a")
        assert (failure.message, [run[1] for run in failure.earlier]) == ("third", ["first", "second"])
