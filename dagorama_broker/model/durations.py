"""Writes seconds for people: three digits of small numbers, and all of large ones."""

from __future__ import annotations


def seconds_text(seconds: float) -> str:
    """Return seconds as `3.25` or `86,400`; a negative number is 0."""
    return f"{max(0.0, seconds):.3g}" if seconds < 999.5 else f"{seconds:,.0f}"
