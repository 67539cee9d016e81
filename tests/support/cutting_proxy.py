"""A way to a server that loses an exchange: the question before the server has it, or its answer."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Lock, Thread
from typing import Literal

Loss = Literal["question", "answer"]


class CuttingProxy:
    """Carries bytes between clients at `port` and a port of this machine; a connection ends with its lost exchange."""

    def __init__(self, to: int) -> None:
        self.lost = 0  #: exchanges
        self._to = to
        self._next: Loss | None = None
        self._passing = 0  #: questions that pass before
        self._asking = b""
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def lose(self, what: Loss, after: int = 0, asking: bytes = b"") -> None:
        """Lose the next thing that a client asks, or the answer to it, after some exchanges that pass.

        Only questions that contain `asking` count.
        """
        with self._lock:
            self._next, self._passing, self._asking = what, after, asking

    def close(self) -> None:
        """Refuse new connections, and end all open ones."""
        for each in (self._listener, *self._sockets):
            _end(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                for each in (near, far):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += (near, far)
                drops: list[bool] = []  # whether answers of this connection are lost
                Thread(target=self._ask, args=(near, far, drops), daemon=True).start()
                Thread(target=self._answer, args=(far, near, drops), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket, drops: list[bool]) -> None:
        with suppress(OSError):
            while data := near.recv(65_536):
                loss = self._loss_of(data)
                if loss == "question":
                    self.lost += 1
                    break
                if loss == "answer":
                    drops.append(True)
                far.sendall(data)
        if not drops:
            _end(near)
            _end(far)

    def _loss_of(self, question: bytes) -> Loss | None:
        """Return which part of this exchange is lost, if any."""
        with self._lock:
            if self._asking not in question:
                return None
            if self._next is not None and self._passing:
                self._passing -= 1
                return None
            loss, self._next = self._next, None
            return loss

    def _answer(self, far: socket.socket, near: socket.socket, drops: list[bool]) -> None:
        with suppress(OSError):
            while data := far.recv(65_536):
                if drops:
                    self.lost += 1
                    break
                near.sendall(data)
        _end(near)
        _end(far)


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
