"""Instances with different fair keys take turns; without keys, the order is the order of creation."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagorama_broker.model.rows import InstanceRow, TurnRow
from dagorama_broker.scheduler import ReasonCode
from dagorama_broker.scheduler.places import KEY_MASK, Places, rank
from dagorama_broker.scheduler.queues import order
from dagorama_broker.scheduler.turns import Turns
from tests.support.driver import Hand, SchedulerDriver, function
from tests.support.invariants import check

URGENT = function("urgent", priority=127)


def flood(driver: SchedulerDriver, key: str, count: int, priority: int = 0, name: str = "") -> None:
    """Instances of one node each."""
    for number in range(count):
        driver.spawn(f"{name or key}{number}", fair=key, priority=priority)


def run_all(driver: SchedulerDriver, hand: Hand | None = None) -> list[str]:
    """Return the names of the nodes in the order in which one slot runs them."""
    hand, ran = hand or driver.worker(), []
    while hand.held:
        (name,) = hand.held
        ran.append(name)
        hand.complete(name, us=3_000_000)
        check(driver)
    return ran


class TestOrder:
    def test_keys_take_turns_in_any_order_of_submission(self, driver: SchedulerDriver) -> None:
        flood(driver, "a", 4)
        flood(driver, "b", 2)
        flood(driver, "c", 1)
        assert run_all(driver) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]

    def test_instances_without_a_key_share_one(self, driver: SchedulerDriver) -> None:
        flood(driver, "", 3, name="plain")
        flood(driver, "a", 3)
        flood(driver, "", 1, name="late")
        assert run_all(driver) == ["plain0", "a0", "plain1", "a1", "plain2", "a2", "late0"]

    def test_a_key_begins_at_the_present_turn(self, driver: SchedulerDriver) -> None:
        """It neither makes up for turns at which it had nothing, nor waits behind what others have submitted."""
        hand = driver.worker()
        flood(driver, "a", 6)
        for name in ("a0", "a1", "a2"):
            hand.complete(name, us=3_000_000)
        flood(driver, "b", 3)
        assert run_all(driver, hand) == ["a3", "a4", "b0", "a5", "b1", "b2"]

    def test_an_instance_that_has_begun_goes_on_before_younger_turns(self, driver: SchedulerDriver) -> None:
        driver.spawn("a0", "then<-a0", "last<-then", fair="a")
        driver.spawn("a1", fair="a")
        driver.spawn("b0", fair="b")
        assert run_all(driver) == ["a0", "then", "last", "b0", "a1"]

    def test_instances_of_one_turn_do_not_mix(self, driver: SchedulerDriver) -> None:
        for key in ("a", "b"):
            driver.spawn(f"{key}0", f"{key}1", f"{key}2<-{key}0", fair=key)
        driver.spawn("urgent", of=URGENT, fair="c")
        assert run_all(driver) == ["a0", "a1", "a2", "b0", "b1", "b2", "urgent"]

    def test_a_priority_goes_before_all_turns(self, driver: SchedulerDriver) -> None:
        flood(driver, "a", 2)
        flood(driver, "a", 2, priority=5, name="high")
        flood(driver, "b", 1, priority=5, name="other")
        flood(driver, "b", 1, priority=-128)
        assert run_all(driver) == ["high0", "other0", "high1", "a0", "a1", "b0"]

    def test_turns_of_one_priority_say_nothing_about_those_of_another(self, driver: SchedulerDriver) -> None:
        flood(driver, "a", 3)
        flood(driver, "a", 9, priority=5, name="high")
        hand = driver.worker()
        for number in range(9):
            hand.complete(f"high{number}", us=3_000_000)
        flood(driver, "b", 1)
        assert run_all(driver, hand) == ["a0", "a1", "b0", "a2"]

    def test_children_in_instances_of_their_own_have_their_own_key(self, driver: SchedulerDriver) -> None:
        flood(driver, "a", 3)
        hand = driver.worker()
        hand.make("a0", "child", new="other")
        assert run_all(driver, hand) == ["a0", "a1", "child", "a2"]

    def test_cancelled_instances_have_used_no_turns(self, driver: SchedulerDriver) -> None:
        driver.spawn("b0", "b1", "b2", fair="b")
        flood(driver, "a", 100)
        flood(driver, "b", 2, name="next")
        for number in range(100):
            driver.cancel(f"a{number}")
        flood(driver, "a", 1, name="again")
        assert run_all(driver) == ["b0", "b1", "b2", "again0", "next0", "next1"]


def test_a_node_says_whose_turn_comes_first(driver: SchedulerDriver) -> None:
    def reason(name: str) -> str:
        reasons = driver.scheduler.reasons_of(driver.scheduler.graph.nodes[driver.key(name)])
        (found,) = [each.text for each in reasons if each.code in (ReasonCode.BEHIND, ReasonCode.NEXT)]
        return found

    driver.worker()
    flood(driver, "", 2, name="plain")
    assert reason("plain1") == "no older node is queued for the workers that may run it"
    flood(driver, "", 1, name="more")
    assert reason("more0") == "about 1 older node goes first"
    flood(driver, "a", 4)
    turns = "first: fair keys take turns, and"
    assert reason("a0") == f"about 1 node goes {turns} the key 'a' is next"
    assert reason("a3") == f"about 5 nodes go {turns} the key 'a' is 4 turns away"
    assert reason("more0") == f"about 2 nodes go {turns} the instances without a key are 2 turns away"


@pytest.mark.parametrize("used", [False, True])
def test_without_keys_turns_are_the_keys_of_instances_and_nothing_is_stored(
    driver: SchedulerDriver, used: bool
) -> None:
    if used:
        flood(driver, "a", 1)
        run_all(driver, driver.worker("first"))
        assert len(driver.ledger.turns) == 1
        driver.hands[next(iter(driver.hands))].vanish()
    flood(driver, "", 5, name="n")
    flood(driver, "", 5, priority=3, name="h")
    assert [instance.turn - instance.key for instance in driver.scheduler.graph.instances.values()] == [0] * 10
    assert len(driver.ledger.turns) == used
    assert run_all(driver, driver.worker("second")) == [f"{name}{number}" for name in "hn" for number in range(5)]


def test_a_key_is_forgotten_with_its_last_unfinished_instance(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    line = driver.scheduler.graph.turns.line(0)
    for number in range(300):
        driver.spawn(f"n{number}", fair=f"tenant {number}")
        assert len(line.shares) == 1
        hand.complete(f"n{number}")
    assert line.shares == {}


class TestRestart:
    def test_a_restart_keeps_the_order_and_the_turns(self, driver: SchedulerDriver) -> None:
        flood(driver, "a", 4)
        flood(driver, "b", 3)
        flood(driver, "", 2, name="plain")
        hand = driver.worker()
        hand.complete("a0", us=3_000_000)
        hand.complete("b0", us=3_000_000)
        driver.crash()
        check(driver)
        flood(driver, "a", 1, name="more")
        flood(driver, "c", 2)
        assert run_all(driver) == ["plain0", "a1", "b1", "plain1", "c0", "a2", "b2", "c1", "a3", "more0"]

    def test_a_key_that_comes_after_a_restart_does_not_go_before_all(self, driver: SchedulerDriver) -> None:
        """The broker before it had granted 40 turns, and one old instance has waited all the time."""
        driver.spawn("stuck", of=function("stuck", taint="GPU"), fair="a")
        flood(driver, "a", 60)
        hand = driver.worker()
        for number in range(40):
            hand.complete(f"a{number}", us=3_000_000)
        driver.crash()
        flood(driver, "b", 3)
        assert run_all(driver) == ["b0", "a40", "b1", "a41", "b2", "a42", *[f"a{n}" for n in range(43, 60)]]

    def test_without_keys_the_first_key_after_a_restart_begins_at_the_oldest_that_wait(
        self, driver: SchedulerDriver
    ) -> None:
        driver.spawn("stuck", of=function("stuck", taint="GPU"))
        flood(driver, "", 60, name="n")
        hand = driver.worker()
        for number in range(50):
            hand.complete(f"n{number}", us=3_000_000)
        driver.crash()
        flood(driver, "b", 2)
        assert run_all(driver)[:5] == ["b0", "n50", "b1", "n51", "n52"]

    def test_an_instance_that_goes_on_after_it_had_ended_has_had_its_turn(self, driver: SchedulerDriver) -> None:
        instance = driver.spawn("a0", fair="a")
        assert run_all(driver, hand := driver.worker()) == ["a0"]
        flood(driver, "b", 2)
        flood(driver, "a", 2, name="other")
        driver.add(instance, "again")
        assert run_all(driver, hand) == ["b0", "again", "b1", "other0", "other1"]


class TestFairness:
    @settings(max_examples=150, derandomize=True, deadline=None, database=None)
    @given(events=st.lists(st.sampled_from(["run", "run", "run", "", "a", "a", "b", "c"]), max_size=60))
    def test_of_two_keys_that_wait_none_is_granted_more_than_two_more(self, events: list[str]) -> None:
        driver = SchedulerDriver()
        hand, waiting = driver.worker(), dict[str, list[str]]()
        ahead: Counter[tuple[str, str]] = Counter()  # grants of the first minus grants of the second key
        lowest: Counter[tuple[str, str]] = Counter()  # the least of these

        def note() -> None:
            """Take in what was granted since the last call."""
            for name in hand.held.keys() & {name for names in waiting.values() for name in names}:
                (key,) = (key for key, names in waiting.items() if name in names)
                assert waiting[key].pop(0) == name, "within a key, the oldest goes first"
                for other in waiting:
                    if other != key:
                        ahead[key, other] += 1
                        ahead[other, key] -= 1
            for one in waiting:
                for other in waiting:
                    if not (waiting[one] and waiting[other]):
                        ahead[one, other] = lowest[one, other] = 0
                    lowest[one, other] = min(lowest[one, other], ahead[one, other])
                    assert ahead[one, other] - lowest[one, other] <= 2

        for number, event in enumerate([*events, *["run"] * len(events)]):
            if event != "run":
                waiting.setdefault(event, []).append(f"n{number}")
                driver.spawn(f"n{number}", fair=event)
            elif hand.held:
                hand.complete(next(iter(hand.held)), us=3_000_000)
            note()
        check(driver)
        assert not hand.held
        assert not any(waiting.values())

    @pytest.mark.parametrize("each", [1, 3])
    def test_keys_that_come_all_the_time_starve_none(self, driver: SchedulerDriver, each: int) -> None:
        hand = driver.worker()
        flood(driver, "a", 4)
        rounds = []
        for number in range(200):
            (name,) = hand.held
            if name.startswith("a"):
                rounds.append(number)
            hand.complete(name, us=3_000_000)
            for other in range(each):
                driver.spawn(f"new{number}-{other}", fair=f"key {number}-{other}")
        # Between two turns of a key is at most one instance of each key that had come before.
        assert len(rounds) == 4
        assert all(later <= (each + 1) * earlier + 1 for earlier, later in pairwise(rounds))

    def test_many_instances_of_a_hundred_keys_are_sorted_with_few_comparisons(self) -> None:
        """Each key submits all of its instances before the next one does, so that nearly all places come late."""
        count = 10_000
        comparisons = 0

        class Place(int):
            def __lt__(self, other: int) -> bool:
                nonlocal comparisons
                comparisons += 1
                return int.__lt__(self, other)

        turns, places, expected = Turns(), Places(), list[int]()
        for number in range(count):
            turn = turns.line(0).take(number + 1, f"tenant {number // 100}")
            expected.append(order(rank(turn, number + 1), number))
            places.push(Place(expected[-1]))
        assert [places.pop() for _ in expected] == [place & KEY_MASK for place in sorted(expected)]
        assert comparisons < 2 * count * 14, "a push and a pop of a heap: log2 of 10,000 is 13.3"


def test_a_restart_takes_the_present_turn_from_what_waits() -> None:
    turns = Turns()
    rows = [InstanceRow(key, b"", "", b"", 0.0, key % 2) for key in (7, 10, 12, 14, 16)]
    turns.restore(rows, {10: TurnRow(10, "a", 6), 12: TurnRow(12, "a", 7), 14: TurnRow(14, "", 3)})
    line = turns.line(0)
    assert (line.reached, line.last, line.shares["a"].unfinished, line.shares[""].last) == (15, 16, 2, 3)
    assert (turns.line(1).reached, turns.line(1).shares) == (6, {})
