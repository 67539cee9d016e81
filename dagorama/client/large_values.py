"""Large values as a client stores and reads them: bytes in, their SHA-256 out, and the other way round; and `put()`."""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import Any, Protocol, TypeVar

from dagorama.client.chunks import refuse_excess
from dagorama.client.connection import Connection, connection
from dagorama.client.shared_files import SharedFiles
from dagorama.context import attempt_here
from dagorama.errors import BrokerError, BrokerUnavailable, PromiseMisuse
from dagorama.models.promise import DAGPromise
from dagorama.models.value_ref import Kept
from dagorama.settings import shared_files
from dagorama.values.codec import decode, encode
from dagorama.values.envelope import size_of
from dagorama.values.out_of_band import Buffer, Checked

T = TypeVar("T")

#: bytes of pickle from which an argument is stored as a value of its own, until the broker says otherwise
LARGE_FROM = 256 * 1024
#: how errors name the argument of put()
WHAT_IS_PUT = "value given to put()"


class LargeValues(Protocol):
    def put(self, data: Buffer) -> bytes:
        """Store it and return its SHA-256."""
        ...

    def get(self, digest: bytes) -> Buffer | Checked: ...


class BrokerValues:
    """Those of one broker: in its own files where they are in sight, otherwise through it. Any thread may use it."""

    def __init__(self, link: Connection) -> None:
        self.link = link
        self._files: SharedFiles | None = None
        self._has_looked = False

    def put(self, data: Buffer) -> bytes:
        """Raises BrokerError where it cannot be stored durably."""
        refuse_excess(len(data))
        digest = sha256(data).digest()
        files = self._shared()
        if files is not None and self._leave(files, data, digest):
            return digest
        if files is not None or not self._is_kept(digest):
            self.link.put_value(data, digest)
        return digest

    def get(self, digest: bytes) -> Buffer | Checked:
        """Raises UnknownToBroker where there is no such value."""
        files = self._shared()
        found = None if files is None else files.get(digest)
        return self.link.get_value(digest) if found is None else found

    def _leave(self, files: SharedFiles, data: Buffer, digest: bytes) -> bool:
        """Whether the broker has taken it from its folder; else it may be another broker by now, with another one."""
        try:
            name = files.write(data, digest)
        except OSError:  # the broker will say what is wrong with its disk
            self._has_looked = False
            return False
        try:
            kept = self.link.keep_value(digest, len(data), name)
        except BrokerError:
            files.drop(name)
            raise
        if not kept:
            files.drop(name)
            self._has_looked = False
        return kept

    def _is_kept(self, digest: bytes) -> bool:
        """Whether nothing needs to be sent."""
        try:
            return self.link.keep_value(digest, 0)
        except BrokerUnavailable:
            raise
        except BrokerError:  # it does not know the call, or not for us
            return False

    def _shared(self) -> SharedFiles | None:
        if not self._has_looked:
            self._files = self._look() if shared_files() else None
            self._has_looked = True
        return self._files

    def _look(self) -> SharedFiles | None:
        try:
            reply = self.link.values_folder()
        except BrokerUnavailable:
            raise
        except BrokerError:  # it does not know the call, or not for us
            return None
        return SharedFiles.found(reply.path, reply.word)


_current: BrokerValues | None = None


def broker_values() -> BrokerValues:
    """Of the broker that the settings point to now."""
    global _current
    link, found = connection(), _current
    if found is None or found.link is not link:
        found = _current = BrokerValues(link)
    return found


def put_through_connection(data: Buffer) -> bytes:
    """Store a large value with the broker of the settings; return its SHA-256."""
    return broker_values().put(data)


# --- put() -----------------------------------------------------------------------------------------


def put(value: T) -> T:
    """A reference to `value`, typed as the value: given to @dagorama calls, or returned, it costs a name each time.

    Whoever gets it there gets the plain value. The large parts of it are stored at once and sent to each worker once;
    what is small stays in the reference. The broker keeps what no node names for an hour (DAGORAMA_LARGE_GRACE): a call
    that comes later raises UnknownToBroker, and the value is to be put again. Raises NotPicklable, PromiseMisuse for a
    value with promises in it, BrokerError.
    """
    if isinstance(value, Kept):
        return value
    frame = sys._getframe(1)
    found: Any = _kept(value, (frame.f_code.co_filename, frame.f_lineno))
    typed: T = found
    return typed


def plain(value: T) -> T:
    """What put() was given, made anew, where `value` is what it has returned; else `value` itself."""
    if not isinstance(value, Kept):
        return value
    found: Any = decode(value._envelope, get_large=broker_values().get)
    typed: T = found
    return typed


def _kept(value: object, place: tuple[str, int]) -> Kept:
    attempt = attempt_here()
    if attempt is None:
        encoded = encode(value, WHAT_IS_PUT, large_from=LARGE_FROM, put_large=put_through_connection)
        envelope, has_promises = encoded.envelope, bool(encoded.promises)
    else:
        envelope, has_promises = attempt.put(value)
    if has_promises:
        what = "a promise" if isinstance(value, DAGPromise) else "a value that holds promises"
        raise PromiseMisuse(
            f"put() was given {what} at {place[0]}:{place[1]}, whose value is not there yet and is stored once anyway: "
            "pass the promise to each call that needs it"
        )
    return Kept(envelope, type(value).__qualname__, size_of(envelope), place)
