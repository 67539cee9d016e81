"""A retry that goes downstream: what was given a failure as a value runs again, and everything that depends on it."""

import pytest

from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.domain import State
from tests.support.driver import Hand, SchedulerDriver, function
from tests.support.invariants import check


def reported(driver: SchedulerDriver, hand: Hand, *more: str) -> bytes:
    """An instance in which `report` has completed with the failure of `a` as a value, and `after` on its value."""
    instance = driver.spawn("a", "b", "report <- a? b?", "after <- report", *more)
    hand.fail("a")
    driver.finish(hand)
    assert driver.states("a", "report", "after") == ["FAILED", "COMPLETED", "COMPLETED"]
    return instance


def test_a_plain_retry_counts_and_marks_what_has_used_the_failure(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    reported(driver, hand)
    revived = driver.revive("a")
    assert (revived.queued, revived.waiting, revived.completed, revived.used) == (1, 0, 0, 1)
    assert driver.ledger.used_failures == {driver.key("report")}
    assert driver.finish(hand) == ["a"]
    driver.crash()
    assert driver.ledger.used_failures == {driver.key("report")}


def test_downstream_what_has_used_the_failure_runs_again_after_it_and_what_depends_on_that(
    driver: SchedulerDriver,
) -> None:
    hand = driver.worker()
    reported(driver, hand)
    hand.drain()
    revived = driver.revive("a", downstream=True)
    assert (revived.queued, revived.waiting, revived.completed, revived.used) == (1, 2, 2, 0)
    assert driver.states("a", "b", "report", "after") == ["QUEUED", "COMPLETED", "WAITING", "WAITING"]
    check(driver)
    assert driver.finish(driver.worker("other")) == ["a", "report", "after"]
    assert driver.ledger.used_failures == set()
    assert driver.in_memory() == {}


def test_a_retry_downstream_survives_a_crash_right_after_it(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    instance = reported(driver, hand)
    hand.drain()
    driver.revive("a", downstream=True)
    driver.crash()
    check(driver)
    assert driver.states("a", "b", "report", "after") == ["QUEUED", "COMPLETED", "WAITING", "WAITING"]
    other = driver.worker("other")
    driver.wait(3.0)
    assert driver.finish(other) == ["a", "report", "after"]
    assert driver.ledger.instance(instance) == (1, False)


def test_what_was_retried_plainly_before_can_be_rerun_downstream_later(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    reported(driver, hand)
    driver.revive("a")
    driver.finish(hand)
    revived = driver.revive("report", downstream=True)
    assert (revived.queued, revived.waiting, revived.completed) == (1, 1, 2)
    assert driver.finish(hand) == ["report", "after"]
    assert driver.ledger.used_failures == set()


def test_what_has_used_the_failure_and_failed_by_itself_runs_again_too(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "report <- a?", "after <- report")
    hand.fail("a")
    hand.fail("report", "too many failures")
    revived = driver.revive("a", downstream=True)
    assert (revived.queued, revived.waiting, revived.completed) == (1, 2, 0)
    assert driver.finish(hand) == ["a", "report", "after"]


def test_what_has_its_value_and_named_what_runs_again_waits_for_it_and_keeps_its_value(driver: SchedulerDriver) -> None:
    """Whether its promises were kept when it returned, or later."""
    hand = driver.worker(slots=2)
    driver.spawn("a", "report <- a?", "early", "late", "reader <- early", of=function(delay=0.0))
    hand.complete("early", "report")
    hand.fail("a")
    hand.complete("report")
    driver.finish(hand)
    driver.add(driver.instance_of("a"), "late2")
    hand.complete("late2", "report")
    assert driver.states("early", "late2", "reader") == ["COMPLETED"] * 3
    revived = driver.revive("a", downstream=True)
    assert driver.states("report", "early", "late2", "reader") == ["WAITING", "RESOLVING", "RESOLVING", "WAITING"]
    assert (revived.queued, revived.waiting, revived.completed) == (1, 4, 4)
    hand.drain()
    driver.crash()
    check(driver)
    other = driver.worker("other")
    driver.wait(3.0)
    assert driver.finish(other) == ["a", "report", "reader"]
    assert driver.states("early", "late2") == ["COMPLETED"] * 2


def test_a_value_that_names_a_node_of_another_instance_goes_back_too(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("outer")
    hand.make("outer", "a", "report <- a?", new="sub")
    hand.complete("outer", "report")
    hand.fail("a")
    driver.finish(hand)
    assert driver.state("outer") is State.COMPLETED
    driver.revive("a", downstream=True)
    assert driver.states("report", "outer") == ["WAITING", "RESOLVING"]
    assert driver.finish(hand) == ["a", "report"]
    assert driver.state("outer") is State.COMPLETED


def test_what_it_has_made_before_is_of_a_dead_attempt_and_what_of_it_is_unfinished_is_cancelled(
    driver: SchedulerDriver,
) -> None:
    hand = driver.worker()
    instance = driver.spawn("a", "report <- a?")
    hand.fail("a")
    hand.make("report", "child", "grand <- child", "unnamed")
    hand.complete("report", "grand")
    hand.make("child", "grandchild")
    hand.complete("child")
    hand.complete("grand")
    assert driver.state("report") is State.COMPLETED
    assert driver.is_unfinished("unnamed")
    driver.revive("a", downstream=True)
    made = ("child", "grand", "unnamed", "grandchild")
    assert driver.states(*made) == ["COMPLETED", "COMPLETED", "CANCELLED", "CANCELLED"]
    assert all(driver.ledger.of_dead_attempt(driver.key(name)) for name in made)
    assert driver.failure("unnamed").message == "the node that made it was retried and runs again"
    hand.complete("a")
    hand.make("report", "new")
    hand.complete("report", "new")
    driver.finish(hand)
    assert not driver.ledger.of_dead_attempt(driver.key("new"))
    assert not driver.ledger.instance(instance)[1], "what a dead attempt made is no failure of the instance"


def test_what_an_eager_run_has_made_is_of_a_dead_attempt_when_it_runs_again(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    eager = function("eager", stream_children=True)
    driver.spawn("a", "report <- a?", of=eager)
    hand.fail("a")
    hand.make("report", "child", of=eager)
    hand.complete("report", "child")
    hand.complete("child")
    driver.revive("a", downstream=True)
    assert driver.ledger.of_dead_attempt(driver.key("child"))
    driver.crash()
    check(driver)


def test_an_unfinished_node_that_was_given_what_is_to_run_again_is_in_the_way(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "report <- a?", "after <- report")
    hand.fail("a")
    hand.complete("report")
    before = driver.everything()
    with pytest.raises(
        FailedPrecondition, match=f"{driver.ids['after'].hex()} has not ended and depends on a node that would run"
    ):
        driver.revive("a", downstream=True)
    assert driver.everything() == before
    assert driver.ledger.used_failures == set()
    driver.finish(hand)
    driver.revive("a", downstream=True)
    assert driver.finish(hand) == ["a", "report", "after"]


def test_a_node_that_was_given_it_and_waits_for_its_promises_is_in_the_way_also_after_a_restart(
    driver: SchedulerDriver,
) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "slow", "report <- a?")
    hand.fail("a")
    hand.complete("report", "slow")
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="has not ended and depends on a node that would run again"):
            driver.revive("a", downstream=True)
        driver.crash()


def test_what_still_waits_for_others_waits_for_what_runs_again_too(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "slow", "late <- slow", "report <- a?", "join <- report slow", "both <- a? late", "outer")
    hand.fail("a")
    hand.complete("report")
    assert hand.held.keys() == {"slow", "outer"}
    hand.complete("outer", "report", "late")
    assert driver.states("join", "both", "outer") == ["WAITING", "WAITING", "RESOLVING"]
    revived = driver.revive("a", downstream=True)
    assert (revived.queued, revived.waiting, revived.completed) == (1, 1, 1)
    check(driver)
    hand.complete("slow")
    hand.complete("late")
    assert driver.states("join", "both", "outer") == ["WAITING", "WAITING", "RESOLVING"]
    hand.drain()
    driver.crash()
    check(driver)
    other = driver.worker("other")
    driver.wait(3.0)
    assert driver.finish(other) == ["a", "report", "join", "both"]
    assert driver.state("outer") is State.COMPLETED


def test_a_late_report_of_the_run_whose_value_was_dropped_is_refused(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "report <- a?")
    hand.fail("a")
    attempt = hand.held["report"]
    hand.complete("report")
    hand.drain()
    driver.revive("a", downstream=True)
    assert not hand.complete("report", attempt=attempt)
    driver.crash()
    hand.held["report"] = attempt
    hand.connect()
    assert hand.refused == [attempt, attempt]


def test_what_is_rerun_may_be_rerun_once_more(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "report <- a?", "after <- report")
    for _ in range(3):
        hand.fail("a")
        hand.make("report", "child")
        hand.complete("report", "child")
        driver.finish(hand)
        assert driver.states("report", "after") == ["COMPLETED"] * 2
        assert driver.revive("a", downstream=True).completed == 2
        check(driver)
    assert driver.finish(hand) == ["a", "report", "after"]


def test_what_has_used_a_failure_and_failed_because_of_its_promise_is_marked_although_it_goes_on(
    driver: SchedulerDriver,
) -> None:
    hand = driver.worker()
    driver.spawn("a", "used <- a?", "promised")
    hand.fail("a")
    hand.complete("used", "promised")
    hand.fail("promised")
    revived = driver.revive("a", "promised")
    assert (revived.queued, revived.waiting, revived.used) == (2, 1, 1)
    assert driver.ledger.used_failures == {driver.key("used")}
    check(driver)


def test_new_code_is_what_the_first_worker_that_is_offered_the_node_has(driver: SchedulerDriver) -> None:
    old = driver.worker("old")
    driver.spawn("a", "b <- a")
    other = driver.spawn("same", of=function(taint="elsewhere"))
    old.fail("a")
    old.vanish()
    assert driver.revive("a", new_code=True).rebound == 2
    driver.crash()
    new = driver.worker("new")
    driver.wait(3.0)
    assert "a" in new.held
    new.give_back("a", "it has other code", deployed="h2")
    assert "a" in new.held, "it is offered again, as the code that the worker has"
    graph = driver.scheduler.graph
    assert {node.queue.function.hash for node in graph.nodes.values() if node.instance.id != other} == {"h2"}
    assert [node.queue.function.hash for node in graph.unfinished_of(other)] == ["h"]
    driver.crash()
    new = driver.worker("new")
    driver.wait(3.0)
    assert driver.finish(new) == ["a", "b"]


def test_a_worker_that_has_said_which_code_it_has_says_it_again_for_the_next_retry(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    for hash in ("h2", "h3"):
        driver.spawn("a")
        hand.fail("a")
        driver.revive("a", new_code=True)
        hand.give_back("a", "it has other code", deployed=hash)
        assert [node.queue.function.hash for node in driver.scheduler.graph.nodes.values()] == [hash]
        assert driver.finish(hand) == ["a"]


def test_workers_that_cannot_import_the_function_are_not_offered_it_again(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    hand.fail("a")
    driver.revive("a", new_code=True)
    hand.give_back("a", "it cannot import the function")
    assert hand.held == {}
    assert [why for _, why in driver.scheduler.claims.unschedulable()] == [
        "the only connected worker may not run it: it cannot import the function"
    ]
