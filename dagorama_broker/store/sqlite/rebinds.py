"""Nodes that run with other code than they were created with, and the signed adoptions that allow it.

An adoption is deleted when the last node that refers to it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from dagorama_broker.errors import StoreError
from dagorama_broker.model.rows import RebindingRow, ReboundRow
from dagorama_broker.store.checksums import SqlValue, check_row, damaged, rebound_sum, summed
from dagorama_broker.store.sqlite.reader import Reader

_ADOPTION = "INSERT INTO adoptions (id, signed, chk) VALUES (?, ?, ?)"
_ADOPTED = "INSERT OR REPLACE INTO adopted (key, function, adoption, chk) VALUES (?, ?, ?, ?)"
_BY_NODES = "SELECT key, function, adoption, chk FROM adopted WHERE key IN"
_BY_IDS = "SELECT id, signed, chk FROM adoptions WHERE id IN"
_UNNAMED = (
    "DELETE FROM adoptions WHERE id = ? AND NOT EXISTS (SELECT 1 FROM adopted WHERE adoption > 0 AND adoption = ?)"
)


def write_rebound(
    connection: sqlite3.Connection, adoptions: Sequence[RebindingRow], adopted: Sequence[ReboundRow]
) -> None:
    """Write adoptions and the nodes that they allow, replacing earlier rows. Call it in a transaction."""
    connection.executemany(_ADOPTION, summed(adoptions))
    before = {row.rebinding for row in rebound_rows(Reader(connection), {row.key for row in adopted})}
    connection.executemany(_ADOPTED, ((*row, rebound_sum(*row)) for row in adopted))
    _drop_unnamed(connection, before.union(row.rebinding for row in adopted))


def rebound_rows(reader: Reader, keys: Collection[int]) -> Iterator[ReboundRow]:
    """Yield the rows of the nodes that were adopted."""
    return checked(reader.by_keys(_BY_NODES, keys))


def checked(rows: Iterable[Any]) -> Iterator[ReboundRow]:
    """Check rows of `adopted` and yield them. Raise StoreError if one is damaged."""
    for key, function, adoption, chk in rows:
        if rebound_sum(key, function, adoption) != chk:
            raise damaged("adopted", key)
        yield ReboundRow(key, function, adoption)


def adoptions_of(reader: Reader, adopted: Iterable[ReboundRow]) -> dict[int, RebindingRow]:
    """Return the adoptions that the rows refer to, by node key. Raise StoreError if one is damaged or missing."""
    ids = {row.key: row.rebinding for row in adopted if row.rebinding}
    found = {}
    for id, signed, chk in reader.by_keys(_BY_IDS, set(ids.values())):
        check_row("adoptions", id, chk, (id, signed))
        found[id] = RebindingRow(id, signed)
    if missing := set(ids.values()) - found.keys():
        raise StoreError(f"table adoptions is damaged: row {min(missing)} is missing")
    return {key: found[id] for key, id in ids.items()}


def let_go(connection: sqlite3.Connection, among: str, parameters: Sequence[SqlValue]) -> None:
    """Delete the rows of nodes whose keys meet the condition `among`, and adoptions that no other node refers to."""
    select = f"SELECT DISTINCT adoption FROM adopted WHERE key {among}"
    named = [id for (id,) in connection.execute(select, parameters)]
    connection.execute(f"DELETE FROM adopted WHERE key {among}", parameters)
    _drop_unnamed(connection, named)


def _drop_unnamed(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    connection.executemany(_UNNAMED, ((id, id) for id in ids if id))
