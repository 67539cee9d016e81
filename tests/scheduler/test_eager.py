"""What an eager function makes is there at once, is cancelled with an attempt that comes to nothing, and stays where it
completes."""

import pytest

from dagorama_broker.errors import Conflict, Malformed, TooMuch
from dagorama_broker.model.domain import Fate, Function, RetryPolicy
from dagorama_broker.scheduler import Limits, Timing
from tests.support.driver import Hand, Heart, function

EAGER = function("eager", eager=True, retry=RetryPolicy(3))
LASTING = function("eager", eager=True)


def begin(heart: Heart, *children: str, slots: int = 3, of: Function = EAGER) -> Hand:
    """A worker that runs an eager node, which has made children."""
    hand = heart.worker(slots=slots)
    heart.spawn("parent", of=of)
    hand.make("parent", *children)
    return hand


class TestWhileItRuns:
    def test_its_children_are_seen_and_run(self, heart: Heart) -> None:
        hand = begin(heart, "x", "y <- x")
        assert heart.states("parent", "x", "y") == ["CLAIMED", "CLAIMED", "WAITING"]
        assert hand.complete("x")
        assert heart.states("parent", "y") == ["CLAIMED", "CLAIMED"]

    def test_it_may_name_a_child_that_has_ended(self, heart: Heart) -> None:
        hand = begin(heart, "x")
        hand.complete("x")
        hand.make("parent", "y <- x")
        assert heart.state("y").name == "CLAIMED"
        assert hand.complete("parent", "x", "y")
        assert heart.states("parent") == ["RESOLVING"]
        hand.complete("y")
        assert heart.states("parent") == ["COMPLETED"]

    def test_the_same_said_again_makes_nothing(self, heart: Heart) -> None:
        hand = begin(heart, "x", "y")
        attempt = hand.held["parent"]
        run = heart.run(heart.instance_of("parent"), heart.ids["x"][:12], ["x", "y"])
        for _ in range(2):
            assert heart.scheduler.make(hand.worker, heart.key("parent"), attempt, run, {})
            heart.step()
        assert len(heart.ledger.nodes) == 3
        hand.complete("x")
        assert heart.scheduler.make(hand.worker, heart.key("parent"), attempt, run, {})
        heart.crash()
        hand.connect()
        assert heart.scheduler.make(hand.worker, heart.key("parent"), attempt, run, {})
        assert len(heart.ledger.nodes) == 3

    def test_other_nodes_under_the_same_names_are_refused(self, heart: Heart) -> None:
        hand = begin(heart, "x", "y")
        run = heart.run(heart.instance_of("parent"), heart.ids["x"][:12], ["x", "y", "z"])
        with pytest.raises(Conflict):
            heart.scheduler.make(hand.worker, heart.key("parent"), hand.held["parent"], run, {})

    def test_its_instances_live_and_may_end_before_it(self, heart: Heart) -> None:
        hand = begin(heart)
        hand.make("parent", "sub", new="Sub")
        hand.complete("sub")
        hand.make("parent", "later", new="Sub")
        assert heart.state("later").name == "CLAIMED"
        hand.fail("parent")
        assert heart.states("sub", "later") == ["COMPLETED", "CANCELLED"]

    def test_another_instance_is_not_its_to_add_to(self, heart: Heart) -> None:
        hand = begin(heart, "x")
        heart.spawn("stranger")
        run = heart.run(heart.instance_of("stranger"), b"another-one.", ["z"])
        before = heart.everything()
        with pytest.raises(Malformed, match="its own instance"):
            heart.scheduler.make(hand.worker, heart.key("parent"), hand.held["parent"], run, {})
        assert heart.everything() == before

    @pytest.mark.parametrize("limits", [Limits(nodes_per_attempt=3), Limits(bytes_per_attempt=50)])
    def test_it_makes_no_more_than_any_other(self, heart: Heart, limits: Limits) -> None:
        hand = begin(heart)
        heart.scheduler.limits = limits
        hand.make("parent", "a", "b")
        with pytest.raises(TooMuch, match="allowed"):
            hand.make("parent", "c", "d")
        assert heart.states("a", "b") == ["CLAIMED", "CLAIMED"]

    def test_a_worker_that_leaves_when_all_is_drained_stays_for_its_children(self, heart: Heart) -> None:
        hand = heart.worker(slots=1)
        heart.spawn("parent", of=EAGER)
        other = heart.worker("other", leave_when_drained=True, tolerations={"GPU"}, exclude_queues={"eager"})
        assert not other.may_leave
        hand.make("parent", "x", of=function("gpu", queue="work", taint="GPU"))
        assert other.held.keys() == {"x"}
        other.complete("x")
        assert not other.may_leave
        hand.complete("parent")
        assert other.may_leave


