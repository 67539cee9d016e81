"""Retries ended nodes: failed ones are queued again, and nodes that failed because of them wait for them again.

A retry downstream also reruns nodes that were given one of these failures as a value, and all that depends on them.
The nodes were read from the store; nothing changes before all of it is known to be possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.domain import State, unpack_keys
from dagorama_broker.model.queries import Failed, FailedNode, StoredInstance, is_made
from dagorama_broker.model.rows import InstanceEnd, NodeBlockRow, RetriedRow
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.eager import cancellation
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.hooks import revive_hook
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.mail import enter
from dagorama_broker.scheduler.names import block_with
from dagorama_broker.scheduler.objects import NONE, Node
from dagorama_broker.scheduler.restore import ended_nodes, queue_of_row
from dagorama_broker.scheduler.run_times import FailureCounts
from dagorama_broker.scheduler.transitions import BACKOFF, COMPLETED, QUEUED, RESOLVING, WAITING

#: Makes the failure of unfinished nodes whose parent is retried.
ORPHANED = cancellation("the node that made it was retried and runs again")


class Retried(NamedTuple):
    queued: int  #: nodes that are queued again
    waiting: int  #: nodes that wait again
    completed: int = 0  #: of these, the ones that had completed
    used: int = 0  #: nodes that were given one of the failures as a value and do not run again
    rebound: int = 0  #: nodes that are bound to other code


def is_within_reach(graph: Graph, failed: Failed) -> bool:
    """Return whether all that the nodes wait for is in memory or was read with them; else it has ended since."""
    # A node that waited for promises when it was read is in memory, or has ended since.
    known = {row.key for row in failed.ended if row.state != State.RESOLVING} | {row.key for row in failed.nodes}
    return all(abs(key) in known or abs(key) in graph.nodes for row in failed.nodes for key in _awaited(row))


def orphans(graph: Graph, failed: Failed) -> list[Node]:
    """Return the unfinished children of nodes that are about to run again."""
    keys = (key for each in failed.made for key in range(each.block.first_key, each.block.first_key + each.block.size))
    return [graph.nodes[key] for key in keys if key in graph.nodes]


def refuse(graph: Graph, failed: Failed, downstream: bool) -> None:
    """Raise FailedPrecondition if an unfinished node was given an outcome that is about to change, or may be.

    A node that still waits does not block a retry downstream: it will wait for the new outcome.
    """
    keys = {row.key for row in failed.nodes}
    for node in _unfinished(graph, failed.instances):
        if is_made(failed.made, node.key):
            continue
        if downstream:
            given = node.state is not WAITING and not keys.isdisjoint(other.key for other in node.sources)
            if given or node.key in failed.resolving:
                raise FailedPrecondition(
                    f"node {_id(node)} has not ended and depends on a node that would run again: "
                    "retry when it has ended, or cancel it first"
                )
        elif node.tolerates and node.state is not RESOLVING and not keys.isdisjoint(node.tolerates):
            raise FailedPrecondition(
                f"node {_id(node)} has not ended and takes the failure as a value: "
                "retry when it has ended, or cancel it first"
            )


def retry_failed(claims: Claims, failed: Failed) -> Retried:
    """Carry out a retry, after `refuse`. A node that still depends on another failure fails again at once."""
    graph = claims.graph
    graph.changes.used_failures += failed.used
    if not failed.nodes:
        return Retried(0, 0, used=len(failed.used))
    claims.eager_attempts.disown(failed.made, {row.key: row.dropped for row in failed.nodes})
    nodes = _take_up(graph, failed)
    _connect(graph, failed.nodes, nodes, ended_nodes(graph, failed.ended))
    for row, node in zip(failed.nodes, nodes, strict=True):
        _move_back(claims, row, node)
    # All are moved before any is connected, and all connected before any is settled, so that order does not matter.
    bad = [(node, graph.wait_for(node, node.refs or node.sources)) for node in nodes]
    _have_others_wait(graph, failed, nodes)
    for node, root_cause in bad:
        if node.state is WAITING or node.state is RESOLVING:
            graph.settle(node, root_cause)
    states = [node.state for node in nodes]
    return Retried(
        sum(state is QUEUED or state is BACKOFF for state in states),
        sum(state is WAITING or state is RESOLVING for state in states),
        sum(row.state == COMPLETED for row in failed.nodes),
        len(failed.used),
    )


def _have_others_wait(graph: Graph, failed: Failed, nodes: Iterable[Node]) -> None:
    """Let unfinished nodes that wait for others wait for these too, instead of using their old outcomes."""
    again = {node.key: node for node in nodes}
    for node in _unfinished(graph, failed.instances):
        if node.key in again:
            continue
        if node.state is RESOLVING:
            node.refs = graph.wait_again(node, node.refs, again)
        elif node.state is WAITING:
            node.sources = graph.wait_again(node, node.sources, again)


def waiting_for(graph: Graph, failed: Failed) -> Iterator[Node]:
    """Yield unfinished nodes that will wait for nodes which are about to run again."""
    keys = {row.key for row in failed.nodes}
    for node in _unfinished(graph, failed.instances):
        others = node.refs if node.state is RESOLVING else node.sources
        if not is_made(failed.made, node.key) and not keys.isdisjoint([other.key for other in others]):
            yield node


def with_dependents(graph: Graph, failed: Failed, others: Iterable[Node]) -> list[Node]:
    """Return the unfinished ones of the retried nodes, these others, and all nodes that wait for them."""
    found = {row.key: node for row in failed.nodes if (node := graph.nodes.get(row.key)) is not None}
    found.update((node.key, node) for node in others)
    stack = list(found.values())
    while stack:
        for dependent in stack.pop().dependents or ():
            if dependent.key not in found:
                found[dependent.key] = dependent
                stack.append(dependent)
    return list(found.values())


def _id(node: Node) -> str:
    assert node.block is not None
    return node.block.id_of(node.key).hex()


def _awaited(row: FailedNode) -> tuple[int, ...]:
    """Return the keys of its promises if it has its value, else of its sources; negative if it takes their failure."""
    return unpack_keys(row.sources if row.refs is None else row.refs)


def _unfinished(graph: Graph, instances: Iterable[StoredInstance]) -> Iterator[Node]:
    """Yield the unfinished nodes of instances; sources are always of a node's own instance."""
    for stored in instances:
        yield from graph.unfinished_of(stored.row.id)


