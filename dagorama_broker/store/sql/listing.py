"""Lists of nodes for people, page by page: each page continues from a key, and none scans everything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.maps import LAST_KEY
from dagorama_broker.model.queries import FunctionCount, StoredNode
from dagorama_broker.model.rows import NodeBlockRow, ProgressRow
from dagorama_broker.store.checksums import check_row, checked_rows
from dagorama_broker.store.sql.reader import Reader
from dagorama_broker.store.sql.rebinds import rebound_rows

#: One statement, during which other threads run: a row for each node would take the GIL for each.
_COUNTS = (
    "SELECT n.function, coalesce(r.state, o.state), count(*), min(n.key),"
    " CAST(coalesce(sum(CASE WHEN o.microseconds > 0 THEN 1 ELSE 0 END), 0) AS BIGINT),"
    " CAST(coalesce(sum(o.microseconds), 0) AS BIGINT), coalesce(max(o.microseconds), 0)"
    " FROM node_blocks b CROSS JOIN nodes n ON n.key BETWEEN b.first_key AND b.first_key + b.size - 1"
    " LEFT JOIN outcomes o ON o.key = n.key LEFT JOIN resolved r ON r.key = n.key"
    " WHERE b.instance = ? GROUP BY 1, 2"
)
_PROGRESS = (
    "SELECT key, failed_attempts, crashes, worker_losses, retry_at, failure, pause, attempt, lost_attempt, chk"
    " FROM progress WHERE key IN"
)
#: Each part is read in the order of an index, and only as far as the page reaches.
_USED_IDS = (
    "SELECT id FROM (SELECT id FROM instances WHERE id > ? ORDER BY id LIMIT ?) a"
    " UNION SELECT id FROM (SELECT id FROM removed WHERE id > ? ORDER BY id LIMIT ?) b"
    " UNION SELECT id FROM (SELECT DISTINCT origin AS id FROM node_blocks WHERE origin > ? ORDER BY origin LIMIT ?) c"
    " ORDER BY 1 LIMIT ?"
)


def blocks_after(reader: Reader, instance: int, after: int) -> Iterator[NodeBlockRow]:
    """Yield the blocks of an instance that contain keys after this one, in their order."""
    first = reader.blocks("WHERE instance = ? AND first_key <= ? ORDER BY first_key DESC LIMIT 1", instance, after)
    rest = reader.blocks("WHERE instance = ? AND first_key > ? ORDER BY first_key", instance, after)
    return chain((block for block in first if block.first_key + block.size - 1 > after), rest)


def read_node_keys(reader: Reader, instance: int, after: int, limit: int) -> list[int]:
    """Return up to `limit` node keys of an instance after this key, in their order."""
    blocks = blocks_after(reader, instance, after)
    keys = (key for block in blocks for key in range(max(block.first_key, after + 1), block.first_key + block.size))
    return list(islice(keys, limit))


def ids_between(blocks: Iterable[NodeBlockRow], low: bytes, high: bytes, most: int) -> list[bytes]:
    """Return up to `most` node IDs from `low` to `high` of these blocks, which are ordered by origin and counter."""
    ids = (
        block.origin + counter.to_bytes(4, "big")
        for block in blocks
        for counter in range(
            max(block.first, int.from_bytes(low[12:], "big")) if block.origin == low[:12] else block.first,
            min(block.first + block.size, int.from_bytes(high[12:], "big") + 1)
            if block.origin == high[:12]
            else block.first + block.size,
        )
    )
    return list(islice(ids, most))


def read_described(reader: Reader, keys: Sequence[int]) -> dict[int, StoredNode]:
    """Return these nodes by key. Raise StoreError if one is missing."""
    nodes = reader.nodes(keys)
    outcomes = {row.key: row for row in reader.outcome_heads(keys)}
    rebound = {row.key: row.function for row in rebound_rows(reader, keys)}
    used = dict(beside_nodes(reader, "used_failures", "instance", keys))
    progress = {row[0]: ProgressRow(*row) for row in checked_rows("progress", reader.by_keys(_PROGRESS, keys))}
    blocks = reader.blocks_of(keys)
    return {
        key: StoredNode(
            key,
            rebound.get(key, node.function),
            node.sources,
            outcomes.get(key),
            progress.get(key),
            key in used,
            blocks[key].created,
            blocks[key].creator,
        )
        for key, node in nodes.items()
    }


def read_counts(reader: Reader, instance: int) -> list[FunctionCount]:
    """Return how many nodes of each function of an instance are in which state."""
    return [FunctionCount(*row) for row in reader.connection.execute(_COUNTS, (instance,))]


def beside_nodes(reader: Reader, table: str, column: str, keys: Collection[int]) -> Iterator[tuple[int, Any]]:
    """Yield the keys of the nodes that have a row in this table, each with a column of its row."""
    for key, value, chk in reader.by_keys(f"SELECT key, {column}, chk FROM {table} WHERE key IN", keys):
        check_row(table, key, chk, (key, value))
        yield key, value


def read_delays(reader: Reader, keys: Collection[int]) -> Iterator[tuple[int, NodeDelay]]:
    """Yield the delays of these nodes, if their calls gave any, with the keys of the nodes."""
    return checked_delays(reader.by_keys("SELECT key, seconds, until, chk FROM node_delays WHERE key IN", keys))


def checked_delays(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[int, NodeDelay]]:
    """Yield delays from rows of key, seconds, until and checksum. Raises StoreError for a damaged row."""
    return ((row[0], NodeDelay(*row[1:])) for row in checked_rows("node_delays", rows))


def read_functions_of(reader: Reader, after: int, most: int) -> tuple[set[int], int | None]:
    """Return the functions of up to `most` nodes after this key, and the last key that was read, None at the end.

    The functions include the ones that nodes are rebound to.
    """
    select = "SELECT key, function FROM nodes WHERE key > ? ORDER BY key LIMIT ?"
    rows = reader.connection.execute(select, (after, most)).fetchall()
    last = rows[-1][0] if len(rows) == most else LAST_KEY
    rebound = reader.connection.execute(
        "SELECT DISTINCT function FROM rebound_nodes WHERE key > ? AND key <= ?", (after, last)
    )
    named = {function for _, function in rows} | {function for (function,) in rebound}
    return named, None if last == LAST_KEY else last


def read_used_ids(reader: Reader, after: bytes, most: int) -> list[bytes]:
    """Return up to `most` IDs of instances and origins of nodes after this one, in their order."""
    return [id for (id,) in reader.connection.execute(_USED_IDS, (*(after, most) * 3, most))]
