"""A person retries: what failed runs again, and what failed because of it waits for it again, whatever happens then."""

from typing import Any

import pytest

from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.domain import State
from tests.support.driver import GPU, Hand, SchedulerDriver, function, retrying
from tests.support.invariants import check


def another(driver: SchedulerDriver, **rules: Any) -> Hand:
    """A worker that comes after a restart, when those before it are not waited for any more."""
    hand = driver.worker("another", **rules)
    driver.wait(3.0)
    return hand


def failed(driver: SchedulerDriver, hand: Hand, *nodes: str, name: str = "a") -> bytes:
    """An instance of which one node has failed."""
    instance = driver.spawn(*nodes)
    hand.fail(name)
    return instance


def test_what_failed_is_queued_and_what_failed_because_of_it_waits_for_it(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    failed(driver, hand, "a", "b <- a", "c <- b")
    hand.drain()
    assert driver.retry("a") == (1, 2)
    assert driver.states("a", "b", "c") == ["QUEUED", "WAITING", "WAITING"]
    check(driver)
    assert driver.finish(driver.worker("other")) == ["a", "b", "c"]
    assert driver.states("a", "b", "c") == ["COMPLETED"] * 3
    assert driver.in_memory() == {}


def test_a_node_that_failed_because_of_another_stands_for_that_one(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    failed(driver, hand, "a", "b <- a", "c <- b")
    assert driver.retry("c") == (1, 2)
    assert driver.finish(hand) == ["a", "b", "c"]


def test_retrying_twice_changes_nothing_more(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    failed(driver, hand, "a", "b <- a")
    driver.retry("a")
    assert driver.retry("a", "b") == (0, 0)
    assert driver.finish(hand) == ["a", "b"]
    assert driver.retry("a", "b") == (0, 0)


def test_it_has_all_its_attempts_again_and_what_went_wrong_before_stays_on_record(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", of=retrying(2))
    hand.fail("a", "first")
    hand.fail("a", "second")
    driver.retry("a")
    hand.fail("a", "third")
    assert driver.state("a") is State.CLAIMED
    hand.fail("a", "fourth")
    failure = driver.failure("a")
    assert (failure.message, failure.attempts) == ("fourth", 2)
    assert [each.message for each in failure.earlier] == ["first", "second", "third"]


def test_it_may_fail_and_be_retried_any_number_of_times(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    failed(driver, hand, "a", "b <- a")
    for _ in range(3):
        assert driver.retry("b") == (1, 1)
        hand.fail("a")
        assert driver.states("a", "b") == ["FAILED", "FAILED"]
        assert driver.root_cause("b") == "a"
        assert driver.in_memory() == {}
    driver.retry("a")
    assert driver.finish(hand) == ["a", "b"]


def test_a_node_that_was_queued_for_too_long_is_queued_again(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "other", where={"a": function("a", queue_timeout=5.0, taint="GPU"), "other": GPU})
    driver.wait(6.0)
    assert driver.state("a") is State.FAILED
    assert driver.retry("a") == (1, 0)
    check(driver)
    assert hand.held == {}
    assert driver.finish(driver.worker("able", tolerations={"GPU"})) == ["a", "other"]


def test_a_late_report_of_the_run_that_failed_is_refused(driver: SchedulerDriver) -> None:
    """Also after a restart: that an attempt is over is on record."""
    hand = driver.worker()
    driver.spawn("a")
    attempt = hand.held["a"]
    hand.fail("a")
    hand.drain()
    driver.retry("a")
    assert not hand.complete("a", attempt=attempt)
    hand.held["a"] = attempt  # it has not heard
    driver.crash()
    hand.connect()
    assert hand.refused == [attempt, attempt]
    assert driver.finish(hand) == ["a"]


def test_a_worker_that_lost_it_long_ago_is_refused_after_the_retry_and_a_restart(driver: SchedulerDriver) -> None:
    late, hand = driver.worker("late"), driver.worker("hand")
    driver.spawn("a")
    attempt = late.held["a"]
    late.vanish()
    hand.fail("a")
    hand.drain()
    driver.retry("a")
    driver.crash()
    late.connect()
    driver.wait(3.0)
    assert late.refused == [attempt]
    assert driver.state("a") is State.CLAIMED
    assert late.held["a"] != attempt, "it was given it anew"


def test_a_retry_survives_a_crash_right_after_it(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    failed(driver, hand, "a", "b <- a", "c <- b")
    hand.drain()
    driver.retry("a")
    driver.crash()
    check(driver)
    assert driver.states("a", "b", "c") == ["QUEUED", "WAITING", "WAITING"]
    assert driver.finish(another(driver)) == ["a", "b", "c"]


def test_a_crash_before_the_retry_is_durable_leaves_it_undone(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    failed(driver, hand, "a", "b <- a")
    driver.holds_still = True
    driver.retry("a")
    driver.holds_still = False
    driver.step(commit=False)
    driver.crash()
    assert driver.states("a", "b") == ["FAILED", "FAILED"]
    assert driver.in_memory() == {}


def test_what_was_made_by_a_run_that_failed_is_not_there_twice(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    hand.make("a", "lost child")
    hand.fail("a")
    driver.retry("a")
    hand.make("a", "child")
    hand.complete("a", "child")
    assert driver.finish(hand) == ["child"]
    assert not driver.is_visible("lost child")
    assert driver.state("a") is State.COMPLETED


def test_a_node_that_returned_a_promise_of_a_failed_node_waits_for_it_again_without_running(
    driver: SchedulerDriver,
) -> None:
    hand = driver.worker()
    driver.spawn("a", "after <- a")
    hand.make("a", "child")
    hand.complete("a", "child", value=b"names the child")
    hand.fail("child")
    assert driver.states("a", "after", "child") == ["FAILED"] * 3
    hand.drain()
    assert driver.retry("a") == (1, 2)
    assert driver.states("a", "after", "child") == ["RESOLVING", "WAITING", "QUEUED"]
    assert driver.outcome("a").value == b"names the child"
    check(driver)
    driver.crash()
    assert driver.states("a", "after", "child") == ["RESOLVING", "WAITING", "QUEUED"]
    assert driver.finish(another(driver)) == ["child", "after"]
    assert driver.states("a", "after", "child") == ["COMPLETED"] * 3


def test_a_node_that_returned_a_promise_of_a_node_that_had_failed_before_does_not_run_again(
    driver: SchedulerDriver,
) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("root cause", "a", "after <- a")
    hand.fail("root cause")
    hand.make("a", "child")
    hand.complete("a", "root cause", "child")
    assert driver.states("a", "after") == ["FAILED", "FAILED"]
    assert driver.retry("after") == (1, 2)
    assert sorted(driver.finish(hand)) == ["after", "child", "root cause"]
    assert driver.state("a") is State.COMPLETED


def test_a_root_cause_may_be_in_another_instance(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    instance = driver.spawn("a", "after <- a")
    hand.make("a", "sub", new="sub")
    hand.complete("a", "sub")
    hand.fail("sub")
    assert driver.states("a", "after", "sub") == ["FAILED"] * 3
    assert driver.in_memory() == {}
    assert driver.retry("after") == (1, 2)
    assert {driver.name(node) for node in driver.scheduler.graph.unfinished_of(instance)} == {"a", "after"}
    assert driver.finish(hand) == ["sub", "after"]
    assert all(end.ended is not None and not end.failed for end in driver.ledger.ends.values())


def test_what_depends_on_another_failure_too_fails_again_at_once_with_that_one(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "b", "join <- a b", "after <- join")
    hand.fail("a")
    hand.fail("b")
    assert driver.root_cause("join") == "a"
    assert driver.retry("a") == (1, 0)
    assert driver.states("join", "after") == ["FAILED", "FAILED"]
    assert driver.root_cause("join") == driver.root_cause("after") == "b"
    assert driver.finish(hand) == ["a"]
    assert driver.retry("after") == (1, 2)
    assert driver.finish(hand) == ["b", "join", "after"]


def test_what_depends_on_two_failures_waits_for_both_when_both_are_retried(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "b", "join <- a b")
    hand.fail("a")
    hand.fail("b")
    assert driver.retry("a", "b") == (2, 1)
    assert sorted(driver.finish(hand)[:2]) == ["a", "b"]
    assert driver.state("join") is State.COMPLETED


def test_what_depends_on_a_cancelled_node_too_is_cancelled_at_once(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=1)
    driver.spawn("a", "b", "join <- a b")
    hand.fail("a")
    driver.cancel("b")
    driver.retry("a")
    assert driver.states("a", "b", "join") == ["CLAIMED", "CANCELLED", "CANCELLED"]
    check(driver)


def test_an_unfinished_node_that_takes_the_failure_for_a_value_is_in_the_way(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "b", "join <- a? b?")
    hand.fail("a")
    before = driver.everything()
    with pytest.raises(FailedPrecondition, match=f"{driver.ids['join'].hex()}.*takes the failure as a value"):
        driver.retry("a")
    assert driver.everything() == before
    hand.complete("b")
    hand.complete("join")
    assert driver.retry("a") == (1, 0)
    assert driver.finish(hand) == ["a"]


def test_a_node_that_has_taken_the_failure_and_waits_for_its_promises_does_not_block_the_retry(
    driver: SchedulerDriver,
) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "other", "join <- a?", "after <- join")
    hand.fail("a")
    hand.complete("join", "other")
    assert driver.state("join") is State.RESOLVING
    assert driver.retry("a") == (1, 0)
    check(driver)
    driver.finish(hand)
    assert driver.states("a", "join", "after") == ["COMPLETED"] * 3
    assert driver.in_memory() == {}


def test_a_root_cause_that_took_anothers_failure_for_a_value_waits_for_it_when_both_are_retried(
    driver: SchedulerDriver,
) -> None:
    hand = driver.worker()
    driver.spawn("a", "join <- a?")
    hand.fail("a")
    hand.fail("join")
    hand.drain()
    assert driver.retry("a", "join") == (1, 1)
    assert driver.states("a", "join") == ["QUEUED", "WAITING"]
    check(driver)
    assert driver.finish(driver.worker("other")) == ["a", "join"]


def test_an_instance_has_failed_as_long_as_another_node_of_it_has(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    instance = driver.spawn("a", "b")
    hand.fail("a")
    hand.fail("b")
    driver.retry("a")
    assert driver.scheduler.graph.instances[instance].failed
    driver.finish(hand)
    assert driver.ledger.instance(instance)[1]
    driver.retry("b")
    assert not driver.scheduler.graph.instances[instance].failed
    driver.finish(hand)
    assert not driver.ledger.instance(instance)[1]


def test_an_instance_that_was_not_over_is_as_it_was(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    instance = driver.spawn("a", "other")
    hand.fail("a")
    assert driver.scheduler.graph.instances[instance].failed
    driver.retry("a")
    assert not driver.scheduler.graph.instances[instance].failed
    check(driver)
    assert set(driver.finish(hand)) == {"a", "other"}


def test_nodes_can_be_added_that_wait_for_what_is_retried(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    instance = failed(driver, hand, "a")
    driver.retry("a")
    driver.add(instance, "late <- a")
    assert driver.finish(hand) == ["a", "late"]


def test_concurrency_keys_hold_for_what_is_retried(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=3)
    driver.spawn("a @k", "b @k", "c @k", of=function("limited", max_concurrency=1))
    for name in "abc":
        hand.fail(name)
    assert driver.retry("a", "b", "c") == (3, 0)
    check(driver)
    assert hand.held.keys() == {"a"}
    driver.crash()
    assert driver.finish(another(driver, slots=3)) == ["a", "b", "c"]


def test_the_order_is_that_in_which_they_were_made(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    failed(driver, hand, "old", name="old")
    driver.spawn("young")
    driver.spawn("youngest")
    driver.retry("old")
    assert driver.finish(hand) == ["young", "old", "youngest"]


def test_a_delay_is_before_the_first_run_only(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", of=function("delayed", delay=5.0))
    driver.wait(6.0)
    hand.fail("a")
    driver.retry("a")
    assert "a" in hand.held


def test_what_waited_for_its_promises_when_it_was_read_and_has_ended_since_is_read_again(
    driver: SchedulerDriver,
) -> None:
    driver.spawn("promised", "waiting", "failing", "reader <- waiting failing")
    hand = driver.worker(slots=3)
    hand.complete("waiting", "promised")
    hand.fail("failing")
    failed = driver.ledger.failed({driver.key("failing")})
    assert driver.scheduler.is_within_reach(failed)
    hand.fail("promised")
    assert not driver.scheduler.is_within_reach(failed)
