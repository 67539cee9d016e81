"""Uploads of values to an object store: the ones that clients make to names they were given, and ones by the broker."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256 as sha256_of
from itertools import islice
from threading import Lock
from typing import BinaryIO, NamedTuple

from dagorama_broker.errors import StoreError
from dagorama_broker.store.descriptors import shortage

#: Uploads that may be under way, and how many of the oldest are looked at when another one begins.
MOST_OFFERED, LOOKED_AT = 100_000, 1_000


class Offer(NamedTuple):
    """An upload that a client may have begun."""

    sha256: bytes
    length: int
    until: float  #: monotonic time


class Offers:
    """The names of objects that were given to clients. Each can be redeemed once. It is thread-safe."""

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}  # oldest first
        self._alone = Lock()

    def add(self, name: str, sha256: bytes, length: int, seconds: float) -> None:
        """Note that a client may upload this value under this name for some time."""
        now = time.monotonic()
        with self._alone:
            over = [old for old, offer in islice(self._offers.items(), LOOKED_AT) if offer.until < now]
            if not over and len(self._offers) >= MOST_OFFERED:
                over = [next(iter(self._offers))]
            for old in over:
                del self._offers[old]
            self._offers[name] = Offer(sha256, length, now + seconds)

    def has(self, name: str, sha256: bytes, length: int) -> bool:
        """Return whether this name was given for this value, and not redeemed yet."""
        found = self._offers.get(name)
        return found is not None and (found.sha256, found.length) == (sha256, length)

    def redeem(self, name: str) -> bool:
        """Forget a name; return False if another call has redeemed it."""
        with self._alone:
            return self._offers.pop(name, None) is not None


class Spooled(NamedTuple):
    """The bytes of a value in a temporary file."""

    file: BinaryIO
    sha256: bytes
    length: int


@contextmanager
def spooled(chunks: Iterable[bytes]) -> Iterator[Spooled]:
    """Write chunks to a temporary file for the block, to be read from its beginning.

    An exception of `chunks` is passed on. Raise StoreError if the file cannot be written.
    """
    seen, length = sha256_of(), 0
    with _saying_what_failed():
        opened = tempfile.TemporaryFile(prefix="dagorama-")  # noqa: SIM115  # it is closed below
    with opened as file:
        for chunk in chunks:
            seen.update(chunk)
            length += len(chunk)
            with _saying_what_failed():
                file.write(chunk)
        with _saying_what_failed():
            file.seek(0)
        yield Spooled(file, seen.digest(), length)


@contextmanager
def _saying_what_failed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = shortage(error) or error.strerror or error
        raise StoreError(f"a large value that goes through the broker: {tempfile.gettempdir()}: {why}") from error
