"""The byte layout of envelopes: a header, a table of the promises inside, and a pickle or JSON.

    byte 0   1, the version
    byte 1   flags: 1 SIGNED, 2 LARGE, 4 REFS, 8 PARTS, 16 JSON, 128 REFRESH; or alone 32, SIGNAL, or 64, FOUND, below
    SIGNED   8-byte key ID, 16-byte instance, 32-byte MAC; `signing` makes and checks it
    REFS     u32 groups; for each: 12-byte origin, u32 n, n times u32 counter   (little-endian)
    body     the pickle, or if JSON a text in UTF-8; if LARGE, u64 length and SHA-256 of it, stored separately
    PARTS    for each large part outside the pickle: u64 length, SHA-256, u8 kind; then their number as u32
             (at the end, so that the digests can be read without the rest)

The rule: nothing is unpickled here.
"""

from collections.abc import Iterator, Sequence
from struct import Struct, pack, unpack_from
from struct import error as StructError
from typing import Any, NamedTuple

from dagorama.api.contract import (
    CACHE_KEY_BYTES,
    CACHE_SIGNATURE_BYTES,
    COUNT_LAYOUT,
    ENVELOPE_VERSION,
    FOUND,
    INSTANCE_BYTES,
    JSON,
    LARGE,
    NODE_ID_BYTES,
    ORIGIN_BYTES,
    PART_LAYOUT,
    PARTS,
    REFRESH,
    REFS,
    SIGNAL,
    SIGNED,
)
from dagorama.errors import ValueNotReadable
from dagorama.models.promise import DAGPromise

MARKS = SIGNED | LARGE | REFS | PARTS | JSON | REFRESH
#: Bytes that a signature adds to an envelope.
SIGNATURE_BYTES = 8 + 16 + 32
#: Version and flags of an envelope that contains only a pickle.
PLAIN = bytes([ENVELOPE_VERSION, 0])

#: Version and flags of envelopes that contain only a pickle, or only JSON.
WHOLE = frozenset({PLAIN, bytes([ENVELOPE_VERSION, JSON])})

_U32 = Struct(COUNT_LAYOUT)
_GROUP = Struct(f"<{ORIGIN_BYTES}sI")
_LARGE = Struct("<Q32s")
_PART = Struct(PART_LAYOUT)


class Part(NamedTuple):
    """Bytes that are stored separately under their SHA-256, and the kind of object they become: see `out_of_band`."""

    length: int
    digest: bytes
    kind: int


def references(envelope: bytes) -> list[bytes]:
    """Return the IDs of the promises in an envelope, in the order of its table."""
    try:
        return [
            origin + counter.to_bytes(4, "big")
            for origin, count, start in _groups(envelope)
            for counter in unpack_from(f"<{count}I", envelope, start)
        ]
    except StructError as error:
        raise ValueNotReadable("the envelope's table of promises is cut short") from error


def large_of(envelope: bytes) -> tuple[bytes, int] | None:
    """Return SHA-256 and length of the pickle if it is stored separately, or None if the envelope contains it."""
    if not flags(envelope) & LARGE:
        return None
    try:
        length, digest = _LARGE.unpack_from(envelope, body(envelope)[1])
    except StructError as error:
        raise ValueNotReadable("the envelope of a large value is cut short") from error
    return digest, length


def parts_of(envelope: bytes) -> list[Part]:
    """Return the large parts outside the pickle, in the order of their indices in it."""
    if not flags(envelope) & PARTS:
        return []
    try:
        number, start = _trailer(envelope)
        return [Part(*_PART.unpack_from(envelope, start + _PART.size * index)) for index in range(number)]
    except StructError as error:
        raise ValueNotReadable("the envelope's table of large parts is cut short") from error


def large_values(envelope: bytes) -> list[bytes]:
    """Return the SHA-256 of everything that is stored separately, each once."""
    large = large_of(envelope)
    names = [part.digest for part in parts_of(envelope)]
    return list(dict.fromkeys(names if large is None else [large[0], *names]))


def size_of(envelope: bytes) -> int:
    """Return the number of bytes of the pickle or JSON, including separately stored ones."""
    large = large_of(envelope)
    return (len(content(envelope)) if large is None else large[1]) + sum(part.length for part in parts_of(envelope))


def seal(
    pickled: bytes,
    promises: Sequence[DAGPromise[Any]] = (),
    large: bytes | None = None,
    parts: Sequence[Part] = (),
    kind: int = 0,
) -> bytes:
    """Return the envelope of a pickle, or of JSON if `kind` is JSON; `large` is its SHA-256 if stored separately."""
    if not promises and large is None and not parts and not kind:
        return PLAIN + pickled
    marks = kind | (REFS if promises else 0) | (LARGE if large is not None else 0) | (PARTS if parts else 0)
    held = pickled if large is None else _LARGE.pack(len(pickled), large)
    trailer = [_PART.pack(*part) for part in parts] + [_U32.pack(len(parts))] if parts else []
    return b"".join((bytes((ENVELOPE_VERSION, marks)), _table(promises) if promises else b"", held, *trailer))


def refreshed(envelope: bytes) -> bytes:
    """Return the envelope of arguments with the mark that their node runs even if its value is cached."""
    return bytes((envelope[0], envelope[1] | REFRESH)) + envelope[2:]


