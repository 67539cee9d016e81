"""Nodes that a worker puts off, because something that they need is away: uncounted, and others go first."""

from __future__ import annotations

from dagorama_broker.model.domain import State
from dagorama_broker.scheduler import ReasonCode
from tests.support.driver import SchedulerDriver


def test_a_younger_node_goes_first_and_the_node_is_granted_again(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    driver.spawn("b")
    assert "a" in hand.held
    hand.put_off("a")
    assert driver.state("a") is State.BACKOFF
    assert "b" in hand.held
    hand.complete("b")
    driver.wait(4.9)
    assert hand.held == {}
    driver.wait(0.2)
    assert "a" in hand.held
    hand.complete("a")
    assert driver.state("a") is State.COMPLETED


def test_it_counts_as_no_attempt_however_often(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    for _ in range(4):
        hand.put_off("a")
        driver.wait(5.1)
    assert "a" in hand.held
    failures = driver.scheduler.nodes[driver.key("a")].failures
    assert failures is not None
    assert (failures.failed_attempts, failures.crashes, failures.worker_losses) == (0, 0, 0)


def test_the_reason_is_told_while_it_waits(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    hand.put_off("a", "the store is away")
    (reason,) = driver.scheduler.reasons_of(driver.scheduler.nodes[driver.key("a")])
    assert reason.code is ReasonCode.BACKOFF
    assert reason.text == "its worker returned it, and it is granted again soon: the store is away"


def test_after_a_restart_it_still_waits(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    hand.put_off("a")
    driver.crash(downtime=0.5)
    hand = driver.worker()
    driver.wait(2.0)
    assert hand.held == {}
    (reason,) = driver.scheduler.reasons_of(driver.scheduler.nodes[driver.key("a")])
    assert reason.text == "its worker returned it, and it is granted again soon"
    driver.wait(3.0)
    assert "a" in hand.held


def test_an_attempt_that_is_no_longer_held_is_not_put_off(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    attempt = hand.held["a"]
    hand.put_off("a")
    assert not driver.scheduler.put_off(hand.worker, driver.key("a"), attempt, "late")
