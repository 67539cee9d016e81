"""The queue of a function leaves memory when nothing is in it any more, and not before."""

import pytest

from dagorama_broker.scheduler import Effects
from tests.support.driver import WORK, SchedulerDriver, function

OTHER = function("other", max_concurrency=1)


def queues(driver: SchedulerDriver) -> set[str]:
    return {of.name for of in driver.scheduler.graph.queues}


def drop_all(driver: SchedulerDriver) -> list[int]:
    """Have all functions dropped that can be; their IDs."""
    graph = driver.scheduler.graph
    driver.scheduler.drop_functions(list(graph.queue_by_id))
    return graph.changes.functions_gone


@pytest.mark.parametrize("state", ["waiting", "queued", "claimed", "paused"])
def test_what_an_unfinished_node_is_in_stays(driver: SchedulerDriver, state: str) -> None:
    of = function("other", delay=5.0 if state == "paused" else 0.0)
    if state == "claimed":
        driver.worker()
    driver.spawn("first", "last <- first", of=of)
    assert drop_all(driver) == []
    assert of.name in queues(driver)


def test_staged_children_have_no_queue_before_they_are_made(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("parent")
    hand.make("parent", "child", of=OTHER)
    drop_all(driver)
    assert OTHER.name not in queues(driver)
    hand.complete("parent")
    assert hand.held.keys() == {"child"}
    assert OTHER.name in queues(driver)


def test_a_concurrency_key_keeps_its_function(driver: SchedulerDriver) -> None:
    driver.spawn("a @key", of=OTHER)
    assert drop_all(driver) == []
    driver.cancel("a")
    driver.effects = Effects()
    assert len(drop_all(driver)) == 1
    assert not queues(driver)
    assert driver.scheduler.graph.functions_size == 0


def test_a_failed_node_keeps_nothing_of_itself_alive(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", of=OTHER)
    hand.fail("a")
    driver.effects = Effects()
    del hand
    assert len(drop_all(driver)) == 1


def test_a_function_that_comes_again_has_a_new_number(driver: SchedulerDriver) -> None:
    graph = driver.scheduler.graph
    before = graph.make_queue(WORK).id
    drop_all(driver)
    assert graph.make_queue(WORK).id > before
