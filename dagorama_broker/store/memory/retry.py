"""Reads for a retry from a store in memory: failed nodes, their downstream nodes, and what all of these depend on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dagorama_broker.model.domain import EagerState, State, unpack_keys
from dagorama_broker.model.queries import CreatedBlock, Edges, EdgesPage, Failed, FailedEnd, FailedNode, is_made
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.memory.blocks import node_keys
from dagorama_broker.store.memory.tables import Tables


def read_eager_states(tables: Tables, keys: Collection[int]) -> dict[int, EagerState]:
    """Return the states of the eager attempts that created these nodes; nodes that none created are left out."""
    creators = {key: tables.eager.that_created(tables.blocks.of(key)) for key in keys}
    return {key: tables.eager.eager_state(creator) for key, creator in creators.items() if creator is not None}


def read_bad_ends(tables: Tables, instance: int, after: int = 0, limit: int | None = None) -> list[FailedEnd]:
    """Return nodes of an instance that failed or were cancelled, in the order of their keys."""
    keys = sorted(key for key in tables.blocks.keys_of(instance) if key > after)
    found = [tables.outcomes[key] for key in keys if key in tables.outcomes]
    return [FailedEnd(row.key, row.state, row.root_cause) for row in found if row.root_cause][:limit]


def read_failed(tables: Tables, root_causes: Collection[int], more: Collection[int], reruns: Collection[int]) -> Failed:
    """Return the nodes that failed because of `root causes`, the ended nodes `more`, and what a retry of them needs.

    Nodes in `reruns` drop their values, and the result lists what their attempts created.
    """
    nodes = [_failed_node(tables, row, row.key in reruns) for row in _to_retry(tables, set(root_causes), set(more))]
    made = _made(tables, [node.key for node in nodes if node.dropped])
    eager_states = read_eager_states(tables, [node.key for node in nodes])
    nodes = [
        node
        for node in nodes
        if node.instance in tables.instances
        and eager_states.get(node.key) is not EagerState.ABORTED
        and not is_made(made, node.key)
    ]
    own, instances = {node.key for node in nodes}, {node.instance for node in nodes}
    awaited = {key for node in nodes for key in unpack_sources(node.sources if node.refs is None else node.refs)}
    return Failed(
        nodes=nodes,
        instances=[
            tables.instances[key]._replace(hook=tables.hooks.get(key), mail=tables.mail.of({key}))
            for key in sorted(instances)
        ],
        blocks=[block for block in tables.blocks if not own.isdisjoint(node_keys(block))],
        ended=[row for row in tables.ended_and_named(awaited) if row.key not in own],
        keys={key: tables.concurrency_keys[key] for key in own if key in tables.concurrency_keys},
        delays={key: tables.delays[key] for key in own if key in tables.delays},
        rebound=tables.rebinds.functions_of(own),
        others={key for key in instances if _has_other_bad_end(tables, key, own, made)},
        made=made,
        rebindings=tables.rebinds.rebindings_of(own),
    )


def _to_retry(tables: Tables, root_causes: set[int], more: set[int]) -> list[OutcomeRow]:
    found = [
        row for row in tables.outcomes.values()
        if (row.state == State.FAILED and (row.root_cause in root_causes or row.key in more))
        or (row.state == State.COMPLETED and row.key in more)
    ]  # fmt: skip
    return sorted(found, key=lambda row: row.key)


def _failed_node(tables: Tables, outcome: OutcomeRow, reruns: bool) -> FailedNode:
    node, has_value = tables.nodes[outcome.key], outcome.value is not None and not reruns
    return FailedNode(
        node.key, node.instance, node.function, node.sources, outcome.root_cause,
        outcome.refs if has_value else None, outcome.failure, outcome.state, outcome.attempt if reruns else 0,
    )  # fmt: skip


def _has_other_bad_end(tables: Tables, instance: int, own: set[int], made: Sequence[CreatedBlock]) -> bool:
    others = [bad.key for bad in read_bad_ends(tables, instance) if bad.key not in own and not is_made(made, bad.key)]
    eager_states = read_eager_states(tables, others)
    return any(eager_states.get(key) is not EagerState.ABORTED for key in others)


def _made(tables: Tables, roots: Sequence[int]) -> list[CreatedBlock]:
    """Return the blocks that attempts of these nodes created, the blocks that nodes in them created, and so on."""
    found: dict[int, CreatedBlock] = {}
    for root in roots:
        creators = {root}
        for block in tables.blocks:  # a node has a smaller key than the nodes that it creates
            if block.creator in creators:
                creators.update(node_keys(block))
                found.setdefault(block.first_key, CreatedBlock(block, root, tables.eager.that_created(block)))
    return [found[key] for key in sorted(found)]


def read_edges(tables: Tables, keys: Sequence[int], limit: int, tolerant: bool) -> EdgesPage:
    """Return the edges of these nodes, up to `limit` of an instance, without nodes that depend on nothing."""
    edges = [edge for key in keys if (edge := _edges(tables, key)).sources or edge.refs]
    if tolerant:
        edges = [edge for edge in edges if any(key < 0 for key in unpack_keys(edge.sources))]
    return EdgesPage(edges, keys[-1] if len(keys) == limit else 0)


def _edges(tables: Tables, key: int) -> Edges:
    outcome = tables.outcomes.get(key)
    refs, state = (b"", None) if outcome is None else (outcome.refs, outcome.state)
    return Edges(key, tables.nodes[key].sources, refs, state)
