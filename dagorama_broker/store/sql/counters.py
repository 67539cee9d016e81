"""Single facts of a store besides its rows: the epoch and other numbers, which keys were used, and its secret."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dagorama_broker.store.checksums import check_row, row_sum, summed
from dagorama_broker.store.protocol import SECRET_BYTES
from dagorama_broker.store.sql.connection import Connection, upsert

_RAISE = (
    "INSERT INTO meta VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value, chk = excluded.chk"
    " WHERE excluded.value > meta.value"
)
_WRITE = upsert("meta", "name", ("value", "chk"))
#: Name of the secret, which proofs of grants are made with.
_GRANTS = "grants"


def read_number(connection: Connection, name: str) -> int:
    """Return the number of this name, 0 if it was never written. Raise StoreError if it is damaged."""
    row = connection.execute("SELECT value, chk FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        return 0
    check_row("meta", name, row[1], (name, row[0]))
    value: int = row[0]
    return value


def check_numbers(connection: Connection) -> None:
    """Raise StoreError if a number is damaged: one with a damaged name would seem never to have been written."""
    for name, value, chk in connection.execute("SELECT name, value, chk FROM meta"):
        check_row("meta", name, chk, (name, value))


def write_number(connection: Connection, name: str, value: int) -> None:
    """Write the number of this name."""
    connection.execute(_WRITE, (name, value, row_sum((name, value))))


def next_key(connection: Connection, table: str, column: str = "key") -> int:
    """Return the smallest key larger than all keys that rows of this table have or ever had."""
    last: int | None = connection.execute(f"SELECT max({column}) FROM {table}").fetchone()[0]
    return max((last or 0) + 1, read_number(connection, _mark(table)))


def mark_used(connection: Connection, table: str, last: int) -> None:
    """Keep new rows from reusing keys up to `last`. Call it in the transaction that deletes the rows."""
    name, value = _mark(table), last + 1
    connection.execute(_RAISE, (name, value, row_sum((name, value))))


def _mark(table: str) -> str:
    return f"next of {table}"


def read_marks(connection: Connection) -> list[tuple[str, int]]:
    """Return the marks of all tables by their names. Raise StoreError if one is damaged."""
    found = []
    for name, value, chk in connection.execute("SELECT name, value, chk FROM meta WHERE name LIKE 'next of %'"):
        check_row("meta", name, chk, (name, value))
        found.append((name, value))
    return found


def read_secrets(connection: Connection) -> list[tuple[str, bytes]]:
    """Return the secrets by their names. Raise StoreError if one is damaged."""
    found = []
    for name, value, chk in connection.execute("SELECT name, value, chk FROM secrets").fetchall():
        check_row("secrets", name, chk, (name, value))
        found.append((name, bytes(value)))
    return found


def replace_secrets(connection: Connection, secrets: Sequence[tuple[str, bytes]]) -> None:
    """Delete the secrets, and write these instead. Call it in a transaction."""
    connection.execute("DELETE FROM secrets")
    connection.executemany("INSERT INTO secrets (name, value, chk) VALUES (?, ?, ?)", summed(secrets))


def kept_secret(connection: Connection) -> bytes:
    """Return the secret; create it if there is none. Call it in a transaction. Raise StoreError if it is damaged."""
    if found := read_secrets(connection):
        ((_, secret),) = found
        return secret
    secret = os.urandom(SECRET_BYTES)
    replace_secrets(connection, [(_GRANTS, secret)])
    return secret
