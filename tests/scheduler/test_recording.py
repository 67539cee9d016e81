"""What the scheduler counts for metrics."""

import pytest

from dagorama_broker.scheduler import Recording, recording
from dagorama_broker.scheduler.recording import OTHER, SAMPLED, RetryReason
from tests.support.driver import SchedulerDriver, function, retrying


@pytest.fixture
def counts(driver: SchedulerDriver) -> Recording:
    return driver.scheduler.record()


def retries(counts: Recording) -> dict[str, int]:
    return {reason.value: count for reason, count in counts.retries.items() if count}


def test_runs_are_counted_by_function_whether_they_failed_or_not(driver: SchedulerDriver, counts: Recording) -> None:
    hand = driver.worker()
    driver.spawn("a", of=retrying(3, interval=1.0))
    hand.fail("a", microseconds=1_000)
    driver.wait(1.0)
    hand.complete("a", us=5_000)
    figures = counts.functions["retrying", "retrying"]
    assert {bits: count for bits, count in enumerate(figures.runs) if count} == {10: 1, 13: 1}
    assert figures.microseconds == 6_000


def test_without_record_no_run_is_counted(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    hand.complete("a")
    assert driver.scheduler.graph.recording.functions == {}


def test_functions_beyond_the_limit_are_counted_together(
    driver: SchedulerDriver, counts: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MOST_NAMES", 2)
    hand = driver.worker(slots=5)
    for number in range(5):
        driver.spawn(f"node {number}", of=function(f"f{number}"))
        hand.complete(f"node {number}")
    assert counts.functions.keys() == {("f0", "f0"), ("f1", "f1"), (OTHER, OTHER)}
    assert sum(counts.functions[OTHER, OTHER].runs) == 3


def test_the_wait_of_sampled_nodes_is_counted_when_they_are_granted(driver: SchedulerDriver, counts: Recording) -> None:
    names = [f"{number}" for number in range(2 * (SAMPLED + 1))]
    driver.spawn(*names)
    driver.wait(2.0)
    assert sum(counts.waits) == 0
    hand = driver.worker(slots=len(names))
    assert hand.held.keys() == {*names}
    assert sum(counts.waits) == 2
    assert counts.waited == pytest.approx(4_000_000, abs=1)


def test_a_node_that_is_cancelled_while_it_is_queued_has_not_waited(driver: SchedulerDriver, counts: Recording) -> None:
    names = [f"{number}" for number in range(SAMPLED + 1)]
    driver.spawn(*names)
    driver.cancel(*names)
    assert sum(counts.waits) == 0
    assert not counts._queued_at


def test_retries_are_counted_by_reason(driver: SchedulerDriver, counts: Recording) -> None:
    hand = driver.worker()
    driver.spawn("a", of=retrying(2))
    hand.fail("a")
    driver.wait(0.1)
    hand.child_dies(["a"])
    assert retries(counts) == {RetryReason.FAILED: 1, RetryReason.PROCESS_DIED: 1}
    hand.vanish()
    assert retries(counts)[RetryReason.WORKER_LOST] == 1
    other = driver.worker("other")
    other.fail("a", final=True)
    assert retries(counts)[RetryReason.FAILED] == 1
    driver.retry("a")
    assert retries(counts)[RetryReason.REQUESTED] == 1


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("killed by SIGKILL, peak memory 34 MB", "SIGKILL"),
        ("killed by SIGSEGV", "SIGSEGV"),
        ("exited with code 3, peak memory 34 MB", "exit"),
        ("struck by lightning", OTHER),
        ("killed by SIG" + "X" * 100, OTHER),
    ],
)
def test_deaths_are_counted_by_signal(driver: SchedulerDriver, counts: Recording, said: str, cause: str) -> None:
    hand = driver.worker()
    driver.spawn("a")
    hand.child_dies(["a"], cause=said)
    assert counts.deaths == {cause: 1}


def test_a_worker_that_invents_signals_makes_a_bounded_number_of_causes(
    driver: SchedulerDriver, counts: Recording
) -> None:
    hand = driver.worker()
    for number in range(500):
        hand.child_dies([], cause=f"killed by SIGX{number}")
    assert len(counts.deaths) == recording.MOST_CAUSES + 1
    assert sum(counts.deaths.values()) == 500
