"""A retry that goes downstream: what was given a failure as a value runs again, and everything that depends on it."""

import pytest

from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.domain import State
from tests.support.driver import Hand, Heart, function
from tests.support.invariants import check


def reported(heart: Heart, hand: Hand, *more: str) -> bytes:
    """An instance in which `report` has completed with the failure of `a` as a value, and `after` on its value."""
    instance = heart.spawn("a", "b", "report <- a? b?", "after <- report", *more)
    hand.fail("a")
    heart.finish(hand)
    assert heart.states("a", "report", "after") == ["FAILED", "COMPLETED", "COMPLETED"]
    return instance


def test_a_plain_retry_counts_and_marks_what_has_used_the_failure(heart: Heart) -> None:
    hand = heart.worker()
    reported(heart, hand)
    revived = heart.revive("a")
    assert (revived.queued, revived.waiting, revived.completed, revived.used) == (1, 0, 0, 1)
    assert heart.ledger.used_failures == {heart.key("report")}
    assert heart.finish(hand) == ["a"]
    heart.crash()
    assert heart.ledger.used_failures == {heart.key("report")}


def test_downstream_what_has_used_the_failure_runs_again_after_it_and_what_depends_on_that(heart: Heart) -> None:
    hand = heart.worker()
    reported(heart, hand)
    hand.drain()
    revived = heart.revive("a", downstream=True)
    assert (revived.queued, revived.waiting, revived.completed, revived.used) == (1, 2, 2, 0)
    assert heart.states("a", "b", "report", "after") == ["QUEUED", "COMPLETED", "WAITING", "WAITING"]
    check(heart)
    assert heart.finish(heart.worker("other")) == ["a", "report", "after"]
    assert heart.ledger.used_failures == set()
    assert heart.in_memory() == {}


def test_a_retry_downstream_survives_a_crash_right_after_it(heart: Heart) -> None:
    hand = heart.worker()
    instance = reported(heart, hand)
    hand.drain()
    heart.revive("a", downstream=True)
    heart.crash()
    check(heart)
    assert heart.states("a", "b", "report", "after") == ["QUEUED", "COMPLETED", "WAITING", "WAITING"]
    other = heart.worker("other")
    heart.wait(3.0)
    assert heart.finish(other) == ["a", "report", "after"]
    assert heart.ledger.instance(instance) == (1, False)


def test_what_was_retried_plainly_before_can_be_rerun_downstream_later(heart: Heart) -> None:
    hand = heart.worker()
    reported(heart, hand)
    heart.revive("a")
    heart.finish(hand)
    revived = heart.revive("report", downstream=True)
    assert (revived.queued, revived.waiting, revived.completed) == (1, 1, 2)
    assert heart.finish(hand) == ["report", "after"]
    assert heart.ledger.used_failures == set()


def test_what_has_used_the_failure_and_failed_by_itself_runs_again_too(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "report <- a?", "after <- report")
    hand.fail("a")
    hand.fail("report", "too many failures")
    revived = heart.revive("a", downstream=True)
    assert (revived.queued, revived.waiting, revived.completed) == (1, 2, 0)
    assert heart.finish(hand) == ["a", "report", "after"]


def test_what_has_its_value_and_named_what_runs_again_waits_for_it_and_keeps_its_value(heart: Heart) -> None:
    """Whether its promises were kept when it returned, or later."""
    hand = heart.worker(slots=2)
    heart.spawn("a", "report <- a?", "early", "late", "reader <- early", of=function(delay=0.0))
    hand.complete("early", "report")
    hand.fail("a")
    hand.complete("report")
    heart.finish(hand)
    heart.add(heart.instance_of("a"), "late2")
    hand.complete("late2", "report")
    assert heart.states("early", "late2", "reader") == ["COMPLETED"] * 3
    revived = heart.revive("a", downstream=True)
    assert heart.states("report", "early", "late2", "reader") == ["WAITING", "RESOLVING", "RESOLVING", "WAITING"]
    assert (revived.queued, revived.waiting, revived.completed) == (1, 4, 4)
    hand.drain()
    heart.crash()
    check(heart)
    other = heart.worker("other")
    heart.wait(3.0)
    assert heart.finish(other) == ["a", "report", "reader"]
    assert heart.states("early", "late2") == ["COMPLETED"] * 2


