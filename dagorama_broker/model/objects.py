"""Records about large values that are objects of an object store, and the names of objects."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = re.compile("[0-9a-f]{2}/([0-9a-f]{64})/[0-9a-f]{16}")


class ObjectRow(NamedTuple):
    """Which object holds a large value."""

    sha256: bytes
    length: int  #: bytes
    object: str  #: its name below the prefix of the values
    kept: float  #: when it was stored, seconds since 1970


class NewObject(NamedTuple):
    """An object that is to hold a large value."""

    row: ObjectRow
    replaced: str = ""  #: the object that held the value and is lost; empty: there is none


class Placing(NamedTuple):
    """The place to which the bytes of a value are sent, or from which they are read, for some time."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()  #: of the request
    object: str = ""  #: the name of the object, for an upload


def object_name(sha256: bytes, random: bytes) -> str:
    """Return the name of an object for a value, with 8 random bytes."""
    digest = sha256.hex()
    return f"{digest[:2]}/{digest}/{random.hex()}"


def value_in(name: str) -> bytes | None:
    """Return the SHA-256 of the value that an object of this name would hold; None for the name of another object."""
    found = _NAME.fullmatch(name)
    return None if found is None else bytes.fromhex(found[1])
