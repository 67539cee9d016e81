"""What a retry reads: nodes that ended badly, those that did so because of others, and what they depend on."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from dagorama_broker.model.domain import Fate, State
from dagorama_broker.model.queries import BadEnd, Failed, FailedNode, MadeRun, is_made
from dagorama_broker.model.rows import RunRow
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.sqlite.downstream import read_made
from dagorama_broker.store.sqlite.eager import fates_of
from dagorama_broker.store.sqlite.listing import beside_nodes, runs_after
from dagorama_broker.store.sqlite.reader import Reader
from dagorama_broker.store.sqlite.rebinds import adopted_rows, adoptions_of

# A node that ends badly always has a culprit, and nothing else has one: the two partial indexes hold these alone.
# What failed while it was RESOLVING has its culprit in `resolved`.
_BECAUSE = "SELECT key FROM {table} INDEXED BY {table}_culprits WHERE culprit != 0 AND culprit IN"
_BETWEEN = "SELECT key FROM {table} INDEXED BY bad_{table} WHERE culprit != 0 AND key BETWEEN ? AND ?"
_TABLES = ("outcomes", "resolved")


def read_bad_ends(reader: Reader, instance: int, after: int = 0, limit: int | None = None) -> list[BadEnd]:
    """Nodes of an instance that failed or were cancelled, in the order of their keys."""
    bad = (key for run in runs_after(reader, instance, after) for key in _bad_keys(reader.connection, run, after))
    found = [BadEnd(row.key, row.state, row.culprit) for row in reader.outcome_heads(list(islice(bad, limit)))]
    return sorted(found)


def _bad_keys(connection: sqlite3.Connection, run: RunRow, after: int) -> Iterator[int]:
    ends = (max(run.first_key, after + 1), run.first_key + run.size - 1)
    found = {key for table in _TABLES for (key,) in connection.execute(_BETWEEN.format(table=table), ends)}
    return iter(sorted(found))


def read_failed(
    reader: Reader, culprits: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()
) -> Failed:
    found = _nodes(reader, culprits, set(more), set(reruns))
    instances = {stored.row.key: stored for stored in reader.instances_of({node.instance for node in found})}
    made = read_made(reader, {node.key for node in found if node.dropped})
    dead = {key for key, fate in fates_of(reader, [node.key for node in found]).items() if fate is Fate.DEAD}
    nodes = [
        node for node in found
        # Rows of removed instances may be left; and what a dead attempt has made does not go on.
        if node.instance in instances and node.key not in dead and not is_made(made, node.key)
    ]  # fmt: skip
    own = {node.key for node in nodes}
    awaited = {key for node in nodes for key in unpack_sources(node.sources if node.refs is None else node.refs)}
    ended = reader.ended_and_named(awaited)
    adopted = list(adopted_rows(reader, own))
    return Failed(
        nodes=nodes,
        instances=list(instances.values()),
        runs=list(_runs_of(reader, sorted(own))),
        ended=[ended[key] for key in sorted(ended) if key not in own],
        keys=dict(beside_nodes(reader, "node_keys", "concurrency_key", own)),
        adopted={row.key: row.function for row in adopted},
        others={key for key in instances if _has_other_bad_end(reader, key, own, made)},
        made=made,
        adoptions=adoptions_of(reader, adopted),
    )


def _has_other_bad_end(reader: Reader, instance: int, own: Collection[int], made: Sequence[MadeRun]) -> bool:
    """Whether another node of the instance ended badly that is not of a dead attempt, and is not about to be."""
    bad = (end.key for end in read_bad_ends(reader, instance))
    others = [key for key in bad if key not in own and not is_made(made, key)]
    fates = fates_of(reader, others)
    return any(fates.get(key) is not Fate.DEAD for key in others)


def _nodes(reader: Reader, culprits: Sequence[int], more: set[int], reruns: set[int]) -> list[FailedNode]:
    keys = {key for table in _TABLES for (key,) in reader.by_keys(_BECAUSE.format(table=table), culprits)}
    heads = {
        row.key: row for row in reader.outcome_heads(keys | more)
        if row.state == State.FAILED or (row.key in more and row.state == State.COMPLETED)
    }  # fmt: skip
    kept = reader.failures(heads)
    nodes = reader.nodes(heads)
    return [
        FailedNode(
            key, nodes[key].instance, nodes[key].function, nodes[key].sources, heads[key].culprit,
            heads[key].refs if kept[key].has_value and key not in reruns else None, kept[key].failure,
            heads[key].state, heads[key].attempt if key in reruns else 0,
        )
        for key in sorted(heads)
    ]


def _runs_of(reader: Reader, keys: Iterable[int]) -> Iterator[RunRow]:
    """The runs that hold these keys, which are in order."""
    run: RunRow | None = None
    for key in keys:
        if run is None or key >= run.first_key + run.size:
            run = next(reader.runs("WHERE first_key <= ? ORDER BY first_key DESC LIMIT 1", key))
            yield run
