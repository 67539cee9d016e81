"""How many commits a store has seen, so that a start notices that work was lost and refuses to serve.

The database holds the number of its commits, and so does a state file next to it, `<store>.state`, which is written
after each commit and not synced: it is never ahead of a database that has kept all of its commits. A database that is
behind it has lost its log, or is an older copy.

The number costs a fifth of a commit's time, so commits that follow one another closely are counted together: if work is
lost, then a whole log is lost with all that it holds. The first commit of a new log is always counted.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from dagorama_broker.errors import StoreError
from dagorama_broker.store.folders import sync_folder
from dagorama_broker.store.sql.counters import check_numbers, read_number, write_number

#: Seconds after which a commit notes the time again.
NOTE_TIME = 60.0
#: Seconds within which commits are counted together.
COUNT_TIME = 0.02
#: Bytes of the record in the state file, which is written in one piece.
_SIZE = 96
_RECORD = re.compile(rb"(epoch (\d+) commits (\d+)( overwritten)?) sum ([0-9a-f]{8}) *\n")


class CommitCount:
    """Count the commits of an open store."""

    def __init__(self, store: Path, together: float = COUNT_TIME) -> None:
        """`together`: seconds within which commits are counted together."""
        self._store = store
        self._file = StateFile(store)
        self._together = together
        self._commits = self._counted = 0
        self._count_at = self._note_at = 0.0
        self.last_used = 0.0  #: seconds since 1970 when a broker last noted the time before this start; 0: never

    @property
    def is_kept(self) -> bool:
        """Whether there is a state file."""
        return self._file.path.exists()

    def refuse_lost(self) -> None:
        """Raise StoreError if the state file alone shows that the database is not complete."""
        state = self._file.read()
        if state.commits and not self._store.exists():
            raise StoreError(
                f"{self._store} is missing, with the {state.commits} changes that {self._file.path.name} counts:"
                f" restore the file{self._or_accept()}"
            )
        if state.overwritten:
            raise StoreError(
                f"{self._store} was overwritten by another program while a broker had it open, so its log"
                f" ({self._store.name}-wal) may not belong to it: replace the store by a copy, without"
                f" -wal{self._or_accept()}"
            )

    def begin(self, connection: sqlite3.Connection) -> int:
        """Return the epoch of this start, which the next `count` writes. Raise StoreError if work was lost."""
        check_numbers(connection)
        _check_begun(connection)
        state, self._commits = self._file.read(), read_number(connection, "commits")
        self._refuse_behind(state)
        self.last_used = float(read_number(connection, "time"))
        epoch = max(read_number(connection, "epoch"), state.epoch) + 1
        write_number(connection, "epoch", epoch)
        self.count_next()
        return epoch

    def begun(self, epoch: int) -> None:
        """Note the epoch in the state file. Call it when the epoch is durable in the database."""
        self._file.begin(State(epoch, self._commits))

    def count(self, connection: sqlite3.Connection) -> None:
        """Count a commit. Call it as the last change of the transaction."""
        self._commits += 1
        now = time.monotonic()
        if now < self._count_at:
            return
        self._count_at, self._counted = now + self._together, self._commits
        write_number(connection, "commits", self._commits)
        if now >= self._note_at:
            self._note_at = now + NOTE_TIME
            write_number(connection, "time", int(time.time()))

    def counted(self) -> None:
        """Note the count in the state file. Call it when the commit is durable."""
        if self._counted == self._commits:
            self._file.note(self._commits)

    def count_next(self) -> None:
        """Count the next commit in any case: it is the first of an epoch, or the first of a new log."""
        self._count_at = 0.0

    def note_overwritten(self) -> None:
        """Note in the state file that another program wrote to the database."""
        self._file.note_overwritten(self._counted)

    def close(self) -> None:
        """Close the state file."""
        self._file.close()

    def accept(self, connection: sqlite3.Connection) -> str:
        """Make the next start accept the database as it is; return what is lost, or an empty text."""
        state, commits = self._file.read(), _commits_of(connection)
        lost = max(0, state.commits - commits)
        if not lost and not state.overwritten:
            return ""
        self._file.begin(State(state.epoch, commits))
        return f"the last {lost} changes of {state.commits}" if lost else "that another program wrote to it"

    def _refuse_behind(self, state: State) -> None:
        if state.commits > self._commits:
            raise StoreError(
                f"{self._store} lacks the last {state.commits - self._commits} of {state.commits} changes, which were"
                f" acknowledged in epoch {state.epoch} or earlier: its log ({self._store.name}-wal) was lost, or it is"
                f" an older copy; restore the newer files{self._or_accept()}"
            )

    def _or_accept(self) -> str:
        return (
            ", or, to continue without what is missing, run"
            f" `dagorama-broker accept-loss --store sqlite:///{self._store}`"
        )


def _check_begun(connection: sqlite3.Connection) -> None:
    """Raise StoreError if a store was used and has no epoch: an epoch would be used a second time."""
    used = any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ("instances", "removed"))
    if used and not read_number(connection, "epoch"):
        raise StoreError("it is damaged, because its epoch is missing: restore a copy, or choose another store")


def _commits_of(connection: sqlite3.Connection) -> int:
    """Return the number of commits in a database, which may be empty."""
    is_there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone()
    return read_number(connection, "commits") if is_there else 0


# --- the state file ---------------------------------------------------------------------------------------


class State(NamedTuple):
    """How far a store has come, according to its state file."""

    epoch: int = 0
    commits: int = 0
    overwritten: bool = False  #: another program wrote to the database while a broker had it open


class StateFile:
    """The file `<store>.state`. The holder of the store's lock uses it, one thread at a time."""

    def __init__(self, store: Path) -> None:
        self.path = Path(f"{store}.state")
        self._descriptor: int | None = None
        self._epoch = 0

    def read(self) -> State:
        """Return the record, all zero if there is none. Raise StoreError if the file is damaged."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return State()
        if not content.strip(b"\0"):  # the file was created just before a power loss
            return State()
        found = _RECORD.fullmatch(content)
        if found is None or crc32(found[1]) != int(found[5], 16):
            raise StoreError(
                f"{self.path} is damaged: it records how far the store has come; restore the file, or delete it if"
                " nothing is missing from the store"
            )
        return State(int(found[2]), int(found[3]), found[4] is not None)

    def begin(self, state: State) -> None:
        """Write a record durably, and keep the file open for the records that follow."""
        is_new = not self.path.exists()
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._epoch = state.epoch
        self._write(state)
        os.ftruncate(self._descriptor, _SIZE)
        os.fsync(self._descriptor)
        if is_new:
            sync_folder(self.path.parent)

    def note(self, commits: int) -> None:
        """Write the number of commits."""
        self._write(State(self._epoch, commits))

    def note_overwritten(self, commits: int) -> None:
        """Make the next start refuse the store until someone has inspected it."""
        self._write(State(self._epoch, commits, True))

    def close(self) -> None:
        """Close the file if it is open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, state: State) -> None:
        if self._descriptor is None:
            return
        record = f"epoch {state.epoch} commits {state.commits}{' overwritten' if state.overwritten else ''}"
        line = f"{record} sum {crc32(record.encode()):08x}"
        os.pwrite(self._descriptor, line.ljust(_SIZE - 1).encode() + b"\n", 0)
