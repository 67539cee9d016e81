"""Only the current holder of the current attempt is heard, and children come with their parent's result or never."""

from collections.abc import Callable

import pytest

from dagorama_broker.errors import ResourceExhausted
from dagorama_broker.model.domain import State
from dagorama_broker.scheduler import Limits
from tests.support.driver import Hand, Heart, retrying

Say = Callable[[Hand, str, int], bool]
SAYINGS = {
    "complete": lambda hand, name, attempt: hand.complete(name, attempt=attempt, value=b"other"),
    "fail": lambda hand, name, attempt: hand.fail(name, attempt=attempt),
    "give back": lambda hand, name, attempt: hand.give_back(name, "no reason", attempt=attempt),
    "make children": lambda hand, name, attempt: hand.make(name, "child", attempt=attempt),
}
every_saying = pytest.mark.parametrize("say", SAYINGS.values(), ids=SAYINGS)


def refused(heart: Heart, hand: Hand, say: Say, name: str, attempt: int) -> bool:
    """Whether the heart does not take it and is afterwards as it was before."""
    before = heart.everything()
    heart.holds_still = True
    taken = say(hand, name, attempt)
    heart.holds_still = False
    return not taken and heart.everything() == before


@every_saying
class TestRefused:
    def test_a_report_of_a_node_that_was_never_claimed_is_refused(self, heart: Heart, say: Say) -> None:
        hand = heart.worker()
        heart.spawn("held", "queued", "waits <- held")
        for name in ("queued", "waits"):
            assert refused(heart, hand, say, name, 7)
            assert refused(heart, hand, say, name, hand.held["held"])

    def test_a_report_of_an_ended_node_is_refused_and_the_recorded_value_stays(self, heart: Heart, say: Say) -> None:
        hand = heart.worker()
        heart.spawn("a", "b")
        attempt = hand.held["a"]
        hand.complete("a", value=b"first")
        assert refused(heart, hand, say, "a", attempt)
        assert heart.outcome("a").value == b"first"

    def test_a_report_from_another_worker_is_refused(self, heart: Heart, say: Say) -> None:
        holder, other = heart.worker("holder"), heart.worker("other")
        heart.spawn("a")
        assert refused(heart, other, say, "a", holder.held["a"])

    def test_a_report_of_an_earlier_attempt_is_refused(self, heart: Heart, say: Say) -> None:
        hand = heart.worker()
        heart.spawn("a", of=retrying(3))
        attempt = hand.held["a"]
        hand.fail("a")
        assert hand.held["a"] > attempt
        assert refused(heart, hand, say, "a", attempt)

    def test_from_a_worker_that_was_given_up(self, heart: Heart, say: Say) -> None:
        hand = heart.worker()
        heart.spawn("a")
        attempt = hand.held["a"]
        hand.vanish()
        assert refused(heart, hand, say, "a", attempt)
        other = heart.worker("other")
        assert refused(heart, hand, say, "a", attempt)
        assert other.complete("a")

    def test_under_another_nodes_attempt(self, heart: Heart, say: Say) -> None:
        hand = heart.worker(slots=2)
        heart.spawn("a", "b")
        assert refused(heart, hand, say, "a", hand.held["b"])


def test_whoever_is_refused_a_result_is_told(heart: Heart) -> None:
    late, other = heart.worker("late"), heart.worker("other")
    heart.spawn("a")
    attempt = late.held["a"]
    late.vanish()
    other.complete("a")
    late.connect()
    assert late.refused == [attempt]
    assert not late.held


def test_an_attempt_is_never_used_twice(heart: Heart) -> None:
    hand, seen = heart.worker(), set()
    heart.spawn("a", of=retrying(50))
    for round in range(30):
        attempt = hand.held["a"]
        assert attempt not in seen
        seen.add(attempt)
        (hand.fail if round % 2 else hand.give_back)("a")
        if round % 7 == 6:
            heart.crash()
            hand.held.clear()
            hand.connect()


