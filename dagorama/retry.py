"""Retry policies: how often, and after which pauses, a node runs again after an exception.

The rule: `max_attempts` includes the first attempt; jitter only adds; seconds may be fractions.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from dagorama.errors import RetryLater

if TYPE_CHECKING:
    from dagorama.api.api_pb2 import RetryMessage
    from dagorama.api.broker_pb2 import Retry

MOST = 2**31 - 1  # the largest number in the message of dagorama 0.1.10

ErrorTypes = tuple[type[BaseException], ...]


class RetryConfiguration(ABC):
    """The base class of retry policies. A subclass needs as_message() only."""

    @abstractmethod
    def as_message(self) -> "RetryMessage":
        """Return the message of dagorama 0.1.10, which has whole seconds, at least 1."""

    def as_policy(self) -> "Retry":
        """Return the message of the current protocol, by default made from as_message()."""
        from dagorama.api.broker_pb2 import Retry

        message = self.as_message()
        if message.exponentialBase:
            base = float(message.exponentialBase)
            return Retry(max_attempts=message.maxAttempts, interval=base, base=base)
        return Retry(max_attempts=message.maxAttempts, interval=message.staticInterval, base=1)

    def is_final(self, exception: BaseException) -> bool:
        """Return whether the node is not run again after this exception. The worker calls this."""
        return False


@dataclass(frozen=True)
class StaticRetry(RetryConfiguration):
    """A pause of `interval` seconds after each of up to `max_attempts` attempts."""

    max_attempts: int
    interval: float
    _: KW_ONLY
    jitter: float = 0  #: the largest number of seconds added to each pause
    retry_on: ErrorTypes | None = None  #: only these exceptions are retried; None means all
    give_up_on: ErrorTypes = ()  #: these are not retried, even if they are in `retry_on`

    def __post_init__(self) -> None:
        _check_attempts(self.max_attempts)
        _check_error_types(self.retry_on, self.give_up_on)
        check_seconds(interval=self.interval, jitter=self.jitter)

    def as_message(self) -> "RetryMessage":
        from dagorama.api.api_pb2 import RetryMessage

        return RetryMessage(maxAttempts=self.max_attempts, staticInterval=_whole(self.interval))

    def as_policy(self) -> "Retry":
        from dagorama.api.broker_pb2 import Retry

        return Retry(max_attempts=self.max_attempts, interval=self.interval, base=1, jitter=self.jitter)

    def is_final(self, exception: BaseException) -> bool:
        return _is_final(self.retry_on, self.give_up_on, exception)


@dataclass(frozen=True)
class ExponentialRetry(RetryConfiguration):
    """A pause of `base_interval` to the power of t seconds after attempt t: 2, 4, 8, ... for 2, always 1 for 1."""

    max_attempts: int
    base_interval: float = 2
    _: KW_ONLY
    max_interval: float | None = None  #: the longest pause in seconds
    jitter: float = 0  #: the largest number of seconds added to each pause
    retry_on: ErrorTypes | None = None  #: only these exceptions are retried; None means all
    give_up_on: ErrorTypes = ()  #: these are not retried, even if they are in `retry_on`

    def __post_init__(self) -> None:
        _check_attempts(self.max_attempts)
        _check_error_types(self.retry_on, self.give_up_on)
        check_seconds(base_interval=self.base_interval, jitter=self.jitter)
        if self.max_interval is not None:
            check_positive_seconds(max_interval=self.max_interval)

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

    def is_final(self, exception: BaseException) -> bool:
        return _is_final(self.retry_on, self.give_up_on, exception)


def retry_decision(retry: RetryConfiguration | None, error: BaseException) -> tuple[bool, float | None]:
    """Return whether the node is not run again after `error`, and the seconds of a RetryLater, otherwise None.

    Never raises, even if is_final() of a user's policy does.
    """
    if isinstance(error, RetryLater):
        return False, error.retry_after
    try:
        return retry is not None and bool(retry.is_final(error)), None
    except Exception:
        return False, None


def has_runs_left(retry: RetryConfiguration | None, runs: int) -> bool:
    """Return whether a node is run again after `runs` failed attempts. Never raises, like verdict()."""
    try:
        return retry is not None and runs < retry.as_policy().max_attempts
    except Exception:
        return False


def _is_final(retry_on: ErrorTypes | None, give_up_on: ErrorTypes, error: BaseException) -> bool:
    if isinstance(error, RetryLater):
        return False
    return isinstance(error, give_up_on) or (retry_on is not None and not isinstance(error, retry_on))


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def _check_attempts(attempts: object) -> None:
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= MOST:
        raise ValueError(
            f"max_attempts is {attempts!r}: it counts attempts and must be a whole number from 1 to {MOST}"
        )


def _check_error_types(retry_on: object, give_up_on: object) -> None:
    for name, types in (("retry_on", () if retry_on is None else retry_on), ("give_up_on", give_up_on)):
        if not isinstance(types, tuple) or not all(_is_error_type(kind) for kind in types):
            raise ValueError(f"{name} is {types!r}: it must be a tuple of exception types, such as (OSError,)")
    if retry_on == ():
        raise ValueError("retry_on is empty: nothing would be retried; name exception types, or give None for all")


def _is_error_type(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def check_seconds(**fields: float) -> None:
    """Raise ValueError, which names the field, if one is not a number of seconds from 0 to MOST."""
    for name, value in fields.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= MOST:
            raise ValueError(f"{name} is {value!r}: it must be a number of seconds from 0 to {MOST}")


def check_positive_seconds(**fields: float | None) -> None:
    """Raise ValueError, which names the field, if one is neither a positive number of seconds nor None."""
    for name, value in fields.items():
        if value is None:
            continue
        if value == math.inf:
            raise ValueError(f"{name} is {value!r}: give None, which is no limit")
        check_seconds(**{name: value})
        if not value:
            raise ValueError(f"{name} is 0: it must be a positive number of seconds, or None")
