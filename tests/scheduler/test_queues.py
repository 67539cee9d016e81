"""Older instances first, then creation; never arbitrary. And a node that nobody may run holds nobody up."""

from itertools import permutations

import pytest

from dagorama_broker.model.domain import WireProtocol
from tests.support.driver import GPU, SchedulerDriver, function

A, B, C = (function(name) for name in "ABC")


def test_within_an_instance_creation_decides_whatever_the_function(driver: SchedulerDriver) -> None:
    driver.spawn("1", "2", "3", "4", "5", where={"1": C, "2": A, "3": B, "4": A, "5": C})
    assert driver.finish(driver.worker()) == ["1", "2", "3", "4", "5"]


def test_older_instances_go_first_across_queues(driver: SchedulerDriver) -> None:
    driver.spawn("old1", "old2", where={"old1": A, "old2": B})
    driver.spawn("new1", "new2", where={"new1": B, "new2": A})
    assert driver.finish(driver.worker()) == ["old1", "old2", "new1", "new2"]


def test_an_older_instances_node_that_becomes_ready_goes_before_younger_ones(driver: SchedulerDriver) -> None:
    first, second = driver.worker("first"), driver.worker("second")
    driver.spawn("old", "late <- old")
    driver.spawn("young1", "young2", "young3")
    assert driver.holders() == {"old": "first", "young1": "second"}
    first.complete("old")
    assert driver.holders() == {"late": "first", "young1": "second"}
    assert driver.finish(first, second) == ["late", "young2", "young3", "young1"]


@pytest.mark.parametrize("returned", list(permutations("123")), ids="".join)
def test_what_comes_back_goes_to_its_place(driver: SchedulerDriver, returned: tuple[str, ...]) -> None:
    worker = driver.worker(slots=3)
    driver.spawn("1", "2", "3", "4")
    with driver.at_once():
        worker.drain()
        for name in returned:
            worker.give_back(name)
    assert driver.finish(driver.worker("other")) == ["1", "2", "3", "4"]


def test_what_a_lost_worker_held_goes_to_its_place(driver: SchedulerDriver) -> None:
    worker = driver.worker(slots=2)
    driver.spawn("1", "2", "3", "4")
    worker.vanish()
    assert driver.finish(driver.worker("other")) == ["1", "2", "3", "4"]


def test_the_order_is_the_same_after_a_restart_and_after_old_instances_ended(driver: SchedulerDriver) -> None:
    for instance in range(4):
        driver.spawn(f"{instance}a", f"{instance}b", f"{instance}c <- {instance}a", where={f"{instance}b": A})
    worker = driver.worker()
    for name in ("0a", "0b", "0c", "1a"):
        worker.complete(name)
    driver.crash()
    driver.wait(2.0)  # for the worker that does not come back
    driver.spawn("5a")
    order = driver.finish(driver.worker("other"))
    assert order == ["1b", "1c", "2a", "2b", "2c", "3a", "3b", "3c", "5a"]


