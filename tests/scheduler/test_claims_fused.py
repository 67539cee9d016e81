"""Dependents sent along with the sources that they wait for: claims that count once these have completed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dagorama_broker.scheduler.assignment import MOST_JOINED, STALE
from dagorama_broker.scheduler.run_times import WINDOW_US
from tests.support.driver import WORK, Hand, SchedulerDriver, function

FAST = 50


def measured(driver: SchedulerDriver, *hands: Hand) -> None:
    """Let `work` have run, so that a slot is given more than one."""
    driver.spawn("warm")
    holder = next(hand for hand in hands if "warm" in hand.held)
    holder.complete("warm", us=FAST)


@pytest.fixture
def hand(driver: SchedulerDriver) -> Hand:
    hand = driver.worker()
    measured(driver, hand)
    return hand


class TestWhatGoesAlong:
    def test_a_chain_is_held_as_one(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a", "c <- b")
        assert list(hand.held) == ["a", "b", "c"]
        assert driver.states("a", "b", "c") == ["CLAIMED"] * 3

    def test_it_runs_through_without_another_grant(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a", "c <- b")
        for name in ("a", "b", "c"):
            assert hand.complete(name, us=FAST)
            assert not driver.effects.granted
        assert driver.states("a", "b", "c") == ["COMPLETED"] * 3

    def test_a_chain_is_cut_at_the_window(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("n0", *[f"n{number} <- n{number - 1}" for number in range(1, 2_000)])
        assert 200 <= len(hand.held) <= WINDOW_US / FAST
        ran = 0
        while hand.held:
            hand.complete(next(iter(hand.held)), us=FAST)
            ran += 1
        assert ran == 2_000

    def test_a_function_that_has_never_run_fills_the_window(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a")
        assert list(hand.held) == ["a"]

    def test_one_dependent_goes_along_and_the_others_are_for_all(self, driver: SchedulerDriver) -> None:
        hands = [driver.worker("one"), driver.worker("two")]
        measured(driver, *hands)
        driver.spawn("a", "b <- a", "c <- a")
        holder = next(hand for hand in hands if "a" in hand.held)
        assert list(holder.held) == ["a", "b"]
        holder.complete("a", us=FAST)
        assert driver.states("b", "c") == ["CLAIMED", "CLAIMED"]
        assert {driver.holders()["b"], driver.holders()["c"]} == {"one", "two"}

    def test_a_join_goes_along_with_sources_that_one_slot_is_granted(self, driver: SchedulerDriver) -> None:
        hands = [driver.worker("one"), driver.worker("two")]
        measured(driver, *hands)
        driver.spawn("a", "b", "c", "join <- a b c", "after <- join")
        holder = next(hand for hand in hands if hand.held)
        assert list(holder.held) == ["a", "b", "c", "join", "after"]
        for name in list(holder.held):
            assert holder.complete(name, us=FAST)
            assert not driver.effects.granted

    def test_joins_of_joins_go_along(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b", "c", "d", "left <- a b", "right <- c d", "top <- left right")
        assert list(hand.held) == ["a", "b", "left", "c", "d", "right", "top"]

    def test_a_join_waits_if_its_sources_are_in_two_slots(self, driver: SchedulerDriver) -> None:
        hands = [driver.worker("one"), driver.worker("two")]
        driver.spawn("first")
        next(hand for hand in hands if hand.held).complete("first", us=2_000)
        driver.spawn("a", "b", "join <- a b")
        assert sorted(list(hand.held) for hand in hands) == [["a"], ["b"]]

    def test_a_join_waits_for_a_source_of_an_earlier_grant(self, driver: SchedulerDriver, hand: Hand) -> None:
        """Its value may be on the way already, and the process has not kept it."""
        instance = driver.fresh(16)
        driver.submit(replace(driver.run(instance, driver.fresh(12), ["a"], WORK), creates=("work:Work", b"")))
        assert list(hand.held) == ["a"]
        driver.add(instance, "b", "join <- a b")
        assert list(hand.held) == ["a", "b"]

    def test_a_join_waits_if_one_of_its_sources_is_async(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b", "join <- a b", where={"b": function("other", is_async=True)})
        assert "join" not in hand.held

    def test_one_of_two_joins_goes_along(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b", "one <- a b", "two <- a b")
        assert list(hand.held) == ["a", "b", "one"]
        for name in ("a", "b", "one"):
            assert hand.complete(name, us=FAST)
        assert hand.complete("two", us=FAST)

    def test_a_join_of_very_many_goes_by_itself(self, driver: SchedulerDriver, hand: Hand) -> None:
        heads = [f"n{number}" for number in range(MOST_JOINED + 1)]
        driver.spawn(*heads, f"join <- {' '.join(heads)}")
        assert list(hand.held) == heads

    def test_a_worker_that_does_not_know_of_joins_is_granted_none_along(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(fuses_joins=False)
        measured(driver, hand)
        driver.spawn("a", "b", "join <- a b", "c", "after <- c")
        assert list(hand.held) == ["a", "b", "c", "after"]

    def test_a_join_waits_for_its_last_source_only(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2, fuses_joins=False)
        measured(driver, hand)
        with driver.at_once():
            driver.spawn("a", "b", "join <- a b")
        assert "join" not in hand.held
        hand.complete("a", us=FAST)
        hand.complete("b", us=FAST)
        assert hand.complete("join", us=FAST)

    @pytest.mark.parametrize(
        "rules",
        [
            {"max_concurrency": 5},
            {"timeout": 5.0},
            {"delay": 0.1},
            {"is_async": True},
            {"stream_children": True},
            {"taint": "T"},
        ],
    )
    def test_what_has_a_limit_a_timeout_or_a_delay_goes_by_itself(
        self, driver: SchedulerDriver, rules: dict[str, object]
    ) -> None:
        hand = driver.worker()
        other = function("other", **rules)
        driver.spawn("first", of=other)
        if "first" in hand.held:
            hand.complete("first", us=FAST)
        measured(driver, hand)
        driver.spawn("a", "b <- a", where={"b": other})
        assert list(hand.held) == ["a"]
        assert driver.state("b").name == "WAITING"


class TestWhenItIsVoid:
    def test_the_source_fails_and_so_does_what_went_along(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a", "c <- b")
        attempt = hand.held["b"]
        hand.fail("a")
        assert driver.states("a", "b", "c") == ["FAILED"] * 3
        assert driver.root_cause("c") == "a"
        assert not hand.complete("b", attempt=attempt)

    def test_a_source_that_is_run_again_leaves_it_waiting_uncounted(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a")
        attempt = hand.held["b"]
        hand.give_back("a")
        assert driver.holders() == {"a": "worker", "b": "worker"}, "both are granted again"
        assert not hand.complete("b", attempt=attempt), "what ran on a value that is not recorded does not count"
        assert not driver.ledger.progress

    def test_a_source_that_returns_promises_leaves_it_waiting(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a")
        attempt = hand.held["b"]
        hand.make("a", "child")
        hand.complete("a", "child", us=FAST)
        assert driver.states("a", "b", "child") == ["RESOLVING", "WAITING", "CLAIMED"]
        assert not hand.complete("b", attempt=attempt)
        hand.complete("child", us=FAST)
        assert driver.states("a", "b") == ["COMPLETED", "CLAIMED"]

    def test_given_back_before_its_source_has_ended_it_waits_and_after_that_it_is_queued(
        self, driver: SchedulerDriver, hand: Hand
    ) -> None:
        driver.spawn("a", "b <- a", "c <- b")
        hand.give_back("c")
        assert driver.state("c").name == "WAITING"
        with driver.at_once():
            hand.complete("a", us=FAST)
            hand.give_back("b")
        assert driver.states("b", "c") == ["CLAIMED", "CLAIMED"], "queued, and granted together again"

    def test_a_result_that_comes_before_its_source_does_is_refused(self, driver: SchedulerDriver, hand: Hand) -> None:
        """Case 5: not ready."""
        driver.spawn("a", "b <- a")
        assert not hand.complete("b")
        assert not hand.fail("b", attempt=hand.held.get("b", 1))
        assert driver.states("a", "b") == ["CLAIMED", "WAITING"]
        hand.complete("a", us=FAST)
        assert hand.complete("b")

    def test_cancelled_with_its_source_both_are_told(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a", "c <- b")
        attempts = list(hand.held.values())
        driver.cancel("a")
        assert driver.states("a", "b", "c") == ["CANCELLED"] * 3
        assert hand.cancelled == attempts

    def test_cancelled_by_itself_its_source_goes_on(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a", "c <- b")
        driver.cancel("b")
        assert driver.states("a", "b", "c") == ["CLAIMED", "CANCELLED", "CANCELLED"]
        assert hand.complete("a", us=FAST)

    def test_children_that_it_has_made_go_with_its_attempt(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a")
        assert hand.make("b", "never seen")
        hand.fail("a")
        assert not driver.is_visible("never seen")
        assert not driver.scheduler.staged


class TestWhenAJoinIsVoid:
    @pytest.fixture
    def attempt(self, driver: SchedulerDriver, hand: Hand) -> int:
        """Return the attempt of a node that goes along with the sources a, b and c."""
        driver.spawn("a", "b", "c", "join <- a b c", "after <- join")
        assert list(hand.held) == ["a", "b", "c", "join", "after"]
        return hand.held["join"]

    @pytest.mark.parametrize("bad", ["a", "b", "c"])
    def test_one_source_fails(self, driver: SchedulerDriver, hand: Hand, attempt: int, bad: str) -> None:
        for name in "abc":
            assert hand.fail(name) if name == bad else hand.complete(name, us=FAST)
        assert driver.states("join", "after") == ["FAILED", "FAILED"]
        assert driver.root_cause("after") == bad
        assert not hand.complete("join", attempt=attempt)

    @pytest.mark.parametrize("bad", ["a", "b", "c"])
    def test_one_source_is_given_back(self, driver: SchedulerDriver, hand: Hand, attempt: int, bad: str) -> None:
        with driver.at_once():
            assert hand.give_back(bad)
            assert not hand.complete("join", attempt=attempt), "it ran on a value that is not recorded"
            assert driver.states("join", "after") == ["WAITING", "WAITING"]
        others = [name for name in "abc" if name != bad]
        for name in [*others, bad]:
            assert hand.complete(name, us=FAST)
        assert not hand.complete("join", attempt=attempt)
        assert hand.complete("join", us=FAST)
        assert hand.complete("after", us=FAST)

    def test_one_source_returns_promises(self, driver: SchedulerDriver, hand: Hand, attempt: int) -> None:
        hand.complete("a", us=FAST)
        hand.make("b", "child")
        hand.complete("b", "child", us=FAST)
        assert driver.states("a", "b", "c", "join") == ["COMPLETED", "RESOLVING", "CLAIMED", "WAITING"]
        assert not hand.complete("join", attempt=attempt)
        hand.complete("c", us=FAST)
        hand.complete("child", us=FAST)
        assert driver.states("b", "join") == ["COMPLETED", "CLAIMED"]

    def test_a_result_before_the_last_source_is_refused(
        self, driver: SchedulerDriver, hand: Hand, attempt: int
    ) -> None:
        """Case 5: not ready."""
        hand.complete("a", us=FAST)
        hand.complete("b", us=FAST)
        assert not hand.complete("join")
        assert driver.states("c", "join", "after") == ["CLAIMED", "WAITING", "WAITING"]
        hand.complete("c", us=FAST)
        assert hand.complete("join")

    def test_one_source_is_cancelled(self, driver: SchedulerDriver, hand: Hand, attempt: int) -> None:
        told = [hand.held[name] for name in ("b", "join", "after")]
        driver.cancel("b")
        assert driver.states("b", "join", "after") == ["CANCELLED"] * 3
        assert hand.cancelled == told
        assert hand.complete("a", us=FAST)
        assert hand.complete("c", us=FAST)

    def test_it_takes_a_failure_of_one_source_as_a_value_by_itself(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b", "join <- a? b")
        attempt = hand.held["join"]
        hand.fail("a")
        assert not hand.complete("join", attempt=attempt)
        hand.complete("b", us=FAST)
        assert hand.complete("join", us=FAST)

    def test_it_is_not_reclaimed_beside_another_run_of_one_source(
        self, driver: SchedulerDriver, hand: Hand, attempt: int
    ) -> None:
        old = dict(hand.held)
        hand.complete("a", us=FAST)
        hand.complete("c", us=FAST)
        driver.crash()
        driver.wait(3.0)
        other = driver.worker("other")
        other.complete("b", us=FAST)
        other.vanish()
        hand.held = {name: old[name] for name in ("b", "join", "after")}
        hand.connect()
        assert set(hand.refused) >= {old["b"], attempt}

    def test_it_is_reclaimed_once_all_its_sources_are_on_record(
        self, driver: SchedulerDriver, hand: Hand, attempt: int
    ) -> None:
        for name in "abc":
            hand.complete(name, us=FAST)
        driver.crash()
        hand.connect()
        assert hand.held["join"] == attempt

    def test_an_idle_slot_takes_it_apart_if_a_source_takes_longer_than_it_used_to(
        self, driver: SchedulerDriver, hand: Hand, attempt: int
    ) -> None:
        idle = driver.worker("idle")
        driver.wait(STALE)
        assert hand.asked_back == ["b", "c", "join", "after"]
        with driver.at_once():
            for name in hand.asked_back:
                hand.give_back(name)
        assert (list(hand.held), list(idle.held)) == (["a"], ["b", "c"])
        for holder, name in ((idle, "b"), (idle, "c"), (hand, "a")):
            assert holder.complete(name, us=FAST)
        assert driver.states("join", "after") == ["CLAIMED", "CLAIMED"]


class TestTrouble:
    def test_it_dies_while_its_sources_result_was_on_its_way(self, driver: SchedulerDriver, hand: Hand) -> None:
        """Case 20: the death is its own; and then it goes alone, so that its source's result is not lost again."""
        driver.spawn("a", "b <- a", "c <- b")
        hand.child_dies(["b"], ["a", "c"])
        progress = driver.ledger.progress
        assert [(progress[driver.key(name)].crashes if driver.key(name) in progress else 0) for name in "abc"] == [
            0,
            1,
            0,
        ]
        assert list(hand.held) == ["a"]
        hand.complete("a", us=FAST)
        assert list(hand.held) == ["b"]
        for _ in range(2):
            hand.child_dies(["b"])
        assert driver.states("a", "b", "c") == ["COMPLETED", "FAILED", "FAILED"]

    def test_a_lost_worker_counts_against_the_source_alone(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a")
        hand.vanish()
        assert driver.states("a", "b") == ["QUEUED", "WAITING"]
        assert driver.ledger.progress[driver.key("b")].worker_losses == 0
        other = driver.worker("other")
        assert list(other.held) == ["a"], "what was lost goes alone"

    def test_a_worker_that_comes_back_is_refused_what_ran_on_a_value_that_is_not_recorded(
        self, driver: SchedulerDriver, hand: Hand
    ) -> None:
        driver.spawn("a", "b <- a")
        old = dict(hand.held)
        hand.vanish()
        other = driver.worker("other")
        other.complete("a", us=FAST)
        other.vanish()
        hand.held = dict(old)
        hand.connect()
        assert set(hand.refused) == {old["a"], old["b"]}
        assert hand.held.get("b") != old["b"]

    def test_a_restart_does_not_reclaim_it_beside_another_run_of_its_source(
        self, driver: SchedulerDriver, hand: Hand
    ) -> None:
        """The new broker has never heard that it was granted; its attempt is older than its source's recorded one."""
        driver.spawn("a", "b <- a")
        old = dict(hand.held)
        driver.crash()
        driver.wait(3.0)
        other = driver.worker("other")
        other.complete("a", us=FAST)
        other.vanish()
        hand.held = dict(old)
        hand.connect()
        assert set(hand.refused) == {old["a"], old["b"]}

    def test_the_second_restart_does_not_reclaim_it_either(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a")
        old = dict(hand.held)
        driver.crash()
        driver.wait(3.0)
        other = driver.worker("other")
        other.complete("a", us=FAST)
        driver.crash()
        hand.held = dict(old)
        hand.connect()
        assert set(hand.refused) >= {old["b"]}

    def test_a_restart_reclaims_it_once_its_source_is_on_record(self, driver: SchedulerDriver, hand: Hand) -> None:
        driver.spawn("a", "b <- a")
        hand.complete("a", us=FAST)
        old = hand.held["b"]
        driver.crash()
        hand.connect()
        assert hand.held == {"b": old}
        assert not hand.refused


class TestTakingBack:
    def test_nodes_that_an_idle_worker_could_not_run_either_are_not_taken_back(
        self, driver: SchedulerDriver, hand: Hand
    ) -> None:
        driver.spawn("a", "b <- a")
        driver.worker("idle")
        driver.wait(1.0)
        assert not hand.asked_back

    def test_an_older_instance_gets_its_turn(self, driver: SchedulerDriver, hand: Hand) -> None:
        slow = function("slow", delay=0.5)
        driver.spawn("older", of=slow)
        driver.spawn("a", "b <- a")
        assert list(hand.held) == ["a", "b"]
        driver.wait(1.0)
        assert hand.asked_back == ["b"]
