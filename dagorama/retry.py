"""When a node that raised runs again.

The rule: `max_attempts` counts runs, the first included; jitter only adds; seconds may be fractions.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagorama.api.api_pb2 import RetryMessage
    from dagorama.api.broker_pb2 import Retry

MOST = 2**31 - 1  # what the original's message can hold


class RetryConfiguration(ABC):
    """How often, and after which pauses. A subclass of yours may get by with as_message()."""

    @abstractmethod
    def as_message(self) -> "RetryMessage":
        """The original's message: whole seconds, at least 1."""

    def as_policy(self) -> "Retry":
        """The message of our own wire; unless overridden, what as_message() says."""
        from dagorama.api.broker_pb2 import Retry

        message = self.as_message()
        if message.exponentialBase:
            base = float(message.exponentialBase)
            return Retry(max_attempts=message.maxAttempts, interval=base, base=base)
        return Retry(max_attempts=message.maxAttempts, interval=message.staticInterval, base=1)


@dataclass(frozen=True)
class StaticRetry(RetryConfiguration):
    """The same pause of `interval` seconds after each of up to `max_attempts` runs."""

    max_attempts: int
    interval: float
    _: KW_ONLY
    jitter: float = 0  #: up to so many seconds are added to each pause

    def __post_init__(self) -> None:
        _check_attempts(self.max_attempts)
        _check_seconds(interval=self.interval, jitter=self.jitter)

    def as_message(self) -> "RetryMessage":
        from dagorama.api.api_pb2 import RetryMessage

        return RetryMessage(maxAttempts=self.max_attempts, staticInterval=_whole(self.interval))

    def as_policy(self) -> "Retry":
        from dagorama.api.broker_pb2 import Retry

        return Retry(max_attempts=self.max_attempts, interval=self.interval, base=1, jitter=self.jitter)


@dataclass(frozen=True)
class ExponentialRetry(RetryConfiguration):
    """A pause of `base_interval` to the power of t seconds after run t: 2, 4, 8, ... for 2, always 1 for 1."""

    max_attempts: int
    base_interval: float = 2
    _: KW_ONLY
    max_interval: float | None = None  #: no pause is longer than so many seconds
    jitter: float = 0  #: up to so many seconds are added to each pause

    def __post_init__(self) -> None:
        _check_attempts(self.max_attempts)
        _check_seconds(base_interval=self.base_interval, jitter=self.jitter)
        if self.max_interval is not None:
            _check_seconds(max_interval=self.max_interval)
            if not self.max_interval:
                raise ValueError("max_interval is 0: it has to be a positive number of seconds, or None")

    def as_message(self) -> "RetryMessage":
        from dagorama.api.api_pb2 import RetryMessage

        return RetryMessage(maxAttempts=self.max_attempts, exponentialBase=_whole(self.base_interval))

    def as_policy(self) -> "Retry":
        from dagorama.api.broker_pb2 import Retry

        return Retry(
            max_attempts=self.max_attempts,
            interval=self.base_interval,
            base=self.base_interval,
            max_interval=self.max_interval or 0,
            jitter=self.jitter,
        )


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def _check_attempts(attempts: object) -> None:
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= MOST:
        raise ValueError(f"max_attempts is {attempts!r}: it counts runs and has to be a whole number from 1 up")


def _check_seconds(**fields: float) -> None:
    for name, value in fields.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= MOST:
            raise ValueError(f"{name} is {value!r}: it has to be a number of seconds from 0 up")
