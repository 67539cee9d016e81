"""Large values of a broker that keeps them in an object store: sent and read there, with URLs that the broker signs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar

from dagorama.client.object_http import ObjectMissing, TransferFailed, download, upload
from dagorama.client.value_calls import ValueCalls
from dagorama.errors import BrokerError, BrokerUnavailable, NotFound, ValuesUnavailable
from dagorama.settings.values import is_direct
from dagorama.values.out_of_band import Buffer, Verified

T = TypeVar("T")

#: Seconds for which a client tries an object store that does not answer.
PATIENCE = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: URLs that are asked for if the store has no such object, which another client may have replaced just now.
_TRIES_IF_MISSING = 2


def patience_of_clients() -> float:
    """Return the seconds for which a client tries an object store."""
    return PATIENCE


class ObjectValues:
    """The values of one broker, unless they are files. It is thread-safe."""

    def __init__(self, link: ValueCalls, patience: Callable[[], float]) -> None:
        """`patience`: returns the seconds for which a store that does not answer is tried again."""
        self._link = link
        self._patience = patience
        self._has_keep = self._has_find = True  # as far as is known, the broker has these calls

    def put(self, data: Buffer, digest: bytes) -> None:
        """Store a value durably, unless it is. Raises ValuesUnavailable, and other errors of the broker."""
        self._patiently(lambda: self._put(data, digest))

    def get(self, digest: bytes) -> Buffer | Verified:
        """Return the bytes that are stored under this SHA-256. Raises ValuesUnavailable, NotFound, BrokerError."""
        return self._patiently(lambda: self._get(digest))

    def _put(self, data: Buffer, digest: bytes) -> None:
        if not self._has_keep or not is_direct():
            if not self._is_kept(digest):
                self._link.put_value(data, digest)
            return
        try:
            reply = self._link.keep_value(digest, len(data))
        except (BrokerUnavailable, ValuesUnavailable):
            raise
        except BrokerError:  # an older broker does not have this call, or the token does not allow it
            self._has_keep = False
            self._put(data, digest)
            return
        if reply.kept:
            return
        if not reply.url:
            self._link.put_value(data, digest)
            return
        upload(reply.url, reply.headers, data, len(data))
        if not self._link.keep_value(digest, len(data), reply.object).kept:
            raise TransferFailed("the uploaded object is incomplete, or another broker leads now")

    def _is_kept(self, digest: bytes) -> bool:
        """Return whether the broker has the value already."""
        try:
            return self._link.import_value(digest, 0)
        except (BrokerUnavailable, ValuesUnavailable):
            raise
        except BrokerError:  # an older broker does not have this call, or the token does not allow it
            return False

    def _get(self, digest: bytes) -> Buffer | Verified:
        for last in range(1, _TRIES_IF_MISSING + 1):
            try:
                found = self._read(digest)
            except ObjectMissing:
                if last == _TRIES_IF_MISSING:
                    raise NotFound(
                        f"large value {digest.hex()} is missing in the object store, because something other than the"
                        " broker has deleted it: call put() again",
                        "NOT_FOUND",
                    ) from None
            else:
                if found is not None:
                    return found
                break
        return self._link.get_value(digest)

    def _read(self, digest: bytes) -> Verified | None:
        """Return a value from the store; None if it has to come through the broker."""
        if not self._has_find or not is_direct():
            return None
        try:
            reply = self._link.find_value(digest)
        except (BrokerUnavailable, ValuesUnavailable, NotFound):
            raise
        except BrokerError:
            self._has_find = False
            return None
        if not reply.url:
            self._has_find = not reply.never
            return None
        data = bytearray()
        download(reply.url, reply.headers, reply.length, data.extend)
        if sha256(data).digest() == digest:
            return Verified(memoryview(data))
        self._link.find_value(digest, reply.object)  # raises NotFound if that is so
        raise TransferFailed("the received bytes differ from the object")

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call until the object store answers. Raises ValuesUnavailable when the patience is over."""
        since, pause, patience = time.monotonic(), _FIRST_PAUSE, self._patience()
        while True:
            try:
                return call()
            except (TransferFailed, ValuesUnavailable) as error:
                problem = str(error)
            if time.monotonic() - since + pause > patience:
                raise ValuesUnavailable(
                    f"a large value could not be stored or read for {patience:g} s: {problem}", "UNAVAILABLE"
                )
            time.sleep(pause * (0.5 + random.random() / 2))
            pause = min(2 * pause, _LONGEST_PAUSE)
