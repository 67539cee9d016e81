"""File descriptors: how many this process may open, and how many of them connections may use.

The rule: connections never use the descriptors that the broker's own files need, however many clients connect.
"""

from __future__ import annotations

import errno
import logging
import os

from dagorama_broker.errors import SettingsError
from dagorama_monitoring.process.resource_limits import RAISE_FILES, raised_open_files

log = logging.getLogger("dagorama_broker")

#: Descriptors that connections leave free: 64 uploads, 8 files of clients that are imported, as many values that are
#: being read, and about 60 for the store, gRPC, the event loop and the log.
RESERVED = 200
#: The fewest descriptors with which a broker can serve: about 30 are open all the time, and gRPC aborts without one.
LEAST = 48


def connections_within_limits(wanted: int) -> int:
    """Raise the soft limit of open files as far as needed and allowed; return how many connections fit below it.

    Raise SettingsError if none would.
    """
    limit = raised_open_files(wanted + RESERVED, log)
    if limit < LEAST:
        raise SettingsError(
            f"this process may have {limit} open files, and a broker needs {LEAST}, and one for each connection:"
            f" {RAISE_FILES}"
        )
    fit = max(limit - RESERVED, limit // 2)
    if fit >= wanted:
        return wanted
    log.warning(
        "at most %d connections at once, not %d: this process may have %d open files, and the broker reserves %d of"
        " them; %s or lower DAGORAMA_MAX_CONNECTIONS", fit, wanted, limit, limit - fit, RAISE_FILES,
    )  # fmt: skip
    return fit


def shortage(error: OSError | None = None) -> str | None:
    """Return what to do if a disk is full, or if this process or the system has no free file descriptor; else None."""
    number = _errno_of_another() if error is None else error.errno
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: free some space"
    if number == errno.EMFILE:
        return "this process has no free file descriptor: raise its limit (ulimit -n, LimitNOFILE= in systemd)"
    if number == errno.ENFILE:
        return "this machine has no free file descriptor: stop processes that use many, or raise fs.file-max"
    return None


def _errno_of_another() -> int | None:
    """Return the error number of opening another file; None if that succeeds."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno
    return None
