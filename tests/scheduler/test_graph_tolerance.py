"""A node may take the failure of a source for a value: then it runs, and one bad item does not lose a fan-out."""

from dagorama_broker.model.domain import State
from tests.support.driver import Heart


def test_a_tolerant_node_runs_when_all_its_sources_have_ended(heart: Heart) -> None:
    hand = heart.worker(slots=3)
    heart.spawn("a", "b", "join <- a? b?")
    hand.fail("a")
    assert heart.state("join") is State.WAITING
    hand.complete("b")
    assert "join" in hand.held
    hand.complete("join")
    assert heart.state("join") is State.COMPLETED
    assert heart.in_memory() == {}


def test_a_failure_that_is_not_tolerated_fails_the_node(heart: Heart) -> None:
    hand = heart.worker(slots=3)
    heart.spawn("a", "b", "join <- a? b")
    hand.fail("a")
    hand.fail("b")
    assert heart.state("join") is State.FAILED
    assert heart.culprit("join") == "b"


def test_a_source_that_failed_before_is_no_hindrance(heart: Heart) -> None:
    hand = heart.worker()
    instance = heart.spawn("a", "other")
    hand.fail("a")
    heart.add(instance, "join <- a?")
    assert heart.state("join") is State.QUEUED


def test_a_cancelled_source_is_a_failure_as_any_other(heart: Heart) -> None:
    heart.spawn("a", "join <- a?")
    heart.cancel("a")
    assert heart.states("a", "join") == ["CANCELLED", "QUEUED"]


def test_tolerance_survives_a_restart_before_and_after_the_failure(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("a", "b", "join <- a? b?")
    heart.crash()
    hand.connect()
    hand.fail("a")
    heart.crash()
    hand.connect()
    hand.complete("b")
    assert "join" in hand.held


def test_who_takes_a_failure_for_a_value_and_returns_the_promise_of_it_fails_with_it(heart: Heart) -> None:
    """Found by the machine: it resolved, without a value for that part, and a restart saw it otherwise."""
    hand = heart.worker()
    heart.spawn("bad", "careful <- bad?")
    hand.fail("bad")
    hand.make("careful", "child")
    hand.complete("careful", "bad", "child")
    assert heart.state("careful").name == "FAILED"
    assert heart.culprit("careful") == "bad"
