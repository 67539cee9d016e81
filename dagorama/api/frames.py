"""The shared parts of both ends of the local transport: frames on a Unix socket, and the user at the other end.

A frame is its kind (one byte), the length of its body (four bytes, big-endian), and its body.
"""

from __future__ import annotations

import socket
from struct import Struct

#: A serialized message; the first one that a client sends is a LocalHello.
MESSAGE = 0
#: The last frame of the sender. From the broker the body is a Refusal, with status 0 if the call ended well.
END = 1
#: The sender is there. The broker's first one says that it has accepted the hello.
PING = 2

#: Version of the frames and of the hello.
PROTOCOL = 1
#: Seconds after which a side that has nothing to send sends a PING.
PING_EVERY = 2.0
#: Seconds of silence after which a client gives up its broker: as long as over gRPC, see `channel_options`.
BROKER_SILENCE = 8.0
#: Bytes that are read at a time.
READ = 256 << 10

_HEADER = Struct(">BI")
_CREDENTIALS = Struct("3i")  # process, user and group


class FrameError(ValueError):
    """A frame is longer than allowed. The message says so."""


class FrameReader:
    """Divides received bytes into frames."""

    def __init__(self, most: int) -> None:
        """`most`: bytes that a body may have, which is checked before memory is used for it."""
        self._most = most
        self._rest = bytearray()
        self._needed = _HEADER.size  # bytes of the first incomplete frame, or of its header

    @property
    def is_partial(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return kind and body of each frame that is complete now. Raises FrameError."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
        frames, at = [], 0
        while len(data) - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(data, at)
            if length > self._most:
                raise FrameError(f"received message larger than max ({length} vs. {self._most})")
            body = at + _HEADER.size
            if body + length > len(data):
                self._needed = _HEADER.size + length
                break
            at = body + length
            frames.append((kind, data[body:at]))
        else:
            self._needed = _HEADER.size
        self._rest = bytearray(data[at:])
        return frames


def peer_user(connection: socket.socket) -> int:
    """Return the user ID of the process at the other end of a Unix socket."""
    _, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def frame(body: bytes = b"", kind: int = MESSAGE) -> bytes:
    """Return a frame."""
    return _HEADER.pack(kind, len(body)) + body
