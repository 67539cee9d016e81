"""Cancelling ends what has not ended, with all that depends on it; what runs is told, and its result is refused."""

from dagorama_broker.model.domain import State
from tests.support.driver import SchedulerDriver, function, retrying


def test_what_is_queued_waits_or_pauses_is_cancelled_at_once_with_its_descendants(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("paused", of=retrying(2, 10.0))
    hand.fail("paused")
    hand.drain()
    driver.spawn("queued", "waiting <- queued", "last <- waiting", "other")
    assert driver.cancel("queued", "paused") == 4
    assert driver.states("queued", "waiting", "last", "paused") == ["CANCELLED"] * 4
    assert driver.state("other") is State.QUEUED


def test_a_running_node_is_told_and_its_result_is_refused(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "b <- a")
    attempt = hand.held["a"]
    assert driver.cancel("a") == 2
    assert hand.cancelled == [attempt]
    assert not hand.complete("a")
    assert driver.states("a", "b") == ["CANCELLED", "CANCELLED"]


def test_children_of_a_cancelled_run_never_come(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    hand.make("a", "child")
    driver.cancel("a")
    assert not driver.is_visible("child")
    assert driver.in_memory() == {}


def test_a_node_that_returned_a_promise_of_a_cancelled_node_is_cancelled(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "after <- a")
    hand.make("a", "child")
    hand.complete("a", "child")
    assert driver.state("a") is State.RESOLVING
    driver.cancel("child")
    assert driver.states("a", "after", "child") == ["CANCELLED"] * 3


def test_what_has_ended_stays_as_it_is(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "b <- a")
    hand.complete("a")
    assert driver.cancel("a") == 0
    assert driver.cancel("b") == 1
    assert driver.states("a", "b") == ["COMPLETED", "CANCELLED"]


def test_a_restart_does_not_bring_back_what_was_cancelled(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b <- a")
    driver.cancel("a")
    driver.crash()
    hand = driver.worker()
    assert hand.held == {}
    assert driver.states("a", "b") == ["CANCELLED", "CANCELLED"]


def test_all_of_an_instance_is_what_has_not_ended(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    instance = driver.spawn("a", "b", "c <- b")
    hand.complete("a")
    assert {driver.name(node) for node in driver.scheduler.graph.unfinished_of(instance)} == {"b", "c"}


def test_a_slot_of_a_cancelled_run_has_room_again(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    driver.spawn("b", of=function("other"))
    assert hand.held.keys() == {"a"}
    driver.cancel("a")
    assert "b" in hand.held
