"""For how long the oldest node of a queue has been ready, to the second, without a time for each node."""

from random import Random

import pytest

from dagorama_broker.model.domain import State
from dagorama_broker.scheduler import ages as module
from dagorama_broker.scheduler.ages import ReadyAges
from tests.support.driver import WORK, SchedulerDriver, function, retrying

LIMITED = function("limited", max_concurrency=1)


class Clock:
    """Notes what is queued once a second, as the broker does."""

    def __init__(self, driver: SchedulerDriver) -> None:
        self._driver = driver
        self._ages = ReadyAges(driver.scheduler.graph)
        self._ages.note(driver.now)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self._driver.wait(1.0)
            self._ages.note(self._driver.now)

    def oldest(self, queue: str = WORK.queue) -> float | None:
        return self._ages.oldest(self._driver.now).get(queue)


@pytest.fixture
def clock(driver: SchedulerDriver) -> Clock:
    return Clock(driver)


def test_a_queue_without_a_ready_node_has_no_age(driver: SchedulerDriver, clock: Clock) -> None:
    driver.spawn("a")
    clock.wait(5)
    hand = driver.worker()
    assert clock.oldest() is None
    driver.spawn("b", "waits <- b")
    hand.complete("a")
    clock.wait(5)
    assert clock.oldest() is None


def test_a_node_ages_to_the_second_while_it_is_queued(driver: SchedulerDriver, clock: Clock) -> None:
    driver.spawn("a")
    assert clock.oldest() == 0.0
    clock.wait(10)
    assert clock.oldest() == 9.0


def test_the_oldest_one_counts_and_its_successor_after_it(driver: SchedulerDriver, clock: Clock) -> None:
    driver.spawn("first")
    clock.wait(10)
    driver.spawn("second")
    clock.wait(5)
    assert clock.oldest() == 14.0
    driver.worker()
    assert clock.oldest() == 4.0


def test_nodes_of_an_older_instance_that_come_late_hide_no_older_wait(driver: SchedulerDriver, clock: Clock) -> None:
    old = driver.spawn("a")
    driver.spawn("young")
    clock.wait(10)
    driver.add(old, "late")
    clock.wait(5)
    driver.worker(slots=2)  # they are granted a and late, which are of the older instance
    assert driver.state("late") is State.CLAIMED
    assert clock.oldest() == 14.0


def test_late_nodes_have_their_own_age_if_only_cancelled_ones_came_before(
    driver: SchedulerDriver, clock: Clock
) -> None:
    old = driver.spawn("a")
    hand = driver.worker()
    driver.spawn("young")
    clock.wait(100)
    driver.add(old, "late")
    driver.cancel("young")
    clock.wait(5)
    assert hand.held.keys() == {"a"}
    assert clock.oldest() == pytest.approx(5.0, abs=1.0)


def test_a_queue_that_was_empty_in_between_starts_again(driver: SchedulerDriver, clock: Clock) -> None:
    old = driver.spawn("a")
    driver.spawn("young")
    clock.wait(60)
    hand = driver.worker(slots=2)
    hand.complete("a")
    hand.complete("young")
    hand.drain()
    driver.add(old, "b")
    assert clock.oldest() == 0.0
    clock.wait(3)
    assert clock.oldest() == 2.0


def test_a_node_that_returns_to_its_queue_counts_from_then_at_the_earliest(
    driver: SchedulerDriver, clock: Clock
) -> None:
    driver.spawn("a", of=retrying(3))
    clock.wait(30)
    hand = driver.worker()
    clock.wait(20)
    hand.drain()
    hand.fail("a")
    clock.wait(3)
    assert clock.oldest("retrying") == 2.0


def test_nodes_with_a_concurrency_key_age_as_well(driver: SchedulerDriver, clock: Clock) -> None:
    driver.spawn("a @one", "b @one", of=LIMITED)
    driver.worker(slots=2)
    clock.wait(8)
    assert driver.state("b") is State.QUEUED
    assert clock.oldest("limited") == 7.0


def test_a_long_backlog_keeps_a_bounded_number_of_notes(
    driver: SchedulerDriver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NOTES", 16)
    for second in range(100):
        driver.spawn(f"{second}")
        clock.wait(1)
    age = clock.oldest()
    assert age is not None
    assert 80.0 <= age <= 100.0


@pytest.mark.parametrize("seed", range(20))
def test_an_age_is_at_most_a_second_too_low_and_never_too_high(
    driver: SchedulerDriver, clock: Clock, seed: int
) -> None:
    chance, since = Random(seed), dict[str, float]()
    instances, hand = [driver.spawn("first")], driver.worker()
    for number in range(60):
        for _ in range(chance.randrange(4)):
            if chance.random() < 0.3:
                instances.append(driver.spawn(f"first of {number} {chance.random()}"))
            else:
                driver.add(chance.choice(instances), f"later {number} {chance.random()}")
        if chance.random() < 0.5:
            clock.wait(1)
            hand.beat()
        else:
            for name in [*hand.held]:
                hand.complete(name)
        queued = [name for name in driver.ids if driver.is_unfinished(name) and driver.state(name) is State.QUEUED]
        since = {name: since.get(name, driver.now) for name in queued}
        oldest, found = max((driver.now - at for at in since.values()), default=None), clock.oldest()
        assert (found is None) == (oldest is None)
        assert found is None or oldest is None or oldest - 1.0 <= found <= oldest
