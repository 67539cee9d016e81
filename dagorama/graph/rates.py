"""Rates and limits: how often nodes start, and how many run at once, over all workers together.

The rule: the broker counts; this module only describes the limits to it. Seconds may be fractions.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from dagorama.models import stored
from dagorama.models.texts import check_content
from dagorama.retry import MOST, check_seconds

if TYPE_CHECKING:
    from dagorama.api import broker_pb2

#: The largest number of characters of the name of a limit.
LONGEST_NAME = 512
#: The longest window of a rate in seconds: 366 days.
LONGEST_WINDOW = 366 * 86_400


@stored.named("Rate")
@dataclass(frozen=True)
class Rate:
    """At most `starts` starts in any window of `per` seconds: `Rate(10, per=60)`. Raises ValueError."""

    starts: int  #: each attempt is a start
    _: KW_ONLY
    per: float  #: seconds

    def __post_init__(self) -> None:
        check_count(starts=self.starts)
        check_seconds(per=self.per)
        if not 0 < self.per <= LONGEST_WINDOW:
            raise ValueError(f"per is {self.per!r}: it must be more than 0 and at most {LONGEST_WINDOW:,} seconds")

    def as_message(self) -> broker_pb2.Rate:
        """Return the message of the rate."""
        from dagorama.api import broker_pb2

        return broker_pb2.Rate(starts=self.starts, seconds=self.per)


@stored.named("Limit")
@dataclass(frozen=True)
class Limit:
    """A limit shared by all functions that name it: `Limit("openai", rate=Rate(500, per=60), concurrency=20)`.

    If functions give it different numbers, the numbers submitted last apply, and the broker reports this in its log and
    in `dagorama explain`. Raises ValueError, which names the invalid field.
    """

    name: str
    _: KW_ONLY
    rate: Rate | None = None  #: how often nodes start; None: there is no rate
    concurrency: int | None = None  #: how many nodes run at once, on all workers together; None: any number

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"name is {self.name!r}: a limit's name is a text of 1 to {LONGEST_NAME} characters")
        check_content(self.name, "the name of a limit", 1, LONGEST_NAME)
        check_rate(self.rate)
        if self.concurrency is not None:
            check_count(concurrency=self.concurrency)
        if self.rate is None and self.concurrency is None:
            raise ValueError(f"the limit {self.name!r} limits nothing: give it a rate, a concurrency, or both")

    def as_message(self) -> broker_pb2.SharedLimit:
        """Return the message of the limit."""
        from dagorama.api import broker_pb2

        rate = self.rate.as_message() if self.rate is not None else None
        return broker_pb2.SharedLimit(name=self.name, rate=rate, max_concurrency=self.concurrency or 0)


def check_rate(rate: object) -> None:
    """Raise ValueError if this is neither a Rate nor None."""
    if not (rate is None or isinstance(rate, Rate)):
        raise ValueError(f"rate is {rate!r}: it must be a Rate, such as Rate(10, per=60), or None")


def check_limit(limit: object) -> None:
    """Raise ValueError if this is neither a Limit nor None."""
    if not (limit is None or isinstance(limit, Limit)):
        raise ValueError(f"limit is {limit!r}: it must be a Limit, such as Limit('api', concurrency=5), or None")


def check_count(**fields: object) -> None:
    """Raise ValueError, which names the field, if one is not a whole number from 1 to MOST."""
    for name, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
            raise ValueError(f"{name} is {value!r}: it must be a whole number from 1 to {MOST}")
