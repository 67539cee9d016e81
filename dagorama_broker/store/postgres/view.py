"""Queries that people make of many nodes, on a connection of their own. Checksums of these rows are not compared."""

from __future__ import annotations

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import State
from dagorama_broker.model.maps import NO_OUTCOME, BlockColumns, NodeColumns, cut_blocks
from dagorama_broker.model.queries import FailurePage, StructurePage, StructureRow
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.postgres.reader import FAILED_THEMSELVES
from dagorama_broker.store.sql.failures import BEGINNING, NAMELESS, NO_FAILURES, failure_page
from dagorama_broker.store.sql.listing import read_node_keys
from dagorama_broker.store.sql.store_reader import StoreReader
from dagorama_broker.store.sql.view import SqlView

_FAILURES = (
    f"SELECT o.key, o.ended, substring(coalesce(o.failure, '{NAMELESS}') FROM 1 FOR {BEGINNING})"
    f" FROM {FAILED_THEMSELVES} ORDER BY o.key LIMIT ?"
)
_STRUCTURE = (
    "SELECT n.key, n.function, b.creator, n.sources FROM node_blocks b"
    " JOIN nodes n ON n.key BETWEEN greatest(b.first_key, ?) AND least(b.first_key + b.size - 1, ?)"
    " WHERE b.instance = ? AND b.first_key <= ? AND b.first_key + b.size > ? ORDER BY n.key"
)
#: The first key of the block that contains a key, or of the next block.
_BLOCK_OF = "coalesce((SELECT max(first_key) FROM node_blocks WHERE instance = ? AND first_key <= ?), 0)"
_BLOCKS = (
    f"SELECT first_key, size, creator, created FROM node_blocks WHERE instance = ? AND first_key >= {_BLOCK_OF}"
    " AND first_key + size > ? ORDER BY first_key LIMIT ?"
)
_MEMBERS = "node_blocks b JOIN nodes n ON n.key BETWEEN greatest(b.first_key, ?) AND least(b.first_key + b.size - 1, ?)"
_WHERE = f"WHERE b.instance = ? AND b.first_key BETWEEN {_BLOCK_OF} AND ? ORDER BY n.key"
_COLUMNS = (
    f"SELECT n.function, coalesce(r.state, o.state, {NO_OUTCOME}),"
    f" round(coalesce(r.ended, CASE WHEN o.state = {State.RESOLVING:d} THEN 0 ELSE o.ended END, 0) * 1000000)::bigint,"
    " coalesce(o.microseconds, 0), coalesce(o.worker, 0), coalesce(p.failed_attempts, 0),"
    f" CASE WHEN r.key IS NOT NULL OR o.state = {State.RESOLVING:d} THEN round(o.ended * 1000000)::bigint ELSE 0 END,"
    f" length(n.sources) / 8 FROM {_MEMBERS} LEFT JOIN outcomes o ON o.key = n.key"
    f" LEFT JOIN resolved r ON r.key = n.key LEFT JOIN progress p ON p.key = n.key {_WHERE}"
)
_SOURCES = f"SELECT n.sources FROM {_MEMBERS} {_WHERE}"


class PostgresView(SqlView):
    """A `StoreView` of a database."""

    def failures(self, instance: int, after: int, limit: int) -> FailurePage:
        return self._source.read_one_state(lambda reader: _read_failures(reader, instance, after, limit))

    def structure(self, instance: int, after: int, limit: int) -> StructurePage:
        return self._source.read_one_state(lambda reader: _read_structure(reader, instance, after, limit))

    def map_blocks(self, instance: int, after: int, limit: int) -> BlockColumns:
        first = after + 1
        rows = self._source.read(
            lambda reader: reader.connection.execute(_BLOCKS, (instance, instance, first, first, limit)).fetchall()
        )
        if not rows:
            return BlockColumns([], [], [], [])
        return cut_blocks(BlockColumns(*map(list, zip(*rows, strict=True))), after, limit)

    def node_columns(self, instance: int, first: int, last: int) -> NodeColumns:
        rows = self._source.read(
            lambda reader: reader.connection.execute(_COLUMNS, _between(instance, first, last)).fetchall()
        )
        if not rows:
            raise StoreError(f"table nodes is damaged: instance {instance} has no nodes from {first} to {last}")
        functions, states, *rest = map(list, zip(*rows, strict=True))
        return NodeColumns(functions, bytearray(states), *rest)

    def node_sources(self, instance: int, first: int, last: int) -> list[int]:
        rows = self._source.read(
            lambda reader: reader.connection.execute(_SOURCES, _between(instance, first, last)).fetchall()
        )
        return unpack_sources(b"".join(sources for (sources,) in rows))


def _between(instance: int, first: int, last: int) -> tuple[int, ...]:
    """Return the parameters of `_MEMBERS` and `_WHERE`."""
    return first, last, instance, instance, first, last


def _read_failures(reader: StoreReader, instance: int, after: int, limit: int) -> FailurePage:
    rows = reader.connection.execute(_FAILURES, (after, instance, limit)).fetchall()
    if not rows:
        return NO_FAILURES
    keys, ended, beginnings = map(list, zip(*rows, strict=True))
    return failure_page(reader, keys, ended, [beginning.decode("ascii", "replace") for beginning in beginnings], limit)


def _read_structure(reader: StoreReader, instance: int, after: int, limit: int) -> StructurePage:
    keys = read_node_keys(reader, instance, after, limit)
    if not keys:
        return StructurePage([], 0)
    first, last = keys[0], keys[-1]
    found = reader.connection.execute(_STRUCTURE, (first, last, instance, last, first)).fetchall()
    rows = [StructureRow(key, function, creator, unpack_sources(sources)) for key, function, creator, sources in found]
    return StructurePage(rows, last if len(keys) == limit else 0)
