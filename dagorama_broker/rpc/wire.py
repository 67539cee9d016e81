"""Looks at messages before they are parsed: a part of two bytes becomes an object of hundreds.

Only the outermost parts are counted, and only of large messages; protobuf does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: Bytes up to which a message may be of any form, and parts that it may have in any case.
SMALL, FEW = 256 << 10, 10_000
#: Bytes of a message from which it is looked at before it is parsed.
LARGE = 64 << 10
#: By the path of a method: what each byte of a request becomes at least, where a request may be refused for memory.
BECOMES = {
    "/dagorama.v1.Broker/SubmitStream": 2,
    **dict.fromkeys((f"/dagorama.v1.Broker/{call}" for call in ("Wait", "Cancel", "Retry")), 25),
}  # fmt: skip
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Form(NamedTuple):
    """What a message looks like if it comes from a client of ours."""

    least: int  #: bytes of a part, on the whole
    inner: dict[int, Form] = {}  #: forms of large parts, by the number of their field


_SUBMISSION = Form(20)
#: By the path of a method: what is sent to it.
FORMS = {
    "/dagorama.v1.Broker/SubmitStream": _SUBMISSION,
    "/dagorama.v1.Broker/Talk": Form(12, {1: Form(1, {2: _SUBMISSION})}),
    "/dagorama.v1.Broker/Work": Form(8),
}


def has_too_many_parts(data: bytes, form: Form, start: int = 0, end: int | None = None) -> bool:
    """Whether a message has far more parts than its bytes have room for with what each part needs."""
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
    """Field, start and end of each length-delimited part; ends early where the parser will find fault."""
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
    """The number at this place, and where the next begins."""
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
