"""Large values as files named by the SHA-256 of their bytes. What is written is synced; what is read is checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256 as sha256_of
from itertools import count
from pathlib import Path
from shutil import rmtree

from dagorama_broker.errors import StoreError

CHUNK = 1 << 20


class LargeFiles:
    """A folder of values at ab/cd/abcd..., owned by one process; put and get may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unfinished = folder / "unfinished"
        self._numbers = count(1)

    def sweep(self) -> None:
        """Remove what a broker was writing when it died."""
        try:
            rmtree(self._unfinished)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from error

    def put(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        """Keep a value; its SHA-256 and length. A file of equal content is replaced, which heals a damaged one."""
        unfinished = self._unfinished / str(next(self._numbers))
        try:
            make_folder(self._unfinished)
            sha256, length = _write(unfinished, chunks)
            self._move_in(unfinished, sha256)
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        return sha256, length

    def get(self, sha256: bytes) -> Iterator[bytes] | None:
        """A value in chunks of at most 1 MiB; None where it is not there. A damaged one never yields its last chunk."""
        return self._read(sha256) if self.has(sha256) else None

    def has(self, sha256: bytes) -> bool:
        return self._file(sha256).is_file()

    def _file(self, sha256: bytes) -> Path:
        name = sha256.hex()
        return self.folder / name[:2] / name[2:4] / name

    def _move_in(self, unfinished: Path, sha256: bytes) -> None:
        file = self._file(sha256)
        make_folder(file.parent)
        os.replace(unfinished, file)
        sync_folder(file.parent)

    def _read(self, sha256: bytes) -> Iterator[bytes]:
        file, seen = self._file(sha256), sha256_of()
        try:
            with file.open("rb", buffering=0) as opened:
                chunk = opened.read(CHUNK)
                while following := opened.read(CHUNK):
                    seen.update(chunk)
                    yield chunk
                    chunk = following
        except OSError as error:
            raise self._unusable(error) from error
        seen.update(chunk)
        if seen.digest() != sha256:
            raise StoreError(f"{file} is damaged: its content does not have the SHA-256 that it is named by")
        yield chunk

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(f"large values in {self.folder}: {error.strerror or error}")


def _write(file: Path, chunks: Iterable[bytes]) -> tuple[bytes, int]:
    seen, length = sha256_of(), 0
    with file.open("xb", buffering=0) as opened:
        for chunk in chunks:
            seen.update(chunk)
            length += len(chunk)
            _write_all(opened.fileno(), chunk)
        os.fsync(opened.fileno())
    return seen.digest(), length


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
