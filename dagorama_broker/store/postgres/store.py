"""The store in a PostgreSQL database: records in, records out, no rules. Large values are files or objects."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from dagorama_broker.environment import LEADER_LEASE, STORE_PATIENCE
from dagorama_broker.errors import StoreError
from dagorama_broker.model.looks import Seen, Wanted
from dagorama_broker.model.queries import Usage
from dagorama_broker.model.rows import Changes
from dagorama_broker.store.large_values import LargeFiles
from dagorama_broker.store.objects.large_objects import LargeObjects
from dagorama_broker.store.postgres.address import parse_address
from dagorama_broker.store.postgres.connection import Session
from dagorama_broker.store.postgres.database import Ending, Line, WritingLine
from dagorama_broker.store.postgres.errors import translate_postgres_errors
from dagorama_broker.store.postgres.keeper import Keeper
from dagorama_broker.store.postgres.look import look_at_once
from dagorama_broker.store.postgres.preparing import check_server, make_leadership, migrate, refuse_newer
from dagorama_broker.store.postgres.reader import PostgresReader
from dagorama_broker.store.postgres.view import PostgresView
from dagorama_broker.store.sql import drafts
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.copying import refuse_unfinished
from dagorama_broker.store.sql.counters import kept_secret
from dagorama_broker.store.sql.listing import read_used_ids
from dagorama_broker.store.sql.objects import find_objects
from dagorama_broker.store.sql.retention import drop_unused_functions, is_left_over, sweep
from dagorama_broker.store.sql.store import SqlStore

_SIZE = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ? AND c.relkind = 'r'"
)
#: The next row of `removed` gets a number after the copied rows.
_NUMBERS_GO_ON = (
    "SELECT setval(pg_get_serial_sequence('removed', 'number'), max(number)) FROM removed"
    " HAVING max(number) IS NOT NULL"
)
T = TypeVar("T")


class PostgresStore(SqlStore):
    """A `Store` in a database, which other brokers may wait to take over."""

    near = False
    logs_path = None

    def __init__(
        self,
        url: str,
        values: Path | LargeObjects,
        patience: float = STORE_PATIENCE,
        lease: float = LEADER_LEASE,
        address: str = "",
        waits: bool = True,
    ) -> None:
        """`values`: folder or object store of large values, which all brokers of the database share.

        `patience`: seconds for which a server that is away is tried again. `lease`: seconds after which a broker that
        does not renew its lead may be replaced. `address`: where people find this broker. `waits`: whether `take`
        waits for a leader to leave; otherwise it raises StoreError.
        """
        self._address = parse_address(url)
        self._ending = Ending()

        def line(commits: bool = False) -> Line:
            return Line(self._address, patience, self._ending, commits)

        self._reading, self._viewing, self._looking, self._commit_line = line(), line(), line(), line(commits=True)
        large = values if isinstance(values, LargeObjects) else LargeFiles(values)
        super().__init__(self._reading, self._reading, large)
        self.view = PostgresView(self._viewing)
        self._keeper = Keeper(line(), lease, address, self._ending, waits)
        self._writing: WritingLine | None = None
        self.secret = b""
        self.last_used = 0.0

    def __repr__(self) -> str:
        return self._address.shown

    # --- opening and closing ------------------------------------------------------------------------

    def open(self) -> None:
        self._ending.clear()
        with translate_postgres_errors(self._address.shown):
            session = Session(self._address)
            try:
                check_server(session, self._address)
                make_leadership(session, self._address)
                refuse_newer(session, self._address)
            finally:
                session.close()
        if self.objects is not None:
            self.objects.open()

    def take(self) -> int:
        try:
            epoch = self._keeper.take(lambda session: migrate(session, self._address))
            self._writing = WritingLine(self._commit_line, epoch)
            self.secret = self._writing.transact(_begin)
            self._open_values(self.secret)
            if self._keeper.predecessor is not None:
                self.last_used = self._keeper.predecessor.renewed
            return epoch
        except BaseException:
            self.close()
            raise

    def keep(self, lost: Callable[[StoreError], None]) -> None:
        self._keeper.keep(lost)

    @property
    def is_sure(self) -> bool:
        return self._keeper.is_sure

    def stop_waiting(self) -> None:
        self._ending.begin()

    def close(self) -> None:
        self._ending.close()
        for line in (self._commit_line, self._reading, self._viewing, self._looking):
            line.close()
        self._keeper.close()
        self._ending.finish()
        self._writing = None
        self._large.close()

    def usage(self) -> Usage:
        return Usage(self.size(), 0, self._values_size(), None)

    def size(self) -> int:
        rows = self._viewing.read(lambda reader: reader.connection.execute(_SIZE, (self._address.schema,)).fetchall())
        return int(rows[0][0])

    # --- writing ------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        self._opened().commit(changes)
        if changes.large:
            self._check_values()

    def transact(self, work: Callable[[Connection], T]) -> T:
        return self._opened().transact(work)

    def continue_after(self, epoch: int) -> None:
        self.transact(lambda session: session.execute(_NUMBERS_GO_ON))
        self._keeper.continue_after(epoch)

    def sweep(self, most: int) -> bool:
        if not self._reading.read(lambda reader: is_left_over(reader.connection)):
            return False
        is_more, unnamed = self._opened().transact(lambda session: sweep(PostgresReader(session), most))
        self._large.unnamed(unnamed)
        return is_more

    def _opened(self) -> WritingLine:
        if self._writing is None:
            raise StoreError("the store is closed")
        return self._writing

    # --- reading -----------------------------------------------------------------------------------

    def look(self, wanted: Wanted) -> Seen:
        seen = self._looking.run(lambda session: look_at_once(session, wanted))
        seen.large = self._stored_among(wanted.large)
        return seen

    def used_ids(self, after: bytes, most: int) -> list[bytes]:
        return self._looking.read(lambda reader: read_used_ids(reader, after, most))

    def _stored_among(self, values: Collection[bytes]) -> set[bytes]:
        """Return which of these large values are stored, as `has_large` does."""
        if self.objects is None:
            return {sha256 for sha256 in values if self._files.take(sha256)}
        if not values:
            return set()
        rows = self._looking.run(lambda session: find_objects(session, values))
        return {row.sha256 for row in rows if self._is_value(row)}


def _begin(session: Session) -> bytes:
    """Delete what an earlier broker left undecided; return the store's secret."""
    refuse_unfinished(session)
    drafts.clear(session)
    drop_unused_functions(session)
    return kept_secret(session)
