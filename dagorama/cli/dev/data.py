"""The files of `dagorama dev`: the store and its folder, and the file by which programs find the broker.

The rule: a folder in use is neither shared nor emptied. Locks end with the processes that hold them, so nothing must
be cleaned up after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from shutil import rmtree
from time import sleep

from dagorama.dev_address import FILE, FOLDER, HOST

STORE = "broker.sqlite3"
#: Seconds between two attempts to lock a file.
_PAUSE = 0.02
#: Attempts to lock the file of the address, which a program that looks for the broker locks for an instant, and the
#: store, which the broker of a killed `dagorama dev` leaves within a few seconds.
_ATTEMPTS, _ATTEMPTS_OF_ENDING = 25, 350


class Unusable(Exception):
    """The folder cannot be used; the message says why."""


@contextmanager
def said(what: str) -> Iterator[None]:
    """Raise Unusable for an error of the system."""
    try:
        yield
    except OSError as error:
        raise Unusable(f"{what}: {error.strerror or error}") from None


class AddressFile:
    """The file `.dagorama/address` of a folder, which is locked for the life of this object."""

    def __init__(self, folder: Path) -> None:
        made = make_folder(folder / FOLDER)
        self.path = made / FILE
        with said(f"{self.path} cannot be written"):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(self._descriptor, 0o600)  # others could write an address into a file that an older umask made
        self._lock()
        self.clear()

    def _lock(self) -> None:
        with said(f"{self.path} cannot be locked"):
            if not _locked(self._descriptor, _ATTEMPTS):
                raise self._in_use()

    def _in_use(self) -> Unusable:
        address, _, pid = os.pread(self._descriptor, 100, 0).decode(errors="replace").strip().partition(" ")
        where = f" with its broker at {address}" if address else ""
        return Unusable(
            f"dagorama dev is already running for {self.path.parents[1]}{where}{f' ({pid})' if pid else ''}"
        )

    def write(self, port: int) -> None:
        """Tell programs the address of the broker."""
        self.clear()
        with said(f"{self.path} cannot be written"):
            os.pwrite(self._descriptor, f"{HOST}:{port} pid {os.getpid()}\n".encode(), 0)

    def clear(self) -> None:
        """Tell programs that there is no broker."""
        with said(f"{self.path} cannot be written"):
            os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Clear the file and release its lock. The file stays, because another process may be waiting for the lock."""
        self.clear()
        os.close(self._descriptor)


def make_folder(folder: Path) -> Path:
    """Create a folder for our files, which version control ignores; leave an existing one of the user's as it is."""
    ours = folder.name == FOLDER or not folder.exists()
    with said(f"{folder} cannot be used for the data"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if ours and not (folder / ".gitignore").exists():
            (folder / ".gitignore").write_text("*\n")
    return folder


def prepare_store(store: Path, fresh: bool) -> None:
    """Wait for a broker that is ending, and delete the store if it should be a fresh one. Raises Unusable."""
    lock = Path(f"{store}.lock")
    with said(f"{store} cannot be used"):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(descriptor, _ATTEMPTS_OF_ENDING):  # the broker holds it, see dagorama_broker/store/lock.py
                raise Unusable(f"{store} is in use by another broker: stop that one, or choose another --store")
            if fresh:
                _delete_all(store, lock)
        finally:
            os.close(descriptor)


def _delete_all(store: Path, lock: Path) -> None:
    for file in store.parent.glob(f"{store.name}*"):
        if file.is_dir() and not file.is_symlink():
            rmtree(file)
        elif file != lock:
            file.unlink()


def _locked(descriptor: int, attempts: int) -> bool:
    """Try to lock a file until it is free; return whether it is locked."""
    for _ in range(attempts):
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            sleep(_PAUSE)
        else:
            return True
    return False
