"""Why nodes have not ended: how what they wait for stands, and which of it no connected worker may run."""

from __future__ import annotations

import pytest

from dagorama_broker.scheduler import Explainer, NodeStatus
from dagorama_broker.scheduler.obstacles import EACH, MOST
from tests.support.driver import GPU, WORK, Hand, Heart, function, retrying

NOBODY = "no worker is connected (start one with `worker`)"
NO_GPU = "the only connected worker may not run it: it does not tolerate 'GPU' (start one with --toleration GPU)"


def explained(heart: Heart, *names: str, most: int = MOST) -> NodeStatus:
    scheduler = heart.scheduler
    nodes = [scheduler.graph.find(heart.ids[name]) for name in names]
    return Explainer(scheduler.dispatch, most).explain(nodes)


def obstacles(standing: NodeStatus) -> dict[str, tuple[int, str]]:
    return {each.queue.function.name: (each.queued, each.reason) for each in standing.obstacles.values()}


def stuck(heart: Heart, instance: bytes, most: int = MOST) -> NodeStatus | None:
    scheduler = heart.scheduler
    return Explainer(scheduler.dispatch, most).unschedulable_nodes(scheduler.graph.instances[instance])


def left(heart: Heart, hand: Hand) -> dict[str, tuple[int, str]]:
    assert hand.may_leave
    return {each.queue.function.name: (each.queued, each.reason) for each in heart.effects.left[hand.worker]}


def test_a_queued_node_without_any_worker_has_that_for_a_reason(heart: Heart) -> None:
    heart.spawn("a", "b")
    assert obstacles(explained(heart, "a")) == {"work": (1, NOBODY)}
    assert obstacles(explained(heart, "a", "b")) == {"work": (2, NOBODY)}


def test_what_a_node_waits_for_is_looked_at_through_sources_and_promises(heart: Heart) -> None:
    heart.spawn("top")
    worker = heart.worker()
    worker.make("top", "low", "gpu", "middle <- low gpu", of=GPU)
    worker.complete("top", "middle")
    standing = explained(heart, "top")
    assert obstacles(standing) == {"gpu": (2, NO_GPU)}
    assert (standing.waiting, standing.can_proceed, standing.is_stuck) == (2, False, True)


def test_a_node_is_counted_once_however_many_wait_for_it(heart: Heart) -> None:
    heart.spawn("a", "b <- a", "c <- a", "d <- b c a")
    standing = explained(heart, "d", "a")
    assert obstacles(standing) == {"work": (1, NOBODY)}
    assert standing.waiting == 3


def test_what_is_held_up_in_another_instance_counts(heart: Heart) -> None:
    heart.spawn("parent")
    worker = heart.worker()
    worker.make("parent", "child", of=GPU, new="other")
    instance = heart.instance_of("parent")
    worker.complete("parent", "child")
    assert "gpu" in obstacles(explained(heart, "parent"))
    assert stuck(heart, instance) is not None


def test_nodes_that_a_worker_may_run_are_no_obstacle(heart: Heart) -> None:
    heart.worker("one")
    heart.spawn("a", "b", "c <- b")
    standing = explained(heart, "a", "c")
    assert not standing.obstacles
    assert (standing.running, standing.queued, standing.waiting, standing.worker) == (1, 1, 1, "one")
    assert not standing.is_stuck


def test_a_node_that_waits_for_its_next_run_says_until_when(heart: Heart) -> None:
    heart.spawn("a", of=retrying(2, interval=60.0))
    heart.worker().fail("a")
    standing = explained(heart, "a")
    assert (standing.delayed, standing.retry_at, standing.can_proceed) == (1, heart.now + 60.0, True)


def test_ended_nodes_do_not_count(heart: Heart) -> None:
    heart.spawn("a", "b <- a")
    worker = heart.worker()
    worker.complete("a")
    assert explained(heart, "b").waiting == 0
    worker.complete("b")
    assert explained(heart, "b") == NodeStatus()


def test_the_obstacle_goes_when_a_worker_comes(heart: Heart) -> None:
    heart.spawn("a", of=GPU)
    heart.worker("plain")
    assert explained(heart, "a").is_stuck
    heart.worker("able", tolerations={"GPU"})
    assert not explained(heart, "a").obstacles


def test_no_more_is_looked_at_than_is_allowed(heart: Heart) -> None:
    heart.spawn(*(f"s{number}" for number in range(50)), "all <- " + " ".join(f"s{number}" for number in range(50)))
    assert not explained(heart, "all", most=51).more
    standing = explained(heart, "all", most=20)
    assert standing.more
    assert obstacles(standing)["work"][0] == 19


