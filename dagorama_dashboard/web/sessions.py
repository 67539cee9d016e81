"""Sessions of people who have given their token, and notices about what their actions did.

The rule: tokens stay in the memory of this process; a cookie holds a random name for one, and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from secrets import token_urlsafe
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds after its last use at which a session ends, and the most sessions that are kept.
SESSION_SECONDS, MOST_SESSIONS = 12 * 3600.0, 10_000
#: The same for a notice, which the next page shows.
NOTICE_SECONDS, MOST_NOTICES = 60.0, 1_000


class Kept(Generic[T]):
    """Values by random names, for a time after their last use."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def add(self, value: T) -> str:
        """Keep a value, and return its name, which cannot be guessed."""
        name = token_urlsafe(32)
        self._values[name] = monotonic(), value
        while len(self._values) > self._most:
            self._values.popitem(last=False)
        return name

    def get(self, name: str) -> T | None:
        found = self._values.pop(name, None)
        if found is None or monotonic() - found[0] > self._seconds:
            return None
        self._values[name] = monotonic(), found[1]
        return found[1]

    def take(self, name: str) -> T | None:
        """Return a value and forget it."""
        value = self.get(name)
        self._values.pop(name, None)
        return value
