"""Nodes that a call creates in several commits. Until the call is decided, no query finds them."""

from __future__ import annotations

from collections.abc import Iterable

from dagorama_broker.model.rows import DraftRow
from dagorama_broker.store.checksums import check_row, summed
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.counters import mark_used
from dagorama_broker.store.sql.rebinds import let_go

_BEGIN = "INSERT INTO drafts (first_key, last_key, chk) VALUES (?, ?, ?)"
_OF_NODES = ("nodes", "node_keys", "node_delays", "signal_waits")


def begin(connection: Connection, drafts: Iterable[DraftRow]) -> None:
    """Record which nodes a call is creating, so that a start after a crash deletes them."""
    connection.executemany(_BEGIN, summed(drafts))


def give_up(connection: Connection, nodes: Iterable[DraftRow]) -> None:
    """Delete the rows of nodes that are not created after all; their keys are not reused."""
    for first, last in nodes:
        mark_used(connection, "nodes", last)
        for table in _OF_NODES:
            connection.execute(f"DELETE FROM {table} WHERE key BETWEEN ? AND ?", (first, last))
        let_go(connection, "BETWEEN ? AND ?", (first, last))


def end(connection: Connection, first_keys: Iterable[int]) -> None:
    """Forget drafts whose call was decided."""
    connection.executemany("DELETE FROM drafts WHERE first_key = ?", ((key,) for key in first_keys))


def clear(connection: Connection) -> None:
    """Delete nodes of calls that an earlier broker left undecided. Raise StoreError if a row is damaged."""
    left = []
    for first, last, chk in connection.execute("SELECT first_key, last_key, chk FROM drafts"):
        check_row("drafts", first, chk, (first, last))
        left.append(DraftRow(first, last))
    give_up(connection, left)
    end(connection, [draft.first_key for draft in left])
