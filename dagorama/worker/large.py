"""Large values as whoever runs nodes sees them: put bytes and get their name, or the other way round."""

import mmap
import os
from hashlib import sha256
from pathlib import Path
from threading import get_ident
from typing import Protocol

from dagorama.connection import VALUE_LIMIT
from dagorama.errors import RefusedByBroker, ValueNotReadable


class LargeValues(Protocol):
    def put(self, data: bytes) -> bytes:
        """Store it and return its SHA-256."""
        ...

    def get(self, digest: bytes) -> bytes | memoryview: ...


class SpoolValues:
    """In a folder that the supervisor shares with its children; it sends and fetches, and removes what is old."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> bytes:
        refuse_excess(len(data))
        digest = sha256(data).digest()
        path = path_of(self._folder, digest)
        if not path.exists():
            write_whole(path, data)
        return digest

    def get(self, digest: bytes) -> memoryview:
        try:
            with path_of(self._folder, digest).open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError as error:
            raise ValueNotReadable(f"the broker no longer has the large value {digest.hex()}") from error


def path_of(folder: Path, digest: bytes) -> Path:
    return folder / digest.hex()


def write_whole(path: Path, data: bytes) -> None:
    """Under its name only when it is complete; the folder is made when it is first needed."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}-{get_ident()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def refuse_excess(size: int) -> None:
    if size > VALUE_LIMIT:
        raise RefusedByBroker(
            f"a value of {size:,} bytes is more than dagorama carries ({VALUE_LIMIT:,}); "
            "split it, or pass the name of a file that whoever needs it can read",
            "INVALID_ARGUMENT",
        )
