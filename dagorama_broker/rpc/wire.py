"""Checks the form of messages before they are parsed: a part of two bytes becomes an object of hundreds.

Only the outermost parts are counted, and only of large messages; protobuf checks the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: Bytes up to which a message may have any form, and the number of parts that any message may have.
SMALL, FEW = 256 << 10, 10_000
#: Bytes from which a message is checked before it is parsed.
LARGE = 64 << 10
#: The least size of a parsed request for each of its bytes, by method; for requests that may be refused for memory.
BECOMES = {
    "/dagorama.v1.Broker/SubmitStream": 2,
    **dict.fromkeys((f"/dagorama.v1.Broker/{call}" for call in ("Wait", "Cancel", "Retry")), 25),
}  # fmt: skip
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Form(NamedTuple):
    """The form of a message that a dagorama client sends."""

    least: int  #: bytes of a part, on average
    inner: dict[int, Form] = {}  #: forms of large parts, by field number


_SUBMISSION = Form(20)
#: The forms of requests, by method.
FORMS = {
    "/dagorama.v1.Broker/SubmitStream": _SUBMISSION,
    "/dagorama.v1.Broker/Exchange": Form(12, {1: Form(1, {2: _SUBMISSION})}),
    "/dagorama.v1.Broker/Work": Form(8),
}


def has_too_many_parts(data: bytes, form: Form, start: int = 0, end: int | None = None) -> bool:
    """Return whether a message has more parts than fit into its bytes with the least size of a part."""
    end = len(data) if end is None else end
    if end - start <= SMALL:
        return False
    left = FEW + (end - start) // form.least
    for field, part, part_end in _parts(data, start, end):
        left -= 1
        if not left:
            return True
        inner = form.inner.get(field)
        if inner is not None and has_too_many_parts(data, inner, part, part_end):
            return True
    return False


def _parts(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield field, start and end of each length-delimited part; stop early if the parser will raise an error."""
    at = start
    try:
        while at < end:
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == _BYTES:
                length, at = _varint(data, at)
                yield tag >> 3, at, min(at + length, end)
                at += length
            elif kind == _VARINT:
                _, at = _varint(data, at)
            elif kind in (_FIXED64, _FIXED32):
                at += 8 if kind == _FIXED64 else 4
            else:
                return
    except IndexError:
        return


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at this offset, and the offset behind it."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    number, shift = byte & 0x7F, 7
    while byte >= 0x80:
        if shift > 63:
            raise IndexError("a number has more than ten bytes")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
    return number, at
