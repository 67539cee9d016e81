"""Pauses of keys: a node asks for one, and none with its key starts until it is over, whatever happens meanwhile."""

from __future__ import annotations

import pytest

from dagorama_broker.model.domain import Failure, Function, Rate, RetryPolicy, SharedLimit, State
from dagorama_broker.scheduler import DemandQuery, ReadyAges, Reason, ReasonCode, WorkerInfo
from tests.support.driver import Hand, SchedulerDriver, function

AGAIN = RetryPolicy(3, 1.0)
BY_RATE = function("by rate", rate=Rate(100, 10.0), rate_by_key=True, retry=AGAIN)
BY_CONCURRENCY = function("by concurrency", max_concurrency=4, retry=AGAIN)
SHARED = SharedLimit("api", Rate(100, 10.0), 8)
#: Functions without a key, all of whose nodes are paused.
WHOLE = [function("rated", rate=Rate(100, 10.0), retry=AGAIN), function("few at once", max_concurrency=4, retry=AGAIN)]


def asks_for(hand: Hand, name: str, seconds: float = 20.0) -> None:
    hand.fail(name, after=seconds, pause_key=True)


def reasons(driver: SchedulerDriver, name: str) -> list[Reason]:
    return driver.scheduler.reasons_of(driver.scheduler.nodes[driver.key(name)])


def says(driver: SchedulerDriver, name: str) -> list[str]:
    return [reason.text for reason in reasons(driver, name) if reason.code is ReasonCode.KEY_PAUSED]


