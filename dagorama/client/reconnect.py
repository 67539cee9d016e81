"""Repeat calls to a broker that is unavailable or overloaded, and say how long one may be unavailable.

The time counts from the first failed call, not from the last answer: a wait may be hours old when the broker is
restarted, and its age says nothing about how long the restart takes.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random
from time import monotonic, sleep
from typing import TypeVar

from dagorama.client.status import overloaded_error
from dagorama.errors import BrokerOverloaded, BrokerUnavailable

T = TypeVar("T")

#: Seconds for which a call is repeated at the only address of the settings, if no broker has answered this process
#: there. After an answer, and with several addresses, the limit is `settings.broker_wait()`: the broker may be reading
#: its store, or another one may be taking over.
PATIENCE = 3.0
#: Seconds between two attempts to reach a broker.
PAUSE = 0.1
#: The longest pause in seconds before an overloaded broker is asked again; up to as much is added at random.
LONGEST_PAUSE = 4.0


class Loss:
    """A broker that is unavailable, as observed by one call or one wait."""

    def __init__(self) -> None:
        self._since: float | None = None  # by the monotonic clock; None: it is available
        self._broken_off = 0  # connections that were established since its last answer

    @property
    def is_doubtful(self) -> bool:
        """Whether connections are established and break off without an answer: only an answer shows that it is back."""
        return self._broken_off > 1

    def note_failure(self, was_connected: bool) -> float:
        """Note that a call failed; return for how many seconds the broker has been unavailable.

        If there was a connection, the broker was available until now, unless that is doubtful.
        """
        now = monotonic()
        if self._since is None or (was_connected and not self.is_doubtful):
            self._since = now
        self._broken_off += was_connected
        return now - self._since

    def over(self) -> None:
        """Note that the broker has answered."""
        self._since, self._broken_off = None, 0


def repeated(call: Callable[[], T], patience: Callable[[], float], seconds: float) -> T:
    """Call until there is an answer, and return it.

    An unavailable broker is asked again until `patience()` seconds are over, an overloaded one, with growing pauses,
    for `seconds`. Raises the last error.
    """
    started, pause, refusals, loss = monotonic(), PAUSE, 0, Loss()
    while True:
        try:
            return call()
        except BrokerUnavailable as error:
            if error.status != "UNAVAILABLE" or loss.note_failure(False) > patience():
                raise
            pause = PAUSE
        except BrokerOverloaded as error:
            if error.retry_after is None:
                raise
            loss.over()
            pause = min(error.retry_after * 2**refusals, LONGEST_PAUSE) * (1 + random())
            refusals += 1
            if monotonic() - started + pause >= seconds:
                raise overloaded_error(error, monotonic() - started) from None
        sleep(pause)
