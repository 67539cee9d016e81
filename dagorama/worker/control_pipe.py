"""The control pipe between a program that launches workers and a supervisor.

The program first sends the start-up data of the worker. Then it sends `stop`, `end SLOT`, and `define` with a parcel
of classes. The supervisor sends `ready` when the first child can run nodes, `failed REASON` when it exits with an exit
code other than 0, `started SLOT PID`, `ended SLOT EXITCODE` and `defined`. A broken pipe means that the other end has
exited.
"""

from __future__ import annotations

import pickle
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from typing import Any, NamedTuple

READ_BYTES = 1 << 16
_LENGTH = Struct("<Q")
_HEAD = Struct("<IQ")  # bytes of the words, bytes of the payload
_SEPARATOR = "\0"  # between words


class Message(NamedTuple):
    """A list of words, of which the first is the kind of message, and for some kinds bytes."""

    words: list[str]
    payload: bytes = b""


class ControlPipe:
    """One end of the pipe. Any thread may send. A message is lost if the other end has exited."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = bytearray()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close this end of the pipe."""
        self._connection.close()

    def say(self, *words: object, payload: bytes = b"") -> None:
        """Send a message."""
        text = _SEPARATOR.join(str(word).replace(_SEPARATOR, " ") for word in words).encode(errors="replace")
        with self._lock, suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(_HEAD.pack(len(text), len(payload)) + text + payload)

    def read(self) -> list[Message] | None:
        """Wait for some bytes and return the messages that are complete; None if the other end is closed."""
        try:
            data = self._connection.recv(READ_BYTES)
        except ConnectionResetError:
            return None
        if not data:
            return None
        self._rest += data
        return list(self._complete())

    def _complete(self) -> Iterator[Message]:
        rest, start = self._rest, 0
        while len(rest) - start >= _HEAD.size:
            words, payload = _HEAD.unpack_from(rest, start)
            begin, end = start + _HEAD.size + words, start + _HEAD.size + words + payload
            if len(rest) < end:
                break
            yield Message(rest[start + _HEAD.size : begin].decode().split(_SEPARATOR), bytes(rest[begin:end]))
            start = end
        del rest[:start]


def send_start(connection: socket.socket, start: tuple[Any, ...]) -> None:
    """Send the start-up data of a worker. If the worker has already exited, do nothing: its exit code tells why."""
    pickled = pickle.dumps(start)
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(_LENGTH.pack(len(pickled)) + pickled)


def read_start(connection: socket.socket) -> tuple[Any, ...]:
    """Read the start-up data from the launching program. Exit if that program has exited."""
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    start: tuple[Any, ...] = pickle.loads(_read(connection, length))
    return start


def _read(connection: socket.socket, length: int) -> bytes:
    with connection.makefile("rb", buffering=0) as file:
        data = b""
        while len(data) < length:
            part = file.read(length - len(data))
            if not part:
                sys.exit(1)
            data += part
    return data
