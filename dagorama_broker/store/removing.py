"""How the SQLite store forgets instances: at once for whoever asks, then portion by portion from the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from dagorama_broker.model import LinkRow, RemovedRow, RunRow
from dagorama_broker.store.numbers import mark_used
from dagorama_broker.store.reading import Reader
from dagorama_broker.store.rows import SqlValue, check_row, summed

#: Removed instances that are remembered by their id, the latest.
REMEMBERED = 100_000
#: Whatever has a row for a node.
_OF_NODES = ("nodes", "outcomes", "resolved", "progress", "node_keys", "adopted", "used_failures")
_LINK = "INSERT OR IGNORE INTO links (instance, named, chk) VALUES (?, ?, ?)"
_REMOVED = "INSERT INTO removed (instance, id, ended, failed, kept, chk) VALUES (?, ?, ?, ?, ?, ?)"
#: Of a function no node names; a scan of all nodes, for starts only.
_UNUSED = (
    "DELETE FROM functions WHERE id NOT IN (SELECT DISTINCT function FROM nodes)"
    " AND id NOT IN (SELECT function FROM adopted)"
)


def link(connection: sqlite3.Connection, rows: Sequence[LinkRow]) -> None:
    connection.executemany(_LINK, summed(rows))
    connection.executemany("UPDATE instances SET named = 1 WHERE key = ?", ((row.named,) for row in rows))


def remove(connection: sqlite3.Connection, rows: Sequence[RemovedRow]) -> None:
    """The instances are there no more, but for their ids; their nodes are left over for `sweep`."""
    keys = [(row.key,) for row in rows]
    mark_used(connection, "instances", max(row.key for row in rows))
    connection.executemany("DELETE FROM instances WHERE key = ?", keys)
    connection.executemany(_REMOVED, summed(map(_tombstone, rows)))
    connection.executemany("INSERT INTO leftovers (instance, chk) VALUES (?, ?)", summed(keys))
    for row in rows:
        _unlink(connection, row.key)
    connection.execute("DELETE FROM removed WHERE number <= (SELECT max(number) FROM removed) - ?", (REMEMBERED,))


def _tombstone(row: RemovedRow) -> tuple[SqlValue, ...]:
    return row.key, row.id, float(row.ended), int(row.failed), float(row.kept)


def _unlink(connection: sqlite3.Connection, key: int) -> None:
    """What this instance named is kept on its account no more."""
    named = []
    for other, chk in connection.execute("SELECT named, chk FROM links WHERE instance = ?", (key,)):
        check_row("links", key, chk, (key, other))
        named.append((other,))
    if named:
        connection.execute("DELETE FROM links WHERE instance = ?", (key,))
        still = "EXISTS (SELECT 1 FROM links WHERE links.named = instances.key)"
        connection.executemany(f"UPDATE instances SET named = {still} WHERE key = ?", named)


def sweep(connection: sqlite3.Connection, most: int) -> tuple[bool, list[bytes]]:
    """Delete up to `most` nodes, or runs, of removed instances, oldest first. Inside a transaction.

    Returns whether more may be left, and large values that no node names any more.
    """
    unnamed: list[bytes] = []
    while most > 0:
        row = connection.execute("SELECT instance, chk FROM leftovers ORDER BY instance LIMIT 1").fetchone()
        if row is None:
            return False, unnamed
        check_row("leftovers", row[0], row[1], row[:1])
        run = next(Reader(connection).runs("WHERE instance = ? ORDER BY first_key LIMIT 1", row[0]), None)
        if run is None:
            connection.execute("DELETE FROM leftovers WHERE instance = ?", row[:1])
            most -= 1
        else:
            most -= _sweep_run(connection, run, most, unnamed)
    return True, unnamed


def _sweep_run(connection: sqlite3.Connection, run: RunRow, most: int, unnamed: list[bytes]) -> int:
    """Delete up to `most` nodes of a run, and with the last of them the run; what that came to."""
    select = "SELECT key FROM nodes WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?"
    last = run.first_key + run.size - 1
    keys = [key for (key,) in connection.execute(select, (run.first_key, last, most))]
    if len(keys) == most:
        last = keys[-1]
    else:
        connection.execute("DELETE FROM runs WHERE first_key = ?", (run.first_key,))
        connection.execute("DELETE FROM brood_runs WHERE first_key = ?", (run.first_key,))
    mark_used(connection, "nodes", last)
    unnamed += _let_go(connection, run.first_key, last)
    for table in _OF_NODES:
        connection.execute(f"DELETE FROM {table} WHERE key BETWEEN ? AND ?", (run.first_key, last))
    connection.execute("DELETE FROM broods WHERE node BETWEEN ? AND ?", (run.first_key, last))
    return len(keys) + 1


def _let_go(connection: sqlite3.Connection, first: int, last: int) -> list[bytes]:
    """Delete what these nodes say of large values; those that no other node names."""
    select = "SELECT DISTINCT sha256 FROM large_refs WHERE key BETWEEN ? AND ?"
    named = connection.execute(select, (first, last)).fetchall()
    if not named:
        return []
    connection.execute("DELETE FROM large_refs WHERE key BETWEEN ? AND ?", (first, last))
    reader = Reader(connection)
    return [sha256 for (sha256,) in named if not reader.names_large(sha256)]


def drop_functions(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Delete functions that no node names."""
    mark_used(connection, "functions", max(ids))
    connection.executemany("DELETE FROM functions WHERE id = ?", ((id,) for id in ids))


def drop_unused_functions(connection: sqlite3.Connection, at_least: int) -> None:
    """Delete functions that no node names, where there are so many that it matters. Inside a transaction."""
    count, last = connection.execute("SELECT count(*), max(id) FROM functions").fetchone()
    if count >= at_least:
        mark_used(connection, "functions", last)
        connection.execute(_UNUSED)
