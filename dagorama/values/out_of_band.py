"""Large parts of values: left out of the pickle, at any depth, and stored under the SHA-256 of their bytes.

    BYTES, BYTEARRAY   become the same type again; one object in several places is one object again
    BUFFER             a buffer that an object gives to the pickler (PEP 574), such as the data of an array; writable
    KEPT               a part of a value given to put(), whose own table has its kind

The rule: nothing here runs for the objects of a value that is not large. Fetched bytes are compared with the length and
SHA-256 in the signed table before they are used.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from types import MappingProxyType
from typing import Any, NamedTuple

from dagorama.errors import ValueNotReadable
from dagorama.models import stored
from dagorama.models.value_ref import ValueRef
from dagorama.values.envelope import Part, content, large_of, parts_of

BYTES, BYTEARRAY, BUFFER, KEPT = range(4)
#: The largest number of parts of one value; all others stay in the pickle.
MOST = 1000

_KINDS: dict[type, int] = {bytes: BYTES, bytearray: BYTEARRAY}

Buffer = bytes | bytearray | memoryview


class Verified(NamedTuple):
    """Bytes whose SHA-256 the sender has compared already."""

    data: Buffer


PutLarge = Callable[[Buffer], bytes]  #: stores bytes and returns their SHA-256
#: Returns the bytes with a SHA-256. A writable buffer belongs to the caller alone.
GetLarge = Callable[[bytes], "Buffer | Verified"]

_Member = tuple[int, int]  # a part of a value given to put(): index in the table of the envelope, and kind


class OutOfBandWriter:
    """The parts that one pickler leaves out: large ones, of `large_from` bytes or more, and parts of put() values."""

    __slots__ = ("_by_object", "_kept", "_large_from", "_parts")

    def __init__(self, large_from: int | None = None) -> None:
        self._large_from = large_from
        self._parts: list[Part | tuple[Any, int]] = []
        self._by_object: dict[int, int] = {}
        self._kept: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def persistent_id(self, found: Any) -> int | None:
        """Return the index of an object that is left out, or None; the pickler calls this for every object."""
        kind = _KINDS.get(type(found))
        if kind is None or self._large_from is None or len(found) < self._large_from:
            return None
        index = self._by_object.get(id(found))
        if index is None and len(self) < MOST:
            # The reference there keeps the object alive, so that its `id()` is not reused.
            index = self._by_object[id(found)] = self._add((found, kind))
        return index

    def buffer_callback(self, buffer: pickle.PickleBuffer) -> bool:
        """Return whether a buffer stays in the pickle; the pickler calls this for every PickleBuffer."""
        raw = buffer.raw()
        if self._large_from is None or raw.nbytes < self._large_from or len(self) >= MOST:
            return True
        self._add((raw, BUFFER))
        return False

    def reduce_kept(self, kept: ValueRef) -> tuple[Callable[..., object], tuple[bytes | int, tuple[_Member, ...]]]:
        """Reduce a reference of put() to the value itself, for the dispatch table of the pickler."""
        large, parts = large_of(kept._envelope), parts_of(kept._envelope)
        if large is None:
            data: bytes | int = bytes(content(kept._envelope))
        else:
            data = self._add_kept(Part(large[1], large[0], KEPT))
        return _put_value, (data, tuple((self._add_kept(part), part.kind) for part in parts))

    def stored(self, put_large: PutLarge | None) -> list[Part]:
        """Store all parts; return their table."""
        table: list[Part] = []
        for part in self._parts:
            if isinstance(part, Part):
                table.append(part)
            else:
                assert put_large is not None
                data, kind = part
                table.append(Part(len(data), put_large(data), kind))
        return table

    def _add(self, part: Part | tuple[Any, int]) -> int:
        self._parts.append(part)
        return len(self._parts) - 1

    def _add_kept(self, part: Part) -> int:
        index = self._kept.get(part.digest)
        if index is None:
            index = self._kept[part.digest] = self._add(part._replace(kind=KEPT))
        return index


@stored.named("put_value")
def _put_value(data: bytes | int, members: Sequence[_Member]) -> object:
    """Return a value of put() without large parts; `OutOfBandReader.kept` replaces this function if it has some."""
    if isinstance(data, int) or members:
        raise ValueNotReadable("this pickle holds a value of put(): read it with dagorama.values.codec")
    return pickle.loads(data)


class OutOfBandReader:
    """The parts of one envelope, fetched when the unpickler needs them."""

    def __init__(self, table: Sequence[Part], get_large: GetLarge | None) -> None:
        self._table = table
        self._get_large = get_large
        self._objects: dict[int, object] = {}

    def load(self, index: int) -> object:
        """Return an object that persistent_id() has left out, the same one for each occurrence."""
        if index not in self._objects:
            part = self._table[index]
            data = fetched(part.digest, part.length, self._get_large)
            self._objects[index] = bytearray(data) if part.kind == BYTEARRAY else bytes(data)
        return self._objects[index]

    def buffers(self) -> Iterator[Buffer]:
        """Yield the buffers that buffer_callback() has left out, in that order."""
        for part in self._table:
            if part.kind == BUFFER:
                data = fetched(part.digest, part.length, self._get_large)
                yield bytearray(data) if isinstance(data, bytes) or memoryview(data).readonly else data

    def kept(self, data: bytes | int, members: Sequence[_Member]) -> object:
        """Return a new copy of a value of put()."""
        table = [self._table[index]._replace(kind=kind) for index, kind in members]
        if isinstance(data, int):
            part = self._table[data]
            return loads(fetched(part.digest, part.length, self._get_large), OutOfBandReader(table, self._get_large))
        return loads(data, OutOfBandReader(table, self._get_large))


class Unpickler(pickle.Unpickler):
    """An unpickler that takes parts outside the pickle from `parts`, and replaces functions by those in `fills`."""

    parts: OutOfBandReader
    fills: Mapping[tuple[str, str], Callable[..., object]]

    def find_class(self, module: str, name: str, /) -> Any:
        """Return a function or class; the unpickler calls this once for each name in a pickle."""
        found = self.fills.get((module, name))
        return super().find_class(module, name) if found is None else found

    def persistent_load(self, index: Any, /) -> object:
        return self.parts.load(index)


_PUT_VALUE = stored.global_name("put_value")
_Fills = Mapping[tuple[str, str], Callable[..., object]]


def loads(data: Buffer, parts: OutOfBandReader | None, fills: _Fills = MappingProxyType({})) -> object:
    """Return the object in a pickle; `fills` has replacements for functions that it names."""
    if parts is None:
        unpickler = Unpickler(BytesIO(data))
        unpickler.fills = fills
    else:
        unpickler = Unpickler(BytesIO(data), buffers=parts.buffers())
        unpickler.parts = parts
        unpickler.fills = {_PUT_VALUE: parts.kept, **fills}
    return unpickler.load()


def fetched(digest: bytes, length: int, get_large: GetLarge | None) -> Buffer:
    """Return bytes that are stored separately; raise ValueNotReadable if other bytes are received."""
    if get_large is None:
        raise ValueNotReadable("it is stored separately and cannot be fetched here")
    found = get_large(digest)
    is_checked = isinstance(found, Verified)
    data: Buffer = found.data if isinstance(found, Verified) else found
    if len(data) != length or (not is_checked and sha256(data).digest() != digest):
        raise ValueNotReadable("other bytes were received for it")
    return data
