"""A person retries: what failed runs again, and what failed because of it waits for it again, whatever happens then."""

from typing import Any

import pytest

from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.domain import State
from tests.support.driver import GPU, Hand, Heart, function, retrying
from tests.support.invariants import check


def another(heart: Heart, **rules: Any) -> Hand:
    """A worker that comes after a restart, when those before it are not waited for any more."""
    hand = heart.worker("another", **rules)
    heart.wait(3.0)
    return hand


def failed(heart: Heart, hand: Hand, *nodes: str, name: str = "a") -> bytes:
    """An instance of which one node has failed."""
    instance = heart.spawn(*nodes)
    hand.fail(name)
    return instance


def test_what_failed_is_queued_and_what_failed_because_of_it_waits_for_it(heart: Heart) -> None:
    hand = heart.worker()
    failed(heart, hand, "a", "b <- a", "c <- b")
    hand.drain()
    assert heart.retry("a") == (1, 2)
    assert heart.states("a", "b", "c") == ["QUEUED", "WAITING", "WAITING"]
    check(heart)
    assert heart.finish(heart.worker("other")) == ["a", "b", "c"]
    assert heart.states("a", "b", "c") == ["COMPLETED"] * 3
    assert heart.in_memory() == {}


def test_a_node_that_failed_because_of_another_stands_for_that_one(heart: Heart) -> None:
    hand = heart.worker()
    failed(heart, hand, "a", "b <- a", "c <- b")
    assert heart.retry("c") == (1, 2)
    assert heart.finish(hand) == ["a", "b", "c"]


def test_retrying_twice_changes_nothing_more(heart: Heart) -> None:
    hand = heart.worker()
    failed(heart, hand, "a", "b <- a")
    heart.retry("a")
    assert heart.retry("a", "b") == (0, 0)
    assert heart.finish(hand) == ["a", "b"]
    assert heart.retry("a", "b") == (0, 0)


