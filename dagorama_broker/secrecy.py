"""Whether a file that holds a secret, or says whom to trust, is open to others although our user could mend it.

The rule: what Kubernetes and others mount, owned by root and read-only, is as private as whoever mounted it wanted.
"""

from __future__ import annotations

import os

EVERYBODY = 0o007
WRITERS = 0o002
_WRITING = 0o022
_ROOT = 0


def is_open_to(whom: int, file: int | str) -> bool:
    """Whether `file`, a path or a descriptor, may be used by `whom`, permission bits, and should not be."""
    status = os.stat(file)
    allowed = status.st_mode & whom
    if not allowed or os.statvfs(file).f_flag & os.ST_RDONLY:
        return False
    return is_mistake(allowed, status.st_uid, os.geteuid())


def is_mistake(allowed: int, owner: int, user: int) -> bool:
    """Whether `allowed` bits are one: others may write, or others may read and `user` could change that."""
    return bool(allowed & _WRITING) or user in (_ROOT, owner)
