"""An S3 server for tests: moto in a process of its own, on a port of loopback, and a way to it that can be closed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from itertools import count
from threading import Thread

_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
_buckets = count(1)


class ObjectServer:
    """A running server. `environment` is what obstore needs to reach it."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def environment(self) -> dict[str, str]:
        return environment_of(self.port)

    def bucket(self) -> str:
        """Make a bucket and return the URL of a prefix in it, for `--values`."""
        name = f"values-{os.getpid()}-{next(_buckets)}"
        assert self.ask("PUT", f"/{name}") == 200
        return f"s3://{name}/some/prefix"

    def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """Make a request without a signature, which the server does not require; return the status."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body or None)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


def environment_of(port: int) -> dict[str, str]:
    """Return the variables for a server at this port of loopback."""
    return {
        "AWS_ACCESS_KEY_ID": "key-of-a-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }


@contextmanager
def running_objects() -> Iterator[ObjectServer]:
    """Run a server for the length of the block."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield ObjectServer(int(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


class Gateway:
    """The way to an object server, as clients of a test see it: it can be closed, and lose or refuse requests."""

    def __init__(self, to: int) -> None:
        self.requests: list[str] = []  #: the first lines of all that came, without their queries
        self._to = to
        self._is_open = True
        self._refusals: list[tuple[str, int]] = []
        self._status = 0  # with which everything is answered
        self._cut_after: int | None = None
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return environment_of(self.port)

    def shut(self) -> None:
        """End all connections, and each new one at once."""
        self._is_open = False
        for each in list(self._sockets):
            _end(each)

    def open(self) -> None:
        self._is_open = True

    def refuse(self, method: str, status: int) -> None:
        """Answer the next request of a signed URL with this method by a status."""
        self._refusals.append((method, status))

    def refuse_all(self, status: int) -> None:
        """Answer every request by a status."""
        self._status = status

    def cut_upload(self, after: int) -> None:
        """End the connection of the next upload to a signed URL when it has carried this number of bytes."""
        self._cut_after = after

    def close(self) -> None:
        self.shut()
        _end(self._listener)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._is_open:
                    _end(near)
                    continue
                Thread(target=self._serve, args=(near,), daemon=True).start()

    def _refusal(self, method: str, is_signed: bool) -> int:
        """Return the status with which a request is refused; 0: it is not."""
        found = next((each for each in self._refusals if is_signed and each[0] == method), None)
        if found is None:
            return self._status
        self._refusals.remove(found)
        return found[1]

    def _serve(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self._to))
        self._sockets |= {near, far}
        with suppress(OSError):
            first = near.recv(65_536)
            method = first.partition(b" ")[0].decode()
            self.requests.append(first.partition(b"\r\n")[0].decode().partition("?")[0])
            is_signed = b"X-Amz-Signature=" in first.partition(b"\r\n")[0]
            if status := self._refusal(method, is_signed):
                near.sendall(b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
            else:
                left = None
                if is_signed and method == "PUT":
                    left, self._cut_after = self._cut_after, None
                Thread(target=_carry, args=(far, near, b"", None, True), daemon=True).start()
                _carry(near, far, first, left)
                return
        _end(near)
        _end(far)


def _carry(source: socket.socket, target: socket.socket, data: bytes, left: int | None, is_last: bool = False) -> None:
    """Carry all bytes, up to `left`. `is_last`: they are an answer, after which the client must connect again."""
    with suppress(OSError):
        if is_last:
            status, _, rest = source.recv(65_536).partition(b"\r\n")
            data = status + b"\r\nConnection: close\r\n" + rest
        while True:
            target.sendall(data if left is None else data[:left])
            if left is not None and (left := left - len(data)) <= 0:
                break
            if not (data := source.recv(65_536)):
                break
    _end(source)
    _end(target)


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
