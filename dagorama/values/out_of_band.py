"""Large parts of values: left out of the pickle and kept under the SHA-256 of their bytes, wherever they stand.

    BYTES, BYTEARRAY   come back as what they were; one that stands in several places is one object again
    BUFFER             what an object hands the pickler out of band, such as the data of an array; comes back writable
    KEPT               of a value given to put(), whose own table says what it is

The rule: nothing here runs for the objects of a value that is not large. What is fetched is compared with the length
and SHA-256 in the table, which is signed, before anything looks at it.
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
from dagorama.models.value_ref import Kept
from dagorama.values.envelope import Part, large_of, parts_of, pickle_in

BYTES, BYTEARRAY, BUFFER, KEPT = range(4)
#: parts of one value; what it has beyond that stays in the pickle
MOST = 1000

_KINDS: dict[type, int] = {bytes: BYTES, bytearray: BYTEARRAY}

Buffer = bytes | bytearray | memoryview


class Checked(NamedTuple):
    """Bytes whose SHA-256 was compared already, by who hands them over."""

    data: Buffer


PutLarge = Callable[[Buffer], bytes]  #: stores bytes and returns their SHA-256
#: The bytes of a SHA-256. What can be written to is the caller's own: nobody else sees that.
GetLarge = Callable[[bytes], "Buffer | Checked"]

_Member = tuple[int, int]  # of a value given to put(): place in the table of the envelope that it is in, and kind


class LeftOut:
    """What one pickler leaves out: parts of `large_from` bytes and more, and those of values given to put()."""

    __slots__ = ("_by_object", "_kept", "_large_from", "_parts")

    def __init__(self, large_from: int | None = None) -> None:
        self._large_from = large_from
        self._parts: list[Part | tuple[Any, int]] = []
        self._by_object: dict[int, int] = {}
        self._kept: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def persistent_id(self, found: Any) -> int | None:
        """The pickler's: asked for every object of a large value."""
        kind = _KINDS.get(type(found))
        if kind is None or self._large_from is None or len(found) < self._large_from:
            return None
        index = self._by_object.get(id(found))
        if index is None and len(self) < MOST:
            # It is held there, so that its id stays its own.
            index = self._by_object[id(found)] = self._add((found, kind))
        return index

    def buffer_callback(self, buffer: pickle.PickleBuffer) -> bool:
        """The pickler's: whether a buffer stays in the pickle."""
        raw = buffer.raw()
        if self._large_from is None or raw.nbytes < self._large_from or len(self) >= MOST:
            return True
        self._add((raw, BUFFER))
        return False

    def reduce_kept(self, kept: Kept) -> tuple[Callable[..., object], tuple[bytes | int, tuple[_Member, ...]]]:
        """For the pickler's dispatch table: the value of put() takes the place of what it has returned."""
        large, parts = large_of(kept._envelope), parts_of(kept._envelope)
        if large is None:
            data: bytes | int = bytes(pickle_in(kept._envelope))
        else:
            data = self._add_kept(Part(large[1], large[0], KEPT))
        return _put_value, (data, tuple((self._add_kept(part), part.kind) for part in parts))

    def stored(self, put_large: PutLarge | None) -> list[Part]:
        """The table, when everything in it is stored."""
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
    """Return a value of put() without large parts; `PartsIn.kept` replaces this function for one that has some."""
    if isinstance(data, int) or members:
        raise ValueNotReadable("this pickle holds a value of put(): read it with dagorama.values.codec")
    return pickle.loads(data)


class PartsIn:
    """The parts of one envelope as its unpickler asks for them."""

    def __init__(self, table: Sequence[Part], get_large: GetLarge | None) -> None:
        self._table = table
        self._get_large = get_large
        self._objects: dict[int, object] = {}

    def load(self, index: int) -> object:
        """For what persistent_id() has left out: the same object each time."""
        if index not in self._objects:
            part = self._table[index]
            data = fetched(part.digest, part.length, self._get_large)
            self._objects[index] = bytearray(data) if part.kind == BYTEARRAY else bytes(data)
        return self._objects[index]

    def buffers(self) -> Iterator[Buffer]:
        """What buffer_callback() has left out, in that order."""
        for part in self._table:
            if part.kind == BUFFER:
                data = fetched(part.digest, part.length, self._get_large)
                yield bytearray(data) if isinstance(data, bytes) or memoryview(data).readonly else data

    def kept(self, data: bytes | int, members: Sequence[_Member]) -> object:
        """A value of put(), made anew."""
        table = [self._table[index]._replace(kind=kind) for index, kind in members]
        if isinstance(data, int):
            part = self._table[data]
            return loads(fetched(part.digest, part.length, self._get_large), PartsIn(table, self._get_large))
        return loads(data, PartsIn(table, self._get_large))


class Unpickler(pickle.Unpickler):
    """Takes what is left out of a pickle from `parts`, and what stands for something else from `fills`."""

    parts: PartsIn
    fills: Mapping[tuple[str, str], Callable[..., object]]

    def find_class(self, module: str, name: str, /) -> Any:
        """Asked once for each class that a pickle names."""
        found = self.fills.get((module, name))
        return super().find_class(module, name) if found is None else found

    def persistent_load(self, index: Any, /) -> object:
        return self.parts.load(index)


_PUT_VALUE = stored.global_name("put_value")
_Fills = Mapping[tuple[str, str], Callable[..., object]]


def loads(data: Buffer, parts: PartsIn | None, fills: _Fills = MappingProxyType({})) -> object:
    """The object in a pickle; `fills` stand in the places of functions that it names."""
    if parts is None:
        unpickler = Unpickler(BytesIO(data))
        unpickler.fills = fills
    else:
        unpickler = Unpickler(BytesIO(data), buffers=parts.buffers())
        unpickler.parts = parts
        unpickler.fills = {_PUT_VALUE: parts.kept, **fills}
    return unpickler.load()


def fetched(digest: bytes, length: int, get_large: GetLarge | None) -> Buffer:
    """Bytes that are kept elsewhere. Raises ValueNotReadable where others come."""
    if get_large is None:
        raise ValueNotReadable("it is kept elsewhere, and here is no way to fetch it")
    found = get_large(digest)
    is_checked = isinstance(found, Checked)
    data: Buffer = found.data if isinstance(found, Checked) else found
    if len(data) != length or (not is_checked and sha256(data).digest() != digest):
        raise ValueNotReadable("what was fetched for it is something else")
    return data
