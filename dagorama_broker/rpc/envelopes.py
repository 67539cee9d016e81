"""Reads the names of large values from envelopes, of which the broker knows nothing else.

The rule: a malformed envelope is no error here; its reader refuses it.
"""

from __future__ import annotations

from struct import Struct

from dagorama.api.contract import COUNT_LAYOUT, LARGE, PART_LAYOUT, PARTS

_PART, _COUNT = Struct(PART_LAYOUT), Struct(COUNT_LAYOUT)


def large_in(envelope: bytes) -> list[bytes]:
    """Return the SHA-256 of large values that an envelope names; a malformed envelope names none.

    docs/reference/envelopes.md has the layout.
    """
    names: list[bytes] = []
    end = len(envelope)
    if envelope[1] & PARTS:
        end -= _COUNT.size
        if end < 2:
            return names
        start = end - _PART.size * _COUNT.unpack_from(envelope, end)[0]
        if not 2 <= start < end:
            return names
        names += [digest for _, digest, _ in _PART.iter_unpack(envelope[start:end])]
        end = start
    if envelope[1] & LARGE and end > 33:
        names.append(envelope[end - 32 : end])
    return names
