"""What an eager function makes is there at once, is cancelled with an attempt that is aborted, and stays where it
completes."""

import pytest

from dagorama_broker.errors import Conflict, InvalidArgument, ResourceExhausted
from dagorama_broker.model.domain import EagerState, Failure, Function, RetryPolicy
from dagorama_broker.scheduler import Limits, Timing
from tests.support.driver import Hand, SchedulerDriver, function

EAGER = function("eager", stream_children=True, retry=RetryPolicy(3))
LASTING = function("eager", stream_children=True)


def begin(driver: SchedulerDriver, *children: str, slots: int = 3, of: Function = EAGER) -> Hand:
    """A worker that runs an eager node, which has made children."""
    hand = driver.worker(slots=slots)
    driver.spawn("parent", of=of)
    hand.make("parent", *children)
    return hand


class TestWhileItRuns:
    def test_its_children_are_seen_and_run(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x", "y <- x")
        assert driver.states("parent", "x", "y") == ["CLAIMED", "CLAIMED", "WAITING"]
        assert hand.complete("x")
        assert driver.states("parent", "y") == ["CLAIMED", "CLAIMED"]

    def test_it_may_name_a_child_that_has_ended(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x")
        hand.complete("x")
        hand.make("parent", "y <- x")
        assert driver.state("y").name == "CLAIMED"
        assert hand.complete("parent", "x", "y")
        assert driver.states("parent") == ["RESOLVING"]
        hand.complete("y")
        assert driver.states("parent") == ["COMPLETED"]

    def test_the_same_said_again_makes_nothing(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x", "y")
        attempt = hand.held["parent"]
        run = driver.run(driver.instance_of("parent"), driver.ids["x"][:12], ["x", "y"])
        for _ in range(2):
            assert driver.scheduler.make(hand.worker, driver.key("parent"), attempt, run, {})
            driver.step()
        assert len(driver.ledger.nodes) == 3
        hand.complete("x")
        assert driver.scheduler.make(hand.worker, driver.key("parent"), attempt, run, {})
        driver.crash()
        hand.connect()
        assert driver.scheduler.make(hand.worker, driver.key("parent"), attempt, run, {})
        assert len(driver.ledger.nodes) == 3

    def test_other_nodes_under_the_same_names_are_refused(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x", "y")
        run = driver.run(driver.instance_of("parent"), driver.ids["x"][:12], ["x", "y", "z"])
        with pytest.raises(Conflict):
            driver.scheduler.make(hand.worker, driver.key("parent"), hand.held["parent"], run, {})

    def test_its_instances_live_and_may_end_before_it(self, driver: SchedulerDriver) -> None:
        hand = begin(driver)
        hand.make("parent", "sub", new="Sub")
        hand.complete("sub")
        hand.make("parent", "later", new="Sub")
        assert driver.state("later").name == "CLAIMED"
        hand.fail("parent")
        assert driver.states("sub", "later") == ["COMPLETED", "CANCELLED"]

    def test_another_instance_is_not_its_to_add_to(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x")
        driver.spawn("stranger")
        run = driver.run(driver.instance_of("stranger"), b"another-one.", ["z"])
        before = driver.everything()
        with pytest.raises(InvalidArgument, match="its own instance"):
            driver.scheduler.make(hand.worker, driver.key("parent"), hand.held["parent"], run, {})
        assert driver.everything() == before

    @pytest.mark.parametrize("limits", [Limits(nodes_per_attempt=3), Limits(bytes_per_attempt=50)])
    def test_it_makes_no_more_than_any_other(self, driver: SchedulerDriver, limits: Limits) -> None:
        hand = begin(driver)
        driver.scheduler.limits = limits
        hand.make("parent", "a", "b")
        with pytest.raises(ResourceExhausted, match="allowed"):
            hand.make("parent", "c", "d")
        assert driver.states("a", "b") == ["CLAIMED", "CLAIMED"]

    def test_a_worker_that_leaves_when_all_is_drained_stays_for_its_children(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=1)
        driver.spawn("parent", of=EAGER)
        other = driver.worker("other", leave_when_drained=True, tolerations={"GPU"}, exclude_queues={"eager"})
        assert not other.may_leave
        hand.make("parent", "x", of=function("gpu", queue="work", taint="GPU"))
        assert other.held.keys() == {"x"}
        other.complete("x")
        assert not other.may_leave
        hand.complete("parent")
        assert other.may_leave


def end(driver: SchedulerDriver, hand: Hand, how: str) -> Hand:
    """The attempt of `parent` is aborted; who goes on."""
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
            driver.cancel("parent")
        case "is granted to another":
            hand.vanish()
            return driver.worker("other", slots=3)
        case "is silent":
            driver.wait(31.0)
            return driver.worker("other", slots=3)
        case "is granted to another after a restart":
            driver.crash()
            driver.wait(3.0)
            return driver.worker("other", slots=3)
    return hand


AGAIN = ["fails", "dies", "is given back", "is granted to another", "is silent",
         "is granted to another after a restart"]  # fmt: skip


@pytest.mark.parametrize("how", [*AGAIN, "fails for good", "is cancelled"])
class TestAnAttemptThatComesToNothing:
    def test_takes_its_unfinished_children_along(self, driver: SchedulerDriver, how: str) -> None:
        hand = begin(driver, "done", "runs", "waits <- runs")
        hand.make("parent", "sub", "below <- sub", new="Sub")
        hand.complete("done")
        end(driver, hand, how)
        assert driver.states("done", "runs", "waits", "sub", "below") == ["COMPLETED", *["CANCELLED"] * 4]
        assert driver.failure("runs").type == "dagorama.errors.NodeCancelled"
        assert driver.failure("below").message == "the run of eager that made it was rolled back"
        made = ["done", "runs", "waits", "sub", "below"]
        assert all(driver.ledger.of_dead_attempt(driver.key(name)) for name in made)
        assert not driver.ledger.of_dead_attempt(driver.key("parent"))

    def test_takes_along_what_its_children_have_made(self, driver: SchedulerDriver, how: str) -> None:
        hand = begin(driver, "child", slots=4)
        hand.make("child", "grandchild", "other")
        hand.complete("child", "grandchild")
        hand.complete("other")
        assert driver.states("child", "grandchild") == ["RESOLVING", "CLAIMED"]
        hand.make("grandchild", "great")
        hand.complete("grandchild")
        assert driver.states("child", "great") == ["COMPLETED", "CLAIMED"]
        end(driver, hand, how)
        assert driver.states("child", "grandchild", "other", "great") == [*["COMPLETED"] * 3, "CANCELLED"]
        assert all(driver.ledger.of_dead_attempt(driver.key(name)) for name in ("child", "other", "great"))

    def test_takes_along_eager_children_and_what_they_have_made(self, driver: SchedulerDriver, how: str) -> None:
        hand = begin(driver, slots=5)
        hand.make("parent", "inner", "finished", of=LASTING)
        hand.make("inner", "deep", of=LASTING)
        hand.make("deep", "deepest")
        hand.make("finished", "left")
        hand.complete("finished")
        end(driver, hand, how)
        assert driver.states("finished", "inner", "deep", "deepest", "left") == ["COMPLETED", *["CANCELLED"] * 4]
        assert driver.ledger.of_dead_attempt(driver.key("left"))

    def test_leaves_nothing_behind(self, driver: SchedulerDriver, how: str) -> None:
        hand = begin(driver, "x", "y <- x")
        hand = end(driver, hand, how)
        driver.wait(1.0)
        while hand.held:
            hand.complete(next(iter(hand.held)))
        driver.wait(60.0)
        assert driver.in_memory() == {}


@pytest.mark.parametrize("how", AGAIN)
def test_the_next_run_makes_its_own_children_and_they_run_once(driver: SchedulerDriver, how: str) -> None:
    hand = begin(driver, "x", "y")
    hand.complete("x")
    hand = end(driver, hand, how)
    hand.held.pop("y", None)  # it was told to stop
    assert driver.holders()["parent"] == hand.presence.name
    hand.make("parent", "x again", "y again")
    assert hand.complete("parent", "y again")
    assert sorted(driver.finish(hand)) == ["x again", "y again"]
    assert driver.states("parent", "x again", "y again") == ["COMPLETED"] * 3
    assert not any(driver.ledger.of_dead_attempt(driver.key(name)) for name in ("x again", "y again"))


class TestAtOnce:
    """Not only when the next run begins."""

    def test_children_are_cancelled_while_the_next_run_is_paused(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x", of=function("eager", stream_children=True, retry=RetryPolicy(3, 5.0)))
        hand.fail("parent")
        assert driver.states("parent", "x") == ["BACKOFF", "CANCELLED"]

    @pytest.mark.parametrize("how", ["is given back", "has its slot closed"])
    def test_children_are_cancelled_if_no_other_worker_may_run_the_parent(
        self, driver: SchedulerDriver, how: str
    ) -> None:
        hand = begin(driver, slots=1)
        driver.worker("other", exclude_queues={"eager"})
        hand.make("parent", "x")
        if how == "is given back":
            hand.give_back("parent", "it has other code")
        else:
            hand.close_slot(0)
        assert driver.states("parent", "x") == ["QUEUED", "CANCELLED"]

    def test_children_are_cancelled_with_a_node_whose_worker_was_lost(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x")
        hand.vanish()
        assert driver.states("parent", "x") == ["QUEUED", "QUEUED"]
        assert driver.cancel("parent") == 2
        assert driver.states("parent", "x") == ["CANCELLED", "CANCELLED"]

    def test_children_are_cancelled_if_a_node_whose_worker_was_lost_exceeds_its_queue_timeout(
        self, driver: SchedulerDriver
    ) -> None:
        hand = begin(driver, "x", of=function("eager", stream_children=True, queue_timeout=5.0))
        hand.vanish()
        driver.wait(6.0)
        assert driver.states("parent", "x") == ["FAILED", "CANCELLED"]

    def test_children_are_cancelled_if_too_many_workers_were_lost(self, driver: SchedulerDriver) -> None:
        driver.scheduler.limits = Limits(losses=1)
        hand = begin(driver, "x", slots=1)
        hand.vanish()
        assert driver.states("parent", "x") == ["FAILED", "CANCELLED"]


def test_no_child_of_a_dead_attempt_is_handed_out_beside_the_next_run(driver: SchedulerDriver) -> None:
    begin(driver, "x", "y")
    driver.crash()
    driver.wait(3.0)
    other = driver.worker("other", slots=3)
    assert other.held.keys() == {"parent"}
    assert [driver.name(granted.node) for granted in driver.effects.granted] == ["parent"]


def test_a_worker_that_runs_a_child_of_an_aborted_attempt_is_told_to_stop(driver: SchedulerDriver) -> None:
    hand = begin(driver, "x")
    attempt = hand.held["x"]
    hand.fail("parent")
    assert hand.cancelled == [attempt]
    assert not hand.complete("x", attempt=attempt)
    assert driver.states("x") == ["CANCELLED"]


def test_the_graph_is_not_settled_before_the_children_of_a_failed_attempt_are_cancelled(
    driver: SchedulerDriver,
) -> None:
    hand = begin(driver, "x")
    failure = Failure("", "builtins.ValueError", "boom", "", b"", 0)
    assert driver.scheduler.is_settled
    driver.scheduler.fail(hand.worker, driver.key("parent"), hand.held["parent"], failure, driver.now, 0.0)
    assert not driver.scheduler.is_settled
    driver.step()
    assert driver.scheduler.is_settled
    assert driver.states("x") == ["CANCELLED"]


def test_what_depends_on_the_parent_is_not_touched_by_a_run_that_failed(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=3)
    driver.spawn("parent", "user <- parent", of=EAGER)
    hand.make("parent", "x")
    hand.fail("parent")
    assert driver.states("x", "user") == ["CANCELLED", "WAITING"]
    hand.complete("parent")
    assert driver.states("user") == ["CLAIMED"]


def test_a_child_of_a_parent_that_has_completed_is_simply_there(driver: SchedulerDriver) -> None:
    hand = begin(driver, "x", "y", of=LASTING)
    hand.complete("parent")
    hand.vanish()
    hand = driver.worker("other", slots=3)
    assert sorted(driver.finish(hand)) == ["x", "y"]
    assert not driver.ledger.of_dead_attempt(driver.key("x"))
    assert driver.in_memory() == {}


def test_grandchildren_of_a_completed_parent_are_not_cancelled(driver: SchedulerDriver) -> None:
    hand = begin(driver, "child")
    hand.complete("parent")
    hand.make("child", "grandchild")
    hand.complete("child")
    assert [row.eager_state for row in driver.ledger.eager_attempts.values()] == [EagerState.COMMITTED]
    assert driver.states("grandchild") == ["CLAIMED"]


def test_a_worker_that_comes_back_in_time_finds_its_children_alive(driver: SchedulerDriver) -> None:
    hand = begin(driver, "x", "y <- x", slots=2)
    hand.vanish()
    assert driver.states("x", "y") == ["QUEUED", "WAITING"]
    hand.connect()
    assert hand.complete("parent", "y")
    assert driver.finish(hand) == ["x", "y"]
    assert driver.states("parent") == ["COMPLETED"]


class TestAfterARestart:
    def test_a_reclaimed_attempt_keeps_its_children_and_makes_more(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x", "y <- x", slots=4)
        hand.make("parent", "sub", new="Sub")
        hand.complete("sub")
        driver.crash()
        hand.connect()
        hand.make("parent", "z <- x")
        hand.make("parent", "more", new="Sub")
        assert hand.complete("parent", "x", "z")
        assert set(driver.finish(hand)) == {"x", "y", "z", "more"}
        assert driver.states("parent") == ["COMPLETED"]

    def test_a_reclaimed_attempt_that_fails_cancels_its_children(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "child", "x", slots=4)
        hand.make("child", "grandchild")
        hand.complete("child")
        driver.crash()
        driver.crash()
        hand.connect()
        hand.fail("parent")
        assert driver.states("child", "x", "grandchild") == ["COMPLETED", "CANCELLED", "CANCELLED"]

    def test_what_a_child_makes_then_goes_back_to_it_as_well(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "child", slots=4)
        hand.make("child", "grandchild")
        hand.complete("child")
        driver.crash()
        hand.connect()
        hand.make("grandchild", "great")
        hand.complete("grandchild")
        hand.fail("parent", final=True)
        assert driver.states("great") == ["CANCELLED"]

    def test_an_attempt_that_was_dead_stays_so(self, driver: SchedulerDriver) -> None:
        hand = begin(driver, "x")
        late = hand.held["parent"]
        hand.vanish()
        other = driver.worker("other", slots=3)
        assert driver.states("x") == ["CANCELLED"]
        driver.crash()
        hand.held = {"parent": late}
        hand.connect()
        assert hand.refused == [late]
        other.connect()
        assert other.complete("parent")

    def test_an_attempt_that_made_nodes_keeps_out_an_earlier_one(self, driver: SchedulerDriver) -> None:
        early, late = driver.worker("early"), driver.worker("late")
        driver.spawn("parent", of=EAGER)
        earlier = early.held["parent"]
        early.vanish()
        late.make("parent", "x")
        driver.crash()
        early.held = {"parent": earlier}
        early.connect()
        assert early.refused == [earlier]
        late.connect()
        assert late.complete("parent", "x")
        assert driver.states("x") != ["CANCELLED"]

    def test_children_continue_until_their_node_is_granted_again(self) -> None:
        driver = SchedulerDriver(timing=Timing(reconnect_wait=0.0))
        hand = begin(driver, "x")
        driver.crash()
        other = driver.worker("other", exclude_queues={"eager"})
        assert other.held.keys() == {"x"}
        other.complete("x")
        able = driver.worker("able")
        assert able.held.keys() == {"parent"}
        assert driver.states("x") == ["COMPLETED"]
        assert driver.ledger.of_dead_attempt(driver.key("x"))
        late = hand.held["parent"]
        hand.held = {"parent": late}
        hand.connect()
        assert hand.refused == [late]


def test_a_line_of_a_thousand_children_of_children_is_cancelled_without_recursion(driver: SchedulerDriver) -> None:
    hand = begin(driver, "n0", slots=2)
    for number in range(1_000):
        hand.make(f"n{number}", f"n{number + 1}")
        hand.complete(f"n{number}")
    hand.fail("parent", final=True)
    assert driver.states("n999", "n1000") == ["COMPLETED", "CANCELLED"]


def test_a_thousand_eager_nodes_one_inside_the_other_are_cancelled_without_recursion(driver: SchedulerDriver) -> None:
    hand = begin(driver, slots=1_001)
    hand.make("parent", "n0", of=LASTING)
    for number in range(1_000):
        hand.make(f"n{number}", f"n{number + 1}", of=LASTING)
    hand.fail("parent", final=True)
    assert driver.in_memory() == {}
