"""The queries that SQLite has its own statements for.

A statement returns many rows as one JSON text: between any two rows that are read, another thread may take the GIL, and
next to a busy event loop that costs more than the rows do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from dagorama_broker.model.domain import State
from dagorama_broker.store.checksums import SqlValue
from dagorama_broker.store.sql.store_reader import StoreReader

_LEFTOVERS = (
    "SELECT json_group_array(json_array(instance, chk + 0))"
    " FROM (SELECT instance, chk FROM leftovers ORDER BY instance LIMIT ?)"
)
#: Adding 0 turns a blob, which JSON cannot hold and only damage can put there, into a number that fails the checksum.
_BLOCKS = (
    "SELECT json_group_array(json_array(hex(origin), first + 0, size + 0, first_key, instance + 0, hex(digest),"
    " creator + 0, created + 0, chk + 0))"
    " FROM (SELECT * FROM node_blocks WHERE instance {among} ORDER BY instance, first_key LIMIT ?)"
)
_SIZES = (
    "SELECT group_concat(first_key || ':' || size) FROM"
    " (SELECT first_key, size FROM node_blocks WHERE instance = ? AND first_key BETWEEN ? AND ? ORDER BY first_key)"
)
#: Type and message of a failure, which are the second and the third item of a JSON array.
_TEXT = "json_extract(CAST(o.failure AS TEXT), '$[1]') || ': ' || json_extract(CAST(o.failure AS TEXT), '$[2]')"
_FAILED_WITH = (
    "SELECT group_concat(key) FROM (SELECT o.key"
    " FROM node_blocks b CROSS JOIN outcomes o INDEXED BY failed_outcomes"
    " ON o.key BETWEEN max(b.first_key, ? + 1) AND b.first_key + b.size - 1"
    f" WHERE b.instance = ? AND o.root_cause != 0 AND o.root_cause = o.key AND o.state = {State.FAILED:d}"
    f" AND CASE WHEN json_valid(CAST(o.failure AS TEXT)) THEN instr(lower({_TEXT}), lower(?)) END"
    " ORDER BY b.first_key, o.key LIMIT ?)"
)


class SqliteReader(StoreReader):
    """Reads a file."""

    def leftovers(self, most: int) -> list[tuple[int, int]]:
        return [(instance, chk) for instance, chk in self._packed(_LEFTOVERS, (most,))]

    def blocks_among(self, among: str, parameters: Sequence[SqlValue]) -> list[Any]:
        return [
            (bytes.fromhex(origin), first, size, first_key, instance, bytes.fromhex(digest), *rest)
            for origin, first, size, first_key, instance, digest, *rest in self._packed(
                _BLOCKS.format(among=among), parameters
            )
        ]

    def _packed(self, select: str, parameters: Sequence[SqlValue]) -> list[Any]:
        """Return the rows that a statement returns as one JSON text."""
        rows: list[Any] = json.loads(self.connection.execute(select, parameters).fetchone()[0])
        return rows

    def sizes(self, instance: int, first: int, last: int) -> Iterable[tuple[int, int]]:
        (sizes,) = self.connection.execute(_SIZES, (instance, first, last)).fetchone()
        pairs = (item.split(":") for item in sizes.split(","))
        return [(int(first_key), int(size)) for first_key, size in pairs]

    def failed_with(self, instance: int, text: str, after: int, limit: int) -> list[int]:
        (keys,) = self.connection.execute(_FAILED_WITH, (after, instance, text, limit)).fetchone()
        return [] if keys is None else list(map(int, keys.split(",")))
