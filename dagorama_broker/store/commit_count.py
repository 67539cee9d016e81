"""How many commits a store has seen, and what a start makes of it: an epoch of its own, or a refusal if work is gone.

The database has the number of its commits, and so has the state file beside it, which is written after it. The number
costs a commit a fifth of its time, so commits that follow one another closely are counted together: what is lost is a
log with all that it holds. The first commit of a new log is always counted.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from dagorama_broker.errors import StoreError
from dagorama_broker.store.sqlite.counters import check_numbers, read_number, write_number
from dagorama_broker.store.state_file import State, StateFile

#: Seconds after which a commit notes the time again.
NOTE_TIME = 60.0
#: Seconds within which commits are counted together.
COUNT_TIME = 0.02


class CommitCount:
    """Counts the commits of an open store; `last_used` is when a broker noted the time before this one, or 0."""

    def __init__(self, store: Path, together: float = COUNT_TIME) -> None:
        """`together`: seconds within which commits are counted together."""
        self._store = store
        self._file = StateFile(store)
        self._together = together
        self._commits = self._counted = 0
        self._count_at = self._note_at = 0.0
        self.last_used = 0.0

    def refuse_lost(self) -> None:
        """Raise StoreError if the state file alone shows that the database is not whole."""
        state = self._file.read()
        if state.commits and not self._store.exists():
            raise StoreError(
                f"{self._store} is gone, with the {state.commits} changes that {self._file.path.name} knows of: put"
                f" the file back{self._or_accept()}"
            )
        if state.overwritten:
            raise StoreError(
                f"{self._store} was overwritten by another program while a broker had it open, so that its log"
                f" ({self._store.name}-wal) may not belong to it: put a copy of the store in its place, without"
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
        """The epoch is durable: note it beside the store too."""
        self._file.begin(State(epoch, self._commits))

    def count(self, connection: sqlite3.Connection) -> None:
        """Count a commit, as its last change."""
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
        """The commit is durable."""
        if self._counted == self._commits:
            self._file.note(self._commits)

    def count_next(self) -> None:
        """Count the next commit whenever it comes: it is the first of an epoch, or the first of a new log."""
        self._count_at = 0.0

    def note_overwritten(self) -> None:
        self._file.note_overwritten(self._counted)

    def close(self) -> None:
        self._file.close()

    def accept(self, connection: sqlite3.Connection) -> str:
        """Have the next start take the database as it is; return what was accepted, or nothing."""
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
                f" acknowledged in epoch {state.epoch} or before: its log ({self._store.name}-wal) was lost, or it is"
                f" an older copy; put the newer files back{self._or_accept()}"
            )

    def _or_accept(self) -> str:
        return (
            f", or, to go on without what is missing, run `dagorama-broker accept-loss --store sqlite:///{self._store}`"
        )


def _check_begun(connection: sqlite3.Connection) -> None:
    """Raise StoreError if a store was used and has no epoch: the next one would be used a second time."""
    used = any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ("instances", "removed"))
    if used and not read_number(connection, "epoch"):
        raise StoreError("it is damaged, for it has no epoch: put back a copy, or choose another store")


def _commits_of(connection: sqlite3.Connection) -> int:
    """Return the count of a database, which may be an empty one."""
    is_there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone()
    return read_number(connection, "commits") if is_there else 0
