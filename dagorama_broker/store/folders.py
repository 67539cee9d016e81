"""Folders of a store: created for this user alone, synced, and checked to be the same while a broker runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from dagorama_broker.errors import StoreError
from dagorama_broker.model.queries import Usage


class WatchedFolder:
    """A folder that must not be removed or replaced while it is in use; any thread may call `check`."""

    def __init__(self, folder: Path, content: str) -> None:
        """`content` names what the folder holds, for the error."""
        self._folder = folder
        self._content = content
        self._opens = Lock()
        #: of the folder, once it exists; open, so that no other folder gets its inode number meanwhile
        self._descriptor: int | None = None

    def check(self) -> None:
        """Raise StoreError if the folder was removed or replaced since it was first used."""
        if self._descriptor is None:
            self._open()
            return
        found, held = _identity(self._folder), _identity(self._descriptor)
        if found != held:
            raise StoreError(
                f"{self._folder} was {'removed' if found is None else 'replaced'} while the broker was running, with"
                f" the {self._content} in it: restore it, and start the broker again"
            )

    def _open(self) -> None:
        with suppress(OSError), self._opens:
            if self._descriptor is None:
                self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Stop watching the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _identity(folder: Path | int) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, for this user alone, so that they survive a power loss."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    _make(folder)
    sync_folder(folder.parent)


def make_folders(folder: Path, names: Iterable[str]) -> None:
    """Create folders in a folder, as `make_folder` does, and sync them together."""
    make_folder(folder)
    existing = set(os.listdir(folder))
    missing = [name for name in names if name not in existing]
    for name in missing:
        _make(folder / name)
    if missing:
        sync_folder(folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{folder.name} is not a folder: move it away") from None


def sync_folder(folder: Path) -> None:
    """Sync a folder: only then do files that were created or renamed in it survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_folder(folder: Path) -> list[str]:
    """Return the names in a folder; none if it does not exist."""
    return os.listdir(folder) if folder.is_dir() else []


def usage_of(database: Path, values: int) -> Usage:
    """Return the bytes of the files of a store; `values`: of its large values. Raises StoreError.

    The files are not opened: that would free locks.
    """
    try:
        disk = os.statvfs(database.parent)
        return Usage(_size(database), _size(_log_of(database)), values, disk.f_bavail * disk.f_frsize)
    except OSError as error:
        raise _unreadable(database, error) from error


def size_of(database: Path) -> int:
    """Return the bytes of a database and its log. Raise StoreError."""
    try:
        return _size(database) + _size(_log_of(database))
    except OSError as error:
        raise _unreadable(database, error) from error


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _unreadable(database: Path, error: OSError) -> StoreError:
    return StoreError(f"the size of store {database} cannot be read: {error.strerror}")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def usage_below(folder: Path) -> int:
    """Return the bytes of the files in the folders of a folder. Raise OSError."""
    return sum(_size(folder / inner / name) for inner in list_folder(folder) for name in list_folder(folder / inner))
