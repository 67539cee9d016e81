"""What a graph does: nodes wait, run, resolve and end, and each end reaches all that depend on it."""

import pytest

from dagorama_broker.errors import InvalidArgument, NotFound
from dagorama_broker.model.domain import State, unpack_keys
from tests.support.driver import SchedulerDriver, retrying


def test_a_node_waits_for_all_its_sources(driver: SchedulerDriver) -> None:
    worker = driver.worker(slots=2)
    driver.spawn("a", "b", "sum <- a b")
    assert driver.states("a", "b", "sum") == ["CLAIMED", "CLAIMED", "WAITING"]
    worker.complete("a")
    assert driver.state("sum") is State.WAITING
    worker.complete("b")
    assert driver.state("sum") is State.CLAIMED
    worker.complete("sum")
    assert driver.states("a", "b", "sum") == ["COMPLETED"] * 3


def test_a_function_of_the_same_promise_twice_runs_it_once_at_any_depth(driver: SchedulerDriver) -> None:
    """`f(x, x)`: the client names each source once, and so the graph stays a chain."""
    worker = driver.worker()
    driver.spawn("f0", *(f"f{depth} <- f{depth - 1}" for depth in range(1, 30)))
    assert driver.finish(worker) == [f"f{depth}" for depth in range(30)]


def test_naming_a_source_twice_is_refused(driver: SchedulerDriver) -> None:
    driver.spawn("before")
    before = driver.everything()
    with pytest.raises(InvalidArgument, match="twice"):
        driver.spawn("x", "f <- x x")
    assert driver.everything() == before


def test_two_sources_that_complete_at_the_same_moment_run_their_join_once(driver: SchedulerDriver) -> None:
    workers = [driver.worker("one"), driver.worker("two")]
    driver.spawn("a", "b", "join <- a b")
    with driver.at_once():
        for worker in workers:
            worker.complete(next(iter(worker.held)))
    assert driver.holders() == {"join": "two"}
    workers[1].complete("join")
    assert driver.finish(*workers) == []


def test_a_join_made_in_the_step_in_which_its_source_completes_runs_once(driver: SchedulerDriver) -> None:
    worker = driver.worker()
    instance = driver.spawn("a", "stays <- a")
    with driver.at_once():
        worker.complete("a")
        driver.ledger.commit(driver.scheduler.drain()[0])  # the broker makes it durable before it looks for `a`
        driver.add(instance, "join <- a")
    assert driver.finish(worker) == ["stays", "join"]


def test_a_join_whose_sources_had_all_ended_is_queued_at_once(driver: SchedulerDriver) -> None:
    worker = driver.worker()
    instance = driver.spawn("a", "b", "stays")
    worker.complete("a"), worker.complete("b")
    driver.add(instance, "join <- a b")
    assert driver.finish(worker) == ["stays", "join"]


def test_an_instance_that_has_ended_takes_nodes_again(driver: SchedulerDriver) -> None:
    worker = driver.worker()
    instance = driver.spawn("a")
    key, _ = driver.ledger.instance(instance)
    worker.complete("a")
    assert driver.ledger.ends[key].ended is not None
    assert driver.in_memory() == {}
    driver.add(instance, "b <- a")
    assert driver.ledger.ends[key].ended is None
    worker.complete("b")
    assert driver.ledger.ends[key].ended is not None


