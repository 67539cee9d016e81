"""The interface between shared statements and a database: rows for a statement and its parameters.

The statements are written for SQLite: `?` stands for a parameter, and INDEXED BY and CROSS JOIN ... ON are hints for
its planner. Apart from these they are SQL that PostgreSQL runs, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Protocol

from dagorama_broker.store.checksums import SqlValue

#: Rows of one statement; few sizes, because a connection keeps the statements that it has prepared.
SIZES = (128, 16, 4, 1)


class Cursor(Protocol):
    """The rows of a statement."""

    @property
    def rowcount(self) -> int:
        """Number of the rows that were changed, by all runs of an `executemany` together."""
        ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection to a database, used by one thread at a time. Statements commit at once outside of a transaction."""

    def execute(self, statement: str, parameters: Sequence[SqlValue] = (), /) -> Cursor: ...

    def executemany(self, statement: str, rows: Iterable[Sequence[SqlValue]], /) -> Cursor: ...


def upsert(table: str, key: str, columns: Sequence[str]) -> str:
    """Return a statement that inserts a row with these columns, and replaces the row that has the same key."""
    places = ", ".join("?" * (len(columns) + 1))
    return f"INSERT INTO {table} ({', '.join((key, *columns))}) VALUES ({places}) {replacing(key, columns)}"


def replacing(key: str, columns: Sequence[str]) -> str:
    """Return the end of an INSERT that replaces the row that has the same key."""
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns)
    return f"ON CONFLICT ({key}) DO UPDATE SET {changes}"


def execute_rows(connection: Connection, statement: str, width: int, rows: Iterable[Sequence[SqlValue]]) -> None:
    """Run a statement that has `{rows}` after VALUES for all of these rows, each with `width` columns.

    The sqlite3 module releases the GIL around each statement and then waits for it. Next to a busy event loop that wait
    is most of the cost of a row, so one statement takes as many rows as possible, up to a bound.
    """
    values = list(chain.from_iterable(rows))
    at, end = 0, len(values)
    for size in SIZES:
        length = size * width
        while end - at >= length:
            connection.execute(_with_rows(statement, width, size), values[at : at + length])
            at += length


@cache
def _with_rows(statement: str, width: int, size: int) -> str:
    return statement.format(rows=", ".join([f"({', '.join('?' * width)})"] * size))
