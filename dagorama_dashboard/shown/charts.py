"""Small charts as SVG paths and rectangles, which need neither scripts nor inline styles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dagorama.models.state import State
from dagorama_dashboard.shown.formats import BAR_ORDER, Shown, shown

#: The width of a bar in its own units.
BAR = 1000


class Segment(NamedTuple):
    """A part of a state bar."""

    shown: Shown
    nodes: int
    x: float
    width: float


def state_bar(nodes: Sequence[int]) -> list[Segment]:
    """Return the segments of a bar for counts by state, none for states without nodes."""
    by_state = dict(enumerate(nodes))
    # A node that waits for the nodes that it has returned waits too; its own page tells the difference.
    by_state[State.WAITING] = by_state.get(State.WAITING, 0) + by_state.get(State.RESOLVING, 0)
    counts = [(state, by_state[state]) for state in BAR_ORDER if by_state.get(state)]
    total = sum(count for _, count in counts)
    # A single failed node among thousands must be seen.
    widths = [max(BAR * count / total, BAR * 0.012) for _, count in counts]
    scale = BAR / sum(widths) if widths else 1
    segments, x = [], 0.0
    for (state, count), width in zip(counts, widths, strict=True):
        segments.append(Segment(shown(state), count, round(x, 1), round(width * scale, 1)))
        x += width * scale
    return segments


def ended_bar(nodes: int, unfinished: int, failed: bool) -> list[Segment]:
    """Return the segments of a bar for an instance of which only this is known; a mark at its end says it failed."""
    counts = [0] * len(State)
    counts[State.COMPLETED], counts[State.WAITING] = nodes - unfinished, unfinished
    counts[State.FAILED] = int(failed)
    return state_bar(counts)


def slot_bar(busy: int, slots: int) -> list[Segment]:
    """Return the segment of a bar for the slots of workers that run nodes."""
    return [Segment(shown(State.CLAIMED), busy, 0.0, BAR * busy / slots)] if busy and slots else []


class Spark(NamedTuple):
    """A line over time, as the `d` of a path and of the area below it, in a box of 100 by 30."""

    line: str
    area: str
    top: float  #: the largest value


def spark(values: Iterable[float], top: float = 0.0) -> Spark:
    """Return the line of these values, scaled to the largest one or to `top`."""
    points = list(values)
    highest = max([*points, top], default=0.0)
    if len(points) < 2 or not highest:
        return Spark("M0 29.5H100", "", highest)
    step = 100 / (len(points) - 1)
    places = [f"{place * step:.2f} {29.5 - 28 * value / highest:.2f}" for place, value in enumerate(points)]
    line = f"M{'L'.join(places)}"
    return Spark(line, f"{line}L100 30L0 30Z", highest)


def grouped(values: Sequence[float], size: int) -> list[float]:
    """Return the means of groups of `size` values; the last group ends with the last value."""
    start = len(values) % size
    head = [sum(values[:start]) / start] if start else []
    return head + [sum(values[place : place + size]) / size for place in range(start, len(values), size)]
