"""The queries that PostgreSQL has its own statements for. psycopg receives all rows at once, without the GIL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dagorama_broker.model.domain import State
from dagorama_broker.store.checksums import SqlValue
from dagorama_broker.store.sql.store_reader import StoreReader

_LEFTOVERS = "SELECT instance, chk FROM leftovers ORDER BY instance LIMIT ?"
_BLOCKS = (
    "SELECT origin, first, size, first_key, instance, digest, creator, created, chk FROM node_blocks"
    " WHERE instance {among} ORDER BY instance, first_key LIMIT ?"
)
_SIZES = "SELECT first_key, size FROM node_blocks WHERE instance = ? AND first_key BETWEEN ? AND ? ORDER BY first_key"
#: Nodes that failed themselves, of one instance and after one key.
FAILED_THEMSELVES = (
    "node_blocks b JOIN outcomes o ON o.key BETWEEN greatest(b.first_key, ? + 1) AND b.first_key + b.size - 1"
    f" WHERE b.instance = ? AND o.root_cause != 0 AND o.root_cause = o.key AND o.state = {State.FAILED:d}"
)
_FAILED_WITH = (
    f"SELECT o.key FROM {FAILED_THEMSELVES}"
    ' AND strpos(lower(failure_text(o.failure) COLLATE "C"), lower(? COLLATE "C")) > 0 ORDER BY o.key LIMIT ?'
)


class PostgresReader(StoreReader):
    """Reads through one connection."""

    def leftovers(self, most: int) -> list[tuple[int, int]]:
        return self.connection.execute(_LEFTOVERS, (most,)).fetchall()

    def blocks_among(self, among: str, parameters: Sequence[SqlValue]) -> list[Any]:
        return self.connection.execute(_BLOCKS.format(among=among), parameters).fetchall()

    def sizes(self, instance: int, first: int, last: int) -> Iterable[tuple[int, int]]:
        return self.connection.execute(_SIZES, (instance, first, last)).fetchall()

    def failed_with(self, instance: int, text: str, after: int, limit: int) -> list[int]:
        return [key for (key,) in self.connection.execute(_FAILED_WITH, (after, instance, text, limit)).fetchall()]
