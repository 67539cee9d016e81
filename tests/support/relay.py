"""A way to the broker that can be cut: while it is, both ends stay connected and nothing comes through."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Event, Thread


class Relay:
    """Takes connections at `port` and carries their bytes to and from a port of this machine."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._passes = Event()
        self._passes.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Hold back everything that is sent from now on, like a network whose routers have lost the way."""
        self._passes.clear()

    def heal(self) -> None:
        self._passes.set()

    def close(self) -> None:
        self._passes.set()
        for each in (self._listener, *self._sockets):
            _shut(each)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:  # closed, or no listener at the other end
                return
            self._sockets += (near, far)
            for ends in ((near, far), (far, near)):
                Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # hung up on
            while data := source.recv(65_536):
                self._passes.wait()
                target.sendall(data)
        _shut(source)
        _shut(target)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):  # it was already
        each.shutdown(socket.SHUT_RDWR)
    each.close()
