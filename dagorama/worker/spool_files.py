"""Large values as a child sees them: files in the folder that it shares with its supervisor, or in the broker's own."""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import get_ident

from dagorama.client.connection import refuse_excess
from dagorama.client.shared_files import SharedFiles, mapped
from dagorama.errors import ValueNotReadable
from dagorama.values.out_of_band import Buffer, Checked

#: a link of the supervisor's to the broker's folder, where that is in sight
BROKERS = "broker.link"
#: behind a value's name: a link that says under which name it waits in the broker's folder
WAITS = ".waits"


class SpoolValues:
    """The supervisor sends and fetches, and removes what is old. Where it can, a child spares it the bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: Buffer) -> bytes:
        refuse_excess(len(data))
        digest = sha256(data).digest()
        path = path_of(self._folder, digest)
        if not path.exists() and not self._leave(data, digest):
            write_whole(path, data)
        return digest

    def get(self, digest: bytes) -> Checked:
        files = brokers_files(self._folder)
        if files is not None and (found := files.get(digest)) is not None:
            return found
        try:
            found = mapped(path_of(self._folder, digest), digest)
        except FileNotFoundError as error:
            raise ValueNotReadable(f"the broker no longer has the large value {digest.hex()}") from error
        if found is None:
            raise ValueNotReadable(f"what was fetched for the large value {digest.hex()} is something else")
        return found

    def _leave(self, data: Buffer, digest: bytes) -> bool:
        """Have it with the broker, durably; the supervisor asks for it to be kept before it reports who names it."""
        files = brokers_files(self._folder)
        if files is None:
            return False
        with suppress(OSError):
            waits = waiting_name(self._folder, digest)
            if waits is None or not files.unfinished(waits).exists():
                set_link(waits_path(self._folder, digest), files.write(data, digest))
            return True
        return False


def path_of(folder: Path, digest: bytes) -> Path:
    return folder / digest.hex()


def waits_path(folder: Path, digest: bytes) -> Path:
    return folder / (digest.hex() + WAITS)


def waiting_name(folder: Path, digest: bytes) -> str | None:
    """The name in the broker's folder under which a child has left a value there that was not asked for yet."""
    return _link(waits_path(folder, digest))


def brokers_files(folder: Path) -> SharedFiles | None:
    """The broker's own folder, where the supervisor has found it."""
    path = _link(folder / BROKERS)
    return None if path is None else SharedFiles(Path(path))


def set_link(path: Path, target: str) -> None:
    """Have a link say something, whatever it said before."""
    temporary = _temporary(path)
    temporary.symlink_to(target)
    temporary.replace(path)


def write_whole(path: Path, data: Buffer) -> None:
    """Under its name only when it is complete; the folder is made when it is first needed."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = _temporary(path)
    temporary.write_bytes(data)
    temporary.replace(path)


def _temporary(path: Path) -> Path:
    """Of this thread alone; a child that dies leaves it to its supervisor to remove."""
    return path.with_suffix(f".{os.getpid()}-{get_ident()}")


def _link(path: Path) -> str | None:
    with suppress(OSError):
        return os.readlink(path)
    return None
