"""Delays of single calls: when a node, or an instance, starts at the earliest.

The rule: a delay in seconds is counted by the broker, from the moment when the node could run; a date is the same for
all clocks. The clock of the client is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from dagorama.api import broker_pb2
from dagorama.api.contract import LATEST_START
from dagorama.retry import check_seconds

#: The largest number of bytes of a delay in a message.
DELAY_BYTES = 24
#: The message for a second delay of a call.
TWICE = "{name} is delayed twice: a call has one delay, by later() or by at()"


class Delay(NamedTuple):
    """When a node starts at the earliest; one of the two is 0."""

    seconds: float = 0.0  #: between being ready and the first run
    not_before: float = 0.0  #: seconds since 1970


def delay_after(seconds: float) -> Delay:
    """Return the delay of later(). Raises ValueError if it is not a number of seconds."""
    check_seconds(seconds=seconds)
    return Delay(seconds=float(seconds))


def delay_until(when: datetime) -> Delay:
    """Return the delay of at(). Raises TypeError if `when` is no datetime, ValueError if it has no time zone."""
    if not isinstance(when, datetime):
        raise TypeError(f"when is {when!r}: it must be a datetime with a time zone")
    if when.utcoffset() is None:
        raise ValueError(
            f"when is {when!r}, which has no time zone, so each machine would read it differently: give it one, "
            'as in datetime(2027, 3, 1, 9, tzinfo=ZoneInfo("Europe/Berlin")) or datetime.now(UTC)'
        )
    seconds = when.timestamp()
    if seconds > LATEST_START:
        raise ValueError(f"when is {when!r}: it must be before the year 9999")
    return Delay(not_before=max(0.0, seconds))


def add_delays(message: broker_pb2.Nodes, delays: Mapping[int, Delay], start: int, stop: int) -> None:
    """Add the delays of the nodes from `start` to `stop` to their message; `delays` has them by position."""
    for position in sorted(delays.keys() & range(start, stop)):
        message.delayed.append(position - start)
        message.delay.append(delays[position].seconds)
        message.not_before.append(delays[position].not_before)
