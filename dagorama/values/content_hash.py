"""A hash of the content of a value that is the same in all processes, for cache keys.

The rule: equal values of the types below have equal hashes, and a value of any other type is refused, with its path. A
pickle would differ between equal values, and an object's default hash between processes: both would miss in silence.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import sha256
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from dagorama.api.text_forms import TOO_LONG
from dagorama.errors import UncacheableArgument
from dagorama.values.content_arrays import LIBRARIES
from dagorama.values.content_parts import UNSET, parts_of

#: Types whose repr() tells any two different values of the same type apart.
_BY_REPR = frozenset({
    NoneType, bool, int, float, complex, str, bytes, bytearray, datetime, date, time, timedelta, timezone, Decimal,
    Fraction, UUID, ZoneInfo, range, type(...),
})  # fmt: skip
_PATHS = frozenset({PurePosixPath, PureWindowsPath, PosixPath, WindowsPath})
#: Containers within containers that are read.
DEPTH = 100
_INSTEAD = "pass plain values, dataclasses, models or arrays, or say what tells calls apart, with Cache(key=...)"


def content_hash(value: object, path: str) -> bytes:
    """Return the SHA-256 of a value. Raises UncacheableArgument, which names the part after `path`."""
    return _hash(value, path, DEPTH)


def _hash(value: object, path: str, depth: int) -> bytes:
    try:
        return _found(value, path, depth)
    except (UncacheableArgument, MemoryError):
        raise
    except Exception as error:  # a property, a `__repr__` or a library that cannot cope with the value
        raise _refusal(value, path, f"could not be read ({type(error).__name__}: {error})") from error


def _found(value: object, path: str, depth: int) -> bytes:
    kind = type(value)
    if kind in _BY_REPR or kind in _PATHS:
        return _tagged(kind, [part.encode("utf-8", "surrogatepass") for part in _texts(value, path)])
    if not depth:
        raise UncacheableArgument(
            f"{path} has more than {DEPTH} containers within each other, or contains itself: {_INSTEAD}"
        )
    if kind in _UNORDERED:
        return _tagged(kind, sorted(_hash(part, f"an item of {path}", depth - 1) for part in _items(value)))
    if kind in _MAPPINGS:
        return _tagged(kind, [*_pairs(value, path, depth), *_factory(value, path)])
    if isinstance(value, Enum):
        # Flags that have no name of their own are told apart by their bits.
        return _tagged(kind, [b"", repr(value._value_).encode()] if value.name is None else [value.name.encode()])
    if value is UNSET:
        return sha256(b"a field that has no value").digest()
    parts = parts_of(value, kind)
    if parts is not None:
        return _tagged(kind, [_hash(part, path + step, depth - 1) for step, part in parts])
    for library, read in LIBRARIES.items():
        if library in sys.modules and (found := read(value)) is not None:
            return _tagged(kind, found)
    raise _refusal(value, path, "cannot be compared")


def _refusal(value: object, path: str, why: str) -> UncacheableArgument:
    kind = type(value)
    return UncacheableArgument(
        f"{path} is of type {kind.__module__}.{kind.__qualname__}, whose content {why}: {_INSTEAD}"
    )


def _texts(value: Any, path: str) -> list[str]:
    """Return what tells a value apart from all others of its type, whose repr() usually does."""
    if isinstance(value, int) and abs(value) >= TOO_LONG:  # it has no repr(), unless the process allows it
        return [hex(value)]
    if isinstance(value, ZoneInfo) and value.key is None:
        raise _refusal(value, path, "cannot be compared, as it was read from a file")
    zone: tzinfo | None = getattr(value, "tzinfo", None)
    if zone is None or type(zone) is timezone:
        return [repr(value)]
    if isinstance(zone, ZoneInfo) or type(zone).__repr__ is object.__repr__ or " at 0x" in repr(zone):
        found = content_hash(zone, f"{path}.tzinfo")
        if isinstance(zone, ZoneInfo):
            return [repr(value)]
        local: Any = value  # a datetime or a time
        return [repr(local.replace(tzinfo=None)), found.hex()]
    return [repr(value)]


def _items(value: Any) -> Iterable[object]:
    found: Iterable[object] = value  # a set or a frozenset
    return found


def _pairs(value: Any, path: str, depth: int) -> list[bytes]:
    mapping: Mapping[object, object] = value
    pairs = [
        _hash(key, f"a key of {path}", depth - 1) + _hash(part, f"{path}[{key!r}]", depth - 1)
        for key, part in mapping.items()
    ]
    return pairs if isinstance(value, OrderedDict) else sorted(pairs)


def _factory(value: object, path: str) -> list[bytes]:
    """Return what tells apart which values a defaultdict makes for missing keys; nothing for other mappings."""
    factory = value.default_factory if isinstance(value, defaultdict) else None
    if factory is None:
        return []
    if isinstance(factory, type):
        return [f"{factory.__module__}.{factory.__qualname__}".encode()]
    raise _refusal(factory, f"{path}.default_factory", "cannot be compared")


_UNORDERED = frozenset({set, frozenset})
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})


def _tagged(kind: type, parts: Iterable[bytes]) -> bytes:
    found = sha256(f"{kind.__module__}.{kind.__qualname__}\0".encode())
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.digest()
