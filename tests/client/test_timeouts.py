"""Timeouts: what one may be, wherever one is given."""

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dagorama.client.completed import as_completed
from dagorama.client.results import aresolve, resolve_all
from dagorama.client.timeouts import LONGEST, checked_timeout
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from tests.support.recording_broker import RecordingBroker


class Five(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return 5


@pytest.mark.parametrize(
    "timeout", [0, 0.5, 5, np.int64(5), np.float32(0.5), Fraction(1, 2), Decimal("0.5"), LONGEST / 2]
)
def test_a_number_from_0_up_is_a_timeout(timeout: Any) -> None:
    assert checked_timeout(timeout) == float(timeout)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e12, 10**400, LONGEST, np.inf])
def test_what_is_longer_than_any_timer_is_no_limit(timeout: Any) -> None:
    assert checked_timeout(timeout) is None


@pytest.mark.parametrize("timeout", [math.nan, -1, -0.1, -math.inf, -(10**400), np.nan])
def test_a_number_that_is_no_time_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout is .* a number of seconds from 0 up, or None for no limit"):
        checked_timeout(timeout)


@pytest.mark.parametrize("timeout", [True, "5", b"5", [5], 5j, np.True_, object()])
def test_what_is_no_number_is_refused(timeout: Any) -> None:
    with pytest.raises(TypeError, match=r"timeout is .* a number of seconds, or None for no limit"):
        checked_timeout(timeout)


def test_a_timedelta_is_told_what_to_pass() -> None:
    with pytest.raises(TypeError, match=r"pass its .total_seconds\(\)"):
        checked_timeout(timedelta(seconds=5))


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
async def test_every_wait_takes_an_endless_timeout(broker: RecordingBroker, timeout: float) -> None:
    instance, promise = Five()()
    broker.run()
    assert resolve(instance, promise, timeout=timeout) == 5
    assert await aresolve(instance, promise, timeout=timeout) == 5
    assert resolve_all([(instance, promise)], timeout=timeout) == [5]
    assert list(as_completed(instance, [promise], timeout=timeout)) == [promise]


@pytest.mark.parametrize("timeout", [math.nan, -1, "5", True])
async def test_every_wait_refuses_what_is_no_timeout_before_it_asks(broker: RecordingBroker, timeout: Any) -> None:
    pair = Five()()
    with pytest.raises((ValueError, TypeError), match="timeout is"):
        resolve(*pair, timeout=timeout)
    with pytest.raises((ValueError, TypeError), match="timeout is"):
        await aresolve(*pair, timeout=timeout)
    with pytest.raises((ValueError, TypeError), match="timeout is"):
        resolve_all([pair], timeout=timeout)
    with pytest.raises((ValueError, TypeError), match="timeout is"):
        as_completed(pair[0], [pair[1]], timeout=timeout)
    assert not broker.waits
