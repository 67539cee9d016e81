"""Whether a store's names still lead to the files that the broker has open, and whether only SQLite writes to them.

A removed file can be written to for as long as it is open, and everything in it is lost at the end. So the names are
compared after each commit, before anyone is told of it; that takes a few microseconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

#: Where SQLite's shared index of the log (-shm) has the log's salts and how much of it is in the database; see
#: "WAL-Index File Format" in its documentation.
_SALTS, _BACKFILLED = slice(32, 40), slice(96, 100)
_INDEX_BYTES = 100
#: Bytes of a database's header.
_HEADER_BYTES = 100

Identity = tuple[int, int]


class _Content(NamedTuple):
    """What shows that the database was written to, and that SQLite did it."""

    modified: int
    size: int
    checkpointed: bytes


class OpenFiles:
    """The database, its log and the index of that, and the lock file of a store that is open.

    `descriptor` is one of the database that its owner keeps open. Closing any descriptor of these files would take
    SQLite's locks away, so close this after SQLite's connections.
    """

    def __init__(self, store: Path, descriptor: int) -> None:
        self.store = store
        self.descriptor = descriptor
        self.lock = f"{store}.lock"
        self._identities = {name: identity(os.lstat(name)) for name in map(str, self._names())}
        self._index = os.open(f"{store}-shm", os.O_RDONLY)
        self._content = self._look(os.lstat(store))
        self._header = self._read_header()

    def _names(self) -> list[str]:
        return [str(self.store), f"{self.store}-wal", f"{self.store}-shm", self.lock]

    def close(self) -> None:
        os.close(self._index)

    def is_ours(self, name: str) -> bool:
        """Whether this name leads to the file that was opened under it."""
        return self._what_became_of(name) is None

    def displaced(self) -> str | None:
        """Return what was done to which file; None if all names lead where they did."""
        for name in self._identities:
            done = self._what_became_of(name)
            if done is not None:
                return f"{name} was {done}"
        return None

    def is_overwritten(self) -> bool:
        """Return whether another program than SQLite has written to the database since the last call."""
        before, self._content = self._content, self._look(os.fstat(self.descriptor))
        if (before.modified, before.size) == (self._content.modified, self._content.size):
            return False
        header, self._header = self._header, self._read_header()
        if before.checkpointed != self._content.checkpointed:
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

    def _look(self, found: os.stat_result) -> _Content:
        index = os.pread(self._index, _INDEX_BYTES, 0)
        return _Content(found.st_mtime_ns, found.st_size, index[_SALTS] + index[_BACKFILLED])

    def _read_header(self) -> bytes:
        return os.pread(self.descriptor, _HEADER_BYTES, 0)


def identity(found: os.stat_result) -> Identity:
    """Return what tells one file from all others of this machine."""
    return found.st_dev, found.st_ino
