"""Large values as files that the broker and we both see: read where they are, written beside them, without a message.

The broker's folder holds a value at ab/abcd..., named by the SHA-256 of its bytes. What is new is written to
`unfinished`, under a name that nobody can guess, and the broker is asked to move it to its place.

The rule: only a folder that this user owns, that nobody else can enter, and that holds the word which the broker has
given for it. What is in it is compared with its name before it is used.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock

from dagorama.values.out_of_band import Buffer, Checked

UNFINISHED = "unfinished"
WORD = "shared"  #: the file with the broker's word
#: files of which it is remembered that they were compared
REMEMBERED = 4096


class SharedFiles:
    """The folder of a broker. Any thread may use it; what raises OSError is to go through the broker instead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def found(cls, path: str, word: str) -> SharedFiles | None:
        """The folder that a broker speaks of, if it is the same one here."""
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

    def get(self, digest: bytes) -> Checked | None:
        """A value, for the caller alone to write to; None where it is not there, or not what its name says."""
        with suppress(OSError):
            return mapped(self._file(digest), digest)
        return None

    def write(self, data: Buffer, digest: bytes) -> str:
        """Have the bytes in `unfinished`, durably; the name there. What is kept already is not written again.

        Raises OSError.
        """
        name = os.urandom(16).hex()
        path, kept = self.unfinished(name), self._file(digest)
        with suppress(FileNotFoundError):
            if kept.stat().st_size == len(data):
                os.link(kept, path)  # it cannot be collected before the broker is asked for it
                return name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        except BaseException:
            self.drop(name)
            raise
        finally:
            os.close(descriptor)
        return name

    def unfinished(self, name: str) -> Path:
        return self.folder / UNFINISHED / name

    def drop(self, name: str) -> None:
        """Of `unfinished`: nobody will ask for it any more."""
        with suppress(OSError):
            self.unfinished(name).unlink(missing_ok=True)

    def _file(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.folder / name[:2] / name


def mapped(path: Path, digest: bytes) -> Checked | None:
    """A file in memory, writable for the caller alone; None where it is not what its name says. Raises OSError."""
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
    return Checked(view)


# A value that many nodes read is compared once in each process. That is as good as each time: such files are written
# once and then renamed or linked only, any later change of the bytes changes the times of the file, which no program
# can set back (st_ctime), and whoever may write to it is this user, who may as well write to this process.
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


def _write_all(descriptor: int, data: Buffer) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
