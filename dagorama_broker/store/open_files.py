"""Whether a store's names still lead to the files that the broker has open, and whether only SQLite writes to them.

A removed file can be written to for as long as it is open, and everything in it is lost at the end. So the names are
compared after each commit, before anyone is told of it; while their folder has not changed, one look at that is enough.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from sys import byteorder
from typing import NamedTuple

#: Where SQLite's shared index of the log (-shm) has the number of frames in the log, its salts, how many frames are in
#: the database, and how many a checkpoint is moving there; see "WAL-Index File Format" in its documentation.
_FRAMES, _SALTS, _MOVED, _MOVING = slice(16, 20), slice(32, 40), slice(96, 100), slice(128, 132)
#: Where the log has the same salts.
_SALTS_AT, _SALTS_BYTES = 16, 8
_INDEX_BYTES = 132
#: Seconds that a folder has to be unchanged for its time to tell that it is: file systems note it coarsely.
SETTLED = 3.0
#: Bytes of a database's header.
_HEADER_BYTES = 100

Identity = tuple[int, int]


class _Content(NamedTuple):
    """What shows that the database was written to, and that SQLite did it."""

    modified: int
    size: int
    frames: bytes
    salts: bytes  #: others when the log begins again
    moved: bytes
    moving: bytes

    @property
    def checkpoint(self) -> tuple[bytes, bytes, bytes]:
        """Return what changes before a checkpoint writes to the database."""
        return self.salts, self.moved, self.moving


class OpenFiles:
    """The database, its log and the index of that, and the lock file of a store that is open.

    `descriptor` is one of the database that its owner keeps open. Closing any descriptor of these files would take
    SQLite's locks away, so close this after SQLite's connections.
    """

    def __init__(self, store: Path, descriptor: int) -> None:
        self.store = store
        self.descriptor = descriptor
        self.lock = f"{store}.lock"
        self.given_up = False  #: something was found, and what could be saved was
        self._folder = str(store.parent)
        self._settled: tuple[int, int, int] | None = None  # the folder in which all names lead where they did
        self.is_settled = False  #: nothing in the folder has changed for some seconds
        self.log_restarted = False  #: a new log was begun since the last but one call of `overwritten`
        self._identities = {name: identity(os.lstat(name)) for name in map(str, self._names())}
        self._index = os.open(f"{store}-shm", os.O_RDONLY)
        self._log = os.open(f"{store}-wal", os.O_RDONLY)
        self._content = self._look()
        self._header = self._read_header()

    def _names(self) -> list[str]:
        return [str(self.store), f"{self.store}-wal", f"{self.store}-shm", self.lock]

    def close(self) -> None:
        os.close(self._index)
        os.close(self._log)

    def is_ours(self, name: str) -> bool:
        """Whether this name leads to the file that was opened under it."""
        return self._what_became_of(name) is None

    def displaced(self) -> str | None:
        """Return what was done to which file; None if all names lead where they did."""
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
        """Return what changes when a name in the folder leads elsewhere; None if the folder is not there."""
        try:
            found = os.stat(self._folder)
        except OSError:
            return None
        return found.st_dev, found.st_ino, max(found.st_mtime_ns, found.st_ctime_ns)

    def overwritten(self) -> str | None:
        """Return which file another program has written to since the last call, if any. Call it after a commit."""
        before, self._content = self._content, self._look()
        self.log_restarted = before.salts != self._content.salts
        in_use = int.from_bytes(self._content.frames, byteorder) > 0
        if in_use and os.pread(self._log, _SALTS_BYTES, _SALTS_AT) != self._content.salts:
            return f"{self.store}-wal"
        return str(self.store) if self._is_overwritten(before) else None

    def _is_overwritten(self, before: _Content) -> bool:
        if (before.modified, before.size) == (self._content.modified, self._content.size):
            return False
        header, self._header = self._header, self._read_header()
        if before.checkpoint != self._content.checkpoint or self._content.moved != self._content.moving:
            return False
        # A file whose time alone has changed was touched, not overwritten.
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
    """Return what tells one file from all others of this machine."""
    return found.st_dev, found.st_ino