def test_it_has_all_its_attempts_again_and_what_went_wrong_before_stays_on_record(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", of=retrying(2))
    hand.fail("a", "first")
    hand.fail("a", "second")
    heart.retry("a")
    hand.fail("a", "third")
    assert heart.state("a") is State.CLAIMED
    hand.fail("a", "fourth")
    failure = heart.failure("a")
    assert (failure.message, failure.attempts) == ("fourth", 2)
    assert [message for _, message, _ in failure.earlier] == ["first", "second", "third"]


def test_it_may_fail_and_be_retried_any_number_of_times(heart: Heart) -> None:
    hand = heart.worker()
    failed(heart, hand, "a", "b <- a")
    for _ in range(3):
        assert heart.retry("b") == (1, 1)
        hand.fail("a")
        assert heart.states("a", "b") == ["FAILED", "FAILED"]
        assert heart.culprit("b") == "a"
        assert heart.in_memory() == {}
    heart.retry("a")
    assert heart.finish(hand) == ["a", "b"]


def test_what_was_queued_for_too_long_is_queued_anew(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "other", where={"a": function("a", queue_timeout=5.0, taint="GPU"), "other": GPU})
    heart.wait(6.0)
    assert heart.state("a") is State.FAILED
    assert heart.retry("a") == (1, 0)
    check(heart)
    assert hand.held == {}
    assert heart.finish(heart.worker("able", tolerations={"GPU"})) == ["a", "other"]


def test_a_late_report_of_the_run_that_failed_is_refused(heart: Heart) -> None:
    """Also after a restart: that an attempt is over is on record."""
    hand = heart.worker()
    heart.spawn("a")
    attempt = hand.held["a"]
    hand.fail("a")
    hand.drain()
    heart.retry("a")
    assert not hand.complete("a", attempt=attempt)
    hand.held["a"] = attempt  # it has not heard
    heart.crash()
    hand.connect()
    assert hand.refused == [attempt, attempt]
    assert heart.finish(hand) == ["a"]


def test_a_worker_that_lost_it_long_ago_is_refused_after_the_retry_and_a_restart(heart: Heart) -> None:
    late, hand = heart.worker("late"), heart.worker("hand")
    heart.spawn("a")
    attempt = late.held["a"]
    late.vanish()
    hand.fail("a")
    hand.drain()
    heart.retry("a")
    heart.crash()
    late.connect()
    heart.wait(3.0)
    assert late.refused == [attempt]
    assert heart.state("a") is State.CLAIMED
    assert late.held["a"] != attempt, "it was given it anew"


def test_a_retry_survives_a_crash_right_after_it(heart: Heart) -> None:
    hand = heart.worker()
    failed(heart, hand, "a", "b <- a", "c <- b")
    hand.drain()
    heart.retry("a")
    heart.crash()
    check(heart)
    assert heart.states("a", "b", "c") == ["QUEUED", "WAITING", "WAITING"]
    assert heart.finish(another(heart)) == ["a", "b", "c"]


def test_a_crash_before_the_retry_is_durable_leaves_it_undone(heart: Heart) -> None:
    hand = heart.worker()
    failed(heart, hand, "a", "b <- a")
    heart.holds_still = True
    heart.retry("a")
    heart.holds_still = False
    heart.step(commit=False)
    heart.crash()
    assert heart.states("a", "b") == ["FAILED", "FAILED"]
    assert heart.in_memory() == {}


def test_what_was_made_by_a_run_that_failed_is_not_there_twice(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a")
    hand.make("a", "lost child")
    hand.fail("a")
    heart.retry("a")
    hand.make("a", "child")
    hand.complete("a", "child")
    assert heart.finish(hand) == ["child"]
    assert not heart.is_visible("lost child")
    assert heart.state("a") is State.COMPLETED


def test_who_returned_a_promise_that_was_not_kept_waits_for_it_again_and_does_not_run_again(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "after <- a")
    hand.make("a", "child")
    hand.complete("a", "child", value=b"names the child")
    hand.fail("child")
    assert heart.states("a", "after", "child") == ["FAILED"] * 3
    hand.drain()
    assert heart.retry("a") == (1, 2)
    assert heart.states("a", "after", "child") == ["RESOLVING", "WAITING", "QUEUED"]
    assert heart.outcome("a").value == b"names the child"
    check(heart)
    heart.crash()
    assert heart.states("a", "after", "child") == ["RESOLVING", "WAITING", "QUEUED"]
    assert heart.finish(another(heart)) == ["child", "after"]
    assert heart.states("a", "after", "child") == ["COMPLETED"] * 3


def test_who_returned_the_promise_of_a_node_that_had_failed_does_not_run_again_either(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("culprit", "a", "after <- a")
    hand.fail("culprit")
    hand.make("a", "child")
    hand.complete("a", "culprit", "child")
    assert heart.states("a", "after") == ["FAILED", "FAILED"]
    assert heart.retry("after") == (1, 2)
    assert sorted(heart.finish(hand)) == ["after", "child", "culprit"]
    assert heart.state("a") is State.COMPLETED


def test_a_culprit_may_be_in_another_instance(heart: Heart) -> None:
    hand = heart.worker()
    instance = heart.spawn("a", "after <- a")
    hand.make("a", "sub", new="sub")
    hand.complete("a", "sub")
    hand.fail("sub")
    assert heart.states("a", "after", "sub") == ["FAILED"] * 3
    assert heart.in_memory() == {}
    assert heart.retry("after") == (1, 2)
    assert {heart.name(node) for node in heart.scheduler.graph.unfinished_of(instance)} == {"a", "after"}
    assert heart.finish(hand) == ["sub", "after"]
    assert all(end.ended is not None and not end.failed for end in heart.ledger.ends.values())


def test_what_depends_on_another_failure_too_fails_again_at_once_with_that_one(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("a", "b", "join <- a b", "after <- join")
    hand.fail("a")
    hand.fail("b")
    assert heart.culprit("join") == "a"
    assert heart.retry("a") == (1, 0)
    assert heart.states("join", "after") == ["FAILED", "FAILED"]
    assert heart.culprit("join") == heart.culprit("after") == "b"
    assert heart.finish(hand) == ["a"]
    assert heart.retry("after") == (1, 2)
    assert heart.finish(hand) == ["b", "join", "after"]


def test_what_depends_on_two_failures_waits_for_both_when_both_are_retried(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("a", "b", "join <- a b")
    hand.fail("a")
    hand.fail("b")
    assert heart.retry("a", "b") == (2, 1)
    assert sorted(heart.finish(hand)[:2]) == ["a", "b"]
    assert heart.state("join") is State.COMPLETED


def test_what_depends_on_a_cancelled_node_too_is_cancelled_at_once(heart: Heart) -> None:
    hand = heart.worker(slots=1)
    heart.spawn("a", "b", "join <- a b")
    hand.fail("a")
    heart.cancel("b")
    heart.retry("a")
    assert heart.states("a", "b", "join") == ["CLAIMED", "CANCELLED", "CANCELLED"]
    check(heart)


def test_an_unfinished_node_that_takes_the_failure_for_a_value_is_in_the_way(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("a", "b", "join <- a? b?")
    hand.fail("a")
    before = heart.everything()
    with pytest.raises(FailedPrecondition, match=f"{heart.ids['join'].hex()}.*takes the failure for a value"):
        heart.retry("a")
    assert heart.everything() == before
    hand.complete("b")
    hand.complete("join")
    assert heart.retry("a") == (1, 0)
    assert heart.finish(hand) == ["a"]


def test_who_has_taken_the_failure_and_waits_for_its_promises_is_not_in_the_way(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("a", "other", "join <- a?", "after <- join")
    hand.fail("a")
    hand.complete("join", "other")
    assert heart.state("join") is State.RESOLVING
    assert heart.retry("a") == (1, 0)
    check(heart)
    heart.finish(hand)
    assert heart.states("a", "join", "after") == ["COMPLETED"] * 3
    assert heart.in_memory() == {}


def test_a_culprit_that_took_anothers_failure_for_a_value_waits_for_it_when_both_are_retried(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "join <- a?")
    hand.fail("a")
    hand.fail("join")
    hand.drain()
    assert heart.retry("a", "join") == (1, 1)
    assert heart.states("a", "join") == ["QUEUED", "WAITING"]
    check(heart)
    assert heart.finish(heart.worker("other")) == ["a", "join"]


def test_an_instance_has_failed_as_long_as_another_node_of_it_has(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    instance = heart.spawn("a", "b")
    hand.fail("a")
    hand.fail("b")
    heart.retry("a")
    assert heart.scheduler.graph.instances[instance].failed
    heart.finish(hand)
    assert heart.ledger.instance(instance)[1]
    heart.retry("b")
    assert not heart.scheduler.graph.instances[instance].failed
    heart.finish(hand)
    assert not heart.ledger.instance(instance)[1]


def test_an_instance_that_was_not_over_is_as_it_was(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    instance = heart.spawn("a", "other")
    hand.fail("a")
    assert heart.scheduler.graph.instances[instance].failed
    heart.retry("a")
    assert not heart.scheduler.graph.instances[instance].failed
    check(heart)
    assert set(heart.finish(hand)) == {"a", "other"}


def test_nodes_can_be_added_that_wait_for_what_is_retried(heart: Heart) -> None:
    hand = heart.worker()
    instance = failed(heart, hand, "a")
    heart.retry("a")
    heart.add(instance, "late <- a")
    assert heart.finish(hand) == ["a", "late"]


def test_concurrency_keys_hold_for_what_is_retried(heart: Heart) -> None:
    hand = heart.worker(slots=3)
    heart.spawn("a @k", "b @k", "c @k", of=function("limited", max_concurrency=1))
    for name in "abc":
        hand.fail(name)
    assert heart.retry("a", "b", "c") == (3, 0)
    check(heart)
    assert hand.held.keys() == {"a"}
    heart.crash()
    assert heart.finish(another(heart, slots=3)) == ["a", "b", "c"]


def test_the_order_is_that_in_which_they_were_made(heart: Heart) -> None:
    hand = heart.worker()
    failed(heart, hand, "old", name="old")
    heart.spawn("young")
    heart.spawn("youngest")
    heart.retry("old")
    assert heart.finish(hand) == ["young", "old", "youngest"]


def test_a_delay_is_before_the_first_run_only(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", of=function("delayed", delay=5.0))
    heart.wait(6.0)
    hand.fail("a")
    heart.retry("a")
    assert "a" in hand.held


def test_what_waited_for_its_promises_when_it_was_read_and_has_ended_since_is_read_again(heart: Heart) -> None:
    heart.spawn("promised", "waiting", "failing", "reader <- waiting failing")
    hand = heart.worker(slots=3)
    hand.complete("waiting", "promised")
    hand.fail("failing")
    failed = heart.ledger.failed({heart.key("failing")})
    assert heart.scheduler.is_within_reach(failed)
    hand.fail("promised")
    assert not heart.scheduler.is_within_reach(failed)
