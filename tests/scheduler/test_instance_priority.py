"""The priority of an instance comes before its age, and the priority of a function only counts within its instance."""

from __future__ import annotations

from dagorama_broker.scheduler import ReasonCode
from tests.support.driver import SchedulerDriver, function

URGENT = function("urgent", priority=127)


def order_of_runs(driver: SchedulerDriver, count: int) -> list[str]:
    """The names in which a worker with one slot is granted the nodes that are queued."""
    worker = driver.worker()
    names = []
    for _ in range(count):
        (name,) = worker.held
        names.append(name)
        worker.complete(name, us=1_000_000)
    return names


def test_nodes_of_instances_with_a_higher_priority_go_first(driver: SchedulerDriver) -> None:
    for name, priority in (("old", 0), ("low", -128), ("high", 5), ("new", 0), ("highest", 127), ("high2", 5)):
        driver.spawn(name, priority=priority)
    assert order_of_runs(driver, 6) == ["highest", "high", "high2", "old", "new", "low"]


def test_the_priority_of_a_function_stays_within_its_instance(driver: SchedulerDriver) -> None:
    driver.spawn("urgent", of=URGENT)
    driver.spawn("plain", priority=1)
    assert order_of_runs(driver, 2) == ["plain", "urgent"]


def test_an_instance_keeps_its_priority_over_a_restart(driver: SchedulerDriver) -> None:
    driver.spawn("old")
    driver.spawn("high", "after<-high", priority=5)
    driver.crash()
    driver.spawn("new", priority=4)
    assert order_of_runs(driver, 4) == ["high", "after", "new", "old"]


def test_an_ended_instance_that_is_added_to_or_retried_has_its_priority(driver: SchedulerDriver) -> None:
    instance = driver.spawn("first", priority=5)
    bad = driver.spawn("bad", priority=6)
    worker = driver.worker(slots=2)
    worker.fail("bad")
    worker.complete("first")
    worker.drain()
    driver.spawn("old")
    driver.add(instance, "added")
    driver.retry("bad")
    assert bad != instance
    assert order_of_runs(driver, 3) == ["bad", "added", "old"]


def test_a_node_behind_one_of_a_higher_priority_says_so(driver: SchedulerDriver) -> None:
    driver.spawn("busy")
    driver.worker()
    driver.spawn("old")
    driver.spawn("high", priority=1)
    reasons = driver.scheduler.reasons_of(driver.scheduler.graph.nodes[driver.key("old")])
    assert ReasonCode.BEHIND in [reason.code for reason in reasons]
    reasons = driver.scheduler.reasons_of(driver.scheduler.graph.nodes[driver.key("high")])
    assert ReasonCode.BEHIND not in [reason.code for reason in reasons]
