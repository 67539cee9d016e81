"""The folder of large values that a supervisor shares with its children: fetched once, kept while there is room."""

import os
import shutil
from collections import Counter, OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

from dagorama.client.shared_files import SharedFiles
from dagorama.worker.spool_files import BROKERS, path_of, write_whole

ROOM = 2 << 30  #: bytes that are kept for later; what is in use is kept beyond that


def spool_folder() -> Path:
    """A name for this process's folder; the first value that comes makes it."""
    return Path(gettempdir(), f"dagorama-{os.getpid()}-{os.urandom(6).hex()}")


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


class Spool:
    """Which values are there, who uses them, and which one goes next: the one longest unused."""

    def __init__(self, folder: Path, room: int = ROOM) -> None:
        self.folder = folder
        self._room = room
        self._size = 0
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._users: Counter[bytes] = Counter()

    def path(self, digest: bytes) -> Path:
        return path_of(self.folder, digest)

    def __contains__(self, digest: bytes) -> bool:
        """Whether its bytes are there, whoever wrote them; asking counts as a use."""
        if digest not in self._sizes:
            with suppress(FileNotFoundError):
                self._note(digest, self.path(digest).stat().st_size)
        if digest in self._sizes:
            self._sizes.move_to_end(digest)
        return digest in self._sizes

    def show(self, files: SharedFiles | None) -> None:
        """Tell the children where the broker's folder is, or with None that they do not see it."""
        named = self.folder / BROKERS
        if files is not None:
            write_whole(named, os.fsencode(files.folder))
        else:
            named.unlink(missing_ok=True)

    def hold(self, digests: Iterable[bytes]) -> None:
        """Keep them until `release`, whether they are there yet or not."""
        self._users.update(digests)

    def release(self, digests: Iterable[bytes]) -> None:
        for digest in digests:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]
        self._make_room()

    def adopt_strays(self, pid: int) -> None:
        """Count what a child has written without living to say so."""
        with suppress(FileNotFoundError):
            for path in list(self.folder.iterdir()):
                if path.suffix.startswith(f".{pid}-"):
                    path.unlink(missing_ok=True)
                elif not path.suffix and (digest := bytes.fromhex(path.name)) not in self._sizes:
                    self._note(digest, path.stat().st_size)
        self._make_room()

    def _note(self, digest: bytes, size: int) -> None:
        self._sizes[digest] = size
        self._size += size

    def _make_room(self) -> None:
        for digest in [each for each in self._sizes if each not in self._users]:
            if self._size <= self._room:
                return
            self._size -= self._sizes.pop(digest)
            self.path(digest).unlink(missing_ok=True)
