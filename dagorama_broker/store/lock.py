"""One broker to a store: locks that go with the process that holds them, however that process ends.

A store is its file, whatever name it is given: symbolic links are resolved before, and what cannot be resolved, a hard
link or a file that is mounted in two places, meets a lock on the file itself.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from dagorama_broker.errors import StoreError

#: A byte far behind what SQLite locks (2^30 and the bytes after it) and behind whatever a file holds.
_BYTE = 1 << 62
#: Linux has locks of an open file: others of this process, such as SQLite's, neither conflict with one nor, as with
#: POSIX locks, take it away when they close the same file. On a network file system it is the server that holds it,
#: which flock() on this file would not survive: there it covers SQLite's bytes too.
_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)


class StoreLock:
    """Holds `<store>.lock`, whose content is the holder's pid, and a byte of the store. The file stays when it ends."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._held: list[int] = []
        self._store_file = -1

    def take(self) -> None:
        """Raises StoreError if another broker has the store, with its pid if that is known."""
        try:
            self._refuse_second_name()
            self._take_lock_file()
            self._take_store()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Call it when SQLite has closed the store: with this descriptor its locks would go as well."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held = []

    def _refuse_second_name(self) -> None:
        # SQLite keeps the newest changes, and this package the large values, in files beside one name.
        try:
            found = self._store.stat()
        except FileNotFoundError:
            return
        if found.st_nlink > 1 and found.st_size and not self._lock_file.exists():
            raise StoreError(
                f"{self._store} is one of {found.st_nlink} names (hard links) of a file that was never served under"
                " this one, beside which its newest changes and large values would be missing: give the other name, or"
                " a copy"
            )

    @property
    def descriptor(self) -> int:
        """Return the store's own file while it is taken, to look at; closing it would end the lock."""
        return self._store_file

    @property
    def _lock_file(self) -> Path:
        return Path(f"{self._store}.lock")

    def _take_lock_file(self) -> None:
        descriptor = self._opened(self._lock_file)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            raise self._in_use(f"pid {holder}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def _take_store(self) -> None:
        descriptor = self._store_file = self._opened(self._store)
        if _SET_LOCK is None:
            return
        lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0)
        try:
            fcntl.fcntl(descriptor, _SET_LOCK, lock)
        except (BlockingIOError, PermissionError) as error:
            raise self._in_use("which was given another name of it") from error

    def _opened(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._held.append(descriptor)
        return descriptor

    def _in_use(self, by: str) -> StoreError:
        return StoreError(
            f"{self._store} is in use by another broker ({by}): stop that one, or choose another store"
        )
