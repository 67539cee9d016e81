"""Reads arrays and tables for their hash: their types, their shapes and their bytes.

The rule: only types are read whose whole content is known here. A subclass may hold more, and is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from typing import Any

#: Arrays of numpy that hold nothing but their items.
_ARRAYS = frozenset({"ndarray", "matrix", "recarray", "memmap", "chararray"})


def _numpy(value: Any) -> list[bytes] | None:
    numpy: Any = sys.modules["numpy"]
    if not isinstance(value, (numpy.ndarray, numpy.generic)) or value.dtype.hasobject:
        return None
    if type(value) is numpy.ma.MaskedArray:
        # Items under the mask count too: a function can read them.
        masks = numpy.ma.getmaskarray(value), numpy.asarray(value.fill_value)
        return [b"masked", *_array(value.data), *_array(masks[0]), *_array(masks[1]), repr(value.hardmask).encode()]
    kind = type(value)
    is_known = kind is value.dtype.type or (kind.__module__.startswith("numpy") and kind.__qualname__ in _ARRAYS)
    return _array(value) if is_known else None


def _array(value: Any) -> list[bytes]:
    shape = repr((value.dtype.descr if value.dtype.names else value.dtype.str, value.shape)).encode()
    return [shape, sha256(_bytes(value)).digest() if value.size else b""]


def _bytes(value: Any) -> Any:
    """Return the bytes of the items, in C order, with zeros between fields: what is there is left to chance."""
    numpy: Any = sys.modules["numpy"]
    plain = _without_padding(numpy.asarray(value))
    if not plain.dtype.itemsize:
        return b""
    return numpy.ascontiguousarray(plain).reshape(-1).view(numpy.uint8)


def _without_padding(array: Any) -> Any:
    numpy: Any = sys.modules["numpy"]
    if array.dtype.names:
        clean = numpy.zeros(array.shape, array.dtype)
        for name in array.dtype.names:
            clean[name] = _without_padding(array[name])
        return clean
    if array.dtype.kind in "fc" and (unused := _unused(numpy, array.dtype)):
        parts = numpy.array(array, order="C", ndmin=1).view(numpy.uint8).reshape(-1, unused[0])
        parts[:, unused[1] :] = 0
        return parts
    return array


def _unused(numpy: Any, dtype: Any) -> tuple[int, int] | None:
    """Return the bytes of a number, and of these the used ones, if it is an 80-bit one of x86; None otherwise."""
    size = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    return (size, 10) if size > 10 and numpy.finfo(dtype).nmant == 63 else None


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
LIBRARIES: dict[str, Callable[[Any], list[bytes] | None]] = {"numpy": _numpy, "pyarrow": _arrow}