def content(envelope: bytes) -> memoryview:
    """Return the pickle or JSON in an envelope that is not LARGE."""
    end = _trailer(envelope)[1] if flags(envelope) & PARTS else len(envelope)
    return memoryview(envelope)[body(envelope)[1] : end]


def _trailer(envelope: bytes) -> tuple[int, int]:
    """Return the number of parts in the table at the end, and its position."""
    count_at = len(envelope) - _U32.size
    number = _U32.unpack_from(envelope, count_at)[0] if count_at >= _after_signature(envelope) else 0
    start = count_at - _PART.size * number
    if start < _after_signature(envelope):
        raise ValueNotReadable("the envelope's table of large parts is cut short")
    return number, start


def _table(promises: Sequence[DAGPromise[Any]]) -> bytes:
    # An origin may have several groups: the order of the table is the order of the indices in the pickle.
    runs: list[tuple[bytes, list[int]]] = []
    for promise in promises:
        origin, counter = promise._record[:2]
        if not runs or runs[-1][0] != origin:
            runs.append((origin, []))
        runs[-1][1].append(counter)
    groups = [pack(f"<{ORIGIN_BYTES}sI{len(run)}I", origin, len(run), *run) for origin, run in runs]
    return b"".join((_U32.pack(len(runs)), *groups))


def flags(envelope: bytes) -> int:
    """Return the flags of an envelope; raise ValueNotReadable if it is not an envelope of ours."""
    if len(envelope) < 2 or envelope[0] != ENVELOPE_VERSION or (envelope[1] & ~MARKS and envelope[1] != SIGNAL):
        raise ValueNotReadable(f"it does not begin like an envelope: {bytes(envelope[:2])!r}")
    return envelope[1]


def _after_signature(envelope: bytes) -> int:
    """Return the position after header and signature."""
    return 2 + SIGNATURE_BYTES if flags(envelope) & SIGNED else 2


def _groups(envelope: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield origin, number of counters and their position, for each group of the table."""
    if not flags(envelope) & REFS:
        return
    start = _after_signature(envelope)
    groups = _U32.unpack_from(envelope, start)[0]
    start += _U32.size
    for _ in range(groups):
        origin, count = _GROUP.unpack_from(envelope, start)
        yield origin, count, start + _GROUP.size
        start += _GROUP.size + 4 * count


def body(envelope: bytes) -> tuple[int, int]:
    """Return the number of promises in the table, and the position of the body."""
    number, start = 0, _after_signature(envelope) + (_U32.size if flags(envelope) & REFS else 0)
    for _, count, counters in _groups(envelope):
        number, start = number + count, counters + 4 * count
    return number, start


# --- signals ----------------------------------------------------------------------------------------------
# The value of a node that has waited for a signal: the head, the length of its arguments (u32), the envelope of its
# arguments (name and type of the signal, and the default as JSON), and JSON in UTF-8, or nothing for the default. The
# broker puts these together. Only the arguments are signed, so a signal can be the value of no other node, and only
# they are unpickled.

#: The first bytes of the value of a node that has waited for a signal.
SIGNAL_HEAD = bytes((ENVELOPE_VERSION, SIGNAL))
#: Bytes before the arguments.
_ARGUMENTS_AT = 6


class SignalParts(NamedTuple):
    """The envelope of a signal taken apart; nothing of it is verified."""

    arguments: bytes
    text: bytes  #: empty: the node took its default


def taken_apart(envelope: bytes) -> SignalParts:
    """Return the parts of the value of a node that waited. Raises ValueNotReadable if it is cut short."""
    end = _ARGUMENTS_AT + int.from_bytes(envelope[2:_ARGUMENTS_AT], "little")
    if not _ARGUMENTS_AT < end <= len(envelope):
        raise ValueNotReadable("the envelope of a signal is cut short")
    return SignalParts(envelope[_ARGUMENTS_AT:end], envelope[end:])


def put_together(arguments: bytes, text: bytes) -> bytes:
    """Return the envelope of a signal."""
    return b"".join((SIGNAL_HEAD, len(arguments).to_bytes(4, "little"), arguments, text))


# --- values from the cache --------------------------------------------------------------------------------
# The value of a node that the broker has found in the cache: the head, and what `FoundParts` lists. The broker puts
# these together. The caller of the node and the process that computed the value have signed what it says.

#: The first bytes of the value of a node that was found in the cache.
FOUND_HEAD = bytes((ENVELOPE_VERSION, FOUND))
_FOUND = Struct(
    f"<2x{CACHE_KEY_BYTES}s{INSTANCE_BYTES}s{CACHE_SIGNATURE_BYTES}s{INSTANCE_BYTES}s{NODE_ID_BYTES}s"
    f"{CACHE_SIGNATURE_BYTES}s"
)


class FoundParts(NamedTuple):
    """The envelope of a value from the cache taken apart; nothing of it is verified."""

    key: bytes  #: the cache key
    instance: bytes  #: of the node whose value this is
    announcement: bytes  #: signature of the caller of that node
    other_instance: bytes
    other: bytes  #: the node that has computed the value
    proof: bytes  #: signature of the process that ran it


def found_parts(envelope: bytes) -> FoundParts:
    """Return the parts of the value of a node that was found in the cache. Raises ValueNotReadable."""
    if len(envelope) != _FOUND.size:
        raise ValueNotReadable(f"the envelope of a cached value has {len(envelope)} bytes, not {_FOUND.size}")
    return FoundParts(*_FOUND.unpack(envelope))
