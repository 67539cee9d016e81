"""Large values as files in a folder of the broker on this machine: read and written without a message for their bytes.

A value is the file ab/abcd..., named by the SHA-256 of its bytes. A new value is written to `unfinished` under a random
name. Then the broker is asked to move it to its place, or the file is renamed to the SHA-256 and the broker moves it
when a submission or report names the value.

The rule: the folder is used only if this user owns it, no other user can enter it, and it contains the secret word that
the broker has sent. A file is compared with its name before it is used.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock

from dagorama.values.hashing import Hashing
from dagorama.values.out_of_band import Buffer, Verified

UNFINISHED = "unfinished"
WORD = "shared"  #: the file with the secret word of the broker
#: The largest number of files that are remembered as compared.
REMEMBERED = 4096
#: Bytes that one system call writes; after each, it is checked whether the value exists already.
PIECE = 8 << 20


class SharedFiles:
    """The folder of a broker. It is thread-safe; after an OSError the caller sends the value to the broker instead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def found(cls, path: str, word: str) -> SharedFiles | None:
        """Return the folder that a broker names, or None if this machine does not have the same folder."""
        if not path or not word:
            return None
        folder = Path(path)
        try:
            found = folder.stat()
            is_ours = found.st_uid == os.geteuid() and not found.st_mode & 0o077
            return cls(folder) if is_ours and (folder / WORD).read_text() == word else None
        except (OSError, ValueError):
            return None

    def has(self, digest: bytes) -> bool:
        return self._file(digest).exists()

    def get(self, digest: bytes) -> Verified | None:
        """Return a private copy of a value; None if there is no file, or its bytes do not match its name."""
        with suppress(OSError):
            return mapped(self._file(digest), digest)
        return None

    def write(self, data: Buffer, hashing: Hashing) -> str:
        """Write bytes durably to `unfinished` and return their name there; link a value that exists already.

        Raises OSError.
        """
        name, may_exist, rest = os.urandom(16).hex(), True, memoryview(data)
        descriptor = os.open(self.unfinished(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while rest:
                if may_exist and hashing.is_done:
                    if linked := self._linked(hashing.digest(), len(data)):
                        self.drop(name)
                        return linked
                    may_exist = False
                rest = rest[os.write(descriptor, rest[:PIECE]) :]
            os.fsync(descriptor)
        except BaseException:
            self.drop(name)
            raise
        finally:
            os.close(descriptor)
        return name

    def _linked(self, digest: bytes, length: int) -> str:
        """Return the name of a new link to a value in `unfinished`, or "" if there is no such value."""
        name, kept = os.urandom(16).hex(), self._file(digest)
        with suppress(FileNotFoundError):
            if kept.stat().st_size == length:
                os.link(kept, self.unfinished(name))  # the broker cannot delete it before it is asked to import it
                return name
        return ""

    def leave(self, digest: bytes, name: str) -> None:
        """Rename a file of `write` durably: the broker takes it when a submission or report names the value.

        Raises OSError.
        """
        self.unfinished(name).replace(self.unfinished(digest.hex()))
        self.drop(name)  # nothing is renamed if both are names of one file
        descriptor = os.open(self.folder / UNFINISHED, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def left(self, digest: bytes) -> bytes | None:
        """Return a value of `leave` that the broker has not taken."""
        with suppress(OSError):
            return self.unfinished(digest.hex()).read_bytes()
        return None

    def unfinished(self, name: str) -> Path:
        return self.folder / UNFINISHED / name

    def drop(self, name: str) -> None:
        """Remove a file from `unfinished`."""
        with suppress(OSError):
            self.unfinished(name).unlink(missing_ok=True)

    def _file(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.folder / name[:2] / name


def mapped(path: Path, digest: bytes) -> Verified | None:
    """Return a private, writable mapping of a file; None if its bytes do not match the digest. Raises OSError."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if not found.st_size:
            return None
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    state = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    if _compared.get(digest) != state:
        if sha256(view).digest() != digest:
            return None
        _remember(digest, state)
    return Verified(view)


# A value that many nodes read is compared once in each process. That is as safe as comparing it each time: a file is
# written once and only renamed or linked later, a change of its bytes changes st_ctime, which no program can set back,
# and only this user, who can also change this process, may write to it.
_compared: dict[bytes, tuple[int, ...]] = {}
_remembering = Lock()


def _remember(digest: bytes, state: tuple[int, ...]) -> None:
    with _remembering:
        if len(_compared) >= REMEMBERED:
            del _compared[next(iter(_compared))]
        _compared[digest] = state


def _renew_lock() -> None:
    # Another thread of the parent may have held it at the fork.
    global _remembering
    _remembering = Lock()


os.register_at_fork(after_in_child=_renew_lock)
