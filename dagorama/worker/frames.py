"""Frames between supervisor and child: a length, a kind, a header that the supervisor reads, and an opaque body."""

import socket
from array import array
from collections.abc import Callable, Mapping
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

_PREFIX = Struct("<IB")
_COUNTS = Struct("<III")
SHA_BYTES = 32
NAME_BYTES = 16  #: the name of a file in the broker's folder that the broker was not asked to keep yet
CUT_OFF = 113  #: exit code of a child whose socket to the supervisor is broken

ChildMain = Callable[[int, socket.socket], int]  #: runs a child: takes slot and socket, returns the exit code


class Kind(IntEnum):
    """The kind of a frame."""

    PIECE = 1  #: to the child: a piece of a GrantBody, more follow
    GRANT = 2  #: to the child: the last piece
    READY = 3  #: from the child: it has started
    UNFIT = 4  #: from the child: it cannot start; the payload is a text with the reason
    RESULTS = 5  #: from the child: an Outcome whose body is a serialized Results
    RETURN = 6  #: from the child: an Outcome whose body is a serialized Return
    DEFINE = 7  #: to the child: a pickled Parcel of classes
    STACK = 8  #: to the child: the attempt of an async node; back: an Outcome whose body is the stack of its coroutine


_ATTEMPT = Struct("<Q")


def pack_attempt(kind: Kind, attempt: int) -> bytes:
    """Return a frame that names an attempt."""
    return pack(kind, _ATTEMPT.pack(attempt))


def unpack_attempt(payload: bytes) -> int:
    """Return the attempt in the payload of a frame."""
    attempt: int = _ATTEMPT.unpack(payload)[0]
    return attempt


class Outcome(NamedTuple):
    """A report of a child: answered attempts, large values to send first, and a body to forward."""

    attempts: list[int]
    large: list[bytes]
    body: bytes
    waiting: Mapping[bytes, bytes] = {}  #: names of files in the broker's folder, by the large value


def prefix(kind: Kind, length: int) -> bytes:
    """Return the beginning of a frame with a payload of this length."""
    return _PREFIX.pack(length, kind)


def pack(kind: Kind, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _PREFIX.pack(len(payload), kind) + payload


def pack_outcome(kind: Kind, outcome: Outcome) -> bytes:
    """Return a frame with an outcome."""
    attempts, large, body, waiting = outcome
    counts = _COUNTS.pack(len(attempts), len(large), len(waiting))
    named = (part for pair in waiting.items() for part in pair)
    return pack(kind, b"".join((counts, array("Q", attempts).tobytes(), *large, *named, body)))


def unpack_outcome(payload: bytes) -> Outcome:
    """Return the outcome in the payload of a frame."""
    attempt_count, large_count, waiting_count = _COUNTS.unpack_from(payload)
    large_at = _COUNTS.size + 8 * attempt_count
    waiting_at = large_at + SHA_BYTES * large_count
    body_at = waiting_at + (SHA_BYTES + NAME_BYTES) * waiting_count
    attempts = array("Q", payload[_COUNTS.size : large_at]).tolist()
    large = [payload[at : at + SHA_BYTES] for at in range(large_at, waiting_at, SHA_BYTES)]
    waiting = {
        payload[at : at + SHA_BYTES]: payload[at + SHA_BYTES : at + SHA_BYTES + NAME_BYTES]
        for at in range(waiting_at, body_at, SHA_BYTES + NAME_BYTES)
    }
    return Outcome(attempts, large, payload[body_at:], waiting)


class FrameReader:
    """Turns received bytes into frames, in linear time even if a large frame arrives in small pieces."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = _PREFIX.size

    def feed(self, data: bytes) -> list[tuple[Kind, bytes]]:
        """Add received bytes, and return the frames that are complete."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
        return self._cut(data)

    def _cut(self, data: bytes) -> list[tuple[Kind, bytes]]:
        frames = []
        at, size = 0, len(data)
        needed = _PREFIX.size
        while size - at >= _PREFIX.size:
            length, kind = _PREFIX.unpack_from(data, at)
            needed = _PREFIX.size + length
            if size - at < needed:
                break
            frames.append((Kind(kind), data[at + _PREFIX.size : at + needed]))
            at += needed
            needed = _PREFIX.size
        self._rest = bytearray(memoryview(data)[at:])
        self._needed = needed
        return frames