class TestFailure:
    def test_a_failure_reaches_every_descendant_and_names_the_failed_node(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        instance = driver.spawn("a", "b", "c <- a b", "d <- c", "e <- d b", "free <- b")
        worker.fail("a", "no such file")
        assert driver.states("a", "c", "d", "e") == ["FAILED"] * 4
        assert {driver.root_cause(name) for name in "acde"} == {"a"}
        failure = driver.failure("e")
        assert (failure.function, failure.message, failure.attempts) == ("work", "no such file", 1)
        assert "no such file" in failure.traceback
        assert driver.finish(worker) == ["b", "free"]
        assert driver.ledger.instance(instance)[1], "the instance has failed"

    def test_a_new_node_with_a_failed_source_fails(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        instance = driver.spawn("a", "stays")
        worker.fail("a")
        driver.add(instance, "b <- a", "c <- b stays", "d")
        assert driver.states("b", "c", "d") == ["FAILED", "FAILED", "QUEUED"]
        assert driver.root_cause("c") == "a"

    def test_a_new_node_with_a_failed_source_of_an_ended_instance_leaves_nothing_in_memory(
        self, driver: SchedulerDriver
    ) -> None:
        worker = driver.worker()
        instance = driver.spawn("a")
        worker.fail("a")
        driver.add(instance, "b <- a", "c <- b")
        assert driver.in_memory() == {}

    def test_one_of_two_failed_sources_is_recorded(self, driver: SchedulerDriver) -> None:
        worker = driver.worker(slots=2)
        driver.spawn("a", "b", "sum <- a b")
        with driver.at_once():
            worker.fail("a"), worker.fail("b")
        assert driver.state("sum") is State.FAILED

    def test_a_failure_leaves_dependents_that_have_ended_unchanged(self, driver: SchedulerDriver) -> None:
        worker = driver.worker(slots=2)
        driver.spawn("a", "b", "sum <- a b")
        worker.fail("a")
        worker.complete("b")
        assert driver.root_cause("sum") == "a"


class TestReturnedPromises:
    def test_a_node_that_returns_a_promise_completes_when_it_is_kept(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent", "user <- parent")
        worker.make("parent", "child")
        worker.complete("parent", "child")
        assert driver.states("parent", "child", "user") == ["RESOLVING", "CLAIMED", "WAITING"]
        worker.complete("child")
        assert driver.states("parent", "user") == ["COMPLETED", "CLAIMED"]
        assert driver.outcome("parent").value == b"value"

    def test_a_list_of_promises_with_one_of_them_twice(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent", "user <- parent")
        worker.make("parent", "x", "y <- x")
        worker.complete("parent", "x", "y", "x")
        assert driver.finish(worker) == ["x", "y", "user"]
        assert unpack_keys(driver.outcome("parent").refs) == (driver.key("x"), driver.key("y"), driver.key("x"))

    def test_promises_that_are_kept_already_hold_nothing_up(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("old", "parent", "user <- parent")
        worker.complete("old")
        worker.complete("parent", "old")
        assert driver.states("parent", "user") == ["COMPLETED", "CLAIMED"]

    def test_the_consumer_is_given_what_a_value_names_and_what_that_names(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("p0", "user <- p0")
        for depth in range(3):
            worker.make(f"p{depth}", f"p{depth + 1}")
            worker.complete(f"p{depth}", f"p{depth + 1}")
        worker.complete("p3")
        (granted,) = driver.effects.granted
        named, node = [], granted.node.sources[0]
        while node.refs:
            (node,) = node.refs
            named.append(node.key)
        assert named == [driver.key(f"p{depth}") for depth in (1, 2, 3)]

    def test_failure_of_a_promised_node_fails_who_returned_it(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent", "user <- parent")
        worker.make("parent", "child")
        worker.complete("parent", "child")
        worker.fail("child")
        assert driver.states("parent", "user") == ["FAILED", "FAILED"]
        assert driver.root_cause("user") == "child"

    def test_a_promise_of_a_node_that_failed_before_fails_who_returns_it(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("old", "live", "parent", "user <- parent")
        worker.fail("old")
        worker.complete("live")
        worker.complete("parent", "old")
        assert driver.states("parent", "user") == ["FAILED", "FAILED"]
        assert driver.root_cause("user") == "old"

    def test_a_bad_promise_beside_one_that_is_not_kept_yet_leaves_no_trace_in_it(self, driver: SchedulerDriver) -> None:
        worker = driver.worker(slots=3)
        driver.spawn("old", "live", "parent", "user <- parent")
        worker.fail("old")
        worker.complete("parent", "live", "old")
        assert driver.states("live", "parent", "user") == ["CLAIMED", "FAILED", "FAILED"]
        worker.complete("live")
        assert driver.in_memory() == {}

    @pytest.mark.parametrize("named", ["parent", "user", "far"])
    def test_a_circle_is_refused_and_nothing_has_changed(self, driver: SchedulerDriver, named: str) -> None:
        worker = driver.worker()
        driver.spawn("parent", "user <- parent", "far <- user")
        worker.make("parent", "child")
        before = driver.everything()
        with pytest.raises(InvalidArgument, match="waits for it"):
            worker.complete("parent", "child", named)
        assert driver.everything() == before

    def test_a_circle_through_another_returned_promise_is_refused(self, driver: SchedulerDriver) -> None:
        worker = driver.worker(slots=2)
        driver.spawn("one", "other")
        worker.complete("one", "other")
        with pytest.raises(InvalidArgument, match="waits for it"):
            worker.complete("other", "one")

    def test_a_circle_through_a_child_is_refused(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent", "user <- parent")
        worker.make("parent", "child <- user", "last <- child")
        with pytest.raises(InvalidArgument, match="waits for it"):
            worker.complete("parent", "last")

    def test_a_circle_through_a_child_that_names_its_parent_is_refused(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent")
        worker.make("parent", "child <- parent")
        with pytest.raises(InvalidArgument, match="waits for it"):
            worker.complete("parent", "child")

    def test_a_child_that_waits_for_its_parent_is_no_circle(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent", "user <- parent")
        worker.make("parent", "child <- parent user")
        worker.complete("parent")
        assert driver.finish(worker) == ["user", "child"]

    def test_an_unknown_promise_is_refused(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent")
        driver.ids["nobody"] = b"x" * 16
        before = driver.everything()
        with pytest.raises(NotFound, match="not known"):
            worker.complete("parent", "nobody")
        assert driver.everything() == before

    def test_a_child_that_was_never_made_is_refused(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent")
        attempt, key = worker.held["parent"], driver.key("parent")
        with pytest.raises(NotFound, match="its child 7"):
            driver.scheduler.complete(worker.worker, key, attempt, b"v", 1, [7], (), {}, (), driver.now)


class TestCallsInsideANode:
    """A definition called inside a node submits an instance of its own with the parent's result."""

    def test_a_new_instance_comes_with_the_result_and_may_be_returned(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent", "user <- parent")
        worker.make("parent", "inner", "outer <- inner", new="Sub")
        assert not driver.is_visible("inner")
        worker.complete("parent", "outer")
        assert driver.states("parent", "inner", "outer") == ["RESOLVING", "CLAIMED", "WAITING"]
        assert driver.finish(worker) == ["inner", "outer", "user"]
        assert len(driver.ledger.instances) == 2

    def test_a_new_instance_may_come_in_pieces(self, driver: SchedulerDriver) -> None:
        """Only the first says that it makes the instance."""
        worker = driver.worker()
        driver.spawn("parent")
        worker.make("parent", "a", new="Sub")
        worker.make("parent", "b <- a", new="Sub")
        worker.complete("parent", "b")
        assert driver.finish(worker) == ["a", "b"]

    def test_nodes_for_a_stranger_are_refused(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent")
        driver.spawn("stranger")
        run = driver.run(driver.instance_of("stranger"), b"o" * 12, ["child"])
        driver.scheduler.stage(worker.worker, driver.key("parent"), worker.held["parent"], run)
        with pytest.raises(InvalidArgument, match="its own instance"):
            worker.complete("parent")

    def test_a_promise_of_another_instance_is_no_source(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("parent")
        driver.spawn("stranger")
        worker.make("parent", "child <- stranger")
        with pytest.raises(InvalidArgument, match="another instance"):
            worker.complete("parent")


class TestMemory:
    """What has ended and is needed by nothing leaves memory; the values of what is needed stay announced."""

    def test_ends_empty(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        for round in range(20):
            driver.spawn(f"a{round}", f"b{round} <- a{round}", of=retrying(2))
            worker.fail(f"a{round}")
            driver.finish(worker)
        assert driver.in_memory() == {}

    def test_a_value_is_unread_when_its_last_reader_has_ended(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("a", "b <- a", "c <- a")
        worker.complete("a")
        (ended,) = driver.effects.ended
        assert ended.consumers == 2
        worker.complete("b")
        assert driver.effects.unread == []
        worker.complete("c")
        assert driver.effects.unread == [driver.key("a")]

    def test_a_value_that_is_named_by_one_that_is_read_is_read(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("p", "user <- p", "later <- user p")
        worker.make("p", "child")
        worker.complete("p", "child")
        worker.complete("child")
        assert driver.effects.unread == [], "`user` and `later` are given p's value, which names it"
        worker.complete("user")
        assert driver.effects.unread == []
        worker.complete("later")
        assert sorted(driver.effects.unread) == [driver.key(name) for name in ("p", "user", "child")]

    def test_a_value_is_unread_when_its_readers_fail(self, driver: SchedulerDriver) -> None:
        worker = driver.worker(slots=2)
        driver.spawn("a", "b", "c <- a b")
        worker.complete("a")
        worker.fail("b")
        assert driver.key("a") in driver.effects.unread

    def test_a_value_that_is_read_back_for_a_new_reader_is_read_through(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        instance = driver.spawn("stays", "p")
        worker.complete("stays")
        worker.make("p", "child")
        worker.complete("p", "child")
        worker.complete("child")
        driver.add(instance, "user <- p")
        worker.complete("user")
        assert sorted(driver.effects.unread) == [driver.key("p"), driver.key("child")]


def test_a_node_that_fails_with_one_that_it_waits_for_releases_its_references_once(driver: SchedulerDriver) -> None:
    """Found by the machine: it was let go of twice when both failed of the same cause."""
    hand = driver.worker(slots=3)
    instance = driver.spawn("cause", "named", "n")
    hand.complete("n", "cause", "named")
    driver.add(instance, "join <- cause n")
    hand.fail("cause")
    assert driver.states("n", "join") == ["FAILED", "FAILED"]
    named = driver.scheduler.graph.find(driver.ids["named"])
    assert named is not None
    assert named.consumers == 0
