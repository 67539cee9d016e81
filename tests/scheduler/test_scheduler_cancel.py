"""Cancelling ends what has not ended, with all that depends on it; what runs is told, and its result is refused."""

from dagorama_broker.model.domain import State
from tests.support.driver import Heart, function, retrying


def test_what_is_queued_waits_or_pauses_is_cancelled_at_once_with_its_descendants(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("paused", of=retrying(2, 10.0))
    hand.fail("paused")
    hand.drain()
    heart.spawn("queued", "waiting <- queued", "last <- waiting", "other")
    assert heart.cancel("queued", "paused") == 4
    assert heart.states("queued", "waiting", "last", "paused") == ["CANCELLED"] * 4
    assert heart.state("other") is State.QUEUED


def test_a_running_node_is_told_and_its_result_is_refused(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "b <- a")
    attempt = hand.held["a"]
    assert heart.cancel("a") == 2
    assert hand.cancelled == [attempt]
    assert not hand.complete("a")
    assert heart.states("a", "b") == ["CANCELLED", "CANCELLED"]


def test_children_of_a_cancelled_run_never_come(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a")
    hand.make("a", "child")
    heart.cancel("a")
    assert not heart.is_visible("child")
    assert heart.in_memory() == {}


def test_who_returned_a_promise_of_a_cancelled_node_is_cancelled(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "after <- a")
    hand.make("a", "child")
    hand.complete("a", "child")
    assert heart.state("a") is State.RESOLVING
    heart.cancel("child")
    assert heart.states("a", "after", "child") == ["CANCELLED"] * 3


def test_what_has_ended_stays_as_it_is(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", "b <- a")
    hand.complete("a")
    assert heart.cancel("a") == 0
    assert heart.cancel("b") == 1
    assert heart.states("a", "b") == ["COMPLETED", "CANCELLED"]


def test_a_restart_does_not_bring_back_what_was_cancelled(heart: Heart) -> None:
    heart.spawn("a", "b <- a")
    heart.cancel("a")
    heart.crash()
    hand = heart.worker()
    assert hand.held == {}
    assert heart.states("a", "b") == ["CANCELLED", "CANCELLED"]


def test_all_of_an_instance_is_what_has_not_ended(heart: Heart) -> None:
    hand = heart.worker()
    instance = heart.spawn("a", "b", "c <- b")
    hand.complete("a")
    assert {heart.name(node) for node in heart.scheduler.graph.unfinished_of(instance)} == {"b", "c"}


def test_a_slot_of_a_cancelled_run_has_room_again(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a")
    heart.spawn("b", of=function("other"))
    assert hand.held.keys() == {"a"}
    heart.cancel("a")
    assert "b" in hand.held
