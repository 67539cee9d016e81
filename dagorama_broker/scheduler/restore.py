"""Rebuilds the graph from the store: the unfinished nodes, and the ended ones that they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dagorama_broker.model.domain import State, unpack_keys
from dagorama_broker.model.queries import EndedNode, Failed, Live
from dagorama_broker.model.rows import InstanceRow, ProgressRow
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.mail import take_up
from dagorama_broker.scheduler.names import FIRST
from dagorama_broker.scheduler.objects import NONE, Node
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.run_times import FailureCounts
from dagorama_broker.scheduler.transitions import BACKOFF, COMPLETED, FAILED, RESOLVING, WAITING


def ended_nodes(graph: Graph, rows: Iterable[EndedNode]) -> dict[int, Node]:
    """Return ended nodes by key; `rows` must have all nodes that their completed values name."""
    queues = graph.queue_by_id
    instances: dict[int, Instance] = {}
    nodes: dict[int, Node] = {}
    rows = list(rows)
    for row in rows:
        instance = instances.setdefault(row.instance, Instance(row.instance, b""))
        nodes[row.key] = Node(row.key, instance, queues[row.function], None, State(row.state))
    for row in rows:
        node = nodes[row.key]
        node.attempt = row.attempt
        if node.state is COMPLETED and row.refs:
            node.refs = tuple([nodes[key] for key in unpack_keys(row.refs)])
        elif row.root_cause not in (0, row.key):
            # Only the key of this node is used, so that a node without anything else can stand for it.
            node.root_cause = nodes.get(row.root_cause) or Node(row.root_cause, node.instance, node.queue, None, FAILED)
    return nodes


def queue_of_row(graph: Graph, rows: Live | Failed, key: int, function: int) -> FunctionQueue:
    """Return the queue of a node that was made as `function`, by the code that it is bound to and by its key.

    A node that was rebound before rebindings were signed has its original code.
    """
    rebinding = rows.rebindings.get(key)
    queue = graph.queue_by_id[rows.rebound[key] if rebinding is not None else function]
    if rebinding is not None:
        graph.made_with[key] = graph.queue_by_id[function].function.code
        graph.rebindings[key] = rebinding
    return graph.queue_for_key(queue, rows.keys[key]) if key in rows.keys else queue


def rebuild(graph: Graph, live: Live) -> list[tuple[float, Node]]:
    """Fill an empty graph; return the nodes in BACKOFF with the time of their next attempt, which may be over."""
    graph.paused = {row.queue: row for row in live.paused}
    graph.schedules = {row.name: row for row in live.schedules}
    graph.key_pauses.restore(live.key_pauses, graph.now, graph.wall)
    for row in live.functions:
        graph.enter_queue(graph.plan_queue(row.id, row.function))
    graph.next_node, graph.next_instance, graph.next_queue = live.next_node, live.next_instance, live.next_function
    graph.next_rebinding = live.next_rebinding
    graph.next_worker = live.next_worker
    for cached in live.cached:
        graph.caching.enter(cached)
    graph.mail.next_number = live.next_signal
    graph.mail.load(live.mail)
    resolving = {row.key: row for row in live.ended if row.state == RESOLVING}
    pauses = _rebuild_nodes(graph, live, _rebuild_names(graph, live), resolving)
    _rebuild_limits(graph)
    ended = ended_nodes(graph, [row for row in live.ended if row.key not in resolving])
    _rebuild_edges(graph, live, resolving, ended)
    return pauses


def _rebuild_limits(graph: Graph) -> None:
    """Apply the limits of the youngest nodes, and count all rates as used up: earlier starts are not known."""
    limited = [queue for queue in graph.queue_by_id.values() if queue.is_limited]
    for queue in limited:
        graph.rates.declare(queue)
        graph.rates.expect_unknown(queue.function, graph.now)
    if any(queue.function.limit is not None for queue in limited):
        for queue in reversed(dict.fromkeys([node.queue.base for node in reversed(graph.nodes.values())])):
            graph.rates.declare(queue)
    graph.rates.fill(graph.now)


def _rebuild_names(graph: Graph, live: Live) -> list[NodeBlock]:
    """Rebuild instances and origins; return the blocks in the order of their keys."""
    instances = {row.key: _instance(graph, live, row) for row in live.instances}
    graph.turns.restore(live.instances, live.turns)
    graph.instances = {instance.id: instance for instance in instances.values()}
    for key, hook in live.hooks.items():
        instances[key].hook = hook
    blocks = [
        NodeBlock(row.origin, row.first, row.size, row.first_key, instances[row.instance], row.digest)
        for row in sorted(live.blocks, key=lambda row: row.first_key)
    ]
    for block in blocks:
        block.instance.blocks.append(block)
        graph.origins.setdefault(block.origin, []).append(block)
    for of_origin in graph.origins.values():
        of_origin.sort(key=FIRST)
    graph.traces = {block.first_key: live.traces[block.first_key] for block in blocks if block.first_key in live.traces}
    return blocks


def _instance(graph: Graph, live: Live, row: InstanceRow) -> Instance:
    instance, taken = Instance(row.key, row.id, row.key in live.failed), live.turns.get(row.key)
    instance.line_up(graph.turns.line(row.priority), row.key if taken is None else taken.turn, row.priority)
    instance.fair = None if taken is None else taken.fair
    return instance


def _rebuild_nodes(
    graph: Graph, live: Live, blocks: Iterable[NodeBlock], resolving: Mapping[int, EndedNode]
) -> list[tuple[float, Node]]:
    progress, delays, pauses = {row.key: row for row in live.progress}, live.delays, []
    waits = take_up(live.mail.waits)
    is_plain = not (live.rebindings or live.keys)
    of_function, enter = graph.queue_by_id, graph.take_up
    blocks = iter(blocks)
    block, end = None, 0
    for key, _, function, _ in live.nodes:
        while key >= end:
            block = next(blocks)
            end = block.first_key + block.count
        assert block is not None
        queue = of_function[function] if is_plain else queue_of_row(graph, live, key, function)
        row = progress.get(key)
        state = RESOLVING if key in resolving else BACKOFF if row is not None and row.retry_at else WAITING
        node = Node(key, block.instance, queue, block, state)
        if key in delays:
            node.delay = delays[key]
        if key in waits:
            node.wait = waits[key]
        if row is not None:
            counts = _take_up_trouble(graph, node, row)
            if state is BACKOFF:
                counts.pause = _pause_left(graph, node, row)
                counts.retry_at = graph.now + counts.pause
                pauses.append((counts.retry_at, node))
        enter(node)
    return pauses


def _take_up_trouble(graph: Graph, node: Node, row: ProgressRow) -> FailureCounts:
    """Set the failed attempts of a node, and return them."""
    counts = node.failures = FailureCounts(row.failed_attempts, row.crashes, row.worker_losses)
    counts.lost_attempt = row.lost_attempt
    graph.keep_failure(counts, row.failure)
    node.attempt = row.attempt
    return counts


def _pause_left(graph: Graph, node: Node, row: ProgressRow) -> float:
    """Return the seconds until the next attempt.

    They are never more than the pause, even if the wall clock jumped, unless the node waits for a date.
    """
    left = max(0.0, row.retry_at - graph.wall - graph.now)
    return left if node.delay is not None and node.delay.ends(row.retry_at) else min(left, row.pause)


def _rebuild_edges(graph: Graph, live: Live, resolving: Mapping[int, EndedNode], ended: Mapping[int, Node]) -> None:
    bad: dict[Node, Node] = {}
    nodes = list(graph.nodes.values())
    for node, (key, _, _, sources) in zip(nodes, live.nodes, strict=True):
        if not sources and key not in resolving:
            continue
        value = resolving.get(key)
        keys = unpack_keys(sources if value is None else value.refs)
        others = tuple([graph.nodes.get(abs(other)) or ended[abs(other)] for other in keys])
        if value is not None:
            node.refs = others
        else:
            node.sources = others
            node.tolerates = frozenset(-other for other in keys if other < 0) or NONE
        failed = graph.wait_for(node, others)
        if failed is not None:
            bad[node] = failed
    # All are connected before any moves, because a node that ends at once notifies its dependents.
    for node in nodes:
        if node.state is WAITING or node.state is RESOLVING:
            graph.settle(node, bad.get(node))
