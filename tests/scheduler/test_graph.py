"""What a graph does: nodes wait, run, resolve and end, and each end reaches all that depend on it."""

import pytest

from dagorama_broker.errors import InvalidArgument, NotFound
from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import unpack_keys
from tests.support.driver import Heart, retrying


def test_a_node_waits_for_all_its_sources(heart: Heart) -> None:
    worker = heart.worker(slots=2)
    heart.spawn("a", "b", "sum <- a b")
    assert heart.states("a", "b", "sum") == ["CLAIMED", "CLAIMED", "WAITING"]
    worker.complete("a")
    assert heart.state("sum") is State.WAITING
    worker.complete("b")
    assert heart.state("sum") is State.CLAIMED
    worker.complete("sum")
    assert heart.states("a", "b", "sum") == ["COMPLETED"] * 3


def test_a_function_of_the_same_promise_twice_runs_it_once_at_any_depth(heart: Heart) -> None:
    """`f(x, x)`: the client names each source once, and so the graph stays a chain."""
    worker = heart.worker()
    heart.spawn("f0", *(f"f{depth} <- f{depth - 1}" for depth in range(1, 30)))
    assert heart.finish(worker) == [f"f{depth}" for depth in range(30)]


def test_naming_a_source_twice_is_refused(heart: Heart) -> None:
    heart.spawn("before")
    before = heart.everything()
    with pytest.raises(InvalidArgument, match="twice"):
        heart.spawn("x", "f <- x x")
    assert heart.everything() == before


def test_two_sources_that_complete_at_the_same_moment_run_their_join_once(heart: Heart) -> None:
    workers = [heart.worker("one"), heart.worker("two")]
    heart.spawn("a", "b", "join <- a b")
    with heart.at_once():
        for worker in workers:
            worker.complete(next(iter(worker.held)))
    assert heart.holders() == {"join": "one"}
    workers[0].complete("join")
    assert heart.finish(*workers) == []


def test_a_join_made_in_the_step_in_which_its_source_completes_runs_once(heart: Heart) -> None:
    worker = heart.worker()
    instance = heart.spawn("a", "stays <- a")
    with heart.at_once():
        worker.complete("a")
        heart.ledger.commit(heart.scheduler.drain()[0])  # the broker makes it durable before it looks for `a`
        heart.add(instance, "join <- a")
    assert heart.finish(worker) == ["stays", "join"]


def test_a_join_whose_sources_had_all_ended_is_queued_at_once(heart: Heart) -> None:
    worker = heart.worker()
    instance = heart.spawn("a", "b", "stays")
    worker.complete("a"), worker.complete("b")
    heart.add(instance, "join <- a b")
    assert heart.finish(worker) == ["stays", "join"]


def test_an_instance_that_has_ended_takes_nodes_again(heart: Heart) -> None:
    worker = heart.worker()
    instance = heart.spawn("a")
    key, _ = heart.ledger.instance(instance)
    worker.complete("a")
    assert heart.ledger.ends[key].ended is not None
    assert heart.in_memory() == {}
    heart.add(instance, "b <- a")
    assert heart.ledger.ends[key].ended is None
    worker.complete("b")
    assert heart.ledger.ends[key].ended is not None


class TestFailure:
    def test_a_failure_reaches_every_descendant_and_names_the_failed_node(self, heart: Heart) -> None:
        worker = heart.worker()
        instance = heart.spawn("a", "b", "c <- a b", "d <- c", "e <- d b", "free <- b")
        worker.fail("a", "no such file")
        assert heart.states("a", "c", "d", "e") == ["FAILED"] * 4
        assert {heart.culprit(name) for name in "acde"} == {"a"}
        failure = heart.failure("e")
        assert (failure.function, failure.message, failure.attempts) == ("work", "no such file", 1)
        assert "no such file" in failure.traceback
        assert heart.finish(worker) == ["b", "free"]
        assert heart.ledger.instance(instance)[1], "the instance has failed"

    def test_a_new_node_with_a_failed_source_fails(self, heart: Heart) -> None:
        worker = heart.worker()
        instance = heart.spawn("a", "stays")
        worker.fail("a")
        heart.add(instance, "b <- a", "c <- b stays", "d")
        assert heart.states("b", "c", "d") == ["FAILED", "FAILED", "QUEUED"]
        assert heart.culprit("c") == "a"

    def test_a_new_node_with_a_failed_source_of_an_ended_instance_leaves_nothing_in_memory(self, heart: Heart) -> None:
        worker = heart.worker()
        instance = heart.spawn("a")
        worker.fail("a")
        heart.add(instance, "b <- a", "c <- b")
        assert heart.in_memory() == {}

    def test_one_of_two_failed_sources_is_recorded(self, heart: Heart) -> None:
        worker = heart.worker(slots=2)
        heart.spawn("a", "b", "sum <- a b")
        with heart.at_once():
            worker.fail("a"), worker.fail("b")
        assert heart.state("sum") is State.FAILED

    def test_a_failure_leaves_dependents_that_have_ended_unchanged(self, heart: Heart) -> None:
        worker = heart.worker(slots=2)
        heart.spawn("a", "b", "sum <- a b")
        worker.fail("a")
        worker.complete("b")
        assert heart.culprit("sum") == "a"


