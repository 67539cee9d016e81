"""A digest of arguments that is the same in all processes: equal plain values have equal digests.

A pickle is not: it depends on the order of a set and on which equal strings are one object.

The rule: values of these types are read; an object of any other type counts as its pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from types import NoneType
from uuid import UUID

from dagorama.errors import NotPicklable
from dagorama.values.codec import encode

#: Types whose repr() tells any two different values of the same type apart.
_BY_REPR = frozenset({
    NoneType, bool, int, float, complex, str, bytes, datetime, date, time, timedelta, Decimal, UUID,
})  # fmt: skip
#: Containers within containers that are read; deeper ones count as their pickles.
DEPTH = 50


def stable_digest(value: object, what: str = "value") -> bytes:
    """Return the SHA-256 of a value; raise NotPicklable, with `what` as a noun, for one that cannot be pickled."""
    return _digest(value, what, DEPTH)


def _digest(value: object, what: str, depth: int) -> bytes:
    kind = type(value)
    if kind in _BY_REPR or isinstance(value, PurePath):
        return _hash(kind, [repr(value).encode()])
    read = _readers.get(kind)
    if depth and read is not None:
        return _hash(kind, read(value, lambda part: _digest(part, what, depth - 1)))
    if isinstance(value, Enum):
        return _hash(kind, [value.name.encode()])
    if depth and is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
        return _hash(kind, [_digest(parts, what, depth - 1)])
    return _hash(kind, [_pickled(value, what)])


def _hash(kind: type, parts: Iterable[bytes]) -> bytes:
    found = sha256(f"{kind.__qualname__}\0".encode())
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.digest()


def _pickled(value: object, what: str) -> bytes:
    try:
        return encode(value, what).envelope
    except RecursionError as error:
        raise NotPicklable(f"the {what} has containers within too many others") from error


_readers: dict[type, Callable[..., Iterable[bytes]]] = {
    list: lambda value, digest: map(digest, value),
    tuple: lambda value, digest: map(digest, value),
    set: lambda value, digest: sorted(map(digest, value)),
    frozenset: lambda value, digest: sorted(map(digest, value)),
    dict: lambda value, digest: sorted(digest(key) + digest(part) for key, part in value.items()),
}