def test_a_value_that_names_a_node_of_another_instance_goes_back_too(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("outer")
    hand.make("outer", "a", "report <- a?", new="sub")
    hand.complete("outer", "report")
    hand.fail("a")
    heart.finish(hand)
    assert heart.state("outer") is State.COMPLETED
    heart.revive("a", downstream=True)
    assert heart.states("report", "outer") == ["WAITING", "RESOLVING"]
    assert heart.finish(hand) == ["a", "report"]
    assert heart.state("outer") is State.COMPLETED


def test_what_it_has_made_before_is_of_a_dead_attempt_and_what_of_it_is_unfinished_is_cancelled(heart: Heart) -> None:
    hand = heart.worker()
    instance = heart.spawn("a", "report <- a?")
    hand.fail("a")
    hand.make("report", "child", "grand <- child", "unnamed")
    hand.complete("report", "grand")
    hand.make("child", "grandchild")
    hand.complete("child")
    hand.complete("grand")
    assert heart.state("report") is State.COMPLETED
    assert heart.is_unfinished("unnamed")
    heart.revive("a", downstream=True)
    made = ("child", "grand", "unnamed", "grandchild")
    assert heart.states(*made) == ["COMPLETED", "COMPLETED", "CANCELLED", "CANCELLED"]
    assert all(heart.ledger.of_dead_attempt(heart.key(name)) for name in made)
    assert heart.failure("unnamed").message == "the node that made it was retried and runs again"
    hand.complete("a")
    hand.make("report", "new")
    hand.complete("report", "new")
    heart.finish(hand)
    assert not heart.ledger.of_dead_attempt(heart.key("new"))
    assert not heart.ledger.instance(instance)[1], "what a dead attempt made is no failure of the instance"


def test_what_an_eager_run_has_made_is_of_a_dead_attempt_when_it_runs_again(heart: Heart) -> None:
    hand = heart.worker()
    eager = function("eager", stream_children=True)
    heart.spawn("a", "report <- a?", of=eager)
    hand.fail("a")
    hand.make("report", "child", of=eager)
    hand.complete("report", "child")
    hand.complete("child")
    heart.revive("a", downstream=True)
    assert heart.ledger.of_dead_attempt(heart.key("child"))
    heart.crash()
    check(heart)


def test_an_unfinished_node_that_was_given_what_is_to_run_again_is_in_the_way(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("a", "report <- a?", "after <- report")
    hand.fail("a")
    hand.complete("report")
    before = heart.everything()
    with pytest.raises(
        FailedPrecondition, match=f"{heart.ids['after'].hex()} has not ended and depends on what is to run"
    ):
        heart.revive("a", downstream=True)
    assert heart.everything() == before
    assert heart.ledger.used_failures == set()
    heart.finish(hand)
    heart.revive("a", downstream=True)
    assert heart.finish(hand) == ["a", "report", "after"]


def test_a_node_that_was_given_it_and_waits_for_its_promises_is_in_the_way_also_after_a_restart(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("a", "slow", "report <- a?")
    hand.fail("a")
    hand.complete("report", "slow")
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="has not ended and depends on what is to run again"):
            heart.revive("a", downstream=True)
        heart.crash()


def test_what_still_waits_for_others_waits_for_what_runs_again_too(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("a", "slow", "late <- slow", "report <- a?", "join <- report slow", "both <- a? late", "outer")
    hand.fail("a")
    hand.complete("report")
    assert hand.held.keys() == {"slow", "outer"}
    hand.complete("outer", "report", "late")
    assert heart.states("join", "both", "outer") == ["WAITING", "WAITING", "RESOLVING"]
    revived = heart.revive("a", downstream=True)
    assert (revived.queued, revived.waiting, revived.completed) == (1, 1, 1)
    check(heart)
    hand.complete("slow")
    hand.complete("late")
    assert heart.states("join", "both", "outer") == ["WAITING", "WAITING", "RESOLVING"]
    hand.drain()
    heart.crash()
    check(heart)
    other = heart.worker("other")
    heart.wait(3.0)
    assert heart.finish(other) == ["a", "report", "join", "both"]
    assert heart.state("outer") is State.COMPLETED


def test_a_late_report_of_the_run_whose_value_was_dropped_is_refused(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "report <- a?")
    hand.fail("a")
    attempt = hand.held["report"]
    hand.complete("report")
    hand.drain()
    heart.revive("a", downstream=True)
    assert not hand.complete("report", attempt=attempt)
    heart.crash()
    hand.held["report"] = attempt
    hand.connect()
    assert hand.refused == [attempt, attempt]


def test_what_is_rerun_may_be_rerun_once_more(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "report <- a?", "after <- report")
    for _ in range(3):
        hand.fail("a")
        hand.make("report", "child")
        hand.complete("report", "child")
        heart.finish(hand)
        assert heart.states("report", "after") == ["COMPLETED"] * 2
        assert heart.revive("a", downstream=True).completed == 2
        check(heart)
    assert heart.finish(hand) == ["a", "report", "after"]


def test_what_has_used_a_failure_and_failed_because_of_its_promise_is_marked_although_it_goes_on(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "used <- a?", "promised")
    hand.fail("a")
    hand.complete("used", "promised")
    hand.fail("promised")
    revived = heart.revive("a", "promised")
    assert (revived.queued, revived.waiting, revived.used) == (2, 1, 1)
    assert heart.ledger.used_failures == {heart.key("used")}
    check(heart)


def test_new_code_is_what_the_first_worker_that_is_offered_the_node_has(heart: Heart) -> None:
    old = heart.worker("old")
    heart.spawn("a", "b <- a")
    other = heart.spawn("same", of=function(taint="elsewhere"))
    old.fail("a")
    old.vanish()
    assert heart.revive("a", new_code=True).rebound == 2
    heart.crash()
    new = heart.worker("new")
    heart.wait(3.0)
    assert "a" in new.held
    new.give_back("a", "it has other code", deployed="h2")
    assert "a" in new.held, "it is offered again, as the code that the worker has"
    graph = heart.scheduler.graph
    assert {node.queue.function.hash for node in graph.nodes.values() if node.instance.id != other} == {"h2"}
    assert [node.queue.function.hash for node in graph.unfinished_of(other)] == ["h"]
    heart.crash()
    new = heart.worker("new")
    heart.wait(3.0)
    assert heart.finish(new) == ["a", "b"]


def test_a_worker_that_has_said_which_code_it_has_says_it_again_for_the_next_retry(heart: Heart) -> None:
    hand = heart.worker()
    for hash in ("h2", "h3"):
        heart.spawn("a")
        hand.fail("a")
        heart.revive("a", new_code=True)
        hand.give_back("a", "it has other code", deployed=hash)
        assert [node.queue.function.hash for node in heart.scheduler.graph.nodes.values()] == [hash]
        assert heart.finish(hand) == ["a"]


def test_workers_that_cannot_import_the_function_are_not_offered_it_again(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a")
    hand.fail("a")
    heart.revive("a", new_code=True)
    hand.give_back("a", "it cannot import the function")
    assert hand.held == {}
    assert [why for _, why in heart.scheduler.dispatch.unschedulable()] == [
        "the only connected worker may not run it: it cannot import the function"
    ]
