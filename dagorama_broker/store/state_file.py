"""A second record of how far a store has come, in `<store>.state` beside it: by it a start sees that work was lost.

The file holds the epoch and the number of commits, written after each commit and not synced: it is never ahead of a
database that has kept all of its commits. A database that is behind it has lost its log, or is an older copy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from dagorama_broker.errors import StoreError
from dagorama_broker.store.large_values import sync_folder

#: Bytes of the record, which is written in one piece.
_SIZE = 96
_RECORD = re.compile(rb"(epoch (\d+) commits (\d+)( overwritten)?) sum ([0-9a-f]{8}) *\n")


class State(NamedTuple):
    """How far a store has come, as its state file says."""

    epoch: int = 0
    commits: int = 0
    overwritten: bool = False  #: another program wrote to the database while a broker had it open


class StateFile:
    """Used by the holder of the store's lock, one thread at a time."""

    def __init__(self, store: Path) -> None:
        self.path = Path(f"{store}.state")
        self._descriptor: int | None = None
        self._epoch = 0

    def read(self) -> State:
        """Return the record; all zero if there is none. Raise StoreError if the file is damaged."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return State()
        if not content.strip(b"\0"):  # made just before a power cut
            return State()
        found = _RECORD.fullmatch(content)
        if found is None or crc32(found[1]) != int(found[5], 16):
            raise StoreError(
                f"{self.path} is damaged: it says how far the store has come; put back the file, or delete it if"
                " nothing is missing from the store"
            )
        return State(int(found[2]), int(found[3]), found[4] is not None)

    def begin(self, state: State) -> None:
        """Write a record durably, and keep the file open for the ones that follow."""
        is_new = not self.path.exists()
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._epoch = state.epoch
        self._write(state)
        os.ftruncate(self._descriptor, _SIZE)
        os.fsync(self._descriptor)
        if is_new:
            sync_folder(self.path.parent)

    def note(self, commits: int) -> None:
        """Write down that this many commits have been made."""
        self._write(State(self._epoch, commits))

    def note_overwritten(self, commits: int) -> None:
        """Have the next start refuse the store until someone has looked at it."""
        self._write(State(self._epoch, commits, True))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, state: State) -> None:
        if self._descriptor is None:
            return
        record = f"epoch {state.epoch} commits {state.commits}{' overwritten' if state.overwritten else ''}"
        line = f"{record} sum {crc32(record.encode()):08x}"
        os.pwrite(self._descriptor, line.ljust(_SIZE - 1).encode() + b"\n", 0)
