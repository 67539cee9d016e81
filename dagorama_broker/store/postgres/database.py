"""The open database of a PostgreSQL store: its sessions, its lease, and what happens while the server is away.

A call that the server did not answer is made again on a new connection, with pauses, until the patience is over. A
commit is sent again with the same number, so that it has one effect. Nothing is told to anyone meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg
from psycopg.errors import UniqueViolation

from dagorama_broker.errors import Deposed, StoreError
from dagorama_broker.model.rows import Changes
from dagorama_broker.store.postgres.address import Address
from dagorama_broker.store.postgres.connection import Session
from dagorama_broker.store.postgres.errors import EPOCH_OVER, passes, sentence, translate_postgres_errors
from dagorama_broker.store.postgres.lease import note_writer
from dagorama_broker.store.postgres.reader import PostgresReader
from dagorama_broker.store.postgres.writer import Writer

log = logging.getLogger("dagorama_broker")

T = TypeVar("T")

#: Seconds that calls may take at the end of a store, after which their connections are broken.
HANGS_AFTER = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_NUMBER_IS_THERE = "commits_pkey"
#: Why a broker that was replaced leaves.
REPLACED = "another broker has taken the store over; start this one again, and it waits for its turn"


class Ending:
    """The end of a store, in two steps: first nothing waits any longer for a server that is away, then it is closed."""

    def __init__(self) -> None:
        self.near = threading.Event()
        self.closed = threading.Event()
        self._over = threading.Event()
        self._lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Break this line, too, if its server does not answer at the end."""
        self._lines.append(line)

    def begin(self) -> None:
        """Let no call wait for a server that does not answer."""
        if not self.near.is_set():
            self.near.set()
            threading.Thread(target=self._hang_up, args=(self._over,), name="ending", daemon=True).start()

    def _hang_up(self, over: threading.Event) -> None:
        """Break the lines again and again until the store is closed: a process that hangs keeps its connections."""
        while not over.wait(HANGS_AFTER):
            for line in self._lines:
                line.hang_up()

    def close(self) -> None:
        """Refuse further calls."""
        self.begin()
        self.closed.set()

    def finish(self) -> None:
        """Say that all lines are closed."""
        self._over.set()

    def clear(self) -> None:
        """Open the store again."""
        self.near.clear()
        self.closed.clear()
        self._over = threading.Event()


class Attempts:
    """Tries what a server does not answer again, with growing pauses."""

    def __init__(self, shown: str, patience: float, ending: Ending) -> None:
        self._shown = shown
        self._patience = patience
        self._ending = ending
        self._since: float | None = None
        self._pause = _FIRST_PAUSE

    def wait(self, error: psycopg.Error) -> None:
        """Wait before the next try. Raise StoreError if the patience is over, or the store is being closed."""
        now = time.monotonic()
        if self._since is None and not self._ending.near.is_set():
            log.warning("%s: the server does not answer (%s); trying again for %g s", self._shown, sentence(error),
                        self._patience)  # fmt: skip
        self._since = self._since or now
        if now - self._since > self._patience:
            raise StoreError(
                f"the server has not answered for {self._patience:g} s (DAGORAMA_STORE_PATIENCE): {sentence(error)}"
            ) from error
        if self._ending.near.wait(self._pause):
            raise StoreError(f"the store is being closed while its server does not answer: {sentence(error)}")
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def succeeded(self) -> None:
        if self._since is not None:
            log.warning("%s: the server answers again after %.1f s", self._shown, time.monotonic() - self._since)


