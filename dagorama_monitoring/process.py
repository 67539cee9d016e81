"""The process of a program: standard streams that are closed or cannot be written, its addresses, temporary folders.

The rules: a store, a socket or a key never gets the descriptor of a standard stream, where programs write. A temporary
folder is locked until the last process that inherits it has exited, so that the folders of killed ones can be removed.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp

STDOUT = 1
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
#: Errors of a write to a file; writes to other files than the output name theirs.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

#: Bytes of address space below which no program starts. A worker reserves 600 MB if it may, a broker 800.
LEAST = 512 << 20


def open_standard_streams() -> None:
    """Open the null device for each standard stream that is closed. Call it before anything else is opened."""
    for descriptor, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            _open_null(descriptor)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", errors="replace"))  # noqa: SIM115  # it stays open


@contextmanager
def failing_output() -> Iterator[None]:
    """Exit with 1 and a sentence if standard output cannot be written, for example because a disk is full.

    A stream that a program reads no longer is not meant: click ends the command then.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        _open_null(STDOUT)  # what is left would be written again at the exit
        print(f"dagorama: the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def refusal_of_address_space(program: str) -> str:
    """Return why a program cannot run in the address space that it has, and what to do; empty: it can.

    Threads reserve addresses that they never use. If the system refuses one, gRPC waits for a thread forever.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or limit >= LEAST:
        return ""
    return (
        f"this process may reserve {limit >> 20} MiB of addresses (ulimit -v), and {program} needs {LEAST >> 20}: raise"
        " this limit, or limit the memory of the container or cgroup instead"
    )


def _open_null(descriptor: int) -> None:
    """Make the descriptor lead to the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


# --- temporary folders ------------------------------------------------------------------------------------


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