def end(heart: Heart, hand: Hand, how: str) -> Hand:
    """The attempt of `parent` comes to nothing; who goes on."""
    match how:
        case "fails":
            hand.fail("parent")
        case "fails for good":
            hand.fail("parent", final=True)
        case "dies":
            hand.child_dies(["parent"])
        case "is given back":
            hand.give_back("parent")
        case "is cancelled":
            heart.cancel("parent")
        case "is granted to another":
            hand.vanish()
            return heart.worker("other", slots=3)
        case "is silent":
            heart.wait(31.0)
            return heart.worker("other", slots=3)
        case "is granted to another after a restart":
            heart.crash()
            heart.wait(3.0)
            return heart.worker("other", slots=3)
    return hand


AGAIN = ["fails", "dies", "is given back", "is granted to another", "is silent",
         "is granted to another after a restart"]  # fmt: skip


@pytest.mark.parametrize("how", [*AGAIN, "fails for good", "is cancelled"])
class TestAnAttemptThatComesToNothing:
    def test_takes_its_unfinished_children_along(self, heart: Heart, how: str) -> None:
        hand = begin(heart, "done", "runs", "waits <- runs")
        hand.make("parent", "sub", "below <- sub", new="Sub")
        hand.complete("done")
        end(heart, hand, how)
        assert heart.states("done", "runs", "waits", "sub", "below") == ["COMPLETED", *["CANCELLED"] * 4]
        assert heart.failure("runs").type == "dagorama.errors.NodeCancelled"
        assert heart.failure("below").message == "the run of eager that made it was rolled back"
        made = ["done", "runs", "waits", "sub", "below"]
        assert all(heart.ledger.of_dead_attempt(heart.key(name)) for name in made)
        assert not heart.ledger.of_dead_attempt(heart.key("parent"))

    def test_takes_along_what_its_children_have_made(self, heart: Heart, how: str) -> None:
        hand = begin(heart, "child", slots=4)
        hand.make("child", "grandchild", "other")
        hand.complete("child", "grandchild")
        hand.complete("other")
        assert heart.states("child", "grandchild") == ["RESOLVING", "CLAIMED"]
        hand.make("grandchild", "great")
        hand.complete("grandchild")
        assert heart.states("child", "great") == ["COMPLETED", "CLAIMED"]
        end(heart, hand, how)
        assert heart.states("child", "grandchild", "other", "great") == [*["COMPLETED"] * 3, "CANCELLED"]
        assert all(heart.ledger.of_dead_attempt(heart.key(name)) for name in ("child", "other", "great"))

    def test_takes_along_eager_children_and_what_they_have_made(self, heart: Heart, how: str) -> None:
        hand = begin(heart, slots=5)
        hand.make("parent", "inner", "finished", of=LASTING)
        hand.make("inner", "deep", of=LASTING)
        hand.make("deep", "deepest")
        hand.make("finished", "left")
        hand.complete("finished")
        end(heart, hand, how)
        assert heart.states("finished", "inner", "deep", "deepest", "left") == ["COMPLETED", *["CANCELLED"] * 4]
        assert heart.ledger.of_dead_attempt(heart.key("left"))

    def test_leaves_nothing_behind(self, heart: Heart, how: str) -> None:
        hand = begin(heart, "x", "y <- x")
        hand = end(heart, hand, how)
        heart.wait(1.0)
        while hand.held:
            hand.complete(next(iter(hand.held)))
        heart.wait(60.0)
        assert heart.in_memory() == {}


@pytest.mark.parametrize("how", AGAIN)
def test_the_next_run_makes_its_own_children_and_they_run_once(heart: Heart, how: str) -> None:
    hand = begin(heart, "x", "y")
    hand.complete("x")
    hand = end(heart, hand, how)
    hand.held.pop("y", None)  # it was told to stop
    assert heart.holders()["parent"] == hand.presence.name
    hand.make("parent", "x again", "y again")
    assert hand.complete("parent", "y again")
    assert sorted(heart.finish(hand)) == ["x again", "y again"]
    assert heart.states("parent", "x again", "y again") == ["COMPLETED"] * 3
    assert not any(heart.ledger.of_dead_attempt(heart.key(name)) for name in ("x again", "y again"))


