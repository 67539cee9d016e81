"""The line between a process that launches workers and their supervisor: lines of text over a socket.

Down go `stop` and `end SLOT`, up go `started SLOT PID` and `ended SLOT EXITCODE`. When it breaks, the other is gone.
"""

from __future__ import annotations

import socket
from contextlib import suppress


class Lines:
    """One end. Lines that are too late for the other end are lost."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def fileno(self) -> int:
        return self._connection.fileno()

    def say(self, *words: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall((" ".join(map(str, words)) + "\n").encode())

    def read(self) -> list[list[str]] | None:
        """The words of each line that has come, waiting for some bytes; None when the other end is closed."""
        try:
            data = self._connection.recv(4096)
        except ConnectionResetError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode().split() for line in lines]
