"""Notices when a store's files are removed, replaced or overwritten while the broker has them open.

A removed file can be written to for as long as it is open, and everything in it is lost when it is closed. So the names
are compared with the open files after each commit, before anyone is told of it; while their folder has not changed, one
look at the folder is enough.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from sys import byteorder
from typing import NamedTuple

#: Where SQLite's shared index of the log (-shm) holds the number of frames in the log, its salts, how many frames were
#: moved to the database, and how many a checkpoint is moving there; see "WAL-Index File Format" in its documentation.
_FRAMES, _SALTS, _MOVED, _MOVING = slice(16, 20), slice(32, 40), slice(96, 100), slice(128, 132)
#: The offsets of the same salts in the log.
_SALTS_AT, _SALTS_BYTES = 16, 8
_INDEX_BYTES = 132
#: Seconds for which a folder must be unchanged before its time proves that: file systems record times coarsely.
SETTLED = 3.0
#: Bytes of a database's header.
_HEADER_BYTES = 100

Identity = tuple[int, int]


class _Content(NamedTuple):
    """The evidence that the database was written to, and that SQLite wrote it."""

    modified: int
    size: int
    frames: bytes
    salts: bytes  #: they change when a new log begins
    moved: bytes
    moving: bytes

    @property
    def checkpoint(self) -> tuple[bytes, bytes, bytes]:
        """Return what changes before a checkpoint writes to the database."""
        return self.salts, self.moved, self.moving


class OpenFiles:
    """The database, its log, the index of the log, and the lock file of an open store.

    `descriptor` is a descriptor of the database that its owner keeps open. Closing any descriptor of these files would
    release SQLite's locks, so call `close` after closing SQLite's connections.
    """

    def __init__(self, store: Path, descriptor: int) -> None:
        self.store = store
        self.descriptor = descriptor
        self.lock = f"{store}.lock"
        self.given_up = False  #: a problem was found, and what could be saved was saved
        self._folder = str(store.parent)
        self._settled: tuple[int, int, int] | None = None  # the folder at a time when all names were right
        self.is_settled = False  #: nothing in the folder has changed for some seconds
        self.log_restarted = False  #: a new log began between the last two calls of `overwritten`
        self._identities = {name: identity(os.lstat(name)) for name in map(str, self._names())}
        self._index = os.open(f"{store}-shm", os.O_RDONLY)
        self._log = os.open(f"{store}-wal", os.O_RDONLY)
        self._content = self._look()
        self._header = self._read_header()

    def _names(self) -> list[str]:
        return [str(self.store), f"{self.store}-wal", f"{self.store}-shm", self.lock]

    def close(self) -> None:
        """Close the descriptors that this object has opened."""
        os.close(self._index)
        os.close(self._log)

    def is_ours(self, name: str) -> bool:
        """Return whether this name still leads to the file that was opened under it."""
        return self._what_became_of(name) is None

    def displaced(self) -> str | None:
        """Return what was done to which file; None if all names still lead to the open files."""
        folder = self._look_at_folder()
        self.is_settled = folder is not None and folder == self._settled
        if self.is_settled:
            return None
        for name in self._identities:
            done = self._what_became_of(name)
            if done is not None:
                return f"{name} was {done}"
        if folder is not None and time.time_ns() - folder[2] > SETTLED * 1e9:
            self._settled = folder
        return None

    def _look_at_folder(self) -> tuple[int, int, int] | None:
        """Return values that change if a name in the folder leads elsewhere; None if the folder does not exist."""
        try:
            found = os.stat(self._folder)
        except OSError:
            return None
        return found.st_dev, found.st_ino, max(found.st_mtime_ns, found.st_ctime_ns)

    def overwritten(self) -> str | None:
        """Return the file that another program has written to since the last call, if any. Call it after a commit."""
        before, self._content = self._content, self._look()
        self.log_restarted = before.salts != self._content.salts
        if self._is_log_overwritten():
            return f"{self.store}-wal"
        return str(self.store) if self._is_overwritten(before) else None

    def _is_log_overwritten(self) -> bool:
        salts = self._content.salts
        if not int.from_bytes(self._content.frames, byteorder) or os.pread(self._log, _SALTS_BYTES, _SALTS_AT) == salts:
            return False
        # Another program's checkpoint may have begun a new log since the index was read; it changes the index first.
        return self._look().salts == salts

    def _is_overwritten(self, before: _Content) -> bool:
        if (before.modified, before.size) == (self._content.modified, self._content.size):
            return False
        header, self._header = self._header, self._read_header()
        if before.checkpoint != self._content.checkpoint or self._content.moved != self._content.moving:
            return False
        # If only the file's time has changed, the file was touched and not overwritten.
        return before.size != self._content.size or header != self._header

    def _what_became_of(self, name: str) -> str | None:
        try:
            found = os.lstat(name)
        except (FileNotFoundError, NotADirectoryError):
            return "removed or moved away"
        except OSError as error:
            return f"made unreachable ({error.strerror})"
        return None if identity(found) == self._identities[name] else "replaced by another file"

    def _look(self) -> _Content:
        found, index = os.fstat(self.descriptor), os.pread(self._index, _INDEX_BYTES, 0)
        parts = (index[part] for part in (_FRAMES, _SALTS, _MOVED, _MOVING))
        return _Content(found.st_mtime_ns, found.st_size, *parts)

    def _read_header(self) -> bytes:
        return os.pread(self.descriptor, _HEADER_BYTES, 0)


def identity(found: os.stat_result) -> Identity:
    """Return what distinguishes a file from all others of this machine."""
    return found.st_dev, found.st_ino
