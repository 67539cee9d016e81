"""Writes the changes of one transaction, table by table."""

from __future__ import annotations

import sqlite3

from dagorama_broker.model.rows import Changes
from dagorama_broker.store.checksums import block_rows, node_rows, outcome_rows, row_sum, summed
from dagorama_broker.store.sql.connection import execute_rows
from dagorama_broker.store.sql.writer import end_row, revive, write_the_rare

# Most of the rows that are written go through these five statements.
_NODES = "INSERT INTO nodes VALUES {rows}"
_OUTCOMES = "INSERT INTO outcomes VALUES {rows}"
_BLOCKS = (
    "INSERT INTO node_blocks (first_key, origin, first, size, instance, digest, creator, created, chk) VALUES {rows}"
)
_INSTANCES = "INSERT INTO instances (key, id, definition, entry, created, priority, chk, failed, end_chk) VALUES {rows}"
_INSTANCE_ENDS = (
    "WITH ends (key, ended, failed, chk) AS (VALUES {rows})"
    " UPDATE instances SET ended = ends.ended, failed = ends.failed, end_chk = ends.chk"
    " FROM ends WHERE instances.key = ends.key"
)
_RESOLVED = "INSERT INTO resolved (key, state, root_cause, ended, chk) VALUES (?, ?, ?, ?, ?)"


def write(connection: sqlite3.Connection, changes: Changes) -> None:
    """Write the changes. Call it in a transaction.

    SQLite raises IntegrityError if a row that may exist only once is already there.
    """
    many = connection.executemany
    if changes.retried:
        revive(connection, changes.retried)
    if changes.nodes:
        execute_rows(connection, _NODES, 6, node_rows(changes.nodes))
    if changes.outcomes:
        execute_rows(connection, _OUTCOMES, 11, outcome_rows(changes.outcomes))
    if changes.blocks:
        execute_rows(connection, _BLOCKS, 9, block_rows(changes.blocks))
    if changes.resolved:
        many(_RESOLVED, summed((key, int(state), c, float(ended)) for key, state, c, ended in changes.resolved))
    if changes.instances:
        rows = ((*row, row_sum(row), 0, row_sum((row.key, None, 0))) for row in changes.instances)
        execute_rows(connection, _INSTANCES, 9, rows)
    if changes.instance_ends:
        # SQLite does not say which of several rows for one instance it takes.
        ends = {end.key: end for end in changes.instance_ends}
        execute_rows(connection, _INSTANCE_ENDS, 4, map(end_row, ends.values()))
    write_the_rare(connection, changes)
