"""Bytes to and from an object store by signed URLs, with the HTTP client of Python.

The rule: a signed URL is a secret for as long as it is valid, so that no error and no log shows one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from io import IOBase
from threading import Lock
from typing import BinaryIO
from urllib.parse import urlsplit

#: Seconds for which the store may be silent.
SILENCE = 30.0
#: Bytes that are read or written together.
BLOCK = 1 << 20
#: Seconds for which a connection is kept for the next request, and how many are kept for one store.
IDLE, KEPT = 4.0, 4
_DONE = frozenset({200, 201, 204})
_MISSING = 404

Body = bytes | bytearray | memoryview | BinaryIO


class TransferFailed(Exception):
    """The store did not take or give an object; another try, with another URL, may succeed."""


class ObjectMissing(TransferFailed):
    """The store has no such object."""


def upload(url: str, headers: Mapping[str, str], body: Body, length: int) -> None:
    """Send an object of `length` bytes. Raises TransferFailed."""
    with _Exchange(url) as exchange:
        exchange.ask("PUT", {**headers, "Content-Length": f"{length}"}, body)
        exchange.read(BLOCK)  # the connection can then be used again


def download(url: str, headers: Mapping[str, str], length: int, take: Callable[[bytes], object]) -> None:
    """Read an object of `length` bytes in blocks. Raises TransferFailed; the blocks until then are useless."""
    with _Exchange(url) as exchange:
        exchange.ask("GET", headers, None)
        left = length
        while left and (block := exchange.read(min(BLOCK, left))):
            take(block)
            left -= len(block)
        if left:
            raise TransferFailed(f"the object store closed the connection {left:,} bytes before the end")


class _Connections:
    """Connections that have answered a request and wait a few seconds for the next one. It is thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], list[tuple[float, HTTPConnection]]] = {}
        self._alone = Lock()

    def take(self, scheme: str, place: str) -> HTTPConnection | None:
        """Return the connection that was used last; None if there is none that is new enough."""
        oldest = time.monotonic() - IDLE
        with self._alone:
            kept = self._kept.get((scheme, place), [])
            found = kept.pop() if kept else None  # the newest: if it is too old, all are
            old = [] if found is None or found[0] > oldest else self._kept.pop((scheme, place))
        if found is None or found[0] > oldest:
            return None if found is None else found[1]
        for _, each in (found, *old):
            each.close()
        return None

    def keep(self, scheme: str, place: str, connection: HTTPConnection) -> None:
        """Keep a connection, or close it if there are enough."""
        with self._alone:
            kept = self._kept.setdefault((scheme, place), [])
            if len(kept) < KEPT:
                kept.append((time.monotonic(), connection))
                return
        connection.close()

    def close(self) -> None:
        """Close all connections; no other thread uses this object."""
        for kept in self._kept.values():
            for _, each in kept:
                each.close()


_connections = _Connections()


def _forget_connections() -> None:
    # A forked child must not use its parent's connections, and closing its copies does not end them.
    global _connections
    inherited, _connections = _connections, _Connections()
    inherited.close()


os.register_at_fork(after_in_child=_forget_connections)


class _Exchange:
    """One request and its answer; errors of the network become TransferFailed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme, self._place = parts.scheme, parts.netloc
        self._target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        kept = _connections.take(self._scheme, self._place)
        self._is_used = kept is not None
        self._connection = kept or self._new()
        self._answer: HTTPResponse | None = None

    def _new(self) -> HTTPConnection:
        kind = HTTPSConnection if self._scheme == "https" else HTTPConnection
        return kind(self._place, timeout=SILENCE, blocksize=BLOCK)

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        answer = self._answer
        if error is None and answer is not None and answer.isclosed() and not answer.will_close:
            _connections.keep(self._scheme, self._place, self._connection)
        else:
            self._connection.close()

    def ask(self, method: str, headers: Mapping[str, str], body: Body | None) -> None:
        """Send the request, and wait until its answer begins. Raises TransferFailed unless that is a success."""
        with self._network():
            try:
                answer = self._answer = self._begin(method, headers, body)
            except (OSError, HTTPException) as error:
                if not self._is_used or isinstance(error, TimeoutError):
                    raise
                # The store has closed the connection meanwhile, which says nothing about this request.
                self._connection.close()
                self._connection = self._new()
                if isinstance(body, IOBase):
                    body.seek(0)
                answer = self._answer = self._begin(method, headers, body)
        if answer.status == _MISSING:
            raise ObjectMissing(f"the object store at {self._place} has no such object")
        if answer.status not in _DONE:
            raise TransferFailed(f"the object store at {self._place} answers {answer.status} {answer.reason}")

    def _begin(self, method: str, headers: Mapping[str, str], body: Body | None) -> HTTPResponse:
        self._connection.request(method, self._target, body, dict(headers))
        return self._connection.getresponse()

    def read(self, most: int) -> bytes:
        """Return the next bytes of the answer. Raises TransferFailed."""
        assert self._answer is not None
        with self._network():
            return self._answer.read(most)

    @contextmanager
    def _network(self) -> Iterator[None]:
        try:
            yield
        except (OSError, HTTPException) as error:
            text = str(error) or type(error).__name__
            raise TransferFailed(f"the object store at {self._place} does not answer: {text}") from None
