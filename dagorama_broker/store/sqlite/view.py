"""Reads of many nodes for people: the failed ones, and the edges between them.

A statement returns one row for up to thousands of nodes, because a busy broker would take the interpreter lock between
two rows. Checksums of these nodes are not compared.
"""

from __future__ import annotations

from dagorama_broker.model.domain import State
from dagorama_broker.model.maps import BlockColumns, NodeColumns
from dagorama_broker.model.queries import FailurePage, StructurePage, StructureRow
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.sql.failures import BEGINNING, NAMELESS, NO_FAILURES, failure_page
from dagorama_broker.store.sql.listing import read_node_keys
from dagorama_broker.store.sql.reader import Reader
from dagorama_broker.store.sql.view import SqlView
from dagorama_broker.store.sqlite.maps import read_blocks, read_columns, read_sources

# --- failures ---------------------------------------------------------------------------------------------

#: A control character, which JSON escapes.
_BETWEEN = "\x1f"
_FAILURES = (
    "SELECT group_concat(key), group_concat(ended), group_concat(beginning, char(31)) FROM"
    f" (SELECT o.key, o.ended, CAST(substr(coalesce(o.failure, '{NAMELESS}'), 1, {BEGINNING}) AS TEXT) AS beginning"
    " FROM node_blocks b CROSS JOIN outcomes o INDEXED BY failed_outcomes"
    " ON o.key BETWEEN max(b.first_key, ? + 1) AND b.first_key + b.size - 1"
    f" WHERE b.instance = ? AND o.root_cause != 0 AND o.root_cause = o.key AND o.state = {State.FAILED:d}"
    " ORDER BY b.first_key, o.key LIMIT ?)"
)


def read_failures(reader: Reader, instance: int, after: int, limit: int) -> FailurePage:
    """Return nodes of an instance that failed by themselves."""
    keys, ended, beginnings = reader.connection.execute(_FAILURES, (after, instance, limit)).fetchone()
    if keys is None:
        return NO_FAILURES
    times = list(map(float, ended.split(",")))
    return failure_page(reader, list(map(int, keys.split(","))), times, beginnings.split(_BETWEEN), limit)


# --- structure --------------------------------------------------------------------------------------------

_STRUCTURE = (
    "SELECT group_concat(n.key || ':' || n.function || ':' || b.creator || ':' || hex(n.sources))"
    " FROM node_blocks b CROSS JOIN nodes n ON n.key BETWEEN max(b.first_key, ?1) AND min(b.first_key + b.size - 1, ?2)"
    " WHERE b.instance = ?3 AND b.first_key <= ?2 AND b.first_key + b.size > ?1"
)


def read_structure(reader: Reader, instance: int, after: int, limit: int) -> StructurePage:
    """Return nodes of an instance with their functions and edges."""
    keys = read_node_keys(reader, instance, after, limit)
    if not keys:
        return StructurePage([], 0)
    (text,) = reader.connection.execute(_STRUCTURE, (keys[0], keys[-1], instance)).fetchone()
    rows = sorted(map(_structure_row, text.split(","))) if text else []
    return StructurePage(rows, keys[-1] if len(keys) == limit else 0)


def _structure_row(item: str) -> StructureRow:
    key, function, creator, sources = item.split(":")
    return StructureRow(int(key), int(function), int(creator), unpack_sources(bytes.fromhex(sources)))


class SqliteView(SqlView):
    """A `StoreView` of a file."""

    def failures(self, instance: int, after: int, limit: int) -> FailurePage:
        return self._source.read_one_state(lambda reader: read_failures(reader, instance, after, limit))

    def structure(self, instance: int, after: int, limit: int) -> StructurePage:
        return self._source.read_one_state(lambda reader: read_structure(reader, instance, after, limit))

    def map_blocks(self, instance: int, after: int, limit: int) -> BlockColumns:
        return self._source.read(lambda reader: read_blocks(reader, instance, after, limit))

    def node_columns(self, instance: int, first: int, last: int) -> NodeColumns:
        return self._source.read(lambda reader: read_columns(reader, instance, first, last))

    def node_sources(self, instance: int, first: int, last: int) -> list[int]:
        return self._source.read(lambda reader: read_sources(reader, instance, first, last))
