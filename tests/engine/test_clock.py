"""The clock of retention: time that did not pass while a broker ran counts only when the clock has stayed ahead."""

from dataclasses import dataclass

import pytest

from dagorama_broker.engine.clock import BELIEVED_AFTER, RetentionClock

HOUR, DAY = 3600.0, 86_400.0
NOW = 1.8e9


@dataclass
class Clocks:
    """A wall clock that may be put anywhere, and one that only goes on."""

    wall: float = NOW
    monotonic: float = 500.0

    def started(self, last_used: float) -> RetentionClock:
        return RetentionClock(last_used, lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_a_store_that_was_in_use_just_now_gives_the_time() -> None:
    clocks = Clocks()
    for last_used in (0.0, NOW, NOW - 1800):
        clock = clocks.started(last_used)
        assert clock.now() == clocks.wall
    clocks.pass_by(10 * DAY)
    assert clock.now() == clocks.wall


def test_a_clock_that_is_ahead_at_a_start_is_believed_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    clock = clocks.started(NOW - 10 * DAY)
    assert "240.0 h after a broker last used this store: set it if it is wrong" in caplog.text
    assert clock.now() == NOW - 10 * DAY
    clocks.pass_by(BELIEVED_AFTER - 1)
    assert clock.now() == NOW - 10 * DAY + BELIEVED_AFTER - 1
    clocks.pass_by(1)
    assert clock.now() == clocks.wall


def test_one_that_is_set_right_in_time_is_never_believed() -> None:
    clocks = Clocks()
    clock = clocks.started(NOW - 10 * DAY)
    clock.now()
    clocks.pass_by(BELIEVED_AFTER / 2)
    clocks.wall -= 10 * DAY
    for _ in range(10):
        clocks.pass_by(BELIEVED_AFTER / 2)
        assert clock.now() <= clocks.wall < NOW


def test_one_that_is_behind_is_taken_and_caught_up_with(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    clock = clocks.started(NOW + 2 * DAY)
    assert "48.0 h before a broker last used this store" in caplog.text
    assert clock.now() == NOW
    clocks.wall += 2 * DAY
    assert clock.now() == NOW
    clocks.pass_by(BELIEVED_AFTER)
    assert clock.now() == clocks.wall


def test_a_jump_under_a_running_broker_makes_nothing_older() -> None:
    clocks = Clocks()
    clock = clocks.started(NOW)
    for jump in (DAY, -DAY, 365 * DAY, -365 * DAY):
        clocks.wall += jump
        clocks.pass_by(60)
        assert clock.now() <= NOW + 4 * 60
    assert clock.now() == clocks.wall