class TestAtOnce:
    """Not only when the next run begins."""

    def test_children_are_cancelled_while_the_next_run_is_paused(self, heart: Heart) -> None:
        hand = begin(heart, "x", of=function("eager", eager=True, retry=RetryPolicy(3, 5.0)))
        hand.fail("parent")
        assert heart.states("parent", "x") == ["BACKOFF", "CANCELLED"]

    @pytest.mark.parametrize("how", ["is given back", "has its slot closed"])
    def test_children_are_cancelled_if_no_other_worker_may_run_the_parent(self, heart: Heart, how: str) -> None:
        hand = begin(heart, slots=1)
        heart.worker("other", exclude_queues={"eager"})
        hand.make("parent", "x")
        if how == "is given back":
            hand.give_back("parent", "it has other code")
        else:
            hand.close_slot(0)
        assert heart.states("parent", "x") == ["QUEUED", "CANCELLED"]

    def test_children_are_cancelled_with_a_node_whose_worker_was_lost(self, heart: Heart) -> None:
        hand = begin(heart, "x")
        hand.vanish()
        assert heart.states("parent", "x") == ["QUEUED", "QUEUED"]
        assert heart.cancel("parent") == 2
        assert heart.states("parent", "x") == ["CANCELLED", "CANCELLED"]

    def test_children_are_cancelled_if_a_node_whose_worker_was_lost_exceeds_its_queue_timeout(
        self, heart: Heart
    ) -> None:
        hand = begin(heart, "x", of=function("eager", eager=True, queue_timeout=5.0))
        hand.vanish()
        heart.wait(6.0)
        assert heart.states("parent", "x") == ["FAILED", "CANCELLED"]

    def test_children_are_cancelled_if_too_many_workers_were_lost(self, heart: Heart) -> None:
        heart.scheduler.limits = Limits(losses=1)
        hand = begin(heart, "x", slots=1)
        hand.vanish()
        assert heart.states("parent", "x") == ["FAILED", "CANCELLED"]


def test_no_child_of_a_dead_attempt_is_handed_out_beside_the_next_run(heart: Heart) -> None:
    begin(heart, "x", "y")
    heart.crash()
    heart.wait(3.0)
    other = heart.worker("other", slots=3)
    assert other.held.keys() == {"parent"}
    assert [heart.name(granted.node) for granted in heart.effects.granted] == ["parent"]


def test_whoever_runs_a_child_of_a_dead_attempt_is_told_to_stop(heart: Heart) -> None:
    hand = begin(heart, "x")
    attempt = hand.held["x"]
    hand.fail("parent")
    assert hand.cancelled == [attempt]
    assert not hand.complete("x", attempt=attempt)
    assert heart.states("x") == ["CANCELLED"]


def test_what_depends_on_the_parent_is_not_touched_by_a_run_that_failed(heart: Heart) -> None:
    hand = heart.worker(slots=3)
    heart.spawn("parent", "user <- parent", of=EAGER)
    hand.make("parent", "x")
    hand.fail("parent")
    assert heart.states("x", "user") == ["CANCELLED", "WAITING"]
    hand.complete("parent")
    assert heart.states("user") == ["CLAIMED"]


def test_a_child_of_a_parent_that_has_completed_is_simply_there(heart: Heart) -> None:
    hand = begin(heart, "x", "y", of=LASTING)
    hand.complete("parent")
    hand.vanish()
    hand = heart.worker("other", slots=3)
    assert sorted(heart.finish(hand)) == ["x", "y"]
    assert not heart.ledger.of_dead_attempt(heart.key("x"))
    assert heart.in_memory() == {}


def test_what_a_completed_parents_child_makes_is_nobodys_to_cancel(heart: Heart) -> None:
    hand = begin(heart, "child")
    hand.complete("parent")
    hand.make("child", "grandchild")
    hand.complete("child")
    assert [row.fate for row in heart.ledger.broods.values()] == [Fate.RELEASED]
    assert heart.states("grandchild") == ["CLAIMED"]


