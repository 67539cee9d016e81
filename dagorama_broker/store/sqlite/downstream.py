"""What depends on what, as the SQLite store reads it for a retry that goes downstream. Page by page, in key order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dagorama_broker.model.queries import Edges, EdgesPage, LiveNode, MadeRun
from dagorama_broker.model.rows import BroodRow, RunRow
from dagorama_broker.store.checksums import check_row, damaged, node_sum, unpack_keys
from dagorama_broker.store.sqlite.eager import brood_rows, maker_rows
from dagorama_broker.store.sqlite.listing import runs_after
from dagorama_broker.store.sqlite.reader import Reader

_NODES = "SELECT key, chk, instance, function, sources FROM nodes WHERE key BETWEEN ? AND ?"
# A negative key has these bytes at its upper end. A positive one may contain them too: the reader looks again.
_TOLERANT = f"{_NODES} AND instr(sources, x'ffff') > 0"
_USED = "SELECT key, instance, chk FROM used_failures WHERE instance = ? ORDER BY key"


def read_edges(reader: Reader, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
    """The edges of the next `limit` nodes; those that depend on nothing are left out."""
    nodes: list[LiveNode] = []
    last = after
    for first, last in _ranges(reader, instance, after, limit):
        nodes += _nodes(reader, first, last, tolerant)
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
    """First and last keys of the next `limit` nodes of an instance."""
    for run in runs_after(reader, instance, after):
        if not limit:
            return
        first = max(run.first_key, after + 1)
        last = min(run.first_key + run.size, first + limit) - 1
        limit -= last - first + 1
        yield first, last


def _nodes(reader: Reader, first: int, last: int, tolerant: bool) -> Iterator[LiveNode]:
    for key, chk, instance, function, sources in reader.connection.execute(
        _TOLERANT if tolerant else _NODES, (first, last)
    ):
        if node_sum(key, instance, function, sources) != chk >> 32:
            raise damaged("nodes", key)
        if tolerant and all(source > 0 for source in unpack_keys(sources)):
            continue
        yield LiveNode(key, instance, function, sources)


def read_used_failures(reader: Reader, instance: int) -> list[int]:
    return [_used(row) for row in reader.connection.execute(_USED, (instance,))]


def _used(row: tuple[Any, ...]) -> int:
    key, instance, chk = row
    check_row("used_failures", key, chk, (key, instance))
    return int(key)


def read_made(reader: Reader, roots: Collection[int]) -> list[MadeRun]:
    """The runs that attempts of these nodes made, that attempts of the nodes in those runs made, and so on."""
    found: dict[int, tuple[RunRow, int]] = {}
    for root in sorted(roots):
        wanted = list(reader.runs("WHERE maker = ?", root))
        while wanted:
            run = wanted.pop()
            if run.first_key not in found:
                found[run.first_key] = run, root
                wanted += reader.runs("WHERE maker BETWEEN ? AND ?", run.first_key, run.first_key + run.size - 1)
    broods = _broods(reader, found)
    return [MadeRun(run, root, broods.get(key)) for key, (run, root) in sorted(found.items())]


def _broods(reader: Reader, runs: Collection[int]) -> dict[int, BroodRow]:
    """The eager attempts that made these runs, by the first key of the run."""
    makers = maker_rows(reader, runs)
    rows = brood_rows(reader, set(makers.values()))
    return {key: rows[attempt] for key, attempt in makers.items() if attempt in rows}
