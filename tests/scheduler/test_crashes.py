"""Each crash of a node's process is recorded with its failed attempts, and told with the failure that ends it."""

from __future__ import annotations

from dagorama_broker.model.domain import Failure
from tests.support.driver import SchedulerDriver, function, retrying

DIED = "dagorama.errors.ProcessDied"


def kept(driver: SchedulerDriver, name: str) -> Failure:
    """The last failure of an unfinished node, as it is stored."""
    packed = driver.ledger.progress[driver.key(name)].failure
    assert packed is not None
    return Failure.unpacked(packed)


def test_a_crash_is_recorded_with_its_cause_its_time_and_its_worker(driver: SchedulerDriver) -> None:
    driver.spawn("n")
    worker = driver.worker("host:7")
    driver.wait(5.0)
    worker.child_dies(["n"], cause="killed by signal SIGKILL")
    failure = kept(driver, "n")
    assert (failure.type, failure.message) == (DIED, "its process ended while it ran: killed by signal SIGKILL")
    assert (failure.worker, failure.ended) == ("host:7", driver.wall)


def test_crashes_and_failures_are_told_in_their_order(driver: SchedulerDriver) -> None:
    driver.spawn("n", of=retrying(2))
    worker = driver.worker()
    worker.fail("n")
    worker.child_dies(["n"], cause="exited with code 3")
    worker.fail("n")
    failure = driver.failure("n")
    assert [each.type for each in failure.earlier] == ["builtins.ValueError", DIED]
    assert failure.type == "builtins.ValueError"


def test_the_last_crash_ends_the_node_and_names_the_ones_before(driver: SchedulerDriver) -> None:
    driver.spawn("n", of=function("fragile", max_deaths=2))
    worker = driver.worker()
    worker.child_dies(["n"], cause="first")
    worker.child_dies(["n"], cause="second")
    failure = driver.failure("n")
    assert failure.message == "its process ended 2 times while it ran; the last time: second"
    assert [each.message for each in failure.earlier] == ["its process ended while it ran: first"]


def test_a_node_that_may_crash_once_has_crashed_once(driver: SchedulerDriver) -> None:
    driver.spawn("n", of=function("fragile", max_deaths=1))
    driver.worker().child_dies(["n"], cause="killed")
    assert driver.failure("n").message == "its process ended while it ran: killed"


def test_a_crash_is_known_after_a_restart(driver: SchedulerDriver) -> None:
    driver.spawn("n", of=retrying(1))
    driver.worker().child_dies(["n"], cause="first")
    driver.crash()
    driver.worker().fail("n")
    assert [each.type for each in driver.failure("n").earlier] == [DIED]
