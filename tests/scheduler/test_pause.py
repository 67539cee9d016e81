"""Paused queues: nothing of them is granted, workers finish what they hold, and a restart changes nothing."""

from __future__ import annotations

import pytest

from dagorama_broker.errors import ResourceExhausted
from dagorama_broker.scheduler import ReasonCode, administration
from tests.support.driver import GPU, WORK, SchedulerDriver, function

OTHER = function("other")


def pause(driver: SchedulerDriver, queue: str = "work", by: str = "") -> None:
    driver.scheduler.pause(queue, by)
    driver.step()


def resume(driver: SchedulerDriver, queue: str = "work") -> bool:
    changed = driver.scheduler.resume(queue)
    driver.step()
    return changed


def test_nodes_of_a_paused_queue_wait_and_others_run(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    pause(driver)
    driver.spawn("a", "b", "c", where={"c": OTHER})
    assert list(hand.held) == ["c"]
    assert resume(driver)
    hand.complete("c")
    assert driver.finish(hand) == ["a", "b"]


def test_a_node_that_a_worker_holds_runs_to_its_end(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "b")
    pause(driver)
    hand.complete("a")
    assert driver.states("a", "b") == ["COMPLETED", "QUEUED"]
    assert hand.held == {}


def test_all_functions_of_the_queue_are_paused_also_ones_that_come_later(driver: SchedulerDriver) -> None:
    hand = driver.worker(tolerations={"GPU"}, slots=4)
    pause(driver)
    driver.spawn("a", of=WORK)
    driver.spawn("b", of=GPU)
    driver.spawn("c", of=function("late", queue="work", max_concurrency=1))
    assert hand.held == {}
    resume(driver)
    assert set(hand.held) == {"a", "b", "c"}


def test_nodes_with_concurrency_keys_are_paused_too(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=4)
    pause(driver, "keyed")
    driver.spawn("a @x", "b @x", "c @y", of=function("keyed", max_concurrency=1))
    assert hand.held == {}
    resume(driver, "keyed")
    assert set(hand.held) == {"a", "c"}


def test_a_dependent_does_not_go_along_with_its_source_if_its_queue_is_paused(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    pause(driver, "other")
    driver.spawn("a", "b <- a", where={"b": OTHER})
    assert list(hand.held) == ["a"]
    hand.complete("a")
    assert driver.states("b") == ["QUEUED"]
    resume(driver, "other")
    assert list(hand.held) == ["b"]


def test_the_reason_is_that_it_is_paused_and_by_whom(driver: SchedulerDriver) -> None:
    driver.worker()
    pause(driver, by="ops")
    driver.spawn("a")
    node = driver.scheduler.graph.find(driver.ids["a"])
    assert node is not None
    reason = driver.scheduler.reasons_of(node)[0]
    text = "queue 'work' is paused by ops (resume it with `dagorama queues resume work`)"
    assert (reason.code, reason.text) == (ReasonCode.PAUSED, text)
    assert driver.scheduler.unschedulable_reason(node.queue) == text


@pytest.mark.parametrize("at_once", [True, False])
def test_a_paused_queue_is_paused_after_a_restart_and_a_resumed_one_is_not(
    driver: SchedulerDriver, at_once: bool
) -> None:
    pause(driver, "work")
    if at_once:
        with driver.at_once():
            driver.scheduler.pause("other", "")
            driver.scheduler.resume("other")
            driver.scheduler.resume("work")
            driver.scheduler.pause("work", "again")
    driver.spawn("a", "b", where={"b": OTHER})
    driver.crash()
    assert set(driver.scheduler.paused) == {"work"}
    assert driver.scheduler.paused["work"].by == ("again" if at_once else "")
    hand = driver.worker(slots=2)
    assert list(hand.held) == ["b"]
    assert resume(driver)
    driver.crash()
    assert not driver.scheduler.paused
    assert not resume(driver)


def test_pausing_twice_changes_nothing(driver: SchedulerDriver) -> None:
    pause(driver, by="first")
    pause(driver, by="second")
    assert driver.scheduler.paused["work"].by == "first"


def test_the_number_of_paused_queues_is_limited(driver: SchedulerDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administration, "MOST_PAUSED", 1)
    pause(driver)
    with pytest.raises(ResourceExhausted, match="1 queues are paused already"):
        pause(driver, "other")
