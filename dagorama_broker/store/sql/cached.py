"""Rows of cached values: few commits write them, and a start reads them all."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama_broker.model.rows import CachedRow
from dagorama_broker.store.checksums import SqlValue, checked_rows, summed
from dagorama_broker.store.sql.connection import Connection, upsert

#: The columns between the cache key and the checksum.
_COLUMNS = (
    "function", "function_id", "instance", "instance_id", "node", "node_id", "completed", "expires", "has_refs",
    "proof",
)  # fmt: skip
_WRITE = upsert("cached", "key", (*_COLUMNS, "chk"))
_READ = f"SELECT key, {', '.join(_COLUMNS)}, chk FROM cached ORDER BY completed, key"


def write_cached(connection: Connection, gone: Sequence[bytes], rows: Sequence[CachedRow]) -> None:
    """Delete the rows of these cache keys, and then write rows, of which a later one of a key replaces an earlier one.

    Call it in a transaction.
    """
    if gone:
        connection.executemany("DELETE FROM cached WHERE key = ?", ((key,) for key in gone))
    if rows:
        latest = {row.key: row for row in rows}.values()
        connection.executemany(_WRITE, summed(map(_row, latest)))


def read_cached(connection: Connection) -> list[CachedRow]:
    """Return all rows, the oldest first. Raise StoreError if one is damaged."""
    rows = checked_rows("cached", connection.execute(_READ))
    return [CachedRow(*row) for row in rows]


def _row(row: CachedRow) -> tuple[SqlValue, ...]:
    """Return a row with numbers as both databases return them, so that checksums agree."""
    return row._replace(completed=float(row.completed), expires=float(row.expires))
