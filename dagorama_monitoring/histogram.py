"""Histograms of integers by powers of two, which cost two additions for each number.

They are kept in the smallest unit, such as microseconds, and shown in the base unit of a metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Entries: one for each bit length of a 64-bit number. Numbers with more bits count among the largest.
BIT_LENGTHS = 65


class Distribution(NamedTuple):
    """The counts of a histogram at one moment."""

    counts: Sequence[int]  #: by bit length: a number with n bits is below 2 ** n
    total: int  #: of all numbers


class Histogram:
    """Counts numbers by their bit lengths."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * BIT_LENGTHS
        self._total = 0

    def add(self, number: int) -> None:
        """Count a number, which is not negative."""
        self._counts[min(number.bit_length(), BIT_LENGTHS - 1)] += 1
        self._total += number

    def copy(self) -> Distribution:
        """Return the counts of this moment."""
        return Distribution(self._counts.copy(), self._total)


def summed(distributions: Sequence[Distribution]) -> Distribution:
    """Return the counts of several histograms together."""
    if len(distributions) == 1:
        return distributions[0]
    counts = [sum(column) for column in zip(*(each.counts for each in distributions), strict=True)]
    return Distribution(counts, sum(each.total for each in distributions))


def buckets(distribution: Distribution, bits: range, unit: float) -> list[tuple[str, float]]:
    """Return cumulative counts by upper bound, as Prometheus wants them.

    `bits` are the bit lengths that get a bucket; the last bucket, +Inf, has the rest. `unit` is the size of 1 in the
    unit of the metric.
    """
    counts, found = distribution.counts, list[tuple[str, float]]()
    below, start = 0, 0
    for bit in bits:
        below += sum(counts[start : bit + 1])
        start = bit + 1
        found.append((repr(float(f"{(1 << bit) * unit:.12g}")), below))
    return [*found, ("+Inf", below + sum(counts[start:]))]