class TestReturnedPromises:
    def test_a_node_that_returns_a_promise_completes_when_it_is_kept(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent", "user <- parent")
        worker.make("parent", "child")
        worker.complete("parent", "child")
        assert heart.states("parent", "child", "user") == ["RESOLVING", "CLAIMED", "WAITING"]
        worker.complete("child")
        assert heart.states("parent", "user") == ["COMPLETED", "CLAIMED"]
        assert heart.outcome("parent").value == b"value"

    def test_a_list_of_promises_with_one_of_them_twice(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent", "user <- parent")
        worker.make("parent", "x", "y <- x")
        worker.complete("parent", "x", "y", "x")
        assert heart.finish(worker) == ["x", "y", "user"]
        assert unpack_keys(heart.outcome("parent").refs) == (heart.key("x"), heart.key("y"), heart.key("x"))

    def test_promises_that_are_kept_already_hold_nothing_up(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("old", "parent", "user <- parent")
        worker.complete("old")
        worker.complete("parent", "old")
        assert heart.states("parent", "user") == ["COMPLETED", "CLAIMED"]

    def test_the_consumer_is_given_what_a_value_names_and_what_that_names(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("p0", "user <- p0")
        for depth in range(3):
            worker.make(f"p{depth}", f"p{depth + 1}")
            worker.complete(f"p{depth}", f"p{depth + 1}")
        worker.complete("p3")
        (granted,) = heart.effects.granted
        named, node = [], granted.node.sources[0]
        while node.refs:
            (node,) = node.refs
            named.append(node.key)
        assert named == [heart.key(f"p{depth}") for depth in (1, 2, 3)]

    def test_failure_of_a_promised_node_fails_who_returned_it(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent", "user <- parent")
        worker.make("parent", "child")
        worker.complete("parent", "child")
        worker.fail("child")
        assert heart.states("parent", "user") == ["FAILED", "FAILED"]
        assert heart.culprit("user") == "child"

    def test_a_promise_of_a_node_that_failed_before_fails_who_returns_it(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("old", "live", "parent", "user <- parent")
        worker.fail("old")
        worker.complete("live")
        worker.complete("parent", "old")
        assert heart.states("parent", "user") == ["FAILED", "FAILED"]
        assert heart.culprit("user") == "old"

    def test_a_bad_promise_beside_one_that_is_not_kept_yet_leaves_no_trace_in_it(self, heart: Heart) -> None:
        worker = heart.worker(slots=3)
        heart.spawn("old", "live", "parent", "user <- parent")
        worker.fail("old")
        worker.complete("parent", "live", "old")
        assert heart.states("live", "parent", "user") == ["CLAIMED", "FAILED", "FAILED"]
        worker.complete("live")
        assert heart.in_memory() == {}

    @pytest.mark.parametrize("named", ["parent", "user", "far"])
    def test_a_circle_is_refused_and_nothing_has_changed(self, heart: Heart, named: str) -> None:
        worker = heart.worker()
        heart.spawn("parent", "user <- parent", "far <- user")
        worker.make("parent", "child")
        before = heart.everything()
        with pytest.raises(InvalidArgument, match="waits for it"):
            worker.complete("parent", "child", named)
        assert heart.everything() == before

    def test_a_circle_through_another_returned_promise_is_refused(self, heart: Heart) -> None:
        worker = heart.worker(slots=2)
        heart.spawn("one", "other")
        worker.complete("one", "other")
        with pytest.raises(InvalidArgument, match="waits for it"):
            worker.complete("other", "one")

    def test_a_circle_through_a_child_is_refused(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent", "user <- parent")
        worker.make("parent", "child <- user", "last <- child")
        with pytest.raises(InvalidArgument, match="waits for it"):
            worker.complete("parent", "last")

    def test_a_circle_through_a_child_that_names_its_parent_is_refused(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent")
        worker.make("parent", "child <- parent")
        with pytest.raises(InvalidArgument, match="waits for it"):
            worker.complete("parent", "child")

    def test_a_child_that_waits_for_its_parent_is_no_circle(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent", "user <- parent")
        worker.make("parent", "child <- parent user")
        worker.complete("parent")
        assert heart.finish(worker) == ["user", "child"]

    def test_an_unknown_promise_is_refused(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent")
        heart.ids["nobody"] = b"x" * 16
        before = heart.everything()
        with pytest.raises(NotFound, match="not known"):
            worker.complete("parent", "nobody")
        assert heart.everything() == before

    def test_a_child_that_was_never_made_is_refused(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent")
        attempt, key = worker.held["parent"], heart.key("parent")
        with pytest.raises(NotFound, match="its child 7"):
            heart.scheduler.complete(worker.worker, key, attempt, b"v", 1, [7], (), {}, (), heart.now)


class TestCallsInsideANode:
    """A definition called inside a node submits an instance of its own with the parent's result."""

    def test_a_new_instance_comes_with_the_result_and_may_be_returned(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent", "user <- parent")
        worker.make("parent", "inner", "outer <- inner", new="Sub")
        assert not heart.is_visible("inner")
        worker.complete("parent", "outer")
        assert heart.states("parent", "inner", "outer") == ["RESOLVING", "CLAIMED", "WAITING"]
        assert heart.finish(worker) == ["inner", "outer", "user"]
        assert len(heart.ledger.instances) == 2

    def test_a_new_instance_may_come_in_pieces(self, heart: Heart) -> None:
        """Only the first says that it makes the instance."""
        worker = heart.worker()
        heart.spawn("parent")
        worker.make("parent", "a", new="Sub")
        worker.make("parent", "b <- a", new="Sub")
        worker.complete("parent", "b")
        assert heart.finish(worker) == ["a", "b"]

    def test_nodes_for_a_stranger_are_refused(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent")
        heart.spawn("stranger")
        run = heart.run(heart.instance_of("stranger"), b"o" * 12, ["child"])
        heart.scheduler.stage(worker.worker, heart.key("parent"), worker.held["parent"], run)
        with pytest.raises(InvalidArgument, match="its own instance"):
            worker.complete("parent")

    def test_a_promise_of_another_instance_is_no_source(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("parent")
        heart.spawn("stranger")
        worker.make("parent", "child <- stranger")
        with pytest.raises(InvalidArgument, match="another instance"):
            worker.complete("parent")


class TestMemory:
    """What has ended and is needed by nothing leaves memory; the values of what is needed stay announced."""

    def test_ends_empty(self, heart: Heart) -> None:
        worker = heart.worker()
        for round in range(20):
            heart.spawn(f"a{round}", f"b{round} <- a{round}", of=retrying(2))
            worker.fail(f"a{round}")
            heart.finish(worker)
        assert heart.in_memory() == {}

    def test_a_value_is_unread_when_its_last_reader_has_ended(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("a", "b <- a", "c <- a")
        worker.complete("a")
        (ended,) = heart.effects.ended
        assert ended.consumers == 2
        worker.complete("b")
        assert heart.effects.unread == []
        worker.complete("c")
        assert heart.effects.unread == [heart.key("a")]

    def test_a_value_that_is_named_by_one_that_is_read_is_read(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("p", "user <- p", "later <- user p")
        worker.make("p", "child")
        worker.complete("p", "child")
        worker.complete("child")
        assert heart.effects.unread == [], "`user` and `later` are given p's value, which names it"
        worker.complete("user")
        assert heart.effects.unread == []
        worker.complete("later")
        assert sorted(heart.effects.unread) == [heart.key(name) for name in ("p", "user", "child")]

    def test_a_value_is_unread_when_its_readers_fail(self, heart: Heart) -> None:
        worker = heart.worker(slots=2)
        heart.spawn("a", "b", "c <- a b")
        worker.complete("a")
        worker.fail("b")
        assert heart.key("a") in heart.effects.unread

    def test_a_value_that_is_read_back_for_a_new_reader_is_read_through(self, heart: Heart) -> None:
        worker = heart.worker()
        instance = heart.spawn("stays", "p")
        worker.complete("stays")
        worker.make("p", "child")
        worker.complete("p", "child")
        worker.complete("child")
        heart.add(instance, "user <- p")
        worker.complete("user")
        assert sorted(heart.effects.unread) == [heart.key("p"), heart.key("child")]


def test_who_fails_with_a_node_that_it_waits_for_lets_go_of_what_that_names_once(heart: Heart) -> None:
    """Found by the machine: it was let go of twice when both failed of the same cause."""
    hand = heart.worker(slots=3)
    instance = heart.spawn("culprit", "named", "n")
    hand.complete("n", "culprit", "named")
    heart.add(instance, "join <- culprit n")
    hand.fail("culprit")
    assert heart.states("n", "join") == ["FAILED", "FAILED"]
    named = heart.scheduler.graph.find(heart.ids["named"])
    assert named is not None
    assert named.consumers == 0