class TestAKey:
    @pytest.mark.parametrize("of", [BY_RATE, BY_CONCURRENCY], ids=lambda of: str(of.name))
    def test_its_nodes_start_when_the_pause_is_over_and_others_meanwhile(
        self, driver: SchedulerDriver, of: Function
    ) -> None:
        hand = driver.worker()
        driver.spawn("a @x", "b @x", "c @y", of=of)
        asks_for(hand, "a")
        assert list(hand.held) == ["c"]
        hand.complete("c")
        driver.spawn("d @x", of=of)
        driver.wait(19.99)
        assert not hand.held
        driver.wait(0.01)
        assert driver.finish(hand) == ["a", "b", "d"]

    def test_it_holds_in_all_instances_and_for_other_code_of_the_function(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=4)
        newer = function("by concurrency", hash="newer", max_concurrency=4, retry=AGAIN)
        driver.spawn("a @x", of=BY_CONCURRENCY)
        asks_for(hand, "a")
        driver.spawn("b @x", of=newer)
        driver.spawn("other @x", of=BY_RATE)
        assert list(hand.held) == ["other"]
        driver.wait(20.0)
        assert set(hand.held) == {"a", "b", "other"}

    def test_the_pause_that_ends_last_holds(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=3)
        driver.spawn("a @x", "b @x", "c @x", "d @x", of=BY_CONCURRENCY)
        asks_for(hand, "a", 5.0)
        asks_for(hand, "b", 20.0)
        asks_for(hand, "c", 1.0)
        driver.wait(19.9)
        assert not hand.held
        driver.wait(0.1)
        assert set(hand.held) == {"a", "b", "c"}

    def test_it_holds_although_the_node_is_not_retried(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a @x", "b @x", of=function("once", max_concurrency=4))
        asks_for(hand, "a")
        assert driver.states("a", "b") == ["FAILED", "QUEUED"]
        driver.wait(20.0)
        assert list(hand.held) == ["b"]

    def test_nodes_that_wait_behind_others_are_asked_back(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("warm @z", of=BY_RATE)
        hand.complete("warm", us=1_000)
        driver.spawn(*[f"n{number} @x" for number in range(4)], of=BY_RATE)
        first = [name for name in hand.held if hand.slot_of[name] == 0]
        other = next(name for name in hand.held if hand.slot_of[name] == 1)
        assert len(first) == 2
        asks_for(hand, other)
        assert first[1] in hand.asked_back
        assert first[0] not in hand.asked_back
        hand.give_back(first[1])
        hand.complete(first[0], us=1_000)
        assert first[1] not in hand.held

    def test_a_moment_of_no_length_pauses_nothing(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a @x", "b @x", of=BY_CONCURRENCY)
        asks_for(hand, "a", 0.0)
        assert set(hand.held) == {"a", "b"}
        assert driver.ledger.key_pauses == {}


class TestWithoutAKey:
    @pytest.mark.parametrize("of", WHOLE, ids=lambda of: str(of.name))
    def test_all_nodes_of_the_function_wait(self, driver: SchedulerDriver, of: Function) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b", "c", of=of)
        asks_for(hand, "a")
        hand.complete("b")
        assert (driver.state("c"), hand.held) == (State.QUEUED, {})
        driver.wait(20.0)
        assert driver.finish(hand) == ["a", "c"]

    def test_all_functions_of_the_shared_limit_wait(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        of = function("asks", limit=SHARED, retry=AGAIN)
        driver.spawn("a", "b", "c", of=of)
        asks_for(hand, "a")
        driver.spawn("d", of=function("shares", limit=SHARED))
        driver.spawn("other")
        assert list(hand.held) == ["b", "other"]
        driver.finish(hand)
        driver.wait(20.0)
        assert driver.finish(hand) == ["a", "c", "d"]

    def test_with_a_key_and_a_shared_limit_the_key_waits(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        of = function("both", limit=SHARED, rate=Rate(100, 1.0), rate_by_key=True, retry=AGAIN)
        driver.spawn("a @x", "b @y", "c @x", of=of)
        asks_for(hand, "a")
        assert (list(hand.held), driver.state("c")) == (["b"], State.QUEUED)

    def test_a_function_with_nothing_to_pause_fails_and_says_so(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=function("Plain.work", retry=AGAIN))
        asks_for(hand, "a")
        assert driver.state("a") is State.FAILED
        packed = driver.outcome("a").failure
        assert packed is not None
        assert Failure.unpacked(packed).message == (
            "Plain.work has no rate, limit or max_concurrency, so that RetryLater(..., pause_key=True) finds nothing "
            "to pause: give it one, or leave pause_key out"
        )


class TestResumed:
    @pytest.mark.parametrize("of", [BY_RATE, BY_CONCURRENCY, *WHOLE], ids=lambda of: str(of.name))
    def test_a_person_ends_the_pauses_that_hold_nodes_of_a_queue(self, driver: SchedulerDriver, of: Function) -> None:
        hand, key = driver.worker(), " @x" if of in (BY_RATE, BY_CONCURRENCY) else ""
        driver.spawn(f"a{key}", f"b{key}", of=of)
        asks_for(hand, "a", 1e9)
        assert driver.scheduler.resume_keys("another queue") == 0
        assert driver.scheduler.resume_keys(of.queue) == 1
        driver.step()
        assert list(hand.held) == ["b"]
        assert driver.ledger.key_pauses == {}
        driver.crash()
        assert says(driver, "b") == []

    def test_a_shared_limit_goes_on_for_all_of_its_functions(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=3)
        driver.spawn("a", of=function("asks", limit=SHARED))
        asks_for(hand, "a", 1e9)
        shares = function("shares", limit=SHARED)
        driver.spawn("b", of=shares)
        assert not hand.held
        assert driver.scheduler.resume_keys(shares.queue) == 1
        driver.step()
        assert list(hand.held) == ["b"]


class TestAfterARestart:
    @pytest.mark.parametrize("of", [BY_RATE, BY_CONCURRENCY], ids=lambda of: str(of.name))
    def test_a_key_is_paused_for_what_is_left(self, driver: SchedulerDriver, of: Function) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a @x", "b @x", "c @x", of=of)
        hand.complete("b")
        asks_for(hand, "a", 30.0)
        hand.complete("c")
        driver.spawn("d @x", of=of)
        driver.crash(downtime=5.0)
        hand = driver.worker(slots=2)
        driver.wait(24.9)
        assert not hand.held
        driver.wait(0.1)
        assert set(hand.held) == {"a", "d"}
        assert driver.ledger.key_pauses == {}

    def test_a_shared_limit_is_paused_and_a_pause_that_is_over_is_not(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b", of=function("asks", limit=SharedLimit("api", None, 8), retry=AGAIN))
        asks_for(hand, "a", 30.0)
        driver.crash(downtime=1.0)
        driver.worker()
        assert len(says(driver, "b")) == 1
        driver.crash(downtime=29.0)
        driver.wait(0.0)
        hand = driver.worker()
        assert hand.held
        assert driver.ledger.key_pauses == {}

    def test_a_clock_that_was_set_back_makes_no_pause_longer(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a @x", "b @x", of=BY_CONCURRENCY)
        asks_for(hand, "a", 20.0)
        driver.crash(downtime=-3_600.0)
        hand = driver.worker()
        driver.wait(19.9)
        assert not hand.held
        driver.wait(0.2)
        assert hand.held


class TestWhatIsSaid:
    def test_why_a_node_waits_for_how_long_and_for_whom(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a @x", "b @x", of=BY_CONCURRENCY)
        asks_for(hand, "a")
        driver.wait(8.0)
        (reason,) = [each for each in reasons(driver, "b") if each.code is ReasonCode.KEY_PAUSED]
        assert reason.text == (
            "the key 'x' of by concurrency is paused for 12 more seconds, because a node asked for it (RetryLater)"
        )
        assert [driver.name(node) for node in reason.nodes] == ["a"]
        assert reason.until == driver.now + 12.0

    def test_the_limit_or_the_function_is_named(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b", of=function("asks", limit=SHARED, retry=AGAIN))
        asks_for(hand, "a")
        driver.spawn("c", "d", of=WHOLE[1])
        asks_for(hand, "c")
        driver.spawn("e", of=function("shares", limit=SHARED))
        assert says(driver, "e")[0].startswith("the limit 'api' is paused for 20 more seconds")
        driver.spawn("f", of=WHOLE[1])
        assert says(driver, "f")[0].startswith("few at once is paused for 20 more seconds")

    def test_the_list_of_limits_has_the_next_start(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=6)
        driver.spawn("a", "b", of=function("asks", limit=SHARED, retry=AGAIN))
        driver.spawn("c @x", "d @x", "e @y", of=BY_RATE)
        for name in ("a", "c"):
            asks_for(hand, name)
        driver.spawn("f @x", "g @y", of=BY_RATE)
        scheduler = driver.scheduler
        found = {(gate.name, gate.key): scheduler.next_start(gate) for gate in scheduler.limits_in_use(10)}
        assert found["api", None] == driver.now + 20.0
        assert found["by rate", "x"] == driver.now + 20.0
        assert found.get(("by rate", "y"), 0.0) == 0.0

    def test_the_queue_timeout_says_it_too(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a @x", "b @x", of=function("hurried", max_concurrency=4, retry=AGAIN, queue_timeout=5.0))
        asks_for(hand, "a")
        driver.wait(5.0)
        packed = driver.outcome("b").failure
        assert packed is not None
        assert "the key 'x' of hurried is paused for 15 more seconds" in Failure.unpacked(packed).message

    def test_paused_nodes_are_no_demand(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a @x", "b @x", "c @x", of=BY_CONCURRENCY)
        asks_for(hand, "a", 120.0)
        look = driver.scheduler.demand(ReadyAges(driver.scheduler.graph))
        assert look.demand(DemandQuery(WorkerInfo(b"id", "pool", 1))).ready == 0
