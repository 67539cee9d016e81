"""Bytes to and from an object store by signed URLs, with the HTTP client of Python.

The rule: a signed URL is a secret for as long as it is valid, so that no error and no log shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import BinaryIO
from urllib.parse import urlsplit

#: Seconds for which the store may be silent.
SILENCE = 30.0
#: Bytes that are read or written together.
BLOCK = 1 << 20
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
        exchange.answer("PUT", {**headers, "Content-Length": f"{length}"}, body)


def download(url: str, headers: Mapping[str, str], length: int, take: Callable[[bytes], object]) -> None:
    """Read an object of `length` bytes in blocks. Raises TransferFailed; the blocks until then are useless."""
    with _Exchange(url) as exchange:
        answer = exchange.answer("GET", headers, None)
        left = length
        while left and (block := answer.read(min(BLOCK, left))):
            take(block)
            left -= len(block)
        if left:
            raise TransferFailed(f"the object store broke off {left:,} bytes before the end")


class _Exchange:
    """One request on a connection of its own; errors of the network become TransferFailed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = parts.netloc
        self._target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.netloc, timeout=SILENCE, blocksize=BLOCK)

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._connection.close()
        if isinstance(error, (OSError, HTTPException)):
            text = str(error) or type(error).__name__
            raise TransferFailed(f"the object store at {self._place} does not answer: {text}") from None

    def answer(self, method: str, headers: Mapping[str, str], body: Body | None) -> HTTPResponse:
        """Send the request and return the answer if it is a success."""
        self._connection.request(method, self._target, body, dict(headers))
        answer = self._connection.getresponse()
        if answer.status == _MISSING:
            raise ObjectMissing(f"the object store at {self._place} has no such object")
        if answer.status not in _DONE:
            raise TransferFailed(f"the object store at {self._place} answers {answer.status} {answer.reason}")
        return answer
