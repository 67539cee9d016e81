"""A proxy before a broker that breaks streams off in HTTP/2's own ways, as servers under a flood and middleboxes do."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import pack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, GOAWAY = 0, 1, 3, 7
NO_ERROR, INTERNAL, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 0, 2, 7, 8, 11, 12


class ResettingProxy:
    """`resets` and `goaways` have an error code for each of the next streams: it is broken off when it has begun."""

    def __init__(self, to: int) -> None:
        self.resets: deque[int] = deque()
        self.goaways: deque[int] = deque()
        self.streams = 0  #: that clients have begun
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [client, server]
                lock = threading.Lock()
                threading.Thread(target=self._up, args=(client, server, lock), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server, lock), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, lock: threading.Lock) -> None:
        """Forward the frames of the client one by one."""
        with suppress(OSError, EOFError):
            server.sendall(_read(client, len(PREFACE)))
            over: set[int] = set()
            while True:
                head = _read(client, 9)
                payload = _read(client, int.from_bytes(head[:3], "big"))
                kind, stream = head[3], int.from_bytes(head[5:], "big")
                if kind == DATA and stream in over:
                    continue
                server.sendall(head + payload)  # headers too: both ends count on the same table of them
                if kind == HEADERS and stream not in over:
                    self.streams += 1
                    if self.resets:
                        over.add(stream)
                        server.sendall(_frame(RST_STREAM, stream, pack(">I", CANCEL)))
                        with lock:
                            client.sendall(_frame(RST_STREAM, stream, pack(">I", self.resets.popleft())))
                    elif self.goaways:
                        with lock:
                            client.sendall(_frame(GOAWAY, 0, pack(">II", 0, self.goaways.popleft())))
                        raise EOFError
        _shut(client, server)

    def _down(self, client: socket.socket, server: socket.socket, lock: threading.Lock) -> None:
        with suppress(OSError, EOFError):
            while True:
                head = _read(server, 9)
                payload = _read(server, int.from_bytes(head[:3], "big"))
                with lock:
                    client.sendall(head + payload)
        _shut(client, server)


def _frame(kind: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + stream.to_bytes(4, "big") + payload


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _shut(*connections: socket.socket) -> None:
    for each in connections:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def resetting(to: int) -> Iterator[ResettingProxy]:
    proxy = ResettingProxy(to)
    try:
        yield proxy
    finally:
        proxy.close()
