"""Rebuilds the graph from the store: the unfinished nodes, and the ended ones that they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dagorama_broker.model.domain import State
from dagorama_broker.model.queries import EndedNode, Failed, Live
from dagorama_broker.model.rows import ProgressRow, unpack_keys
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.names import FIRST
from dagorama_broker.scheduler.objects import NONE, Instance, Node, Run, Trouble
from dagorama_broker.scheduler.queues import Lane
from dagorama_broker.scheduler.transitions import BACKOFF, COMPLETED, FAILED, RESOLVING, WAITING


def ended_nodes(graph: Graph, rows: Iterable[EndedNode]) -> dict[int, Node]:
    """Return ended nodes by key; `rows` must have all nodes that their completed values name."""
    lanes = graph.lane_by_id
    instances: dict[int, Instance] = {}
    nodes: dict[int, Node] = {}
    rows = list(rows)
    for row in rows:
        instance = instances.setdefault(row.instance, Instance(row.instance, b""))
        nodes[row.key] = Node(row.key, instance, lanes[row.function], None, State(row.state))
    for row in rows:
        node = nodes[row.key]
        node.attempt = row.attempt
        if node.state is COMPLETED and row.refs:
            node.refs = tuple([nodes[key] for key in unpack_keys(row.refs)])
        elif row.culprit not in (0, row.key):
            # Only the key of this node is used, so that a node without anything else can stand for it.
            node.culprit = nodes.get(row.culprit) or Node(row.culprit, node.instance, node.lane, None, FAILED)
    return nodes


def lane_of_row(graph: Graph, rows: Live | Failed, key: int, function: int) -> Lane:
    """Return the queue of a node that was made as `function`, by the code that it is bound to and by its key.

    A node that was adopted before adoptions were signed has its original code.
    """
    adoption = rows.adoptions.get(key)
    lane = graph.lane_by_id[rows.adopted[key] if adoption is not None else function]
    if adoption is not None:
        graph.made_with[key] = graph.lane_by_id[function].function.code
        graph.adoptions[key] = adoption
    return graph.lane_of(lane, rows.keys[key]) if key in rows.keys else lane


def rebuild(graph: Graph, live: Live) -> list[tuple[float, Node]]:
    """Fill an empty graph; return the nodes in BACKOFF with the time of their next attempt."""
    for row in live.functions:
        graph.enter_lane(Lane(row.id, row.function))
    graph.next_node, graph.next_instance, graph.next_lane = live.next_node, live.next_instance, live.next_function
    graph.next_adoption = live.next_adoption
    resolving = {row.key: row for row in live.ended if row.state == RESOLVING}
    pauses = _rebuild_nodes(graph, live, _rebuild_names(graph, live), resolving)
    ended = ended_nodes(graph, [row for row in live.ended if row.key not in resolving])
    _rebuild_edges(graph, live, resolving, ended)
    return pauses


def _rebuild_names(graph: Graph, live: Live) -> list[Run]:
    """Rebuild instances and origins; return the runs in the order of their keys."""
    instances = {row.key: Instance(row.key, row.id, row.key in live.failed) for row in live.instances}
    graph.instances = {instance.id: instance for instance in instances.values()}
    runs = [
        Run(row.origin, row.first, row.size, row.first_key, instances[row.instance], row.digest)
        for row in sorted(live.runs, key=lambda row: row.first_key)
    ]
    for run in runs:
        run.instance.runs.append(run)
        graph.origins.setdefault(run.origin, []).append(run)
    for of_origin in graph.origins.values():
        of_origin.sort(key=FIRST)
    return runs


def _rebuild_nodes(
    graph: Graph, live: Live, runs: Iterable[Run], resolving: Mapping[int, EndedNode]
) -> list[tuple[float, Node]]:
    progress, pauses = {row.key: row for row in live.progress}, []
    runs = iter(runs)
    run = next(runs, None)
    for row in live.nodes:
        while run is not None and run.first_key + run.count <= row.key:
            run = next(runs, None)
        assert run is not None
        lane, trouble = lane_of_row(graph, live, row.key, row.function), progress.get(row.key)
        left = _pause_left(graph, trouble) if trouble is not None else 0.0
        state = RESOLVING if row.key in resolving else BACKOFF if left > 0.0 else WAITING
        node = Node(row.key, run.instance, lane, run, state)
        graph.take_up(node)
        if trouble is not None:
            node.trouble = Trouble(trouble.runs, trouble.deaths, trouble.lost)
            node.trouble.lost_attempt = trouble.lost_attempt
            graph.keep_failure(node.trouble, trouble.failure)
            node.attempt = trouble.attempt
        if state is BACKOFF:
            graph.trouble(node).retry_at = graph.now + left
            graph.trouble(node).pause = left
            pauses.append((graph.now + left, node))
    return pauses


def _pause_left(graph: Graph, row: ProgressRow) -> float:
    """Return the seconds until the next attempt: never more than the pause, even if the wall clock jumped."""
    return min(row.retry_at - graph.wall - graph.now, row.pause) if row.retry_at else 0.0


def _rebuild_edges(
    graph: Graph, live: Live, resolving: Mapping[int, EndedNode], ended: Mapping[int, Node]
) -> None:
    waiting = []
    for row in live.nodes:
        node = graph.nodes[row.key]
        value = resolving.get(row.key)
        keys = unpack_keys(row.sources if value is None else value.refs)
        others = tuple([graph.nodes.get(abs(key)) or ended[abs(key)] for key in keys])
        if value is not None:
            node.refs = others
        else:
            node.sources = others
            node.tolerates = frozenset(-key for key in keys if key < 0) or NONE
        waiting.append((node, graph.wait_for(node, others)))
    # All are connected before any moves, because a node that ends at once notifies its dependents.
    for node, bad in waiting:
        if node.state is WAITING or node.state is RESOLVING:
            graph.settle(node, bad)
