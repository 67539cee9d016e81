"""Numbers that a store keeps beside its rows: the epoch, and how far keys have been used when their rows are gone."""

from __future__ import annotations

import sqlite3

from dagorama_broker.store.checksums import check_row, row_sum

_RAISE = (
    "INSERT INTO meta VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value, chk = excluded.chk"
    " WHERE excluded.value > meta.value"
)


def read_number(connection: sqlite3.Connection, name: str) -> int:
    """The number of this name; 0: never written. Raises StoreError where it is damaged."""
    row = connection.execute("SELECT value, chk FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        return 0
    check_row("meta", name, row[1], (name, row[0]))
    value: int = row[0]
    return value


def check_numbers(connection: sqlite3.Connection) -> None:
    """Raises StoreError where one is damaged: one whose name is would seem never to have been written."""
    for name, value, chk in connection.execute("SELECT name, value, chk FROM meta"):
        check_row("meta", name, chk, (name, value))


def write_number(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, value, row_sum((name, value))))


def next_key(connection: sqlite3.Connection, table: str, column: str = "key") -> int:
    """The smallest key that no row of this table has or ever had."""
    last: int | None = connection.execute(f"SELECT max({column}) FROM {table}").fetchone()[0]
    return max((last or 0) + 1, read_number(connection, _mark(table)))


def mark_used(connection: sqlite3.Connection, table: str, last: int) -> None:
    """Rows up to this key are about to go: what comes must not take their keys. In the same transaction."""
    name, value = _mark(table), last + 1
    connection.execute(_RAISE, (name, value, row_sum((name, value))))


def _mark(table: str) -> str:
    return f"next of {table}"