class TestTaints:
    def test_a_tainted_node_on_a_plain_queue_never_reaches_a_plain_worker(self, driver: SchedulerDriver) -> None:
        plain = driver.worker("plain", include_queues={"work"})
        driver.spawn("gpu", "plain", where={"gpu": GPU})
        assert plain.held.keys() == {"plain"}
        plain.complete("plain")
        assert not plain.held
        able = driver.worker("able", tolerations={"GPU"})
        assert able.held.keys() == {"gpu"}

    def test_a_node_that_no_worker_may_run_is_shown_with_the_reason(self, driver: SchedulerDriver) -> None:
        driver.spawn("gpu", where={"gpu": GPU})
        assert reasons(driver) == {"gpu": "no worker is connected (start one with `worker`)"}
        driver.worker("one")
        driver.worker("two", tolerations={"FPGA"})
        driver.worker("three", tolerations={"GPU"}, exclude_queues={"work"})
        driver.worker("four", tolerations={"GPU"}, include_queues={"other"})
        assert reasons(driver) == {
            "gpu": "none of 4 connected workers may run it: it does not tolerate 'GPU' (start one with --toleration "
            "GPU); it excludes queue 'work' (start one that does not); it does not include queue 'work' (start one "
            "with --include-queue work)"
        }
        driver.worker("five", tolerations={"GPU", "FPGA"})
        assert reasons(driver) == {}

    def test_a_leaving_worker_takes_no_node_and_the_reason_says_so(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        worker.drain()
        driver.spawn("a")
        expected = "the only connected worker may not run it: it takes nothing more (start another)"
        assert reasons(driver) == {"work": expected}

    def test_a_plain_node_leaves_the_able_worker_to_the_tainted_one(self, driver: SchedulerDriver) -> None:
        """Whichever came first, and though the plain node is older."""
        driver.worker("able", tolerations={"GPU"})
        driver.worker("plain")
        driver.spawn("plain", "gpu", where={"gpu": GPU})
        assert driver.holders() == {"plain": "plain", "gpu": "able"}

    def test_a_worker_that_gave_a_node_back_with_a_reason_is_not_offered_the_like(
        self, driver: SchedulerDriver
    ) -> None:
        without, able = driver.worker("without"), driver.worker("able", slots=2)
        driver.spawn("a", "b", "other", where={"other": C})
        assert driver.holders() == {"a": "without", "b": "able", "other": "able"}
        without.give_back("a", "it cannot import the function")
        able.complete("other")
        assert driver.holders() == {"a": "able", "b": "able"}
        driver.spawn("c", of=C)
        assert driver.holders()["c"] == "without", "others of its nodes it may run"

    def test_if_no_worker_is_left_the_reason_says_why(self, driver: SchedulerDriver) -> None:
        worker = driver.worker()
        driver.spawn("a", "b")
        worker.give_back("a", "it cannot import the function: No module named 'work'")
        assert not worker.held
        expected = "the only connected worker may not run it: it cannot import the function: No module named 'work'"
        assert reasons(driver) == {"work": expected}
        worker.vanish()
        worker.connect()  # it may have been mended
        assert worker.held

    def test_a_node_goes_to_a_worker_that_holds_the_key_it_is_signed_under(self, driver: SchedulerDriver) -> None:
        plain, other = driver.worker("plain"), driver.worker("other", key_ids={"0b"})
        old, new = function("old", key_id="0a"), function("new", key_id="0b")
        driver.spawn("a", "b", where={"a": old, "b": new})
        assert (list(plain.held), list(other.held)) == ([], ["b"])
        sentence = "it does not hold the signing key 0a: set DAGORAMA_SIGNING_KEYS there"
        assert sentence in reasons(driver)["old"]
        both = driver.worker("both", key_ids={"0a", "0b"})
        assert both.held.keys() == {"a"}
        assert not reasons(driver)

    def test_a_node_behind_one_whose_key_no_worker_holds_is_not_held_up(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(key_ids={"0b"})
        driver.spawn("a", "b", where={"a": function("old", key_id="0a"), "b": function("new", key_id="0b")})
        assert hand.held.keys() == {"b"}

    def test_the_same_function_under_two_keys_is_two_to_the_workers(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(key_ids={"0b"})
        driver.spawn("a", of=function("work", key_id="0a"))
        driver.spawn("b", of=function("work", key_id="0b"))
        assert hand.held.keys() == {"b"}

    def test_worlds_do_not_mix(self, driver: SchedulerDriver) -> None:
        ours, theirs = driver.worker("ours"), driver.worker("theirs", protocol=WireProtocol.LEGACY)
        old = function("old", protocol=WireProtocol.LEGACY)
        driver.spawn("our", "their", "their2", where={"their": old, "their2": old})
        assert ours.held.keys() == {"our"}
        assert (theirs.ask(), theirs.ask(), theirs.ask()) == ("their", "their2", None)
        ours.complete("our")
        assert not ours.held


def reasons(driver: SchedulerDriver) -> dict[str, str]:
    return {queue.function.name: reason for queue, reason in driver.scheduler.claims.unschedulable()}
