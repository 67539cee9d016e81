"""Nodes that run with other code than they were created with, and the signed rebindings that allow it.

A rebinding is deleted when the last node that refers to it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from dagorama_broker.errors import StoreError
from dagorama_broker.model.rows import RebindingRow, ReboundRow
from dagorama_broker.store.checksums import SqlValue, check_row, summed
from dagorama_broker.store.sql.connection import Connection, upsert
from dagorama_broker.store.sql.reader import Reader

_REBINDING = "INSERT INTO rebindings (id, signed, chk) VALUES (?, ?, ?)"
_REBOUND = upsert("rebound_nodes", "key", ("function", "rebinding", "chk"))
_BY_NODES = "SELECT key, function, rebinding, chk FROM rebound_nodes WHERE key IN"
_BY_IDS = "SELECT id, signed, chk FROM rebindings WHERE id IN"
_UNNAMED = (
    "DELETE FROM rebindings WHERE id = ?"
    " AND NOT EXISTS (SELECT 1 FROM rebound_nodes WHERE rebinding > 0 AND rebinding = ?)"
)


def write_rebound(connection: Connection, rebindings: Sequence[RebindingRow], rebound: Sequence[ReboundRow]) -> None:
    """Write rebindings and the nodes that they allow, replacing earlier rows. Call it in a transaction."""
    connection.executemany(_REBINDING, summed(rebindings))
    before = {row.rebinding for row in rebound_rows(Reader(connection), {row.key for row in rebound})}
    connection.executemany(_REBOUND, summed(rebound))
    _drop_unnamed(connection, before.union(row.rebinding for row in rebound))


def rebound_rows(reader: Reader, keys: Collection[int]) -> Iterator[ReboundRow]:
    """Yield the rows of the nodes that were rebound."""
    return checked(reader.by_keys(_BY_NODES, keys))


def checked(rows: Iterable[Any]) -> Iterator[ReboundRow]:
    """Check rows of `rebound_nodes` and yield them. Raise StoreError if one is damaged."""
    for key, function, rebinding, chk in rows:
        check_row("rebound_nodes", key, chk, (key, function, rebinding))
        yield ReboundRow(key, function, rebinding)


def rebindings_of(reader: Reader, rebound: Iterable[ReboundRow]) -> dict[int, RebindingRow]:
    """Return the rebindings that the rows refer to, by node key. Raise StoreError if one is damaged or missing."""
    ids = {row.key: row.rebinding for row in rebound if row.rebinding}
    found = {}
    for id, signed, chk in reader.by_keys(_BY_IDS, set(ids.values())):
        check_row("rebindings", id, chk, (id, signed))
        found[id] = RebindingRow(id, signed)
    if missing := set(ids.values()) - found.keys():
        raise StoreError(f"table rebindings is damaged: row {min(missing)} is missing")
    return {key: found[id] for key, id in ids.items()}


def let_go(connection: Connection, among: str, parameters: Sequence[SqlValue]) -> None:
    """Delete the rows of nodes whose keys meet the condition `among`, and rebindings that no other node refers to."""
    select = f"SELECT DISTINCT rebinding FROM rebound_nodes WHERE key {among}"
    named = [id for (id,) in connection.execute(select, parameters)]
    connection.execute(f"DELETE FROM rebound_nodes WHERE key {among}", parameters)
    _drop_unnamed(connection, named)


def _drop_unnamed(connection: Connection, ids: Iterable[int]) -> None:
    connection.executemany(_UNNAMED, ((id, id) for id in ids if id))
