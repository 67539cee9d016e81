"""A failed run is followed by another as often, and as late, as the policy says."""

import pytest

from dagorama_broker.model.domain import LONGEST_PAUSE, RetryPolicy, State
from tests.support.driver import SchedulerDriver, function, retrying


def test_three_attempts_are_three_runs(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "b <- a", of=retrying(3))
    for runs in (1, 2):
        hand.fail("a", f"boom {runs}")
        assert driver.state("a") is State.CLAIMED
    hand.fail("a", "boom 3")
    assert driver.states("a", "b") == ["FAILED", "FAILED"]
    failure = driver.failure("b")
    assert (failure.attempts, failure.message, failure.function) == (3, "boom 3", "retrying")


def test_without_a_policy_there_is_one_run(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    hand.fail("a")
    assert driver.state("a") is State.FAILED
    assert driver.failure("a").attempts == 1


def test_a_retry_may_succeed(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "b <- a", of=retrying(3))
    hand.fail("a")
    hand.complete("a")
    assert hand.held.keys() == {"b"}
    assert driver.ledger.progress[driver.key("a")].failed_attempts == 1


@pytest.mark.parametrize("seconds", [0.5, 1.0, 7.25])
def test_a_retry_runs_when_its_pause_is_over(driver: SchedulerDriver, seconds: float) -> None:
    hand = driver.worker()
    driver.spawn("a", of=retrying(2, seconds))
    failed_at = driver.now
    hand.fail("a")
    assert driver.state("a") is State.BACKOFF
    assert driver.next_tick == failed_at + seconds
    driver.wait(seconds - 0.001)
    assert not hand.held
    driver.wait(0.001)
    assert hand.held


def test_an_interval_of_nothing_is_no_pause(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", of=retrying(2, 0.0))
    hand.fail("a")
    assert hand.held.keys() == {"a"}


def test_pauses_end_in_the_order_of_their_times(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=3)
    slow, quick = retrying(2, 2.0), function("quick", retry=RetryPolicy(2, 1.0))
    driver.spawn("a", "b", "c", where={"a": slow, "b": quick, "c": slow})
    for name in "abc":
        hand.fail(name)
        driver.wait(0.1)
    driver.wait(0.8)
    assert hand.held.keys() == {"b"}
    driver.wait(1.0)
    assert hand.held.keys() == {"a", "b"}
    driver.wait(0.2)
    assert hand.held.keys() == {"a", "b", "c"}


def test_what_is_cancelled_while_it_pauses_does_not_run_again(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", "b <- a", of=retrying(2, 1.0))
    hand.fail("a")
    node = driver.scheduler.graph.find(driver.ids["a"])
    assert node is not None
    driver.scheduler.graph.end_badly(node, State.CANCELLED, node)
    driver.wait(5.0)
    assert driver.states("a", "b") == ["CANCELLED", "CANCELLED"]
    assert driver.in_memory() == {}
    assert driver.scheduler.graph.counts[State.BACKOFF] == 0


def test_an_end_of_a_pause_that_is_out_of_date_starts_nothing(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", of=retrying(9, 2.0))
    hand.fail("a")
    driver.scheduler.graph.pauses.append((driver.now + 1.0, driver.key("a")))
    driver.scheduler.graph.pauses.sort()
    driver.wait(1.5)
    assert driver.state("a") is State.BACKOFF
    driver.wait(0.5)
    assert driver.state("a") is State.CLAIMED


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RetryPolicy(9, 0.0), [0.0, 0.0, 0.0]),
        (RetryPolicy(9, 0.5), [0.5, 0.5, 0.5]),
        (RetryPolicy(9, 2.0, 1.0), [2.0, 2.0, 2.0]),
        (RetryPolicy(9, 2.0, 0.0), [2.0, 2.0, 2.0]),
        (RetryPolicy(9, 2.0, 2.0), [2.0, 4.0, 8.0]),
        (RetryPolicy(9, 1.0, 3.0, max_interval=4.0), [1.0, 3.0, 4.0]),
        (RetryPolicy(9, 1.0, 0.5), [1.0, 0.5, 0.25]),
    ],
)
def test_pauses_grow_as_the_policy_says(policy: RetryPolicy, expected: list[float]) -> None:
    assert [policy.delay(runs, 0.0) for runs in (1, 2, 3)] == expected


def test_jitter_only_adds() -> None:
    policy = RetryPolicy(9, 1.0, 2.0, max_interval=4.0, jitter=0.5)
    for runs in range(1, 6):
        plain = policy.delay(runs, 0.0)
        assert plain <= policy.delay(runs, 0.999) < plain + 0.5


def test_a_pause_has_an_end_however_often_it_grew() -> None:
    assert RetryPolicy(10**9, 1.0, 10.0).delay(10**6, 0.0) == LONGEST_PAUSE
    assert RetryPolicy(10**9, 1e300, 10.0).delay(50, 0.5) == LONGEST_PAUSE
