"""Counts starts and claimed nodes against a limit that queues share. Knows no nodes, and reads no clock.

The window of a rate slides: a start counts for the length of the window, and the number of counted starts never exceeds
the rate. So no window of that length has more starts, however it is placed. A bucket that refills while it is emptied
would let up to twice as many through, and one that spaces starts evenly would delay short bursts for no reason.

Starts that follow each other closely are one span, which counts until the last of them is old enough. So a gate keeps
at most `SPANS` of them for any rate, and a busy one is used to at least 1 - 1/SPANS.
"""

from __future__ import annotations

from math import inf
from typing import Generic, TypeVar

from dagorama_broker.model.domain import Rate

Queue = TypeVar("Queue")

#: Spans of starts that are kept for a rate; a rate of fewer starts keeps each of them by itself.
SPANS = 128
#: The room of a gate without a limit.
ANY = 1 << 62


class _Span:
    __slots__ = ("first", "last", "starts")

    def __init__(self, now: float, starts: int) -> None:
        self.first = self.last = now
        self.starts = starts


class Gate(Generic[Queue]):
    """A limit and what counts against it: of a shared limit, of a function, or of one key of a function."""

    __slots__ = ("_spans", "claimed", "declared_by", "due", "filled_at", "held", "is_paused", "key", "max_concurrency",
                 "name", "queues", "rate", "used")  # fmt: skip

    def __init__(self, name: str, key: str | None = None) -> None:
        self.name = name  #: of the shared limit, or of the function
        self.key = key  #: None: it holds for nodes with any key
        self.rate: Rate | None = None  #: None: any
        self.max_concurrency = 0  #: 0: any number
        self.declared_by = ""  #: the function whose figures hold
        self.claimed = 0  #: nodes that are claimed now; not counted for one key
        self.used = 0  #: starts that count
        self.is_paused = False  #: whether nothing starts, because a node has asked for that
        self.held = 0  #: starts that are granted, of nodes that wait behind others in their process
        self.queues: dict[Queue, None] = {}  #: that it limits
        self.due = inf  #: when it must be looked at
        self.filled_at: float | None = None  #: when it was counted as used up, because earlier starts are not known
        self._spans: list[_Span] = []

    @property
    def room(self) -> int:
        """Nodes that may be claimed now, at least 0."""
        if self.is_paused:
            return 0
        room = self.max_concurrency - self.claimed if self.max_concurrency else ANY
        if self.rate is not None:
            room = min(room, self.rate.starts - self.used - self.held)
        return max(0, room)

    @property
    def is_used_up(self) -> bool:
        """Whether the rate allows no start now."""
        return self.rate is not None and self.used + self.held >= self.rate.starts

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to remember, and is not looked at again."""
        return not (self._spans or self.held or self.queues) and self.due == inf

    @property
    def spans(self) -> int:
        """Spans of starts that it keeps."""
        return len(self._spans)

    def next_start(self) -> float:
        """Return when the oldest start stops to count; infinite: none counts yet."""
        return self._end(self._spans[0]) if self._spans else inf

    def wake_at(self) -> float:
        """Return when it must be looked at: when it may open, or when it has nothing more to remember."""
        if not self._spans:
            return inf
        return self._end(self._spans[0 if self.is_used_up else -1])

    def start(self, now: float) -> bool:
        """Count a start; return whether the time at which the gate must be looked at may have changed."""
        rate, spans = self.rate, self._spans
        if rate is None:
            return False
        self.used += 1
        last = spans[-1] if spans else None
        if last is not None and now - last.first <= (rate.seconds / SPANS if rate.starts > SPANS else 0.0):
            last.last = now
            last.starts += 1
        else:
            self.expire(now)
            spans.append(_Span(now, 1))
        return self.used + self.held >= rate.starts or self.due == inf

    def give_back(self, when: float) -> None:
        """Remove a start that was counted at this time, because nothing has run."""
        for span in reversed(self._spans):
            if span.first <= when <= span.last:
                self.used -= 1
                span.starts -= 1
                if not span.starts:
                    self._spans.remove(span)
                return

    def hold(self) -> bool:
        """Count a start that comes later, from now on, until it is released; return as `start` does."""
        if self.rate is None:
            return False
        self.held += 1
        return self.used + self.held >= self.rate.starts

    def release(self) -> None:
        """Release a held start: the node starts now, or was returned."""
        self.held -= bool(self.held)  # 0: the limit had no rate when the node was granted

    def fill(self, now: float) -> None:
        """Count the rate as used up, because earlier starts are not known."""
        if self.rate is not None and not self.is_used_up:
            left = self.rate.starts - self.used - self.held
            self.used += left
            self._spans.append(_Span(now, left))
            self.filled_at = now

    def expire(self, now: float) -> None:
        """Forget starts that are old enough."""
        spans = self._spans
        while spans and self._end(spans[0]) <= now:
            self.used -= spans.pop(0).starts
            self.filled_at = None

    def _end(self, span: _Span) -> float:
        return span.last + self.rate.seconds if self.rate is not None else span.last
