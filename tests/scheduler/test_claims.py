"""Only the current holder of the current attempt is heard, and children come with their parent's result or never."""

from collections.abc import Callable

import pytest

from dagorama_broker.errors import ResourceExhausted
from dagorama_broker.model.domain import State
from dagorama_broker.scheduler import Limits
from tests.support.driver import Hand, SchedulerDriver, retrying

Say = Callable[[Hand, str, int], bool]
SAYINGS = {
    "complete": lambda hand, name, attempt: hand.complete(name, attempt=attempt, value=b"other"),
    "fail": lambda hand, name, attempt: hand.fail(name, attempt=attempt),
    "give back": lambda hand, name, attempt: hand.give_back(name, "no reason", attempt=attempt),
    "make children": lambda hand, name, attempt: hand.make(name, "child", attempt=attempt),
}
every_saying = pytest.mark.parametrize("say", SAYINGS.values(), ids=SAYINGS)


def refused(driver: SchedulerDriver, hand: Hand, say: Say, name: str, attempt: int) -> bool:
    """Whether the scheduler does not take it and is afterwards as it was before."""
    before = driver.everything()
    driver.holds_still = True
    taken = say(hand, name, attempt)
    driver.holds_still = False
    return not taken and driver.everything() == before


@every_saying
class TestRefused:
    def test_a_report_of_a_node_that_was_never_claimed_is_refused(self, driver: SchedulerDriver, say: Say) -> None:
        hand = driver.worker()
        driver.spawn("held", "queued", "waits <- held")
        for name in ("queued", "waits"):
            assert refused(driver, hand, say, name, 7)
            assert refused(driver, hand, say, name, hand.held["held"])

    def test_a_report_of_an_ended_node_is_refused_and_the_recorded_value_stays(
        self, driver: SchedulerDriver, say: Say
    ) -> None:
        hand = driver.worker()
        driver.spawn("a", "b")
        attempt = hand.held["a"]
        hand.complete("a", value=b"first")
        assert refused(driver, hand, say, "a", attempt)
        assert driver.outcome("a").value == b"first"

    def test_a_report_from_another_worker_is_refused(self, driver: SchedulerDriver, say: Say) -> None:
        holder, other = driver.worker("holder"), driver.worker("other")
        driver.spawn("a")
        assert refused(driver, other, say, "a", holder.held["a"])

    def test_a_report_of_an_earlier_attempt_is_refused(self, driver: SchedulerDriver, say: Say) -> None:
        hand = driver.worker()
        driver.spawn("a", of=retrying(3))
        attempt = hand.held["a"]
        hand.fail("a")
        assert hand.held["a"] > attempt
        assert refused(driver, hand, say, "a", attempt)

    def test_from_a_worker_that_was_given_up(self, driver: SchedulerDriver, say: Say) -> None:
        hand = driver.worker()
        driver.spawn("a")
        attempt = hand.held["a"]
        hand.vanish()
        assert refused(driver, hand, say, "a", attempt)
        other = driver.worker("other")
        assert refused(driver, hand, say, "a", attempt)
        assert other.complete("a")

    def test_under_another_nodes_attempt(self, driver: SchedulerDriver, say: Say) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b")
        assert refused(driver, hand, say, "a", hand.held["b"])


def test_a_worker_whose_result_is_refused_is_told(driver: SchedulerDriver) -> None:
    late, other = driver.worker("late"), driver.worker("other")
    driver.spawn("a")
    attempt = late.held["a"]
    late.vanish()
    other.complete("a")
    late.connect()
    assert late.refused == [attempt]
    assert not late.held


def test_an_attempt_is_never_used_twice(driver: SchedulerDriver) -> None:
    hand, seen = driver.worker(), set()
    driver.spawn("a", of=retrying(50))
    for round in range(30):
        attempt = hand.held["a"]
        assert attempt not in seen
        seen.add(attempt)
        (hand.fail if round % 2 else hand.give_back)("a")
        if round % 7 == 6:
            driver.crash()
            hand.held.clear()
            hand.connect()


