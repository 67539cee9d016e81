"""Reads for a retry: nodes that failed or were cancelled, their downstream nodes, and what all of these depend on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from dagorama_broker.model.domain import EagerState, State, unpack_keys
from dagorama_broker.model.queries import (
    CreatedBlock,
    Edges,
    EdgesPage,
    Failed,
    FailedEnd,
    FailedNode,
    LiveNode,
    is_made,
)
from dagorama_broker.model.rows import EagerAttemptRow, NodeBlockRow
from dagorama_broker.store.checksums import check_row, damaged, node_sum, unpack_sources
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.eager import creator_rows, eager_attempt_rows, eager_states_of
from dagorama_broker.store.sql.listing import beside_nodes, blocks_after, read_delays
from dagorama_broker.store.sql.marks import read_hooks
from dagorama_broker.store.sql.reader import Reader
from dagorama_broker.store.sql.rebinds import rebindings_of, rebound_rows
from dagorama_broker.store.sql.signals import read_mail

# A node that failed or was cancelled always has a root cause, and no other node has one: the two partial indexes hold
# only these. A node that failed while it was RESOLVING has its root cause in `resolved`.
_BECAUSE = "SELECT key FROM {table} INDEXED BY {table}_root_causes WHERE root_cause != 0 AND root_cause IN"
_BETWEEN = "SELECT key FROM {table} INDEXED BY failed_{table} WHERE root_cause != 0 AND key BETWEEN ? AND ?"
_TABLES = ("outcomes", "resolved")
_NODES = "SELECT key, chk, instance, function, sources FROM nodes WHERE key BETWEEN ? AND ?"
# A negative key has these bytes at its upper end. A positive one may contain them too, so the caller checks again.
_NEGATIVE = b"\xff\xff"
_TOLERANT = f"{_NODES} AND instr(sources, ?) > 0"
_USED = "SELECT key, instance, chk FROM used_failures WHERE instance = ? ORDER BY key"


# --- failed nodes -----------------------------------------------------------------------------------------


def read_bad_ends(reader: Reader, instance: int, after: int = 0, limit: int | None = None) -> list[FailedEnd]:
    """Return nodes of an instance that failed or were cancelled, in the order of their keys."""
    bad = (key for block in blocks_after(reader, instance, after) for key in _bad_keys(reader.connection, block, after))
    found = [FailedEnd(row.key, row.state, row.root_cause) for row in reader.outcome_heads(list(islice(bad, limit)))]
    return sorted(found)


def _bad_keys(connection: Connection, block: NodeBlockRow, after: int) -> Iterator[int]:
    ends = (max(block.first_key, after + 1), block.first_key + block.size - 1)
    found = {key for table in _TABLES for (key,) in connection.execute(_BETWEEN.format(table=table), ends)}
    return iter(sorted(found))


def read_failed(
    reader: Reader, root_causes: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()
) -> Failed:
    """Return the nodes that failed because of `root causes`, the ended nodes `more`, and what a retry of them needs.

    Nodes in `reruns` drop their values, and the result lists what their attempts created.
    """
    found = _failed_nodes(reader, root_causes, set(more), set(reruns))
    instances = {
        stored.row.key: stored._replace(mail=read_mail(reader.connection, stored.row.key))
        for stored in reader.instances_of({node.instance for node in found})
    }
    made = read_made(reader, {node.key for node in found if node.dropped})
    dead = {
        key
        for key, eager_state in eager_states_of(reader, [node.key for node in found]).items()
        if eager_state is EagerState.ABORTED
    }
    nodes = [
        node for node in found
        # Rows of removed instances may be left; and nodes that a rolled-back attempt created are not retried.
        if node.instance in instances and node.key not in dead and not is_made(made, node.key)
    ]  # fmt: skip
    hooks = read_hooks(reader, instances)
    own = {node.key for node in nodes}
    awaited = {key for node in nodes for key in unpack_sources(node.sources if node.refs is None else node.refs)}
    ended = reader.ended_and_named(awaited)
    rebound = list(rebound_rows(reader, own))
    return Failed(
        nodes=nodes,
        instances=[stored._replace(hook=hooks.get(key)) for key, stored in instances.items()],
        blocks=list(_read_blocks_of(reader, sorted(own))),
        ended=[ended[key] for key in sorted(ended) if key not in own],
        keys=dict(beside_nodes(reader, "node_keys", "concurrency_key", own)),
        delays=dict(read_delays(reader, own)),
        rebound={row.key: row.function for row in rebound},
        others={key for key in instances if _has_other_bad_end(reader, key, own, made)},
        made=made,
        rebindings=rebindings_of(reader, rebound),
    )


def _has_other_bad_end(reader: Reader, instance: int, own: Collection[int], made: Sequence[CreatedBlock]) -> bool:
    """Return whether another node failed or was cancelled, without what rolled-back attempts and reruns created."""
    bad = (end.key for end in read_bad_ends(reader, instance))
    others = [key for key in bad if key not in own and not is_made(made, key)]
    eager_states = eager_states_of(reader, others)
    return any(eager_states.get(key) is not EagerState.ABORTED for key in others)


def _failed_nodes(reader: Reader, root_causes: Sequence[int], more: set[int], reruns: set[int]) -> list[FailedNode]:
    keys = {key for table in _TABLES for (key,) in reader.by_keys(_BECAUSE.format(table=table), root_causes)}
    heads = {
        row.key: row for row in reader.outcome_heads(keys | more)
        if row.state == State.FAILED or (row.key in more and row.state == State.COMPLETED)
    }  # fmt: skip
    kept = reader.failures(heads)
    nodes = reader.nodes(heads)
    return [
        FailedNode(
            key,
            nodes[key].instance,
            nodes[key].function,
            nodes[key].sources,
            heads[key].root_cause,
            heads[key].refs if kept[key].has_value and key not in reruns else None,
            kept[key].failure,
            heads[key].state,
            heads[key].attempt if key in reruns else 0,
        )
        for key in sorted(heads)
    ]


def _read_blocks_of(reader: Reader, keys: Iterable[int]) -> Iterator[NodeBlockRow]:
    """Yield the blocks that contain these keys, which are in order."""
    block: NodeBlockRow | None = None
    for key in keys:
        if block is None or key >= block.first_key + block.size:
            block = next(reader.blocks("WHERE first_key <= ? ORDER BY first_key DESC LIMIT 1", key))
            yield block


# --- downstream nodes -------------------------------------------------------------------------------------


def read_edges(reader: Reader, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
    """Return the edges of the next `limit` nodes, without nodes that depend on nothing."""
    nodes: list[LiveNode] = []
    last = after
    for first, last in _ranges(reader, instance, after, limit):
        nodes += _nodes_between(reader, first, last, tolerant)
        limit -= last - first + 1
    more = last if not limit else 0
    outcomes = {row.key: row for row in reader.outcome_heads([node.key for node in nodes])}
    edges = []
    for node in nodes:
        outcome = outcomes.get(node.key)
        refs = outcome.refs if outcome is not None else b""
        if node.sources or refs:
            edges.append(Edges(node.key, node.sources, refs, None if outcome is None else outcome.state))
    return EdgesPage(edges, more)


def _ranges(reader: Reader, instance: int, after: int, limit: int) -> Iterator[tuple[int, int]]:
    """Yield first and last keys of ranges that hold the next `limit` nodes of an instance."""
    for block in blocks_after(reader, instance, after):
        if not limit:
            return
        first = max(block.first_key, after + 1)
        last = min(block.first_key + block.size, first + limit) - 1
        limit -= last - first + 1
        yield first, last


def _nodes_between(reader: Reader, first: int, last: int, tolerant: bool) -> Iterator[LiveNode]:
    select, *more = (_TOLERANT, _NEGATIVE) if tolerant else (_NODES,)
    for key, chk, instance, function, sources in reader.connection.execute(select, (first, last, *more)):
        if node_sum(key, instance, function, sources) != chk >> 32:
            raise damaged("nodes", key)
        if tolerant and all(source > 0 for source in unpack_keys(sources)):
            continue
        yield LiveNode(key, instance, function, sources)


def read_used_failures(reader: Reader, instance: int) -> list[int]:
    """Return nodes that received a failure as a value which has been retried since, in the order of their keys."""
    return [_used(row) for row in reader.connection.execute(_USED, (instance,))]


def _used(row: tuple[Any, ...]) -> int:
    key, instance, chk = row
    check_row("used_failures", key, chk, (key, instance))
    return int(key)


def read_made(reader: Reader, roots: Collection[int]) -> list[CreatedBlock]:
    """Return the blocks that attempts of these nodes created, the blocks that nodes in them created, and so on."""
    found: dict[int, tuple[NodeBlockRow, int]] = {}
    for root in sorted(roots):
        wanted = list(reader.blocks("WHERE creator = ?", root))
        while wanted:
            block = wanted.pop()
            if block.first_key not in found:
                found[block.first_key] = block, root
                wanted += reader.blocks(
                    "WHERE creator BETWEEN ? AND ?", block.first_key, block.first_key + block.size - 1
                )
    eager_attempts = _eager_attempts(reader, found)
    return [CreatedBlock(block, root, eager_attempts.get(key)) for key, (block, root) in sorted(found.items())]


def _eager_attempts(reader: Reader, blocks: Collection[int]) -> dict[int, EagerAttemptRow]:
    """Return the eager attempts that created these blocks, by the first key of the block."""
    creators = creator_rows(reader, blocks)
    rows = eager_attempt_rows(reader, set(creators.values()))
    return {key: rows[attempt] for key, attempt in creators.items() if attempt in rows}