class Line:
    """A session that is opened when it is needed, and opened again when it has broken."""

    def __init__(self, address: Address, patience: float, ending: Ending, commits: bool = False) -> None:
        self._address = address
        self._patience = patience
        self._ending = ending
        self._commits = commits
        self._session: Session | None = None
        self._alone = threading.Lock()
        ending.add(self)

    def __repr__(self) -> str:
        return self._address.shown

    def run(self, work: Callable[[Session], T]) -> T:
        """Return what `work` returns; call it again on a new session if the server went away meanwhile."""
        attempts = Attempts(self._address.shown, self._patience, self._ending)
        with self._alone, translate_postgres_errors(self._address.shown):
            while True:
                try:
                    done = work(self.session())
                except psycopg.Error as error:
                    if not passes(error, None if self._session is None else self._session.raw):
                        raise
                    self.drop()
                    attempts.wait(error)
                else:
                    attempts.succeeded()
                    return done

    def last(self, work: Callable[[Session], object]) -> None:
        """Do something once, if the server answers, although the store is being closed."""
        with self._alone, suppress(psycopg.Error):
            work(self._session if self._session is not None and not self._session.is_broken else self._connect())

    def session(self) -> Session:
        """Return the session, opened if need be."""
        if self._ending.closed.is_set():
            raise StoreError("the store is closed")
        if self._session is None or self._session.is_broken:
            return self._connect()
        return self._session

    def _connect(self) -> Session:
        self._session = Session(self._address, self._commits)
        return self._session

    def drop(self) -> None:
        """Close the session; the next call opens another one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def hang_up(self) -> None:
        """Break the connection, if there is one, from any thread."""
        if (session := self._session) is not None:
            session.hang_up()

    def close(self) -> None:
        """Close the session when the call that uses it has ended."""
        with self._alone:
            self.drop()

    # --- as a source of queries -----------------------------------------------------------------------

    def read(self, work: Callable[[PostgresReader], T]) -> T:
        return self.run(lambda session: work(PostgresReader(session)))

    def read_one_state(self, work: Callable[[PostgresReader], T]) -> T:
        return self.run(lambda session: _in_one_state(session, work))


def _in_one_state(session: Session, work: Callable[[PostgresReader], T]) -> T:
    with session.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
        return work(PostgresReader(session))


class WritingLine:
    """The session that commits, in one epoch. A number is never used for two commits."""

    def __init__(self, line: Line, epoch: int) -> None:
        self._line = line
        self._epoch = epoch
        self._number = 0
        self._writer: Writer | None = None

    def commit(self, changes: Changes) -> None:
        """Write the changes durably, exactly once. Raise Deposed if another broker leads, StoreError otherwise."""
        self._once(lambda writer, number: writer.commit(changes, number))

    def transact(self, work: Callable[[Session], T]) -> T:
        """Do the work in one transaction, exactly once. It is called again if the server went away meanwhile."""
        found: list[T] = []

        def write(writer: Writer, number: int) -> None:
            writer.transact(lambda session: found.append(work(session)), number)

        self._once(write)
        return found[-1]  # earlier ones are of tries that were rolled back

    def _once(self, write: Callable[[Writer, int], None]) -> None:
        """Commit; if the last try finds the number of the commit, the one before had made it."""
        self._number += 1
        number = self._number

        def attempt(session: Session) -> None:
            writer = self._writer_on(session)
            try:
                write(writer, number)
                if writer.is_doubtful:
                    write(writer, number)  # its number is there, or it never was durable
            except UniqueViolation as error:
                if error.diag.constraint_name != _NUMBER_IS_THERE:
                    raise
                self._confirm(session)
            except psycopg.Error as error:
                if error.sqlstate == EPOCH_OVER:
                    raise Deposed(REPLACED) from error
                raise

        self._line.run(attempt)

    def _writer_on(self, session: Session) -> Writer:
        """Return the writer of a session; a new session is recorded, so that a successor can end it."""
        if self._writer is None or self._writer.session is not session:
            if not note_writer(session, self._epoch):
                raise Deposed(REPLACED)
            self._writer = Writer(session, self._epoch)
        return self._writer

    def _confirm(self, session: Session) -> None:
        """Commit something after a commit that turned out to be there: what it sees is then as durable as itself."""
        assert self._writer is not None
        self._writer.is_doubtful = False
        if not note_writer(session, self._epoch):
            raise Deposed(REPLACED)
        if self._writer.is_doubtful:
            raise StoreError("a synchronous replica does not confirm commits, and the wait for it was cancelled")
