"""The folder of large values that a supervisor shares with its children. Fetched values stay while there is room."""

import os
import shutil
from collections import Counter, OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

from dagorama.client.shared_files import SharedFiles
from dagorama.worker.spool_files import BROKER_FOLDER_FILE, TAKES_NAMED, path_of, write_whole
from dagorama_monitoring.process.temporary_folders import temporary_folder

MAX_SPOOL_BYTES = 2 << 30  #: above this size unused values are removed; values in use always stay


def spool_folder() -> Path:
    """Return a new folder for this process and its forks, and remove the folders of killed workers."""
    try:
        return temporary_folder("worker")[0]  # its lock is never released
    except OSError:  # the folder is created with the first value then
        return Path(gettempdir(), f"dagorama-{os.getpid()}-{os.urandom(6).hex()}")


def remove_folder(folder: Path) -> None:
    """Remove the folder, if it exists."""
    shutil.rmtree(folder, ignore_errors=True)


class Spool:
    """The values in the folder and the numbers of their users. The least recently used one is removed first."""

    def __init__(self, folder: Path, room: int = MAX_SPOOL_BYTES) -> None:
        self.folder = folder
        self._room = room
        self._size = 0
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._users: Counter[bytes] = Counter()

    def path(self, digest: bytes) -> Path:
        """Return the path of a value."""
        return path_of(self.folder, digest)

    def __contains__(self, digest: bytes) -> bool:
        """Return whether the value is in the folder, and count this as a use."""
        if digest not in self._sizes:
            with suppress(FileNotFoundError):
                self._note(digest, self.path(digest).stat().st_size)
        if digest in self._sizes:
            self._sizes.move_to_end(digest)
        return digest in self._sizes

    def show(self, files: SharedFiles | None, takes_named: bool = False) -> None:
        """Tell the children the path of the broker's folder, or with None that it is not on this machine.

        `takes_named`: the broker takes files there that are named by their SHA-256.
        """
        named = self.folder / BROKER_FOLDER_FILE
        if files is not None:
            write_whole(named, os.fsencode(files.folder) + (TAKES_NAMED if takes_named else b""))
        else:
            named.unlink(missing_ok=True)

    def hold(self, digests: Iterable[bytes]) -> None:
        """Keep these values until `release`, even if they are not in the folder yet."""
        self._users.update(digests)

    def release(self, digests: Iterable[bytes]) -> None:
        """Stop using these values. A value without other users may be removed."""
        for digest in digests:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]
        self._make_room()

    def count_unreported(self, pid: int) -> None:
        """Count values that an exited child has written without reporting them, and remove its temporary files."""
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
