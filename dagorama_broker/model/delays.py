"""Defines when single nodes start at the earliest, and how long they are paused for it."""

from __future__ import annotations

from typing import NamedTuple

#: Seconds by which the end of a pause may differ from a time that a call gave, because clocks are read at two moments.
CLOSE = 1.0


class NodeDelay(NamedTuple):
    """When a single node starts at the earliest. A delay of its function holds too: the latest time counts."""

    seconds: float = 0.0  #: between being ready and the first run
    until: float = 0.0  #: seconds since 1970; 0: no such time

    def pause(self, of_function: float, time: float) -> float:
        """Return for how many seconds a node that is ready at `time`, in seconds since 1970, waits until it starts."""
        return max(self.seconds, of_function, self.until - time)

    def ends(self, time: float) -> bool:
        """Return whether a pause that ends at `time`, in seconds since 1970, ends because of `until`."""
        return self.until > 0.0 and abs(self.until - time) <= CLOSE

    def reason(self, of_function: float, ends: float) -> str:
        """Return as a sentence why a node waits until `ends`, in seconds since 1970."""
        if self.ends(ends):
            return "it waits for the time that its call gave (at)"
        if self.seconds >= of_function:
            return f"it runs {self.seconds:g} s after it is ready, as its call said (later)"
        return f"it runs {of_function:g} s after it is ready (delay)"


#: A node whose call said nothing.
AT_ONCE = NodeDelay()


class DelayRow(NamedTuple):
    """When a node starts at the earliest, if its call said so; see `NodeDelay`."""

    key: int
    seconds: float
    until: float
