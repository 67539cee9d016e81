"""A node may take the failure of a source for a value: then it runs, and one bad item does not lose a fan-out."""

from dagorama_broker.model.domain import State
from tests.support.driver import SchedulerDriver


def test_a_tolerant_node_runs_when_all_its_sources_have_ended(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=3)
    driver.spawn("a", "b", "join <- a? b?")
    hand.fail("a")
    assert driver.state("join") is State.WAITING
    hand.complete("b")
    assert "join" in hand.held
    hand.complete("join")
    assert driver.state("join") is State.COMPLETED
    assert driver.in_memory() == {}


def test_a_failure_that_is_not_tolerated_fails_the_node(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=3)
    driver.spawn("a", "b", "join <- a? b")
    hand.fail("a")
    hand.fail("b")
    assert driver.state("join") is State.FAILED
    assert driver.root_cause("join") == "b"


def test_a_source_that_failed_before_is_no_hindrance(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    instance = driver.spawn("a", "other")
    hand.fail("a")
    driver.add(instance, "join <- a?")
    assert driver.state("join") is State.QUEUED


def test_a_cancelled_source_is_a_failure_as_any_other(driver: SchedulerDriver) -> None:
    driver.spawn("a", "join <- a?")
    driver.cancel("a")
    assert driver.states("a", "join") == ["CANCELLED", "QUEUED"]


def test_tolerance_survives_a_restart_before_and_after_the_failure(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "b", "join <- a? b?")
    driver.crash()
    hand.connect()
    hand.fail("a")
    driver.crash()
    hand.connect()
    hand.complete("b")
    assert "join" in hand.held


def test_a_node_that_takes_a_failure_as_a_value_and_returns_its_promise_fails_with_it(driver: SchedulerDriver) -> None:
    """Found by the machine: it resolved, without a value for that part, and a restart saw it otherwise."""
    hand = driver.worker()
    driver.spawn("bad", "careful <- bad?")
    hand.fail("bad")
    hand.make("careful", "child")
    hand.complete("careful", "bad", "child")
    assert driver.state("careful").name == "FAILED"
    assert driver.root_cause("careful") == "bad"
