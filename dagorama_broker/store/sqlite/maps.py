"""Reads many nodes of an instance as columns. As in `aggregates`, a statement returns one row for thousands of nodes.

Checksums of these rows are not compared.
"""

from __future__ import annotations

import json

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import State
from dagorama_broker.model.maps import NO_OUTCOME, BlockColumns, NodeColumns, cut_blocks
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.reader import Reader

#: The first key of the block that contains a key, or of the next block.
_BLOCK_OF = "coalesce((SELECT max(first_key) FROM node_blocks WHERE instance = ?1 AND first_key <= ?2), 0)"
_BLOCKS = (
    "SELECT group_concat(first_key), group_concat(size), group_concat(creator), group_concat(created) FROM"
    f" (SELECT first_key, size, creator, created FROM node_blocks WHERE instance = ?1 AND first_key >= {_BLOCK_OF}"
    " AND first_key + size > ?2 ORDER BY first_key LIMIT ?3)"
)
_MEMBERS = (
    "node_blocks b CROSS JOIN nodes n ON n.key BETWEEN max(b.first_key, ?2) AND min(b.first_key + b.size - 1, ?3)"
)
_WHERE = f"b.instance = ?1 AND b.first_key BETWEEN {_BLOCK_OF} AND ?3 ORDER BY b.first_key, n.key"
_COLUMNS = (
    "SELECT group_concat(function), group_concat(state), group_concat(ended), group_concat(microseconds),"
    " group_concat(worker), group_concat(failed), group_concat(returned), group_concat(sources) FROM (SELECT"
    f" n.function, coalesce(r.state, o.state, {NO_OUTCOME}) AS state,"
    f" CAST(round(coalesce(r.ended, iif(o.state = {State.RESOLVING:d}, 0, o.ended), 0) * 1000000) AS INTEGER) AS ended,"
    " coalesce(o.microseconds, 0) AS microseconds, coalesce(o.worker, 0) AS worker,"
    " coalesce(p.failed_attempts, 0) AS failed,"
    f" iif(r.key IS NOT NULL OR o.state = {State.RESOLVING:d}, CAST(round(o.ended * 1000000) AS INTEGER), 0)"
    f" AS returned, length(n.sources) / 8 AS sources FROM {_MEMBERS} LEFT JOIN outcomes o ON o.key = n.key"
    f" LEFT JOIN resolved r ON r.key = n.key LEFT JOIN progress p ON p.key = n.key WHERE {_WHERE})"
)
_SOURCES = f"SELECT group_concat(sources, '') FROM (SELECT hex(n.sources) AS sources FROM {_MEMBERS} WHERE {_WHERE})"


def read_blocks(reader: Reader, instance: int, after: int, limit: int) -> BlockColumns:
    """Return the blocks of up to `limit` nodes of an instance after this key."""
    columns = _columns(reader.connection, _BLOCKS, (instance, after + 1, limit))
    return cut_blocks(BlockColumns(*columns), after, limit) if columns else BlockColumns([], [], [], [])


def read_columns(reader: Reader, instance: int, first: int, last: int) -> NodeColumns:
    """Return the nodes of an instance from this key to that one, both included. Raise StoreError if there are none."""
    columns = _columns(reader.connection, _COLUMNS, (instance, first, last))
    if not columns:
        raise StoreError(f"table nodes is damaged: instance {instance} has no nodes from {first} to {last}")
    functions, states, *rest = columns
    return NodeColumns(functions, bytearray(states), *rest)


def read_sources(reader: Reader, instance: int, first: int, last: int) -> list[int]:
    """Return the keys of the sources of these nodes, one node after the other."""
    (text,) = reader.connection.execute(_SOURCES, (instance, first, last)).fetchone()
    return unpack_sources(bytes.fromhex(text or ""))


def _columns(connection: Connection, select: str, parameters: tuple[int, ...]) -> list[list[int]]:
    """Return columns of integers that were joined with commas; none if there are no rows."""
    row = connection.execute(select, parameters).fetchone()
    return [] if row[0] is None else [json.loads(f"[{text}]") for text in row]
