"""Temporary folders of programs, which do not stay if the program is killed.

The rule: a folder is locked until the last process that inherits it has exited. The next program of its kind removes
the folders that are not locked.
"""

from __future__ import annotations

import os
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp


def temporary_folder(kind: str) -> tuple[Path, int]:
    """Create a folder for this user alone; return it, and the descriptor that keeps it locked while it is open.

    Remove the folders of this kind that killed processes of this user and machine have left. Raise OSError.
    """
    parent = Path(gettempdir())
    prefix = f"dagorama-{kind}-{os.uname().nodename}-"  # a network file system may keep locks to each machine
    _remove_unlocked(parent, prefix)
    folder = Path(mkdtemp(prefix="dagorama-", dir=parent))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(OSError):  # a file system without locks: the folder keeps a name under which it is never removed
        flock(descriptor, LOCK_EX)
        folder = folder.rename(parent / f"{prefix}{os.getpid()}-{os.urandom(6).hex()}")
    return folder, descriptor


def _remove_unlocked(parent: Path, prefix: str) -> None:
    with suppress(OSError):
        for folder in parent.iterdir():
            if folder.name.startswith(prefix):
                _remove_if_unlocked(folder)


def _remove_if_unlocked(folder: Path) -> None:
    with suppress(OSError):  # it is locked, or another user's
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                flock(descriptor, LOCK_EX | LOCK_NB)
                rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
