"""Ids of instances and nodes as callers give them."""

from __future__ import annotations

from uuid import UUID


def as_uuid(given: UUID | str, what: str) -> UUID:
    """Return a UUID or what a text says. Raise TypeError or ValueError, which say `what` it should have been."""
    if isinstance(given, UUID):
        return given
    if not isinstance(given, str):
        raise TypeError(f"{what} is given as a UUID or its text, not as {type(given).__name__}")
    try:
        return UUID(given)
    except ValueError:
        raise ValueError(f"{what} is given as a UUID or its text, and {given[:80]!r} is neither") from None
