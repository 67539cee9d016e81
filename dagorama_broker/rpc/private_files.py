"""Files with a secret, or with those whom to trust: who owns them, and who else may use them.

The rule: such a file belongs to the user or to root, and no one else can write to it. A mounted file, such as a
Kubernetes secret, that is read-only or owned by root is as private as the person who mounted it wants.
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
    """Return whether `file`, a path or descriptor, is open to `whom`, permission bits, and should not be."""
    status = os.stat(file)
    allowed = status.st_mode & whom
    if not allowed or is_read_only(file):
        return False
    return is_mistake(allowed, status.st_uid, os.geteuid())


def is_mistake(allowed: int, owner: int, user: int) -> bool:
    """Return whether `allowed` bits are a mistake: others may write, or may read and `user` could change that."""
    return bool(allowed & WRITERS) or user in (_ROOT, owner)


def open_file(path: Path | str) -> BinaryIO:
    """Open a file, but no pipe or device. Raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def check_trust(file: int, path: Path | str) -> None:
    """Raise SettingsError if another user could have written or replaced the file that was opened."""
    status = os.fstat(file)
    if is_read_only(file):
        return
    user = os.geteuid()
    if is_foreign(status.st_uid, user):
        raise SettingsError(
            f"{path} belongs to another user ({_name(status.st_uid)}), who controls its content: check it, and then"
            f" chown {_name(user)} {path}"
        )
    for folder in {os.path.dirname(os.path.abspath(path)), os.path.dirname(os.path.realpath(path))}:
        if _lets_all_replace(folder):
            raise SettingsError(
                f"{path} is in {folder}, in which every user of this machine may replace it: chmod o-w {folder}"
            )


def is_read_only(file: int | str) -> bool:
    """Return whether a path or descriptor is on a read-only mount."""
    return bool(os.statvfs(file).f_flag & os.ST_RDONLY)


def is_foreign(owner: int, user: int) -> bool:
    """Return whether a file of `owner` belongs neither to the user nor to root, who owns mounted secrets."""
    return owner not in (_ROOT, user)


def _lets_all_replace(folder: str) -> bool:
    mode = os.stat(folder).st_mode
    return bool(mode & S_IWOTH) and not mode & S_ISVTX and not is_read_only(folder)


def _name(user: int) -> str:
    try:
        return getpwuid(user).pw_name
    except KeyError:
        return str(user)
