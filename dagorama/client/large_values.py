"""Large values as whoever makes and reads them sees them: put bytes and get their name, or the other way round."""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

from dagorama.client.connection import Connection, connection, refuse_excess
from dagorama.client.shared_files import SharedFiles
from dagorama.errors import BrokerError, BrokerUnavailable
from dagorama.settings import shared_files
from dagorama.values.out_of_band import Buffer, Checked


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