def _take_up(graph: Graph, failed: Failed) -> list[Node]:
    """Load the nodes into memory, with their instances and names, in their ended states."""
    instances = {stored.row.key: _reopen(graph, stored, failed.others) for stored in failed.instances}
    waits = {row.key: row for stored in failed.instances for row in stored.mail.waits}
    blocks = iter([_run(graph, row, instances) for row in sorted(failed.blocks, key=lambda row: row.first_key)])
    block, nodes = next(blocks), []
    for row in failed.nodes:
        while row.key >= block.first_key + block.count:
            block = next(blocks)
        queue = queue_of_row(graph, failed, row.key, row.function)
        node = Node(row.key, instances[row.instance], queue, block, State(row.state))
        node.delay = failed.delays.get(row.key)
        if row.key in waits:
            enter(graph, node, waits[row.key])
        graph.take_up(node)
        nodes.append(node)
    return nodes


def _reopen(graph: Graph, stored: StoredInstance, others: set[int]) -> Instance:
    """Load an instance, which has an unfinished node now; it counts as failed only if other nodes failed."""
    key, id = stored.row.key, stored.row.id
    is_live, failed = id in graph.instances, key in others
    graph.load_instance(stored._replace(failed=failed))
    instance = graph.instances[id]
    if not is_live or instance.failed is not failed:
        instance.failed = failed
        graph.changes.instance_ends.append(InstanceEnd(key, None, failed))
    revive_hook(graph, instance)
    return instance


def _run(graph: Graph, row: NodeBlockRow, instances: Mapping[int, Instance]) -> NodeBlock:
    block = block_with(graph.origins.get(row.origin, ()), row.first)
    if block is None:
        block = NodeBlock(row.origin, row.first, row.size, row.first_key, instances[row.instance], row.digest)
        graph.enter_block(block)
    return block


def _connect(graph: Graph, rows: Iterable[FailedNode], nodes: Iterable[Node], ended: Mapping[int, Node]) -> None:
    """Set the nodes that each node waits for, in their present state if they are unfinished again."""
    for row, node in zip(rows, nodes, strict=True):
        keys = _awaited(row)
        others = tuple([graph.nodes.get(abs(key)) or ended[abs(key)] for key in keys])
        if row.refs is not None:
            node.refs = others
        else:
            node.sources = others
            node.tolerates = frozenset(-key for key in keys if key < 0) or NONE


def _move_back(claims: Claims, row: FailedNode, node: Node) -> None:
    """Move a node back: to wait for its promises if it has a value, else to the queue or to wait for its sources."""
    graph = claims.graph
    graph.caching.drop_node(node, graph.changes)
    if row.refs is not None:
        graph.changes.retried.append(RetriedRow(node.key, int(RESOLVING)))
        graph.move(node, RESOLVING)
        return
    graph.changes.retried.append(RetriedRow(node.key, int(WAITING)))
    # A worker that still runs an old attempt is refused, also after a restart.
    claims.invalidate_attempt(node)
    node.failures = FailureCounts()
    graph.keep_failure(node.failures, row.failure)
    graph.record_trouble(node)
    has_run = row.root_cause in (0, row.key) or row.dropped
    if has_run and node.wait is None and all(graph.nodes.get(source.key) is not source for source in node.sources):
        graph.queue(node)
    else:
        graph.move(node, WAITING)
