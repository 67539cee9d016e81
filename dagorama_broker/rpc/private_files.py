"""Files that hold a secret, or say whom to trust: whose they are, and who else may use them.

The rule: such a file belongs to the user or to root, and no one else can write to it. A file that is mounted,
as Kubernetes does it, and owned by root or read-only, is as private as the person who mounted it wanted.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from pwd import getpwuid
from stat import S_ISREG, S_ISVTX, S_IWOTH
from typing import BinaryIO

from dagorama_broker.errors import SettingsError

EVERYBODY = 0o007
WRITERS = 0o022
_ROOT = 0


def is_open_to(whom: int, file: int | str) -> bool:
    """Whether `file`, a path or a descriptor, may be used by `whom`, permission bits, and should not be."""
    status = os.stat(file)
    allowed = status.st_mode & whom
    if not allowed or is_read_only(file):
        return False
    return is_mistake(allowed, status.st_uid, os.geteuid())


def is_mistake(allowed: int, owner: int, user: int) -> bool:
    """Whether `allowed` bits are one: others may write, or others may read and `user` could change that."""
    return bool(allowed & WRITERS) or user in (_ROOT, owner)


def open_file(path: Path | str) -> BinaryIO:
    """Open a file of secrets, or of those whom to trust; raise OSError. A pipe is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file")


def check_trust(file: int, path: Path | str) -> None:
    """Raise SettingsError if another user could have written what was opened there, or put it there."""
    status = os.fstat(file)
    if is_read_only(file):
        return
    user = os.geteuid()
    if is_foreign(status.st_uid, user):
        raise SettingsError(
            f"{path} belongs to another user ({_name(status.st_uid)}), who decides what is in it: look at it, and then"
            f" chown {_name(user)} {path}"
        )
    for folder in {os.path.dirname(os.path.abspath(path)), os.path.dirname(os.path.realpath(path))}:
        if _lets_all_replace(folder):
            raise SettingsError(
                f"{path} is in {folder}, where everybody on this machine may put another file in its place:"
                f" chmod o-w {folder}"
            )


def is_read_only(file: int | str) -> bool:
    """Whether a path or descriptor is on a read-only mount."""
    return bool(os.statvfs(file).f_flag & os.ST_RDONLY)


def is_foreign(owner: int, user: int) -> bool:
    """Whether a file of `owner` is neither the user's own nor root's, such as a mounted secret."""
    return owner not in (_ROOT, user)


def _lets_all_replace(folder: str) -> bool:
    mode = os.stat(folder).st_mode
    return bool(mode & S_IWOTH) and not mode & S_ISVTX and not is_read_only(folder)


def _name(user: int) -> str:
    try:
        return getpwuid(user).pw_name
    except KeyError:
        return str(user)
