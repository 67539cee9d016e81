"""What a timeout may be, for every call that waits: a number of seconds from 0 up, or None for no limit.

The rule: infinity, and what is too long for the system's own timers, is no limit.
"""

from __future__ import annotations

from math import inf, isnan
from numbers import Number
from typing import Any

#: Seconds, some thirty years: less than what threads, polls and gRPC's deadlines can hold.
LONGEST = 1e9


def checked_timeout(timeout: object) -> float | None:
    """`timeout` as seconds, None for no limit. Raises ValueError or TypeError, which say what a timeout is."""
    if timeout is None:
        return None
    # A bool is a number to Python, and a mistake here. numpy's numbers and Decimal are Numbers too.
    if not isinstance(timeout, Number) or isinstance(timeout, (bool, complex)):
        raise TypeError(f"timeout is {timeout!r}: {_described(timeout)}")
    seconds = _as_float(timeout)
    if isnan(seconds) or seconds < 0:
        raise ValueError(f"timeout is {timeout!r}: it has to be a number of seconds from 0 up, or None for no limit")
    if seconds >= LONGEST:
        return None
    return timeout if isinstance(timeout, int) else seconds  # an error says 5 seconds, not 5.0


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:  # an int that no float can hold
        return inf if number > 0 else -inf


def _described(timeout: object) -> str:
    remedy = ", so pass its .total_seconds()" if hasattr(timeout, "total_seconds") else ""
    return f"it has to be a number of seconds, or None for no limit{remedy}"
