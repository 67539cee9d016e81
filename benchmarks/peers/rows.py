"""The rows of the table, and the goals: which ratio of our figure to a peer's is wanted."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    key: str
    part: str
    title: str  #: with places for sizes
    unit: str
    more: bool  #: whether a larger figure is the better one


class Goal(NamedTuple):
    """Our figure divided by the peer's should be `times` at least if more is better, otherwise at most."""

    row: str
    peer: str
    times: float


ROWS = (
    Row("fan", "fan", "fan, {fan:,} nodes", "nodes/s", True),
    Row("wide", "wide", "fan, {wide:,} nodes", "nodes/s", True),
    Row("chain", "chain", "chain, {chain} nodes", "ms a hop", False),
    Row("hop", "hop", "chain, no fused dependents", "ms a hop", False),
    Row("round-trip-p50", "round-trip", "round trip, p50", "ms", False),
    Row("round-trip-p99", "round-trip", "round trip, p99", "ms", False),
    Row("small-1", "small", "small graphs, one caller", "graphs/s", True),
    Row("small-16", "small", "small graphs, 16 callers", "graphs/s", True),
    Row("small-together", "small", "small graphs, together", "graphs/s", True),
    Row("values", "values", "values, {blocks} of {block} MiB", "MB/s", True),
    Row("pipeline", "pipeline", "pipeline, 10 nodes, {pipeline} MiB", "s", False),
    Row("start", "start", "start until the first result", "s", False),
)

GOALS = (
    Goal("wide", "executor", 2.5),
    Goal("wide", "before", 1.0),
    Goal("hop", "ray", 0.5),
    Goal("round-trip-p50", "ray", 0.9),
    Goal("round-trip-p50", "celery-prefork", 0.7),
    Goal("round-trip-p50", "celery-threads", 0.7),
    Goal("round-trip-p99", "ray", 0.7),
    Goal("round-trip-p99", "celery-prefork", 0.7),
    Goal("round-trip-p99", "celery-threads", 0.7),
    Goal("small-1", "ray", 1.5),
    Goal("small-16", "before", 1.3),
    Goal("small-together", "before", 1.2),
    Goal("values", "ray", 0.9),
    Goal("values", "dask", 1.5),
    Goal("start", "before", 0.9),
)
