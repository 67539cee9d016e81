"""The address of the broker that `dagorama dev` runs for a folder: the file `.dagorama/address` in that folder.

The rule: the file counts only while the process that wrote it lives, which holds a lock on it, and only if it belongs
to this user. So neither an old file nor one of somebody else, in a shared folder above, decides where calls go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fcntl import LOCK_NB, LOCK_SH, flock
from functools import cache
from re import match
from stat import S_ISREG

FOLDER, FILE = ".dagorama", "address"
#: The address that the broker of `dagorama dev` listens on.
HOST = "127.0.0.1"
#: Bytes; an address and a process ID have fewer.
_LONGEST = 100
#: Bits of a mode that let others write an address into the file.
_WRITABLE_BY_OTHERS = 0o022


@cache
def dev_port() -> int | None:
    """Return the port of the broker that runs for the current folder, or for the nearest one above; None if none does.

    It is looked up once in a process, so that one program never talks to two brokers.
    """
    return next(filter(None, map(_port_in, _folders_upwards())), None)


def _folders_upwards() -> Iterator[str]:
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was deleted
        return
    while folder != (above := os.path.dirname(folder)):
        yield folder
        folder = above
    yield folder


def _port_in(folder: str) -> int | None:
    """Return the port in the file of a folder, if it counts."""
    try:
        descriptor = os.open(os.path.join(folder, FOLDER, FILE), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _port_of(os.read(descriptor, _LONGEST)) if _counts(descriptor) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _counts(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    if not S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _WRITABLE_BY_OTHERS:
        return False
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return True  # its writer lives
    return False


def _port_of(text: bytes) -> int | None:
    found = match(rf"{HOST}:([0-9]{{1,5}})\b".encode(), text)
    return int(found[1]) if found else None
