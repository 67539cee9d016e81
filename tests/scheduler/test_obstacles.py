"""Why nodes have not ended: how what they wait for stands, and which of it no connected worker may run."""

from __future__ import annotations

import pytest

from dagorama_broker.scheduler import Explainer, NodeStatus
from dagorama_broker.scheduler.obstacles import EACH, MOST
from tests.support.driver import GPU, WORK, Hand, SchedulerDriver, function, retrying

NOBODY = "no worker is connected (start one with `worker`)"
NO_GPU = "the only connected worker may not run it: it does not tolerate 'GPU' (start one with --toleration GPU)"


def explained(driver: SchedulerDriver, *names: str, most: int = MOST) -> NodeStatus:
    scheduler = driver.scheduler
    nodes = [scheduler.graph.find(driver.ids[name]) for name in names]
    return Explainer(scheduler.claims, most).explain(nodes)


def obstacles(standing: NodeStatus) -> dict[str, tuple[int, str]]:
    return {each.queue.function.name: (each.queued, each.reason) for each in standing.obstacles.values()}


def stuck(driver: SchedulerDriver, instance: bytes, most: int = MOST) -> NodeStatus | None:
    scheduler = driver.scheduler
    return Explainer(scheduler.claims, most).unschedulable_nodes(scheduler.graph.instances[instance])


def left(driver: SchedulerDriver, hand: Hand) -> dict[str, tuple[int, str]]:
    assert hand.may_leave
    return {each.queue.function.name: (each.queued, each.reason) for each in driver.effects.left[hand.worker]}


