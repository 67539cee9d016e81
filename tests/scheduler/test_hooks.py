"""The node of a failure hook is made in the step in which its instance ends failed, once, whatever happens then."""

import pytest

from dagorama.api.contract import FIRST_HOOK, hooked_arguments, is_hook
from dagorama.api.contract import HOOK as HOOK_FLAG
from dagorama_broker.model import hooks
from dagorama_broker.model.domain import State
from tests.support.driver import SchedulerDriver, function, retrying
from tests.support.invariants import check

HOOK = function("tell")


def test_the_end_and_the_node_of_the_hook_are_in_one_commit(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    instance = driver.spawn("a", "b <- a", hook=HOOK)
    hand.fail("a", "boom")
    assert [row.state for row in driver.changes.outcomes] == [State.FAILED, State.FAILED]
    (block,) = driver.changes.blocks
    assert is_hook(instance, block.origin + block.first.to_bytes(4, "big"))
    assert [end.ended for end in driver.changes.instance_ends] == [None], "it has an unfinished node all the time"
    assert driver.told("hook 1") == "boom"
    check(driver)
    assert driver.finish(hand) == ["hook 1"]
    assert driver.in_memory() == {}


def test_broker_and_contract_agree_on_ids_and_arguments() -> None:
    assert (hooks.FIRST_HOOK, hooks.FLAG) == (FIRST_HOOK, HOOK_FLAG)
    assert hooks.FIRST_HOOK + hooks.HOOKS == 1 << 32
    assert hooked_arguments(hooks.hook_arguments(b"\1\1signed", b"{}")) == (b"\1\1signed", b"{}")


def test_it_is_granted_at_once(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", hook=HOOK)
    hand.fail("a")
    assert list(hand.held) == ["hook 1"]


def test_an_instance_that_ends_well_makes_none(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "b <- a", hook=HOOK)
    assert driver.finish(hand) == ["a", "b"]
    assert driver.in_memory() == {}


def test_it_waits_for_all_other_nodes(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "b", hook=HOOK)
    hand.fail("a", "first")
    assert driver.hooks == 0
    hand.fail("b", "second")
    assert (driver.hooks, driver.told("hook 1")) == (1, "first")


def test_a_crash_before_the_commit_loses_the_end_too_and_one_after_it_nothing(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", hook=HOOK)
    with driver.at_once():
        hand.fail("a")
        driver.crash()
    hand = driver.worker("another")
    driver.wait(3.0)
    hand.fail("a", "again")
    driver.crash()
    check(driver)
    hand = driver.worker("third")
    driver.wait(3.0)
    assert driver.finish(hand) == ["hook 1"]
    assert (driver.hooks, driver.told("hook 1")) == (1, "again")


def test_what_failed_before_a_crash_is_told_after_it(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "b", hook=HOOK)
    hand.fail("a", "before")
    driver.crash()
    hand = driver.worker("another")
    driver.wait(3.0)
    hand.complete("b")
    assert driver.told("hook 1") == "before"


def test_its_own_failure_calls_no_other_before_and_after_a_crash(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", hook=retrying(1))
    hand.fail("a")
    driver.crash()
    hand = driver.worker("another")
    driver.wait(3.0)
    hand.fail("hook 1")
    assert driver.states("a", "hook 1") == ["FAILED", "FAILED"]
    assert driver.hooks == 1
    assert driver.in_memory() == {}


def test_failures_after_a_retry_are_told_again(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "b <- a", hook=HOOK)
    hand.fail("a", "first")
    assert driver.finish(hand) == ["hook 1"]
    driver.retry("a")
    check(driver)
    hand.fail("a", "second")
    assert driver.finish(hand) == ["hook 2"]
    assert (driver.told("hook 1"), driver.told("hook 2")) == ("first", "second")


def test_a_retry_while_the_hook_runs_lets_it_go_on(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", hook=HOOK)
    hand.fail("a", "first")
    driver.retry("a")
    hand.fail("a", "second")
    assert driver.hooks == 1, "the instance has not ended: its hook runs"
    hand.complete("hook 1")
    assert driver.told("hook 2") == "second"


def test_nodes_that_are_added_to_an_ended_instance_may_call_it_again(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    instance = driver.spawn("a", hook=HOOK)
    driver.finish(hand)
    driver.add(instance, "b")
    driver.crash()
    hand = driver.worker("another")
    driver.wait(3.0)
    hand.fail("b", "late")
    assert driver.told("hook 1") == "late"
    assert driver.finish(hand) == ["hook 1"]
    driver.add(instance, "c")
    assert driver.finish(hand) == ["c"]
    assert driver.hooks == 1, "nothing has failed since"


@pytest.mark.parametrize("crashes", [False, True])
def test_a_cancelled_instance_calls_no_hook_before_a_retry(driver: SchedulerDriver, crashes: bool) -> None:
    hand = driver.worker(slots=2)
    instance = driver.spawn("a", "b", hook=HOOK)
    hand.fail("a")
    driver.scheduler.silence(instance)
    driver.step()
    if crashes:
        driver.crash()
        driver.worker("another")
        driver.wait(3.0)
    driver.cancel("b")
    assert driver.hooks == 0
    assert driver.in_memory() == {}


def test_cancelling_a_node_does_not_silence_it(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "b", hook=HOOK)
    hand.fail("a")
    driver.cancel("b")
    assert driver.hooks == 1


def test_a_hundred_instances_that_fail_in_one_step(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=100)
    for number in range(100):
        driver.spawn(f"n{number}", hook=HOOK)
    with driver.at_once():
        for number in range(100):
            hand.fail(f"n{number}", f"{number}")
    assert driver.hooks == 100
    assert {driver.told(f"hook {number}") for number in range(1, 101)} == {f"{number}" for number in range(100)}
    check(driver)
