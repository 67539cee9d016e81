"""A connection to the server: its settings, its statements, and its transactions."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.types.numeric import FloatBinaryDumper, Int8BinaryDumper
from psycopg.types.string import BytesBinaryDumper, StrBinaryDumper

from dagorama_broker.store.checksums import SqlValue
from dagorama_broker.store.postgres.address import Address

#: Seconds that the server has to accept a connection.
CONNECT_SECONDS = 5
#: Parameters of libpq that the URL may override. A silent server is given up after about eight seconds.
_DEFAULTS: dict[str, str | int] = {
    "application_name": "dagorama-broker",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
    "target_session_attrs": "read-write",
}
#: No statement is ever cancelled: a cancelled wait for a replica would look like a durable commit. A planner that
#: compiles queries gains nothing here.
_SESSION = (
    "SET statement_timeout = 0", "SET lock_timeout = 0", "SET client_connection_check_interval = '2s'",
    "SET default_transaction_isolation = 'read committed'", "SET jit = off",
)  # fmt: skip
#: Seconds for which a session may do nothing within a transaction, before the server ends it: one that commits holds
#: rows that a successor needs, and one that reads holds a snapshot while a busy broker looks at its rows.
_IDLE_COMMITTING, _IDLE_READING = 5, 120

# Hints for SQLite's planner.
_INDEX = re.compile(r" INDEXED BY \w+")
_CROSS = re.compile(r"CROSS JOIN (\w+ \w+)(\s+ON\b)")


class Session:
    """A connection, used by one thread at a time. Statements outside of a transaction commit at once."""

    def __init__(self, address: Address, commits: bool = False) -> None:
        """Connect, or raise psycopg.Error. `commits`: it is for commits, whose statements `Writer` prepares itself."""
        given = conninfo_to_dict(address.conninfo)
        defaults = {name: value for name, value in _DEFAULTS.items() if name not in given}
        self.raw = psycopg.connect(
            make_conninfo(address.conninfo, **defaults, client_encoding="UTF8"),  # as rows are packed
            autocommit=True,
            prepare_threshold=None if commits else 2,
            cursor_factory=psycopg.RawCursor,
        )
        for kind, dumper in (
            (int, Int8BinaryDumper), (float, FloatBinaryDumper), (str, StrBinaryDumper), (bytes, BytesBinaryDumper)
        ):  # fmt: skip
            self.raw.adapters.register_dumper(kind, dumper)
        try:
            idle = _IDLE_COMMITTING if commits else _IDLE_READING
            own = (
                f"SET search_path = {address.schema}", f"SET idle_in_transaction_session_timeout = '{idle}s'"
            )  # fmt: skip
            self.script("; ".join([*_SESSION, *own]))
            if self.setting("synchronous_commit") in ("off", "local"):
                self.script("SET synchronous_commit = on")
        except BaseException:
            self.raw.close()
            raise

    @property
    def is_broken(self) -> bool:
        return self.raw.closed or self.raw.pgconn.status != ConnStatus.OK

    def setting(self, name: str) -> str:
        """Return a setting of the server, as this session sees it."""
        (value,) = self.execute("SELECT current_setting(?)", (name,)).fetchall()[0]
        return str(value)

    def script(self, statements: str) -> None:
        """Run statements without parameters, one after the other."""
        self.raw.execute(statements.encode())

    def execute(self, statement: str, parameters: Sequence[SqlValue] = (), /) -> psycopg.Cursor[Any]:
        """Run a statement with `?` for its parameters."""
        return self.raw.cursor(binary=True).execute(for_postgres(statement), parameters or None)

    def executemany(self, statement: str, rows: Iterable[Sequence[SqlValue]], /) -> psycopg.Cursor[Any]:
        """Run a statement for each row, in one round trip."""
        cursor = self.raw.cursor(binary=True)
        cursor.executemany(for_postgres(statement), list(rows))  # making the rows may run statements, too
        return cursor

    @contextmanager
    def transaction(self, begin: str = "BEGIN") -> Iterator[None]:
        """Commit everything in the block durably, or nothing if it raises. `begin` may have more statements."""
        try:
            self.script(begin)
            yield
            self.script("COMMIT")
        finally:
            # A transaction is still open only after an error.
            if not self.is_broken and self.raw.info.transaction_status != TransactionStatus.IDLE:
                self.script("ROLLBACK")

    def hang_up(self) -> None:
        """Break the connection, from any thread: a call that waits for the server then fails."""
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.raw.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.raw.close()


@cache
def for_postgres(statement: str) -> bytes:
    """Return a statement with numbered parameters and without hints for SQLite's planner."""
    numbers = count(1)
    plain = _CROSS.sub(r"JOIN \1\2", _INDEX.sub("", statement))
    return re.sub(r"\?", lambda _: f"${next(numbers)}", plain).encode()