def test_a_queued_node_without_any_worker_has_that_for_a_reason(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b")
    assert obstacles(explained(driver, "a")) == {"work": (1, NOBODY)}
    assert obstacles(explained(driver, "a", "b")) == {"work": (2, NOBODY)}


def test_what_a_node_waits_for_is_looked_at_through_sources_and_promises(driver: SchedulerDriver) -> None:
    driver.spawn("top")
    worker = driver.worker()
    worker.make("top", "low", "gpu", "middle <- low gpu", of=GPU)
    worker.complete("top", "middle")
    standing = explained(driver, "top")
    assert obstacles(standing) == {"gpu": (2, NO_GPU)}
    assert (standing.waiting, standing.can_proceed, standing.is_stuck) == (2, False, True)


def test_a_node_is_counted_once_however_many_wait_for_it(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b <- a", "c <- a", "d <- b c a")
    standing = explained(driver, "d", "a")
    assert obstacles(standing) == {"work": (1, NOBODY)}
    assert standing.waiting == 3


def test_what_is_held_up_in_another_instance_counts(driver: SchedulerDriver) -> None:
    driver.spawn("parent")
    worker = driver.worker()
    worker.make("parent", "child", of=GPU, new="other")
    instance = driver.instance_of("parent")
    worker.complete("parent", "child")
    assert "gpu" in obstacles(explained(driver, "parent"))
    assert stuck(driver, instance) is not None


def test_nodes_that_a_worker_may_run_are_no_obstacle(driver: SchedulerDriver) -> None:
    driver.worker("one")
    driver.spawn("a", "b", "c <- b")
    standing = explained(driver, "a", "c")
    assert not standing.obstacles
    assert (standing.running, standing.queued, standing.waiting, standing.worker) == (1, 1, 1, "one")
    assert not standing.is_stuck


def test_a_node_that_waits_for_its_next_run_says_until_when(driver: SchedulerDriver) -> None:
    driver.spawn("a", of=retrying(2, interval=60.0))
    driver.worker().fail("a")
    standing = explained(driver, "a")
    assert (standing.delayed, standing.retry_at, standing.can_proceed) == (1, driver.now + 60.0, True)


def test_ended_nodes_do_not_count(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b <- a")
    worker = driver.worker()
    worker.complete("a")
    assert explained(driver, "b").waiting == 0
    worker.complete("b")
    assert explained(driver, "b") == NodeStatus()


def test_the_obstacle_goes_when_a_worker_comes(driver: SchedulerDriver) -> None:
    driver.spawn("a", of=GPU)
    driver.worker("plain")
    assert explained(driver, "a").is_stuck
    driver.worker("able", tolerations={"GPU"})
    assert not explained(driver, "a").obstacles


def test_no_more_is_looked_at_than_is_allowed(driver: SchedulerDriver) -> None:
    driver.spawn(*(f"s{number}" for number in range(50)), "all <- " + " ".join(f"s{number}" for number in range(50)))
    assert not explained(driver, "all", most=51).more
    standing = explained(driver, "all", most=20)
    assert standing.more
    assert obstacles(standing)["work"][0] == 19


def test_a_chain_of_any_length_is_no_recursion(driver: SchedulerDriver) -> None:
    driver.spawn("n0", *(f"n{number} <- n{number - 1}" for number in range(1, 5_000)))
    standing = explained(driver, "n4999", most=20_000)
    assert (standing.waiting, obstacles(standing)) == (4_999, {"work": (1, NOBODY)})


class TestStuckInstances:
    def test_an_instance_of_which_nothing_can_proceed_is_stuck(self, driver: SchedulerDriver) -> None:
        instance = driver.spawn("gpu", "after <- gpu", where={"gpu": GPU})
        driver.worker()
        standing = stuck(driver, instance)
        assert standing is not None
        assert list(obstacles(standing)) == ["gpu"]

    @pytest.mark.parametrize("other", ["running", "queued", "delayed"])
    def test_an_instance_is_not_stuck_while_some_node_can_proceed(self, driver: SchedulerDriver, other: str) -> None:
        driver.worker()
        delayed = function("delayed", delay=60.0)
        if other == "queued":
            driver.spawn("first")
        rest = {"gpu": GPU, "rest": delayed} if other == "delayed" else {"gpu": GPU}
        instance = driver.spawn("gpu", "rest", where=rest)
        assert stuck(driver, instance) is None

    def test_a_large_one_is_not_looked_at_to_the_end_and_is_stuck_all_the_same(self, driver: SchedulerDriver) -> None:
        instance = driver.spawn(*(f"n{number}" for number in range(EACH + 10)), of=GPU)
        driver.worker("busy")
        driver.spawn("of another", "queued of another")
        standing = stuck(driver, instance)
        assert standing is not None
        assert standing.more
        assert obstacles(standing) == {"gpu": (EACH, NO_GPU)}

    @pytest.mark.parametrize("last", ["running", "queued", "delayed"])
    def test_a_large_instance_whose_last_node_can_proceed_is_not_stuck(
        self, driver: SchedulerDriver, last: str
    ) -> None:
        driver.worker()
        if last == "queued":
            driver.spawn("of another")
        names = [f"n{number}" for number in range(EACH + 10)]
        rest = function("delayed", delay=60.0) if last == "delayed" else WORK
        where = {**dict.fromkeys(names, GPU), "last": rest}
        assert stuck(driver, driver.spawn(*names, "last", where=where)) is None

    def test_one_large_instance_leaves_something_for_the_others(self, driver: SchedulerDriver) -> None:
        large = driver.spawn(*(f"n{number}" for number in range(2 * EACH)))
        small = driver.spawn("small")
        scheduler = driver.scheduler
        explainer = Explainer(scheduler.claims)
        assert all(explainer.unschedulable_nodes(scheduler.graph.instances[instance]) for instance in (large, small))


class TestWhatIsLeftBehind:
    def test_a_worker_that_may_leave_is_told_which_nodes_no_worker_may_run(self, driver: SchedulerDriver) -> None:
        driver.spawn("gpu", "also", of=GPU)
        worker = driver.worker(leave_when_drained=True)
        assert left(driver, worker) == {"gpu": (2, NO_GPU)}

    def test_workers_that_may_leave_at_the_same_time_are_told_alike(self, driver: SchedulerDriver) -> None:
        driver.spawn("gpu", of=GPU)
        with driver.at_once():
            one, other = driver.worker("one", leave_when_drained=True), driver.worker("two", leave_when_drained=True)
        assert left(driver, one) == left(driver, other)
        assert "none of 2 connected workers" in left(driver, one)["gpu"][1]

    def test_what_it_has_given_back_is_left_with_its_reason(self, driver: SchedulerDriver) -> None:
        driver.spawn("a")
        worker = driver.worker(leave_when_drained=True)
        worker.give_back("a", "it cannot import the function: No module named 'work'")
        assert left(driver, worker)["work"][1].endswith("it cannot import the function: No module named 'work'")

    def test_nothing_is_left_if_all_has_ended(self, driver: SchedulerDriver) -> None:
        driver.spawn("a")
        worker = driver.worker(leave_when_drained=True)
        worker.complete("a")
        assert left(driver, worker) == {}

    def test_what_another_worker_may_run_is_not_left(self, driver: SchedulerDriver) -> None:
        driver.worker("able", tolerations={"GPU"})
        driver.spawn("one", "two", of=GPU)
        assert left(driver, driver.worker(leave_when_idle=True)) == {}

    def test_queues_that_it_does_not_serve_are_not_its_concern(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", of=function("other"))
        assert left(driver, driver.worker("included", include_queues={"work"}, leave_when_drained=True)) == {}
        assert left(driver, driver.worker("excluded", exclude_queues={"other"}, leave_when_drained=True)) == {}

    def test_nodes_of_all_concurrency_keys_are_one_function(self, driver: SchedulerDriver) -> None:
        driver.spawn("a @x", "b @y", "c @x", of=function("keyed", taint="GPU", max_concurrency=1))
        worker = driver.worker(leave_when_drained=True)
        assert left(driver, worker)["keyed"][0] == 3
