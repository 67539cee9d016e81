"""Timeouts of calls that wait: a number of seconds from 0 up, or None for no limit.

The rule: infinity, and numbers that are too large for the timers of the system, mean no limit.
"""

from __future__ import annotations

from math import inf, isnan
from numbers import Number
from typing import Any, Protocol

#: Seconds, about thirty years: fewer than the timeouts of threads, polls and gRPC can hold.
LONGEST = 1e9


class Clock(Protocol):
    """The time and the sleep of a wait. The module `time` is the clock of the system."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Wait for this number of seconds."""
        ...


def checked_timeout(timeout: object) -> float | None:
    """Return `timeout` as seconds, None for no limit; raise ValueError or TypeError if it is something else."""
    if timeout is None:
        return None
    # For Python a bool is a number; here it is a mistake. Numbers of numpy and Decimal are Numbers too.
    if not isinstance(timeout, Number) or isinstance(timeout, (bool, complex)):
        raise TypeError(f"timeout is {timeout!r}: {_described(timeout)}")
    seconds = _as_float(timeout)
    if isnan(seconds) or seconds < 0:
        raise ValueError(f"timeout is {timeout!r}: it must be a number of seconds from 0 up, or None for no limit")
    if seconds >= LONGEST:
        return None
    return timeout if isinstance(timeout, int) else seconds  # an error says 5 seconds, not 5.0


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:  # an int that no float can hold
        return inf if number > 0 else -inf


def _described(timeout: object) -> str:
    remedy = "; pass its .total_seconds()" if hasattr(timeout, "total_seconds") else ""
    return f"it must be a number of seconds, or None for no limit{remedy}"
