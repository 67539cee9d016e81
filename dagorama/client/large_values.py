"""Large values of a client: `put()`, and bytes that are stored and read by their SHA-256."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from dagorama.client.chunks import refuse_excess
from dagorama.client.connection import Connection, connection
from dagorama.client.object_values import ObjectValues, patience_of_clients
from dagorama.client.shared_files import SharedFiles
from dagorama.context import attempt_here
from dagorama.errors import BrokerError, BrokerUnavailable, PromiseMisuse
from dagorama.models.promise import DAGPromise
from dagorama.models.value_ref import ValueRef
from dagorama.settings import shared_files
from dagorama.values.codec import decode, encode
from dagorama.values.envelope import size_of
from dagorama.values.hashing import Hashing
from dagorama.values.out_of_band import Buffer, Verified

T = TypeVar("T")

#: Bytes of a pickle from which an argument is stored separately, until the broker names another threshold.
LARGE_FROM = 256 * 1024
#: The name of the argument of put() in errors.
WHAT_IS_PUT = "value given to put()"


class LargeValues(Protocol):
    """A store of large values."""

    def put(self, data: Buffer) -> bytes:
        """Store a value; return its SHA-256."""
        ...

    def get(self, digest: bytes) -> Buffer | Verified:
        """Return the value with this SHA-256."""
        ...


class BrokerValues:
    """The large values of one broker: in its files if they are visible here, otherwise in its object store or by calls.

    It is thread-safe.
    """

    def __init__(self, link: Connection, patience: Callable[[], float] = patience_of_clients) -> None:
        """`patience`: returns the seconds for which an object store that does not answer is tried again."""
        self.link = link
        self._objects = ObjectValues(link, patience)
        self._files: SharedFiles | None = None
        self._has_looked = self._takes_named = False

    def put(self, data: Buffer) -> bytes:
        """Store a value durably; return its SHA-256. Raises BrokerError."""
        refuse_excess(len(data))
        files, hashing = self._shared(), Hashing(data)
        if files is None:
            self._objects.put(data, hashing.digest())
        elif not self._leave(files, data, hashing):
            self.link.put_value(data, hashing.digest())
        return hashing.digest()

    def leave(self, data: Buffer) -> bytes:
        """Store a value for a submission that names it; return its SHA-256. Raises BrokerError.

        The submission makes the value known to the broker. Without a submission it is deleted like any unreferenced
        value.
        """
        files = self._shared()
        if files is None or not self._takes_named:
            return self.put(data)
        refuse_excess(len(data))
        hashing = Hashing(data)
        try:
            name = files.write(data, hashing)
            files.leave(hashing.digest(), name)
        except OSError:  # the broker will report what is wrong with its disk
            return self.put(data)
        return hashing.digest()

    def send_left(self, digests: Iterable[bytes]) -> bool:
        """Send values of `leave` that a submission has named to no effect, because another broker has replaced the
        first one.

        Return whether there were any. Raises BrokerError.
        """
        files, self._has_looked, has_sent = self._files, False, False
        if files is None:
            return False
        for digest in digests:
            if (found := files.left(digest)) is not None:
                self.link.put_value(found, digest)
                files.drop(digest.hex())
                has_sent = True
        return has_sent

    def get(self, digest: bytes) -> Buffer | Verified:
        """Return the value with this SHA-256; raise NotFound if there is none."""
        files = self._shared()
        if files is None:
            return self._objects.get(digest)
        found = files.get(digest)
        return self.link.get_value(digest) if found is None else found

    def _leave(self, files: SharedFiles, data: Buffer, hashing: Hashing) -> bool:
        """Return whether the broker has taken the value from its folder; another broker may have replaced it."""
        try:
            name = files.write(data, hashing)
        except OSError:  # the broker will report what is wrong with its disk
            self._has_looked = False
            return False
        try:
            kept = self.link.import_value(hashing.digest(), len(data), name)
        except BrokerError:
            files.drop(name)
            raise
        if not kept:
            files.drop(name)
            self._has_looked = False
        return kept

    def _shared(self) -> SharedFiles | None:
        if not self._has_looked:
            self._files = self._look() if shared_files() else None
            self._has_looked = True
        return self._files

    def _look(self) -> SharedFiles | None:
        try:
            reply = self.link.get_shared_folder()
        except BrokerUnavailable:
            raise
        except BrokerError:  # an older broker does not have this call, or the token does not allow it
            return None
        self._takes_named = reply.takes_named
        return SharedFiles.found(reply.path, reply.nonce)


_current: BrokerValues | None = None


def broker_values() -> BrokerValues:
    """Return the large values of the broker that the settings name now."""
    global _current
    link, found = connection(), _current
    if found is None or found.link is not link:
        found = _current = BrokerValues(link)
    return found


def put_through_connection(data: Buffer) -> bytes:
    """Store a large value with the broker of the settings; return its SHA-256."""
    return broker_values().put(data)


def leave_for_submission(data: Buffer) -> bytes:
    """Store a large value for a submission to the broker of the settings; return its SHA-256."""
    return broker_values().leave(data)


# --- put() -----------------------------------------------------------------------------------------


def put(value: T) -> T:
    """Store `value` and return a reference to it, typed as the value, for arguments and results of @dagorama calls.

    Nodes get the plain value. Its large parts are stored now and sent to each worker once; small parts stay in the
    reference. The broker deletes large parts that no node references after one hour (DAGORAMA_LARGE_GRACE): a later
    call raises NotFound, and `put()` must be called again. Raises NotPicklable, PromiseMisuse for a value that
    contains promises, and BrokerError.
    """
    if isinstance(value, ValueRef):
        return value
    frame = sys._getframe(1)
    found: Any = _kept(value, (frame.f_code.co_filename, frame.f_lineno))
    typed: T = found
    return typed


def dereference(value: T) -> T:
    """Return a new copy of the value that was given to put() if `value` is its reference; otherwise `value` itself."""
    if not isinstance(value, ValueRef):
        return value
    found: Any = decode(value._envelope, get_large=broker_values().get)
    typed: T = found
    return typed


def _kept(value: object, place: tuple[str, int]) -> ValueRef:
    attempt = attempt_here()
    if attempt is None:
        encoded = encode(value, WHAT_IS_PUT, large_from=LARGE_FROM, put_large=put_through_connection)
        envelope, has_promises = encoded.envelope, bool(encoded.promises)
    else:
        envelope, has_promises = attempt.put(value)
    if has_promises:
        what = "a promise" if isinstance(value, DAGPromise) else "a value that contains promises"
        raise PromiseMisuse(
            f"put() was given {what} at {place[0]}:{place[1]}; the value of a promise does not exist yet, and the"
            " broker stores it once in any case: pass the promise to each call that needs it"
        )
    return ValueRef(envelope, type(value).__qualname__, size_of(envelope), place)