class TestChildren:
    def test_children_become_visible_with_their_parents_result(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("parent", "other")
        hand.make("parent", "x", "y <- x")
        hand.make("parent", "z <- x y")
        heart.step()
        assert not any(map(heart.is_visible, "xyz"))
        hand.complete("parent")
        assert heart.states("x", "y", "z") == ["QUEUED", "WAITING", "WAITING"]
        rows = [(outcome.key, outcome.value) for outcome in heart.changes.outcomes]
        assert rows == [(heart.key("parent"), b"value")], "in one transaction with it"
        assert {row.key for row in heart.changes.nodes} == {heart.key(name) for name in "xyz"}
        assert heart.finish(hand) == ["other", "x", "y", "z"]

    @pytest.mark.parametrize("end", ["fails", "dies", "is given back", "is lost", "is silent", "comes back late"])
    def test_children_of_an_attempt_that_does_not_complete_are_never_seen(self, heart: Heart, end: str) -> None:
        hand = heart.worker()
        heart.spawn("parent", of=retrying(3))
        attempt = hand.held["parent"]
        hand.make("parent", "child")
        hand.make("parent", "sub", new="Sub")
        match end:
            case "fails":
                hand.fail("parent")
            case "dies":
                hand.child_dies(["parent"])
            case "is given back":
                hand.give_back("parent")
            case "is lost":
                hand.vanish()
                hand = heart.worker("other")
            case "is silent":
                heart.wait(31.0)
                hand = heart.worker("other")
            case "comes back late":
                hand.vanish()
                late, hand = hand, heart.worker("other")
                late.connect()
                assert late.refused == [attempt]
        assert not heart.scheduler.staged
        hand.make("parent", "child of the retry")
        hand.complete("parent", "child of the retry")
        heart.finish(hand)
        assert heart.is_visible("child of the retry")
        assert not heart.is_visible("child")
        assert not heart.is_visible("sub")
        assert len(heart.ledger.nodes) == 2
        assert len(heart.ledger.instances) == 1

    def test_children_of_an_attempt_that_a_restart_ends_are_never_seen(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("parent")
        hand.make("parent", "child")
        heart.crash()
        hand.connect()
        assert not heart.is_visible("child")
        hand.make("parent", "child")  # it says again what was not acknowledged
        hand.complete("parent", "child")
        assert heart.finish(hand) == ["child"]
        assert len(heart.ledger.nodes) == 2

    def test_children_that_are_refused_leave_the_attempt_as_it_was(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("parent", of=retrying(2))
        heart.scheduler.limits = Limits(sources_per_node=1)
        hand.make("parent", "x", "y", "z <- x y")
        before = heart.everything()
        with pytest.raises(ResourceExhausted, match="more than 1 sources"):
            hand.complete("parent", "z")
        assert heart.everything() == before
        hand.fail("parent", "its result could not be taken")
        assert hand.complete("parent")
        assert len(heart.ledger.nodes) == 1

    @pytest.mark.parametrize("limits", [Limits(nodes_per_attempt=3), Limits(bytes_per_attempt=50)])
    def test_past_a_bound_are_not_even_kept(self, heart: Heart, limits: Limits) -> None:
        heart.scheduler.limits = limits
        hand = heart.worker()
        heart.spawn("parent")
        for number in range(5):
            assert hand.make("parent", f"child{number}")
        (staged,) = heart.scheduler.staged.values()
        assert not staged.runs
        with pytest.raises(ResourceExhausted, match="allowed"):
            hand.complete("parent")
        hand.fail("parent")
        assert not heart.scheduler.staged

    def test_are_no_part_of_what_another_attempt_completes(self, heart: Heart) -> None:
        hand = heart.worker(slots=2)
        heart.spawn("one", "other")
        hand.make("one", "child")
        hand.complete("other")
        assert not heart.is_visible("child")
        hand.complete("one")
        assert heart.state("child") is State.CLAIMED
