"""Large values as files named by the SHA-256 of their bytes. What is written is synced; what is read is checked."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256 as sha256_of
from itertools import count
from pathlib import Path
from stat import S_ISREG
from threading import Lock

from dagorama_broker.errors import StoreError
from dagorama_broker.store.descriptors import shortage

CHUNK = 1 << 20
#: The file that tells a client which folder this is.
WORD = "shared"
_NAME = re.compile("[0-9a-f]{64}")
_CLIENTS_OWN = re.compile("[0-9a-f]{32}")


class LargeFiles:
    """A folder of values at ab/abcd..., owned by one process; put and get may be called from any thread.

    A value that no node names yet, or any more, is kept for a grace. Its time begins anew whenever it is given again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unfinished = folder / "unfinished"
        self._numbers = count(1)
        #: since when a value may be named by nobody, for those of which that may be so; longest first
        self._since: dict[bytes, float] = {}
        self._dropped: list[Path] = []
        self._damaged: set[bytes] = set()
        self._waiting: dict[str, float] = {}  # files of clients, and since when they were seen in `unfinished`
        self._one_moves = Lock()
        #: of the folder, once there is one; open, so that its number is not another folder's meanwhile
        self._descriptor: int | None = None

    def check_folder(self) -> None:
        """Raise StoreError if the folder was removed or replaced since it was first used."""
        if self._descriptor is None:
            self._open_folder()
            return
        found, held = _identity(self.folder), _identity(self._descriptor)
        if found != held:
            raise StoreError(
                f"{self.folder} was {'removed' if found is None else 'replaced'} under the running broker, with the"
                " large values that it held: put it back, and start the broker again"
            )

    def _open_folder(self) -> None:
        with suppress(OSError), self._one_moves:
            if self._descriptor is None:
                self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def sweep(self) -> None:
        """Remove what a broker was writing when it died. What clients have written they have yet to ask for."""
        self.check_folder()
        with self._saying_what_failed():
            for name in _listed(self._unfinished):
                if not is_clients_own(name):
                    (self._unfinished / name).unlink()

    def put(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        """Keep a value; its SHA-256 and length. A file of equal content is replaced, which heals a damaged one.

        What `chunks` raises goes through, and nothing is kept then.
        """
        self.check_folder()
        unfinished = self._unfinished / str(next(self._numbers))
        try:
            sha256, length = self._write(unfinished, chunks)
            with self._saying_what_failed():
                self._move_in(unfinished, sha256)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        self.check_folder()
        return sha256, length

    def get(self, sha256: bytes) -> Iterator[bytes] | None:
        """A value in chunks of at most 1 MiB; None where it is not there. A damaged one never yields its last chunk."""
        return self._read(sha256) if self.has(sha256) else None

    def has(self, sha256: bytes) -> bool:
        return self._file(sha256).is_file()

    # --- with clients on the same machine -------------------------------------------------------------

    def share(self) -> tuple[str, str]:
        """Let clients of this user read values here and write to `unfinished`: the folder's path, and a word by which
        they find that it is the same folder."""
        word = os.urandom(32).hex()
        with self._saying_what_failed():
            make_folder(self._unfinished)
            file = self.folder / WORD
            file.unlink(missing_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                _write_all(descriptor, word.encode())
            finally:
                os.close(descriptor)
        return str(self.folder), word

    def keep(self, sha256: bytes, length: int, unfinished: str = "") -> bool:
        """Whether a value is kept, durably; its time begins anew. Where it is not, the file of that name in
        `unfinished`, whole and synced, becomes it. `length` 0 stands for any.

        The content is not looked at: who may write there is this user, and whoever reads a value compares it.
        """
        file, given = self._file(sha256), self._unfinished / unfinished if unfinished else None
        self.check_folder()
        with self._saying_what_failed():
            if sha256 not in self._damaged and self._begin_anew(file, sha256, length):
                sync_folder(file.parent)  # it may have come this instant
            elif given is not None and _is_whole(given, length) and not _is_same(given, file):
                self._move_in(given, sha256)
            else:
                return False
            if given is not None:
                given.unlink(missing_ok=True)
        self.check_folder()
        return True

    def _begin_anew(self, file: Path, sha256: bytes, length: int) -> bool:
        with self._one_moves:
            if not _is_whole(file, length):
                return False
            self._since.pop(sha256, None)
            self._since[sha256] = time.monotonic()
        return True

    # --- collecting -----------------------------------------------------------------------------------

    def look_around(self) -> None:
        """Take all that is there for named by nobody, from now on; whoever collects finds out."""
        with self._saying_what_failed():
            found = list(_names_below(self.folder))
        self.unnamed(found)

    def unnamed(self, values: Iterable[bytes]) -> None:
        """Nothing may name these any more."""
        with self._one_moves:
            for sha256 in values:
                self._since.setdefault(sha256, time.monotonic())

    def collect(
        self, grace: float, most: int, is_wanted: Callable[[bytes], bool], is_named: Callable[[bytes], bool]
    ) -> bool:
        """Take away up to `most` values that nobody has named for `grace` seconds; whether there may be more.

        What `is_wanted` stays for another grace; what `is_named` is looked at no more, until `unnamed` says so.
        What was taken away is deleted by `empty`.
        """
        now = time.monotonic()
        with self._one_moves:
            old = self._older_than(now - grace, most)
            for sha256 in old:
                del self._since[sha256]
                if is_wanted(sha256):
                    self._since[sha256] = now
                elif not is_named(sha256):
                    self._drop(sha256)
        return len(old) == most

    def empty(self, grace: float) -> None:
        """Delete what was taken away, and what clients have left in `unfinished` for so many seconds."""
        with self._one_moves:
            dropped, self._dropped = self._dropped, []
        with self._saying_what_failed():
            for file in dropped:
                file.unlink(missing_ok=True)
            for name in self._left_behind(grace):
                (self._unfinished / name).unlink(missing_ok=True)

    def _left_behind(self, grace: float) -> list[str]:
        """What of clients has been in `unfinished` for so long: as seen here, since clocks are put forward."""
        now = time.monotonic()
        names = filter(is_clients_own, _listed(self._unfinished))
        self._waiting = {name: self._waiting.get(name, now) for name in names}
        return [name for name, since in self._waiting.items() if since <= now - grace]

    def _older_than(self, time: float, most: int) -> list[bytes]:
        old: list[bytes] = []
        for sha256, since in self._since.items():
            if since > time or len(old) == most:
                break
            old.append(sha256)
        return old

    def _drop(self, sha256: bytes) -> None:
        dropped = self._unfinished / f"{next(self._numbers)}.dropped"
        with self._saying_what_failed(), suppress(FileNotFoundError):
            make_folder(self._unfinished)
            os.replace(self._file(sha256), dropped)
            self._dropped.append(dropped)

    # --- files ----------------------------------------------------------------------------------------

    def _file(self, sha256: bytes) -> Path:
        name = sha256.hex()
        return self.folder / name[:2] / name

    def _write(self, file: Path, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        seen, length = sha256_of(), 0
        with self._saying_what_failed():
            make_folder(file.parent)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for chunk in chunks:
                seen.update(chunk)
                length += len(chunk)
                with self._saying_what_failed():
                    _write_all(descriptor, chunk)
            with self._saying_what_failed():
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return seen.digest(), length

    def _move_in(self, unfinished: Path, sha256: bytes) -> None:
        file = self._file(sha256)
        make_folder(file.parent)
        with self._one_moves:  # who collects either comes before, or finds that it was given just now
            self._since.pop(sha256, None)
            self._since[sha256] = time.monotonic()
            os.replace(unfinished, file)
            self._damaged.discard(sha256)
        sync_folder(file.parent)

    def _read(self, sha256: bytes) -> Iterator[bytes]:
        file, seen, chunk = self._file(sha256), sha256_of(), b""
        for following in self._chunks(file):
            if chunk:
                yield chunk
            chunk = following
            seen.update(chunk)
        if seen.digest() != sha256:
            self._damaged.add(sha256)
            raise StoreError(f"{file} is damaged: its content does not have the SHA-256 that it is named by")
        yield chunk

    def _chunks(self, file: Path) -> Iterator[bytes]:
        with self._saying_what_failed():
            descriptor = os.open(file, os.O_RDONLY)
        try:
            while True:
                with self._saying_what_failed():
                    chunk = os.read(descriptor, CHUNK)
                if not chunk:
                    return
                yield chunk
        finally:
            os.close(descriptor)

    @contextmanager
    def _saying_what_failed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"large values in {self.folder}: {shortage(error) or error.strerror or error}") from error


def _names_below(folder: Path) -> Iterator[bytes]:
    """Names of the values in a folder, without what is being written and what somebody else has put there."""
    for inner in _listed(folder):
        for name in _listed(folder / inner):
            if _NAME.fullmatch(name):
                yield bytes.fromhex(name)


def _identity(folder: Path | int) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def is_clients_own(name: str) -> bool:
    """Whether it may be the name of what a client has written to `unfinished`."""
    return _CLIENTS_OWN.fullmatch(name) is not None


def _is_whole(file: Path, length: int) -> bool:
    try:
        found = file.lstat()
    except FileNotFoundError:
        return False
    return S_ISREG(found.st_mode) and length in (0, found.st_size)


def _is_same(file: Path, other: Path) -> bool:
    """Whether these are two names of one file; renaming the one to the other would do nothing."""
    return other.exists() and file.samefile(other)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, for this user alone, so that they outlive a power loss."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """What was made or renamed in a folder outlives a power loss only when the folder itself is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
