"""Names and contents of the files in a folder of large values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

from dagorama_broker.store.folders import list_folder

_NAME = re.compile("[0-9a-f]{64}")
#: A random name of 16 bytes, or the SHA-256 of the file.
_CLIENTS_OWN = re.compile("([0-9a-f]{32}){1,2}")


def names_below(folder: Path) -> Iterator[bytes]:
    """Yield the names of the values in a folder, without unfinished files and files of other programs."""
    for inner in list_folder(folder):
        for name in list_folder(folder / inner):
            if (sha256 := sha256_in(name)) is not None:
                yield sha256


def sha256_in(name: str) -> bytes | None:
    """Return the SHA-256 that a name is, if it is one."""
    return bytes.fromhex(name) if _NAME.fullmatch(name) else None


def is_clients_own(name: str) -> bool:
    """Return whether a file in `unfinished` may be a client's, by its name."""
    return _CLIENTS_OWN.fullmatch(name) is not None


def is_whole(file: Path, length: int) -> bool:
    try:
        found = file.lstat()
    except FileNotFoundError:
        return False
    return S_ISREG(found.st_mode) and length in (0, found.st_size)


def is_same(file: Path, other: Path) -> bool:
    """Return whether these are two names of one file; renaming one to the other would do nothing."""
    return other.exists() and file.samefile(other)


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
