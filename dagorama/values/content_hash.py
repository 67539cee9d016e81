"""A hash of the content of a value that is the same in all processes, for cache keys.

The rule: equal values of the types below have equal hashes, and a value of any other type is refused, with its path. A
pickle would differ between equal values, and an object's default hash between processes: both would miss in silence.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import sha256
from pathlib import PurePath
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from dagorama.errors import UncacheableArgument

#: Types whose repr() tells any two different values of the same type apart.
_BY_REPR = frozenset({
    NoneType, bool, int, float, complex, str, bytes, bytearray, datetime, date, time, timedelta, timezone, Decimal,
    Fraction, UUID, ZoneInfo, range, type(...),
})  # fmt: skip
#: Containers within containers that are read.
DEPTH = 100

_Part = tuple[str, object]  # a part of a value, and what to add to the value's path for it


def content_hash(value: object, path: str) -> bytes:
    """Return the SHA-256 of a value. Raises UncacheableArgument, which names the part after `path`."""
    return _hash(value, path, DEPTH)


def _hash(value: object, path: str, depth: int) -> bytes:
    kind = type(value)
    if kind in _BY_REPR or isinstance(value, PurePath):
        return _tagged(kind, [repr(value).encode("utf-8", "surrogatepass")])
    if not depth:
        raise UncacheableArgument(f"{path} has more than {DEPTH} containers within each other, or contains itself")
    if kind in _UNORDERED:
        return _tagged(kind, sorted(_hash(part, f"an item of {path}", depth - 1) for part in _items(value)))
    if kind in _MAPPINGS:
        return _tagged(kind, _pairs(value, path, depth))
    if isinstance(value, Enum):
        return _tagged(kind, [value.name.encode()])
    parts = _parts(value, kind)
    if parts is not None:
        return _tagged(kind, [_hash(part, path + step, depth - 1) for step, part in parts])
    for library, read in _LIBRARIES.items():
        if library in sys.modules and (found := read(value)) is not None:
            return _tagged(kind, found)
    raise UncacheableArgument(
        f"{path} is of type {kind.__module__}.{kind.__qualname__}, whose content cannot be compared: pass plain "
        "values, dataclasses, models or arrays, or say what tells calls apart, with Cache(key=...)"
    )


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


_UNORDERED = frozenset({set, frozenset})
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})
_SEQUENCES = frozenset({list, tuple, deque})


def _parts(value: Any, kind: type) -> list[_Part] | None:
    """Return the parts of a sequence, a named tuple, a dataclass or a model; None for other types."""
    if kind in _SEQUENCES:
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return [(f".{name}", getattr(value, name)) for name in kind._fields]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name)) for field in fields(value)]
    if (names := getattr(kind, "__struct_fields__", None)) is not None:  # msgspec
        return [(f".{name}", getattr(value, name)) for name in names]
    if hasattr(kind, "__attrs_attrs__"):
        return [(f".{field.name}", getattr(value, field.name)) for field in kind.__attrs_attrs__]
    if hasattr(kind, "__pydantic_fields__"):
        own: dict[str, object] = {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
        return [(f".{name}", part) for name, part in sorted(own.items())]
    return None


def _tagged(kind: type, parts: Iterable[bytes]) -> bytes:
    found = sha256(f"{kind.__module__}.{kind.__qualname__}\0".encode())
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.digest()


# --- arrays and tables ---------------------------------------------------------------------------------


def _numpy(value: Any) -> list[bytes] | None:
    numpy: Any = sys.modules["numpy"]
    if not isinstance(value, (numpy.ndarray, numpy.generic)) or value.dtype.hasobject:
        return None
    shape = repr((value.dtype.descr if value.dtype.names else value.dtype.str, value.shape)).encode()
    return [shape, sha256(numpy.ascontiguousarray(value).data).digest() if value.size else b""]


def _arrow(value: Any) -> list[bytes] | None:
    pyarrow: Any = sys.modules["pyarrow"]
    if isinstance(value, (pyarrow.Array, pyarrow.ChunkedArray)):
        value = pyarrow.table({"": value})
    if isinstance(value, pyarrow.RecordBatch):
        value = pyarrow.Table.from_batches([value])
    if not isinstance(value, pyarrow.Table):
        return None
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, value.schema) as stream:
        stream.write_table(value.combine_chunks())
    return [sha256(sink.getvalue()).digest()]


#: How values of libraries are read, if these are loaded; each returns None for a value that is not of its types.
_LIBRARIES: dict[str, Callable[[Any], list[bytes] | None]] = {"numpy": _numpy, "pyarrow": _arrow}
