"""Removal of instances: queries no longer find them after one commit, and their rows are deleted in portions.

Each portion takes the same few statements, however many rows it has: between any two statements another thread may take
the GIL, and next to a busy event loop that costs more than the rows do. So keys are passed as one JSON array.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain

from dagorama_broker.model.rows import LinkRow, NodeBlockRow, RemovedRow
from dagorama_broker.store.checksums import SqlValue, check_row, summed
from dagorama_broker.store.protocol import REMEMBERED
from dagorama_broker.store.sql.connection import Connection, execute_rows
from dagorama_broker.store.sql.counters import mark_used
from dagorama_broker.store.sql.reader import Reader
from dagorama_broker.store.sql.rebinds import let_go
from dagorama_broker.store.sql.store_reader import StoreReader

#: Tables in which few nodes have rows, each with the column that holds the node's key.
_RARE = (
    ("resolved", "key"), ("progress", "key"), ("node_keys", "key"), ("node_delays", "key"), ("rebound_nodes", "key"),
    ("used_failures", "key"), ("eager_attempts", "node"), ("eager_blocks", "first_key"), ("block_traces", "first_key"),
    ("large_refs", "key"), ("signal_waits", "key"),
)  # fmt: skip
_WHICH_HAVE_ROWS = "SELECT " + ", ".join(
    f"EXISTS (SELECT 1 FROM {table} WHERE {column} BETWEEN ? AND ?)" for table, column in _RARE
)
_LINK = "INSERT INTO links (instance, named, chk) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_REMOVED = "INSERT INTO removed (instance, id, ended, failed, kept, chk) VALUES {rows}"
_LEFTOVERS = "INSERT INTO leftovers (instance, chk) VALUES {rows}"
#: Deletes functions that no node refers to. It scans all nodes, so only a start uses it.
_UNUSED = (
    "DELETE FROM functions WHERE id NOT IN (SELECT DISTINCT function FROM nodes)"
    " AND id NOT IN (SELECT function FROM rebound_nodes)"
)
#: Number of functions from which a start deletes unreferenced ones.
MANY_FUNCTIONS = 10_000


class _Keys:
    """Keys as an SQL condition on a column: a range if they are contiguous, a JSON array otherwise."""

    def __init__(self, keys: Collection[int]) -> None:
        self.first, self.last = min(keys), max(keys)
        self.among = "BETWEEN ? AND ?"
        self.parameters: tuple[int | str, ...] = (self.first, self.last)
        if self.last - self.first + 1 != len(keys):
            self.among, self.parameters = "IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),)

    def delete(self, connection: Connection, table: str, column: str = "key") -> None:
        connection.execute(f"DELETE FROM {table} WHERE {column} {self.among}", self.parameters)


def link(connection: Connection, rows: Sequence[LinkRow]) -> None:
    """Record that instances refer to other instances, which are kept as long."""
    connection.executemany(_LINK, summed(rows))
    connection.executemany("UPDATE instances SET named = 1 WHERE key = ?", ((row.named,) for row in rows))


# --- removal from queries ---------------------------------------------------------------------------------


def remove(connection: Connection, rows: Sequence[RemovedRow]) -> None:
    """Remove instances but for a record of them; their nodes are left for `sweep`."""
    keys = _Keys([row.key for row in rows])
    mark_used(connection, "instances", keys.last)
    keys.delete(connection, "instances")
    for table in ("instance_names", "labels", "hooks", "signals", "turns"):
        keys.delete(connection, table, "instance")
    execute_rows(connection, _REMOVED, 6, summed(map(_tombstone, rows)))
    execute_rows(connection, _LEFTOVERS, 2, summed((row.key,) for row in rows))
    _unlink(connection, keys)
    connection.execute("DELETE FROM removed WHERE number <= (SELECT max(number) FROM removed) - ?", (REMEMBERED,))


def _tombstone(row: RemovedRow) -> tuple[SqlValue, ...]:
    return row.key, row.id, float(row.ended), int(row.failed), float(row.kept)


def _unlink(connection: Connection, keys: _Keys) -> None:
    """Delete the links of these instances, so that they no longer keep other instances."""
    named = set()
    select = f"SELECT instance, named, chk FROM links WHERE instance {keys.among}"
    for instance, other, chk in connection.execute(select, keys.parameters):
        check_row("links", instance, chk, (instance, other))
        named.add((other,))
    if named:
        keys.delete(connection, "links", "instance")
        still = "CASE WHEN EXISTS (SELECT 1 FROM links WHERE links.named = instances.key) THEN 1 ELSE 0 END"
        connection.executemany(f"UPDATE instances SET named = {still} WHERE key = ?", named)


# --- deletion of rows -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Portion:
    """The rows that one sweep deletes."""

    room: int  #: number of nodes that may still be added
    nodes: list[range] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)  #: first keys of the blocks that are deleted completely
    unfinished: int = 0  #: key of the first instance that is not deleted completely; 0: all are

    def take(self, connection: Connection, row: NodeBlockRow) -> None:
        """Add a block, or as many of its nodes as there is room for."""
        first, end = row.first_key, row.first_key + row.size
        if row.size > self.room:
            first = _first_left(connection, first, end)
        if end - first > self.room:
            end = first + self.room
            self.unfinished = row.instance
        else:
            self.blocks.append(row.first_key)
        self.nodes.append(range(first, end))
        self.room -= end - first

    def delete(self, connection: Connection) -> list[bytes]:
        """Delete the rows; return the large values that no node refers to any longer."""
        unnamed: list[bytes] = []
        if nodes := list(chain.from_iterable(self.nodes)):
            keys = _Keys(nodes)
            mark_used(connection, "nodes", keys.last)
            for table in ("nodes", "outcomes"):
                keys.delete(connection, table)
            unnamed = _delete_the_rare(connection, keys)
        if self.blocks:
            _Keys(self.blocks).delete(connection, "node_blocks", "first_key")
        return unnamed


def is_left_over(connection: Connection) -> bool:
    """Return whether there is anything to sweep."""
    return connection.execute("SELECT 1 FROM leftovers LIMIT 1").fetchone() is not None


def sweep(reader: StoreReader, most: int) -> tuple[bool, list[bytes]]:
    """Delete up to `most` nodes, and up to `most` runs, of removed instances, oldest first. Call it in a transaction.

    Return whether more may be left, and the large values that no node refers to any longer.
    """
    connection = reader.connection
    instances = _leftovers(reader, most)
    if not instances:
        return False, []
    portion = _portion(connection, _read_blocks_of(reader, _Keys(instances), most + 1), most)
    unnamed = portion.delete(connection)
    done = [key for key in instances if not portion.unfinished or key < portion.unfinished]
    if done:
        _Keys(done).delete(connection, "leftovers", "instance")
    return len(done) < len(instances) or len(instances) == most, unnamed


def _portion(connection: Connection, blocks: Sequence[NodeBlockRow], most: int) -> _Portion:
    portion = _Portion(most)
    for number, row in enumerate(blocks):
        if portion.unfinished:
            break
        if number == most or not portion.room:
            portion.unfinished = row.instance
        else:
            portion.take(connection, row)
    return portion


def _leftovers(reader: StoreReader, most: int) -> list[int]:
    """Return the oldest removed instances that still have rows."""
    found = reader.leftovers(most)
    for instance, chk in found:
        check_row("leftovers", instance, chk, (instance,))
    return [instance for instance, _ in found]


def _read_blocks_of(reader: StoreReader, instances: _Keys, most: int) -> list[NodeBlockRow]:
    """Return blocks of these instances, ordered by instance."""
    blocks = []
    found = reader.blocks_among(instances.among, (*instances.parameters, most))
    for origin, first, size, first_key, instance, digest, creator, created, chk in found:
        check_row("node_blocks", first_key, chk, (first_key, origin, first, size, instance, digest, creator, created))
        blocks.append(NodeBlockRow(origin, first, size, first_key, instance, digest, creator, created))
    return blocks


def _first_left(connection: Connection, first: int, end: int) -> int:
    """Return the first node in `range(first, end)` that no earlier sweep has deleted; `end` if there is none."""
    select = "SELECT min(key) FROM nodes WHERE key BETWEEN ? AND ?"
    left: int | None = connection.execute(select, (first, end - 1)).fetchone()[0]
    return end if left is None else left


def _delete_the_rare(connection: Connection, nodes: _Keys) -> list[bytes]:
    """Delete from tables in which few nodes have rows; return large values that no node refers to any longer."""
    has_rows = connection.execute(_WHICH_HAVE_ROWS, (nodes.first, nodes.last) * len(_RARE)).fetchone()
    unnamed: list[bytes] = []
    for (table, column), has in zip(_RARE, has_rows, strict=True):
        if has and table == "large_refs":
            unnamed = _let_go(connection, nodes)
        elif has and table == "rebound_nodes":
            let_go(connection, nodes.among, nodes.parameters)
        elif has:
            nodes.delete(connection, table, column)
    return unnamed


def _let_go(connection: Connection, nodes: _Keys) -> list[bytes]:
    """Delete the references of these nodes to large values; return the values that no other node refers to."""
    select = f"SELECT DISTINCT sha256 FROM large_refs WHERE key {nodes.among}"
    named = connection.execute(select, nodes.parameters).fetchall()
    nodes.delete(connection, "large_refs")
    reader = Reader(connection)
    return [sha256 for (sha256,) in named if not reader.names_large(sha256)]


def drop_functions(connection: Connection, ids: Sequence[int]) -> None:
    """Delete these functions, which no node refers to."""
    mark_used(connection, "functions", max(ids))
    connection.executemany("DELETE FROM functions WHERE id = ?", ((id,) for id in ids))


def drop_unused_functions(connection: Connection) -> None:
    """Delete functions that no node refers to, if there are many functions. Call it in a transaction."""
    count, last = connection.execute("SELECT count(*), max(id) FROM functions").fetchone()
    if count >= MANY_FUNCTIONS:
        mark_used(connection, "functions", last)
        connection.execute(_UNUSED)
