"""Keeps a second broker off a store, with locks that end with the process that holds them, however it ends.

A store is its file, not its name: symbolic links are resolved before, and a lock on the file itself covers
hard links and files that are mounted in two places, which cannot be resolved.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from dagorama_broker.errors import StoreError

#: A byte far behind the bytes that SQLite locks (2^30 and those after it) and behind the end of any file.
_BYTE = 1 << 62
#: Linux has locks of an open file description: other locks of this process, such as SQLite's, do not conflict with
#: one, and closing the same file does not release it, as it would a POSIX lock. On a network file system the server
#: holds it. flock() on this file would not do there: it would cover SQLite's bytes too.
_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)


class StoreLock:
    """Locks `<store>.lock`, which contains the holder's pid, and a byte of the store. The lock file stays."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._held: list[int] = []
        self._store_file = -1

    def take(self) -> None:
        """Take the lock. Raise StoreError, with the holder's pid if possible, if another broker uses the store."""
        try:
            self._refuse_second_name()
            self._take_lock_file()
            self._take_store()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock. Call it after closing SQLite's connections, whose locks it would release too."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held = []

    def _refuse_second_name(self) -> None:
        # SQLite stores the newest changes, and this package the large values, in files next to one of the names.
        try:
            found = self._store.stat()
        except FileNotFoundError:
            return
        if not S_ISREG(found.st_mode):
            kind = "a folder" if S_ISDIR(found.st_mode) else "not a regular file"
            raise StoreError(f"{self._store} is {kind}: a store is a file")
        if found.st_nlink > 1 and found.st_size and not self._lock_file.exists():
            raise StoreError(
                f"{self._store} is one of {found.st_nlink} names (hard links) of a file that was never served under"
                " this name: its newest changes and large values would be missing; use the other name, or"
                " a copy"
            )

    @property
    def descriptor(self) -> int:
        """Return a descriptor of the store, to read from while the lock is held; closing it would release the lock."""
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
            raise self._in_use("which uses another name of the file") from error

    def _opened(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._held.append(descriptor)
        return descriptor

    def _in_use(self, by: str) -> StoreError:
        return StoreError(f"{self._store} is in use by another broker ({by}): stop that one, or choose another store")
