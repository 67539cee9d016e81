"""Large values in a child: files in the spool that it shares with its supervisor, or in the broker's folder.

Supervisor and child both import this module, so it imports neither.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import get_ident

from dagorama.client.chunks import refuse_excess
from dagorama.client.shared_files import SharedFiles, mapped
from dagorama.errors import ValueNotReadable
from dagorama.values.hashing import Hashing
from dagorama.values.out_of_band import Buffer, Verified

#: the file with the path of the broker's folder, if that is on this machine
BROKER_FOLDER_FILE = "broker.folder"
#: what follows the path there if the broker takes files that are named by their SHA-256; no path has a zero byte
TAKES_NAMED = b"\0named"


class SpoolValues:
    """The large values that a child stores and reads. Its supervisor sends, fetches and removes them.

    If the broker's folder is on this machine, the child writes there, and sends the name of the file to the supervisor
    with the outcome that needs the value.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[bytes, bytes] = {}

    def put(self, data: Buffer) -> bytes:
        """Store a value and return its SHA-256."""
        refuse_excess(len(data))
        hashing = Hashing(data)
        if not self._leave(data, hashing):
            path = path_of(self._folder, hashing.digest())
            if not path.exists():
                write_whole(path, data)
        return hashing.digest()

    def get(self, digest: bytes) -> Verified:
        """Return a value. Raises ValueNotReadable if it does not exist or does not match its hash."""
        files = _brokers_files(self._folder)[0]
        if files is not None and (found := files.get(digest)) is not None:
            return found
        try:
            found = mapped(path_of(self._folder, digest), digest)
        except FileNotFoundError as error:
            raise ValueNotReadable(
                f"the broker no longer has the large value {digest.hex()}, or not its bytes: call put() again"
            ) from error
        if found is None:
            raise ValueNotReadable(f"the file of the large value {digest.hex()} does not match its hash")
        return found

    def take_waiting(self, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the names of these values' files in the broker's folder, and forget them."""
        return {digest: name for digest in digests if (name := self._waiting.pop(digest, None)) is not None}

    def _leave(self, data: Buffer, hashing: Hashing) -> bool:
        """Write a value durably to the broker's folder, and return whether that was possible."""
        files, takes_named = _brokers_files(self._folder)
        if files is None:
            return False
        with suppress(OSError):
            if hashing.is_done and self._is_left(files, hashing.digest(), takes_named):
                return True
            written, digest = files.write(data, hashing), hashing.digest()
            if self._is_left(files, digest, takes_named):
                files.drop(written)
                return True
            if takes_named:
                files.leave(digest, written)
            self._waiting[digest] = bytes.fromhex(written)
            return True
        return False

    def _is_left(self, files: SharedFiles, digest: bytes, takes_named: bool) -> bool:
        """Return whether a value is in the broker's folder already, and waits for the outcome that names it."""
        name = self._waiting.get(digest)
        return name is not None and files.unfinished(digest.hex() if takes_named else name.hex()).exists()


def path_of(folder: Path, digest: bytes) -> Path:
    """Return the path of a value in the spool."""
    return folder / digest.hex()


def _brokers_files(folder: Path) -> tuple[SharedFiles | None, bool]:
    """Return the broker's folder, and whether it takes files by their SHA-256.

    The folder is None if the supervisor has not found it on this machine.
    """
    with suppress(OSError):
        path, mark, _ = (folder / BROKER_FOLDER_FILE).read_bytes().partition(TAKES_NAMED)
        return SharedFiles(Path(os.fsdecode(path))), bool(mark)
    return None, False


def write_whole(path: Path, data: Buffer) -> None:
    """Write a file atomically, and create its folder if necessary."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = _temporary(path)
    temporary.write_bytes(data)
    temporary.replace(path)


def _temporary(path: Path) -> Path:
    # The name is unique to this thread. If a child crashes, its supervisor removes the file.
    return path.with_suffix(f".{os.getpid()}-{get_ident()}")
