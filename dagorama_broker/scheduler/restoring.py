"""Rebuilds the graph from what the store kept: what has not ended, and the ended nodes that it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from struct import unpack

from dagorama_broker.model import ENDED, EndedNode, Live, ProgressRow, State
from dagorama_broker.queues import Lane
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.parts import Instance, Node, Run
from dagorama_broker.scheduler.retrying import pause


def unpack_keys(packed: bytes) -> tuple[int, ...]:
    """The inverse of `pack_keys`."""
    return unpack(f"<{len(packed) // 8}q", packed)


def ended_nodes(graph: Graph, rows: Iterable[EndedNode]) -> dict[int, Node]:
    """Ended nodes as others hold on to them, by key; references among them are filled in."""
    lanes = {lane.id: lane for lane in graph.lanes.values()}
    instances: dict[int, Instance] = {}
    nodes: dict[int, Node] = {}
    rows = list(rows)
    for row in rows:
        instance = instances.setdefault(row.instance, Instance(row.instance, b""))
        node = nodes[row.key] = Node(row.key, instance, lanes[row.function], None)
        node.state = State(row.state)
    for row in rows:
        node = nodes[row.key]
        node.refs = tuple(nodes.get(key) or graph.nodes[key] for key in unpack_keys(row.refs))
        if row.culprit:
            node.culprit = node if row.culprit == row.key else _culprit(row.culprit, node)
    return nodes


def _culprit(key: int, like: Node) -> Node:
    """A culprit is only ever named, so a node with its key and nothing else stands for it."""
    node = Node(key, like.instance, like.lane, None)
    node.state = State.FAILED
    return node


def rebuild(graph: Graph, live: Live) -> list[tuple[float, Node]]:
    """Fill an empty graph; the nodes in BACKOFF come back with the time of their next run."""
    lanes = {row.id: Lane(row.id, row.function) for row in live.functions}
    graph.lanes = {lane.function: lane for lane in lanes.values()}
    graph.next_node, graph.next_instance, graph.next_lane = live.next_node, live.next_instance, live.next_function
    instances = {row.key: Instance(row.key, row.id) for row in live.instances}
    graph.instances = {instance.id: instance for instance in instances.values()}
    runs = _rebuild_runs(graph, live, instances)
    for row in live.nodes:
        instance = instances[row.instance]
        graph.nodes[row.key] = Node(row.key, instance, lanes[row.function], next(runs[row.instance].of(row.key)))
        instance.live += 1
    resolving = {row.key: row for row in live.ended if row.state == State.RESOLVING}
    ended = ended_nodes(graph, [row for row in live.ended if row.key not in resolving])
    graph.counts[State.WAITING] = len(graph.nodes)
    _rebuild_edges(graph, live, resolving, ended)
    return _rebuild_progress(graph, live.progress)


class _Runs:
    """The runs of one instance in the order of their keys; asked for ascending keys."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.place = 0

    def of(self, key: int) -> Iterator[Run]:
        while self.runs[self.place].first_key + self.runs[self.place].count <= key:
            self.place += 1
        yield self.runs[self.place]


def _rebuild_runs(graph: Graph, live: Live, instances: Mapping[int, Instance]) -> dict[int, _Runs]:
    by_instance: dict[int, _Runs] = {key: _Runs() for key in instances}
    for row in sorted(live.runs, key=lambda row: row.first_key):
        run = Run(row.origin, row.first, row.size, row.first_key, instances[row.instance], row.digest)
        by_instance[row.instance].runs.append(run)
        run.instance.runs.append(run)
        graph.origins.setdefault(row.origin, []).append(run)
    for runs in graph.origins.values():
        runs.sort(key=lambda run: run.first)
    return by_instance


def _rebuild_edges(
    graph: Graph, live: Live, resolving: Mapping[int, EndedNode], ended: Mapping[int, Node]
) -> None:
    def found(packed: bytes) -> tuple[Node, ...]:
        return tuple(graph.nodes.get(key) or ended[key] for key in unpack_keys(packed))

    backoff = {row.key for row in live.progress if row.retry_at}
    for row in live.nodes:
        node = graph.nodes[row.key]
        unfinished = resolving.get(row.key)
        if unfinished is not None:
            others = node.refs = found(unfinished.refs)
        else:
            others = node.sources = found(row.sources)
        for other in others:
            other.readers += 1
            if other.state not in ENDED:
                node.pending += 1
                if other.dependents is None:
                    other.dependents = []
                other.dependents.append(node)
        _place(graph, node, unfinished is not None, row.key in backoff)


def _place(graph: Graph, node: Node, resolving: bool, in_backoff: bool) -> None:
    """A restored node's state follows from what it waits for; no move led here, so the table is not asked."""
    if resolving or in_backoff:
        state = State.RESOLVING if resolving else State.BACKOFF
        graph.counts[State.WAITING] -= 1
        graph.counts[state] += 1
        node.state = state
        node.lane.delayed += in_backoff and not resolving
    elif not node.pending:
        graph.queue(node)


def _remaining(node: Node, row: ProgressRow, graph: Graph) -> float:
    """Seconds until the next run: never longer than the pause was, whatever the wall clock did meanwhile."""
    policy = node.lane.function.retry
    longest = pause(policy, row.runs, 1.0) if policy is not None else 0.0
    return min(row.retry_at - graph.wall - graph.now, longest)


def _rebuild_progress(graph: Graph, rows: Iterable[ProgressRow]) -> list[tuple[float, Node]]:
    pauses = []
    for row in rows:
        node = graph.nodes.get(row.key)
        if node is None:
            continue
        trouble = graph.trouble(node)
        trouble.runs, trouble.deaths, trouble.lost, trouble.failure = row.runs, row.deaths, row.lost, row.failure
        if node.state is State.BACKOFF:
            trouble.retry_at = graph.now + _remaining(node, row, graph)
            pauses.append((trouble.retry_at, node))
    return pauses
