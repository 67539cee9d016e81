"""Standard streams of commands: ones that are closed, and an output that cannot be written.

The rule: a store, a socket or a key never gets the descriptor of a standard stream, where programs write.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STDOUT = 1
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
#: Errors of a write to a file; writes to other files than the output name theirs.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


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


def _open_null(descriptor: int) -> None:
    """Make the descriptor lead to the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
