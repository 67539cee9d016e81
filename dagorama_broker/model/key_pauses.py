"""Defines pauses of keys: what a node may have paused for all nodes with its key, and for how long."""

from __future__ import annotations

from typing import NamedTuple


class PausedKey(NamedTuple):
    """Nodes that are not granted until a pause is over.

    A function is named without its code, so that a pause holds for all versions of it.
    """

    name: str  #: of their function, or of their shared limit
    key: str  #: their concurrency key or rate key; empty: they have none
    of_limit: int = 0  #: 1: all nodes of the shared limit with this name, with any key

    def __str__(self) -> str:
        if self.of_limit:
            return f"the limit {self.name!r}"
        return f"the key {self.key!r} of {self.name}" if self.key else self.name

    def reason(self, seconds: float) -> str:
        """Return as a sentence that they wait for `seconds` more."""
        return f"{self} is paused for {seconds_text(seconds)} more seconds, because a node asked for it (RetryLater)"


class KeyPauseRow(NamedTuple):
    """A pause that a node has asked for."""

    name: str
    key: str
    of_limit: int
    until: float  #: seconds since 1970
    seconds: float  #: from the write until then
    node: int  #: key of the node

    @property
    def paused(self) -> PausedKey:
        """The nodes that it is about."""
        return PausedKey(self.name, self.key, self.of_limit)


def seconds_text(seconds: float) -> str:
    """Return seconds for people, as `3.25` or `86,400`; a negative number is 0."""
    return f"{max(0.0, seconds):.3g}" if seconds < 999.5 else f"{seconds:,.0f}"
