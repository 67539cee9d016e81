"""Ids of instances and nodes, as callers give them and as objects have them."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID


class InstanceRef(Protocol):
    """An object that stands for an instance: a DAGInstance, and nothing else that dagorama makes."""

    @property
    def instance_id(self) -> UUID: ...


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
