"""Delays of single nodes: seconds after being ready, or a date; see `dagorama.later` and `dagorama.at`."""

import pytest

from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import State
from dagorama_broker.scheduler import NewNodes, ReasonCode, Scheduler, WorkerInfo
from tests.support.driver import WORK, SchedulerDriver, function, retrying
from tests.support.operations import operations

LATER = NodeDelay(seconds=6.0)


def in_seconds(driver: SchedulerDriver, seconds: float) -> NodeDelay:
    return NodeDelay(until=driver.wall + seconds)


class TestLater:
    def test_only_the_delayed_node_of_a_function_waits(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b", delays={"a": LATER})
        assert (driver.state("a"), list(hand.held)) == (State.BACKOFF, ["b"])
        driver.wait(5.9)
        assert list(hand.held) == ["b"]
        driver.wait(0.1)
        assert list(hand.held) == ["b", "a"]

    def test_the_seconds_count_from_the_end_of_the_last_source(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b", "c <- a b", delays={"c": LATER})
        hand.complete("a")
        driver.wait(2.0)
        hand.beat()
        hand.complete("b")
        assert driver.state("c") is State.BACKOFF
        driver.wait(5.9)
        assert hand.held == {}
        driver.wait(0.1)
        assert list(hand.held) == ["c"]

    @pytest.mark.parametrize(("of_function", "waits"), [(2.0, 6.0), (9.0, 9.0)])
    def test_the_longer_one_of_a_function_and_a_call_counts(
        self, driver: SchedulerDriver, of_function: float, waits: float
    ) -> None:
        hand = driver.worker()
        driver.spawn("a", of=function("delayed", delay=of_function), delays={"a": LATER})
        driver.wait(waits - 0.1)
        assert hand.held == {}
        driver.wait(0.1)
        assert list(hand.held) == ["a"]

    def test_it_does_not_go_along_with_its_source(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("warm")
        hand.complete("warm", us=50)
        driver.spawn("a", "b <- a")
        assert list(hand.held) == ["a", "b"]
        hand.complete("a", us=50)
        hand.complete("b", us=50)
        driver.spawn("c", "d <- c", delays={"d": LATER})
        assert (list(hand.held), driver.state("d")) == (["c"], State.WAITING)

    def test_a_retry_is_not_delayed_again(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=retrying(2), delays={"a": LATER})
        driver.wait(6.0)
        hand.fail("a")
        assert list(hand.held) == ["a"]

    def test_what_is_delayed_can_be_cancelled(self, driver: SchedulerDriver) -> None:
        driver.worker()
        driver.spawn("a", "b <- a", delays={"a": LATER})
        assert driver.cancel("a") == 2
        driver.wait(6.1)
        assert driver.states("a", "b") == ["CANCELLED", "CANCELLED"]

    def test_what_a_retry_makes_wait_again_is_delayed_again(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a", delays={"b": LATER})
        hand.fail("a")
        driver.retry("a")
        hand.complete("a")
        assert driver.state("b") is State.BACKOFF
        driver.wait(6.0)
        assert list(hand.held) == ["b"]

    def test_children_are_delayed_from_their_parents_result_on(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        attempt, key = hand.held["a"], driver.key("a")
        block = driver.run_of_attempt(attempt, driver.instance_of("a"), "", ["child"], WORK)
        block.delays = {0: LATER}
        driver.scheduler.report_children(hand.worker, key, attempt, block, {})
        driver.wait(3.0)
        hand.beat()
        hand.complete("a")
        driver.wait(5.9)
        assert hand.held == {}
        driver.wait(0.1)
        assert list(hand.held) == ["child"]


class TestAt:
    def test_it_does_not_start_before_the_date(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", delays={"a": in_seconds(driver, 9.0)})
        driver.wait(8.9)
        assert (driver.state("a"), hand.held) == (State.BACKOFF, {})
        driver.wait(0.1)
        assert list(hand.held) == ["a"]

    def test_after_the_date_it_starts_when_it_is_ready(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b <- a", "past", delays={"b": in_seconds(driver, 1.0), "past": NodeDelay(until=1.0)})
        assert sorted(hand.held) == ["a", "past"]
        driver.wait(2.0)
        hand.complete("a")
        assert sorted(hand.held) == ["b", "past"]

    @pytest.mark.parametrize("jump", [-3_600.0, 3_600.0])
    def test_a_clock_that_is_set_moves_dates_and_no_other_pause(self, driver: SchedulerDriver, jump: float) -> None:
        hand = driver.worker(slots=3)
        driver.spawn("dated", "plain", delays={"dated": in_seconds(driver, 7_200.0), "plain": NodeDelay(7_200.0)})
        driver.wall += jump
        hand.beat()
        for name, seconds in sorted({"dated": 7_200.0 - jump, "plain": 7_200.0}.items(), key=lambda each: each[1]):
            start = driver.now
            while name not in hand.held and driver.now < start + 20_000.0:
                driver.wait(5.0)
                hand.beat()
            assert driver.now - 1_000.0 == pytest.approx(seconds, abs=6.0)

    def test_a_machine_that_sleeps_over_the_date_starts_it_when_it_wakes(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", delays={"a": in_seconds(driver, 7_200.0)})
        driver.wall += 8_000.0  # the monotonic clock stood still
        hand = driver.worker()
        driver.wait(0.0)
        assert list(hand.held) == ["a"]


class TestRestart:
    @pytest.mark.parametrize("kind", ["later", "at"])
    def test_it_goes_on_with_what_is_left(self, driver: SchedulerDriver, kind: str) -> None:
        delay = LATER if kind == "later" else in_seconds(driver, 6.0)
        driver.spawn("a", delays={"a": delay})
        driver.wait(2.0)
        driver.crash(downtime=1.0)
        hand = driver.worker()
        driver.wait(2.9)
        assert hand.held == {}
        driver.wait(0.1)
        assert list(hand.held) == ["a"]

    def test_what_waits_for_a_source_is_delayed_afterwards(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b <- a", delays={"b": LATER})
        driver.crash()
        hand = driver.worker()
        hand.complete("a")
        assert driver.state("b") is State.BACKOFF
        driver.wait(6.0)
        assert list(hand.held) == ["b"]

    @pytest.mark.parametrize("rule", ["call", "function"])
    def test_a_delay_that_is_over_does_not_begin_again(self, driver: SchedulerDriver, rule: str) -> None:
        if rule == "call":
            driver.spawn("a", delays={"a": LATER})
        else:
            driver.spawn("a", of=function("delayed", delay=6.0))
        driver.wait(6.1)
        assert driver.state("a") is State.QUEUED
        driver.crash()
        assert driver.state("a") is State.QUEUED
        assert list(driver.worker().held) == ["a"]

    def test_a_node_that_was_lost_after_its_delay_is_not_delayed_again(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", delays={"a": LATER})
        driver.wait(6.0)
        hand.vanish()
        driver.crash()
        assert driver.state("a") is State.QUEUED

    def test_a_date_that_passes_while_no_broker_runs_is_over(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b", delays={"a": in_seconds(driver, 6.0), "b": LATER})
        driver.crash(downtime=100_000.0)
        assert sorted(driver.worker(slots=2).held) == ["a", "b"]

    def test_a_clock_that_was_set_back_prolongs_no_seconds(self, driver: SchedulerDriver) -> None:
        driver.spawn("dated", "plain", delays={"dated": in_seconds(driver, 6.0), "plain": LATER})
        driver.crash(downtime=-3_600.0)
        hand = driver.worker(slots=2)
        driver.wait(6.0)
        assert list(hand.held) == ["plain"]
        assert driver.state("dated") is State.BACKOFF


class TestExplained:
    def test_the_reason_says_which_rule_and_until_when(self, driver: SchedulerDriver) -> None:
        driver.spawn("later", "at", delays={"later": LATER, "at": in_seconds(driver, 9.0)})
        driver.spawn("long", of=function("delayed", delay=7.0), delays={"long": LATER})
        found = {}
        for name in ("later", "at", "long"):
            node = driver.scheduler.graph.find(driver.ids[name])
            assert node is not None
            (reason,) = driver.scheduler.reasons_of(node)
            assert reason.code is ReasonCode.DELAY
            found[name] = reason.text, round(reason.until - driver.now)
        assert found == {
            "later": ("it runs 6 s after it is ready, as its call said (later)", 6),
            "at": ("it waits for the time that its call gave (at)", 9),
            "long": ("it runs 7 s after it is ready (delay)", 7),
        }


MANY = 100_000


def due_together(count: int) -> tuple[Scheduler, int]:
    """Nodes that are all due in the same second, and the operations of the steps that queue and grant them."""
    scheduler = Scheduler(1)
    worker = scheduler.connect(WorkerInfo(b"w" * 16, "w"), (), 0.0)
    delays = dict.fromkeys(range(count), NodeDelay(60.0))
    block = NewNodes(
        b"i" * 16, b"o" * 12, 0, [WORK], [0] * count, [b"a"] * count, creates=("work:Work", b""), delays=delays
    )
    scheduler.submit([block], {})
    scheduler.tick(0.0)
    scheduler.drain()
    granted: list[int] = []

    def run() -> None:
        while len(granted) < count:
            scheduler.at(61.0, 0.0)
            scheduler.tick(61.0)
            for _, node, attempt in scheduler.drain()[1].granted:
                granted.append(node.key)
                scheduler.complete(worker, node.key, attempt, b"v", 10, (), (), {}, (), 61.0)

    steps = operations(run) if count < MANY else (run(), 0)[1]
    assert granted == sorted(granted)
    return scheduler, steps


def test_many_nodes_that_are_due_in_one_second_cost_the_same_each() -> None:
    few, many = due_together(1_000)[1], due_together(8_000)[1]
    assert many < 8 * few * 1.3


@pytest.mark.slow
def test_100_000_nodes_that_are_due_in_one_second_are_granted_in_order() -> None:
    scheduler, _ = due_together(MANY)
    assert not scheduler.nodes