class TestChildren:
    def test_children_become_visible_with_their_parents_result(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("parent", "other")
        hand.make("parent", "x", "y <- x")
        hand.make("parent", "z <- x y")
        driver.step()
        assert not any(map(driver.is_visible, "xyz"))
        hand.complete("parent")
        assert driver.states("x", "y", "z") == ["QUEUED", "WAITING", "WAITING"]
        rows = [(outcome.key, outcome.value) for outcome in driver.changes.outcomes]
        assert rows == [(driver.key("parent"), b"value")], "in one transaction with it"
        assert {row.key for row in driver.changes.nodes} == {driver.key(name) for name in "xyz"}
        assert driver.finish(hand) == ["other", "x", "y", "z"]

    @pytest.mark.parametrize("end", ["fails", "dies", "is given back", "is lost", "is silent", "comes back late"])
    def test_children_of_an_attempt_that_does_not_complete_are_never_seen(
        self, driver: SchedulerDriver, end: str
    ) -> None:
        hand = driver.worker()
        driver.spawn("parent", of=retrying(3))
        attempt = hand.held["parent"]
        hand.make("parent", "child")
        hand.make("parent", "sub", new="Sub")
        match end:
            case "fails":
                hand.fail("parent")
            case "dies":
                hand.child_dies(["parent"])
            case "is given back":
                hand.give_back("parent")
            case "is lost":
                hand.vanish()
                hand = driver.worker("other")
            case "is silent":
                driver.wait(31.0)
                hand = driver.worker("other")
            case "comes back late":
                hand.vanish()
                late, hand = hand, driver.worker("other")
                late.connect()
                assert late.refused == [attempt]
        assert not driver.scheduler.staged
        hand.make("parent", "child of the retry")
        hand.complete("parent", "child of the retry")
        driver.finish(hand)
        assert driver.is_visible("child of the retry")
        assert not driver.is_visible("child")
        assert not driver.is_visible("sub")
        assert len(driver.ledger.nodes) == 2
        assert len(driver.ledger.instances) == 1

    def test_children_of_an_attempt_that_a_restart_ends_are_never_seen(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("parent")
        hand.make("parent", "child")
        driver.crash()
        hand.connect()
        assert not driver.is_visible("child")
        hand.make("parent", "child")  # it says again what was not acknowledged
        hand.complete("parent", "child")
        assert driver.finish(hand) == ["child"]
        assert len(driver.ledger.nodes) == 2

    def test_children_that_are_refused_leave_the_attempt_as_it_was(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("parent", of=retrying(2))
        driver.scheduler.limits = Limits(sources_per_node=1)
        hand.make("parent", "x", "y", "z <- x y")
        before = driver.everything()
        with pytest.raises(ResourceExhausted, match="more than 1 sources"):
            hand.complete("parent", "z")
        assert driver.everything() == before
        hand.fail("parent", "its result could not be taken")
        assert hand.complete("parent")
        assert len(driver.ledger.nodes) == 1

    @pytest.mark.parametrize("limits", [Limits(nodes_per_attempt=3), Limits(bytes_per_attempt=50)])
    def test_past_a_bound_are_not_even_kept(self, driver: SchedulerDriver, limits: Limits) -> None:
        driver.scheduler.limits = limits
        hand = driver.worker()
        driver.spawn("parent")
        for number in range(5):
            assert hand.make("parent", f"child{number}")
        (staged,) = driver.scheduler.staged.values()
        assert not staged.blocks
        with pytest.raises(ResourceExhausted, match="allowed"):
            hand.complete("parent")
        hand.fail("parent")
        assert not driver.scheduler.staged

    def test_are_no_part_of_what_another_attempt_completes(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("one", "other")
        hand.make("one", "child")
        hand.complete("other")
        assert not driver.is_visible("child")
        hand.complete("one")
        assert driver.state("child") is State.CLAIMED
