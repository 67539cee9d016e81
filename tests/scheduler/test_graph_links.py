"""What an instance needs of another is on record, so that the other is kept as long; and an empty one has ended."""

from dagorama_broker.model.rows import InstanceEnd, LinkRow
from tests.scheduler.test_submission import run
from tests.support.driver import WALL, SchedulerDriver

OTHER = b"other-----------"


def test_a_value_that_names_a_node_of_another_instance_links_the_two(driver: SchedulerDriver) -> None:
    worker = driver.worker()
    driver.spawn("parent")
    worker.make("parent", "child", "second", new="other")
    worker.complete("parent", "child", "second")
    assert driver.changes.links == [LinkRow(1, 2)]
    driver.finish(worker)
    assert driver.ledger.links == {LinkRow(1, 2)}


def test_a_value_that_names_what_has_ended_links_too(driver: SchedulerDriver) -> None:
    worker = driver.worker()
    driver.spawn("other")
    driver.finish(worker)
    driver.spawn("parent")
    worker.complete("parent", "other")
    assert driver.ledger.links == {LinkRow(2, 1)}


def test_a_node_that_fails_with_a_node_of_another_instance_is_linked_to_its_root_cause(driver: SchedulerDriver) -> None:
    worker = driver.worker()
    driver.spawn("other")
    worker.fail("other")
    driver.spawn("parent", "dependent <- parent")
    worker.complete("parent", "other")
    assert driver.states("parent", "dependent") == ["FAILED", "FAILED"]
    assert driver.ledger.links == {LinkRow(2, 1)}


def test_what_stays_within_an_instance_or_only_makes_another_costs_no_link(driver: SchedulerDriver) -> None:
    worker = driver.worker()
    driver.spawn("parent", "dependent <- parent")
    worker.make("parent", "child")
    worker.make("parent", "stranger", new="other")
    worker.complete("parent", "child")
    driver.finish(worker)
    assert driver.ledger.links == set()


def test_an_instance_without_nodes_has_ended_until_it_gets_one(driver: SchedulerDriver) -> None:
    driver.submit(run(driver, [], instance=OTHER, creates=("work:Work", b"")))
    (row,) = driver.ledger.instances.values()
    assert driver.ledger.ends[row.key] == InstanceEnd(row.key, WALL, False)
    driver.add(OTHER, "a")
    assert driver.ledger.ends[row.key].ended is None
