"""What holds for all that these tests start: one signing key, signals, files, which start first, a short collection.

None looks for the user's own key; and a shell that starts the tests in the background, where SIGINT is ignored, or
under nohup, starts the same tests as one in the foreground.
"""

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from dagorama.values.keys import new_key

#: Bytes that must be free in memory for the files of the tests.
ENOUGH = 4 << 30
IN_MEMORY = Path("/dev/shm")

os.environ.pop("DAGORAMA_SIGNING_KEYS_FILE", None)
os.environ["DAGORAMA_SIGNING_KEYS"] = new_key()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
    signal.signal(signal.SIGHUP, lambda *_: None)  # a program inherits that a signal is ignored, and no handler


def has_room(folder: Path) -> bool:
    """Return whether programs can be written and run in a folder, and enough is free in it."""
    if not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(folder).free >= ENOUGH


# Each store makes 256 folders and syncs each commit: most of the time of its tests on a disk, and none of what they
# state, because a process that is killed loses nothing that it has written. Only a power cut would, and for those
# tests/proof/power.py records what is synced. All processes that the tests start inherit it.
if "TMPDIR" not in os.environ and has_room(IN_MEMORY):
    os.environ["TMPDIR"] = str(IN_MEMORY)
    tempfile.tempdir = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with tests that wait for long, so that at the end no process runs them while the others are idle."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


# Nothing that the collection makes is garbage before the end. Looking for some takes a quarter of its time, in each
# process of pytest, and in each later search for garbage most of it.
gc.disable()


def pytest_collection_finish() -> None:
    """Search for garbage from now on, but never among the tests."""
    gc.freeze()
    gc.enable()
