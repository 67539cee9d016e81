"""Large values as files named by the SHA-256 of their content. Writes are synced; reads are checked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256 as sha256_of
from itertools import count
from pathlib import Path
from threading import Lock

from dagorama_broker.errors import StoreError
from dagorama_broker.store.descriptors import shortage
from dagorama_broker.store.folders import WatchedFolder, list_folder, make_folder, make_folders, sync_folder
from dagorama_broker.store.graces import Graces
from dagorama_broker.store.value_files import is_clients_own, is_same, is_whole, names_below, sha256_in, write_all

CHUNK = 1 << 20
#: The file by which a client recognizes the folder.
WORD = "shared"
#: The folders that values are in, by the first byte of their SHA-256.
FOLDERS = [f"{number:02x}" for number in range(256)]


class LargeFiles:
    """A folder of values at ab/abcd..., owned by one process; put and get may be called from any thread.

    A value that no node refers to is kept for a grace period, which starts again whenever the value is stored again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unfinished = folder / "unfinished"
        # Of files in `unfinished`. A broker that stood still and was replaced has other ones when it goes on.
        self._names = map(f"{os.urandom(8).hex()}-{{}}".format, count(1))
        self._graces = Graces()
        self._dropped: list[Path] = []
        self._damaged: set[bytes] = set()
        self._waiting: dict[str, float] = {}  # files of clients, and since when they were seen in `unfinished`
        self._one_moves = self._graces.lock
        self._makes_folders, self._has_folders = Lock(), False
        self._watched = WatchedFolder(folder, "large values")

    def check_folder(self) -> None:
        """Raise StoreError if the folder was removed or replaced since it was first used."""
        self._watched.check()

    def close(self) -> None:
        """Stop watching the folder; the values stay."""
        self._watched.close()

    def sweep(self) -> None:
        """Delete what an earlier broker was writing when it died, but not files of clients, who may still use them.

        Those that `take` would take become values, because what names them may be recorded already.
        """
        self.check_folder()
        with self._saying_what_failed():
            names = list_folder(self._unfinished)
            for name in names:
                if not is_clients_own(name):
                    (self._unfinished / name).unlink()
        for sha256 in filter(None, map(sha256_in, names)):
            self.take(sha256)

    def put(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        """Store a value; return its SHA-256 and length. Replace a file of equal content, which may be damaged.

        An exception of `chunks` is passed on, and nothing is stored then.
        """
        self.check_folder()
        unfinished = self._unfinished / next(self._names)
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
        """Return a value in chunks of at most 1 MiB; None if it is not stored. A damaged one never yields its end."""
        return self._read(sha256) if self.has(sha256) else None

    def has(self, sha256: bytes) -> bool:
        """Return whether a value is stored."""
        return self._file(sha256).is_file()

    # --- with clients on the same machine -------------------------------------------------------------

    def share(self) -> tuple[str, str]:
        """Let clients of this user read values here and write to `unfinished`.

        Return the folder's path, and a word in a file there, by which clients recognize the folder.
        """
        word = os.urandom(32).hex()
        with self._saying_what_failed():
            make_folder(self._unfinished)
            file = self.folder / WORD
            file.unlink(missing_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                write_all(descriptor, word.encode())
            finally:
                os.close(descriptor)
        return str(self.folder), word

    def keep(self, sha256: bytes, length: int, unfinished: str = "") -> bool:
        """Make sure that a value is stored durably, and restart its grace period; return whether it is.

        If it is missing, the file `unfinished`, complete and synced by a client, becomes the value. `length` 0 means
        any. The content is not checked: only this user can write there, and every reader of a value checks it.
        """
        file, given = self._file(sha256), self._unfinished / unfinished if unfinished else None
        self.check_folder()
        with self._saying_what_failed():
            if sha256 not in self._damaged and self._restart_grace(file, sha256, length):
                sync_folder(file.parent)  # the file may have been created just now
            elif given is not None and is_whole(given, length) and not is_same(given, file):
                self._move_in(given, sha256)
            else:
                return False
            if given is not None:
                given.unlink(missing_ok=True)
        self.check_folder()
        return True

    def take(self, sha256: bytes) -> bool:
        """Return whether a value is stored; if it is not, a client's file in `unfinished` with its name becomes it.

        The client has synced the file and its name. The move is not synced: if it is lost, `sweep` repeats it.
        """
        file, given = self._file(sha256), self._unfinished / sha256.hex()
        if not is_whole(given, 0):
            return file.is_file()
        with self._saying_what_failed():
            if (file.is_file() and sha256 not in self._damaged) or is_same(given, file):
                given.unlink(missing_ok=True)
            else:
                self._move(given, sha256)
        return True

    def _restart_grace(self, file: Path, sha256: bytes, length: int) -> bool:
        with self._one_moves:
            if not is_whole(file, length):
                return False
            self._graces.restart(sha256)
        return True

    # --- collecting -----------------------------------------------------------------------------------

    def look_around(self) -> None:
        """Treat all stored values as unreferenced from now on; `collect` asks whether they are."""
        with self._saying_what_failed():
            found = list(names_below(self.folder))
        self.unnamed(found)

    def unnamed(self, values: Iterable[bytes]) -> None:
        """Treat these values as unreferenced from now on; `collect` asks whether they are."""
        with self._one_moves:
            self._graces.begin(values)

    def collect(
        self, grace: float, most: int, is_wanted: Callable[[bytes], bool], is_named: Callable[[bytes], bool]
    ) -> bool:
        """Remove up to `most` values that were unreferenced for `grace` seconds; return whether there may be more.

        Values that are `is_wanted` get another grace period; values that are `is_named` are not considered again until
        `unnamed` is called with them. `empty` deletes the removed files.
        """
        with self._one_moves:
            return self._graces.collect(grace, most, is_wanted, is_named, self._drop)

    def empty(self, grace: float) -> None:
        """Delete removed values, and files that clients left in `unfinished` for `grace` seconds."""
        with self._one_moves:
            dropped, self._dropped = self._dropped, []
        with self._saying_what_failed():
            for file in dropped:
                file.unlink(missing_ok=True)
            for name in self._left_behind(grace):
                (self._unfinished / name).unlink(missing_ok=True)

    def _left_behind(self, grace: float) -> list[str]:
        """Return files of clients that were seen in `unfinished` for `grace` seconds: file times may be wrong."""
        now = time.monotonic()
        names = filter(is_clients_own, list_folder(self._unfinished))
        self._waiting = {name: self._waiting.get(name, now) for name in names}
        return [name for name, since in self._waiting.items() if since <= now - grace]

    def _drop(self, sha256: bytes) -> None:
        dropped = self._unfinished / f"{next(self._names)}.dropped"
        with self._saying_what_failed(), suppress(FileNotFoundError):
            make_folder(self._unfinished)
            os.replace(self._file(sha256), dropped)
            self._dropped.append(dropped)

    # --- files ----------------------------------------------------------------------------------------

    def _file(self, sha256: bytes) -> Path:
        name = sha256.hex()
        return self.folder / name[:2] / name

    def _make_folders(self) -> None:
        """Make the folders of all values with the first one: later values, which may be many, sync none of them."""
        with self._makes_folders:
            if not self._has_folders:
                make_folders(self.folder, FOLDERS)
                self._has_folders = True

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
                    write_all(descriptor, chunk)
            with self._saying_what_failed():
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return seen.digest(), length

    def _move_in(self, unfinished: Path, sha256: bytes) -> None:
        self._move(unfinished, sha256)
        sync_folder(self._file(sha256).parent)

    def _move(self, unfinished: Path, sha256: bytes) -> None:
        file = self._file(sha256)
        self._make_folders()
        with self._one_moves:  # `collect` runs either before this, or finds that the grace period has started again
            self._graces.restart(sha256)
            os.replace(unfinished, file)
            self._damaged.discard(sha256)

    def _read(self, sha256: bytes) -> Iterator[bytes]:
        file, seen, chunk = self._file(sha256), sha256_of(), b""
        for following in self._chunks(file):
            if chunk:
                yield chunk
            chunk = following
            seen.update(chunk)
        if seen.digest() != sha256:
            self._damaged.add(sha256)
            raise StoreError(f"{file} is damaged: its content does not have the SHA-256 that is its name")
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