def test_a_chain_of_any_length_is_no_recursion(heart: Heart) -> None:
    heart.spawn("n0", *(f"n{number} <- n{number - 1}" for number in range(1, 5_000)))
    standing = explained(heart, "n4999", most=20_000)
    assert (standing.waiting, obstacles(standing)) == (4_999, {"work": (1, NOBODY)})


class TestStuckInstances:
    def test_an_instance_of_which_nothing_can_proceed_is_stuck(self, heart: Heart) -> None:
        instance = heart.spawn("gpu", "after <- gpu", where={"gpu": GPU})
        heart.worker()
        standing = stuck(heart, instance)
        assert standing is not None
        assert list(obstacles(standing)) == ["gpu"]

    @pytest.mark.parametrize("other", ["running", "queued", "delayed"])
    def test_an_instance_is_not_stuck_while_some_node_can_proceed(self, heart: Heart, other: str) -> None:
        heart.worker()
        delayed = function("delayed", delay=60.0)
        if other == "queued":
            heart.spawn("first")
        rest = {"gpu": GPU, "rest": delayed} if other == "delayed" else {"gpu": GPU}
        instance = heart.spawn("gpu", "rest", where=rest)
        assert stuck(heart, instance) is None

    def test_a_large_one_is_not_looked_at_to_the_end_and_is_stuck_all_the_same(self, heart: Heart) -> None:
        instance = heart.spawn(*(f"n{number}" for number in range(EACH + 10)), of=GPU)
        heart.worker("busy")
        heart.spawn("of another", "queued of another")
        standing = stuck(heart, instance)
        assert standing is not None
        assert standing.more
        assert obstacles(standing) == {"gpu": (EACH, NO_GPU)}

    @pytest.mark.parametrize("last", ["running", "queued", "delayed"])
    def test_a_large_instance_whose_last_node_can_proceed_is_not_stuck(self, heart: Heart, last: str) -> None:
        heart.worker()
        if last == "queued":
            heart.spawn("of another")
        names = [f"n{number}" for number in range(EACH + 10)]
        rest = function("delayed", delay=60.0) if last == "delayed" else WORK
        where = {**dict.fromkeys(names, GPU), "last": rest}
        assert stuck(heart, heart.spawn(*names, "last", where=where)) is None

    def test_one_large_instance_leaves_something_for_the_others(self, heart: Heart) -> None:
        large = heart.spawn(*(f"n{number}" for number in range(2 * EACH)))
        small = heart.spawn("small")
        scheduler = heart.scheduler
        explainer = Explainer(scheduler.dispatch)
        assert all(explainer.unschedulable_nodes(scheduler.graph.instances[instance]) for instance in (large, small))


class TestWhatIsLeftBehind:
    def test_a_worker_that_may_leave_is_told_what_nobody_may_run(self, heart: Heart) -> None:
        heart.spawn("gpu", "also", of=GPU)
        worker = heart.worker(leave_when_drained=True)
        assert left(heart, worker) == {"gpu": (2, NO_GPU)}

    def test_workers_that_may_leave_at_the_same_time_are_told_alike(self, heart: Heart) -> None:
        heart.spawn("gpu", of=GPU)
        with heart.at_once():
            one, other = heart.worker("one", leave_when_drained=True), heart.worker("two", leave_when_drained=True)
        assert left(heart, one) == left(heart, other)
        assert "none of 2 connected workers" in left(heart, one)["gpu"][1]

    def test_what_it_has_given_back_is_left_with_its_reason(self, heart: Heart) -> None:
        heart.spawn("a")
        worker = heart.worker(leave_when_drained=True)
        worker.give_back("a", "it cannot import the function: No module named 'work'")
        assert left(heart, worker)["work"][1].endswith("it cannot import the function: No module named 'work'")

    def test_nothing_is_left_if_all_has_ended(self, heart: Heart) -> None:
        heart.spawn("a")
        worker = heart.worker(leave_when_drained=True)
        worker.complete("a")
        assert left(heart, worker) == {}

    def test_what_another_worker_may_run_is_not_left(self, heart: Heart) -> None:
        heart.worker("able", tolerations={"GPU"})
        heart.spawn("one", "two", of=GPU)
        assert left(heart, heart.worker(leave_when_idle=True)) == {}

    def test_queues_that_it_does_not_serve_are_not_its_concern(self, heart: Heart) -> None:
        heart.spawn("a", of=function("other"))
        assert left(heart, heart.worker("included", include_queues={"work"}, leave_when_drained=True)) == {}
        assert left(heart, heart.worker("excluded", exclude_queues={"other"}, leave_when_drained=True)) == {}

    def test_nodes_of_all_concurrency_keys_are_one_function(self, heart: Heart) -> None:
        heart.spawn("a @x", "b @y", "c @x", of=function("keyed", taint="GPU", max_concurrency=1))
        worker = heart.worker(leave_when_drained=True)
        assert left(heart, worker)["keyed"][0] == 3