def test_a_worker_that_comes_back_in_time_finds_its_children_alive(heart: Heart) -> None:
    hand = begin(heart, "x", "y <- x", slots=2)
    hand.vanish()
    assert heart.states("x", "y") == ["QUEUED", "WAITING"]
    hand.connect()
    assert hand.complete("parent", "y")
    assert heart.finish(hand) == ["x", "y"]
    assert heart.states("parent") == ["COMPLETED"]


class TestAfterARestart:
    def test_an_adopted_attempt_keeps_its_children_and_makes_more(self, heart: Heart) -> None:
        hand = begin(heart, "x", "y <- x", slots=4)
        hand.make("parent", "sub", new="Sub")
        hand.complete("sub")
        heart.crash()
        hand.connect()
        hand.make("parent", "z <- x")
        hand.make("parent", "more", new="Sub")
        assert hand.complete("parent", "x", "z")
        assert set(heart.finish(hand)) == {"x", "y", "z", "more"}
        assert heart.states("parent") == ["COMPLETED"]

    def test_an_adopted_attempt_that_fails_cancels_its_children(self, heart: Heart) -> None:
        hand = begin(heart, "child", "x", slots=4)
        hand.make("child", "grandchild")
        hand.complete("child")
        heart.crash()
        heart.crash()
        hand.connect()
        hand.fail("parent")
        assert heart.states("child", "x", "grandchild") == ["COMPLETED", "CANCELLED", "CANCELLED"]

    def test_what_a_child_makes_then_goes_back_to_it_as_well(self, heart: Heart) -> None:
        hand = begin(heart, "child", slots=4)
        hand.make("child", "grandchild")
        hand.complete("child")
        heart.crash()
        hand.connect()
        hand.make("grandchild", "great")
        hand.complete("grandchild")
        hand.fail("parent", final=True)
        assert heart.states("great") == ["CANCELLED"]

    def test_an_attempt_that_was_dead_stays_so(self, heart: Heart) -> None:
        hand = begin(heart, "x")
        late = hand.held["parent"]
        hand.vanish()
        other = heart.worker("other", slots=3)
        assert heart.states("x") == ["CANCELLED"]
        heart.crash()
        hand.held = {"parent": late}
        hand.connect()
        assert hand.refused == [late]
        other.connect()
        assert other.complete("parent")

    def test_an_attempt_that_made_nodes_keeps_out_an_earlier_one(self, heart: Heart) -> None:
        early, late = heart.worker("early"), heart.worker("late")
        heart.spawn("parent", of=EAGER)
        earlier = early.held["parent"]
        early.vanish()
        late.make("parent", "x")
        heart.crash()
        early.held = {"parent": earlier}
        early.connect()
        assert early.refused == [earlier]
        late.connect()
        assert late.complete("parent", "x")
        assert heart.states("x") != ["CANCELLED"]

    def test_until_the_node_is_granted_anew_its_children_go_on(self) -> None:
        heart = Heart(timing=Timing(reconnect_wait=0.0))
        hand = begin(heart, "x")
        heart.crash()
        other = heart.worker("other", exclude_queues={"eager"})
        assert other.held.keys() == {"x"}
        other.complete("x")
        able = heart.worker("able")
        assert able.held.keys() == {"parent"}
        assert heart.states("x") == ["COMPLETED"]
        assert heart.ledger.of_dead_attempt(heart.key("x"))
        late = hand.held["parent"]
        hand.held = {"parent": late}
        hand.connect()
        assert hand.refused == [late]


def test_a_line_of_a_thousand_children_of_children_is_cancelled_without_recursion(heart: Heart) -> None:
    hand = begin(heart, "n0", slots=2)
    for number in range(1_000):
        hand.make(f"n{number}", f"n{number + 1}")
        hand.complete(f"n{number}")
    hand.fail("parent", final=True)
    assert heart.states("n999", "n1000") == ["COMPLETED", "CANCELLED"]


def test_a_thousand_eager_nodes_one_inside_the_other_are_cancelled_without_recursion(heart: Heart) -> None:
    hand = begin(heart, slots=1_001)
    hand.make("parent", "n0", of=LASTING)
    for number in range(1_000):
        hand.make(f"n{number}", f"n{number + 1}", of=LASTING)
    hand.fail("parent", final=True)
    assert heart.in_memory() == {}
