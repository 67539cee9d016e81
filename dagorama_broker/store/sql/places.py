"""The places of nodes in their instances, counted from 1 in the order of creation."""

from __future__ import annotations

from collections.abc import Collection
from itertools import groupby

from dagorama_broker.model.queries import NodePlace
from dagorama_broker.store.sql.store_reader import StoreReader

_BEFORE = "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM node_blocks WHERE instance = ? AND first_key < ?"
_NEXT = "SELECT first_key, size FROM node_blocks WHERE instance = ? AND first_key > ? ORDER BY first_key LIMIT ?"
_SUM = f"SELECT CAST(coalesce(sum(size), 0) AS BIGINT), max(first_key) FROM ({_NEXT}) AS blocks"
_UP_TO = (
    "SELECT CAST(coalesce(sum(CASE WHEN first_key + size - 1 <= ? THEN size ELSE ? - first_key + 1 END), 0) AS BIGINT)"
    " FROM node_blocks WHERE instance = ? AND first_key <= ?"
)
#: Blocks that one statement adds up.
_BLOCKS = 4_096


def read_ordinals(reader: StoreReader, keys: Collection[int]) -> dict[int, int]:
    """Return the ordinals of nodes, by key."""
    blocks = reader.blocks_of(keys)
    by_instance = sorted(blocks.items(), key=lambda item: (item[1].instance, item[0]))
    found: dict[int, int] = {}
    for instance, its in groupby(by_instance, key=lambda item: item[1].instance):
        of_instance = dict(its)
        before = _nodes_before(reader, instance, {block.first_key for block in of_instance.values()})
        found |= {key: before[block.first_key] + key - block.first_key + 1 for key, block in of_instance.items()}
    return found


def _nodes_before(reader: StoreReader, instance: int, blocks: Collection[int]) -> dict[int, int]:
    """Return how many nodes of an instance come before its blocks, by their first keys."""
    first, last = min(blocks), max(blocks)
    (count,) = reader.connection.execute(_BEFORE, (instance, first)).fetchone()
    before = {}
    for first_key, size in reader.sizes(instance, first, last):
        before[first_key] = count
        count += size
    return before


def read_ids_at(reader: StoreReader, instance: int, ordinals: Collection[int]) -> dict[int, bytes]:
    """Return the IDs of the nodes at these places of an instance, by place."""
    keys: dict[int, int] = {}
    wanted = sorted(set(ordinals))
    before, after = 0, 0
    while wanted:
        size, last = reader.connection.execute(_SUM, (instance, after, _BLOCKS)).fetchone()
        if last is None:
            break
        inside = [ordinal for ordinal in wanted if ordinal <= before + size]
        keys |= _keys_at(reader, instance, after, before, inside)
        wanted, before, after = wanted[len(inside) :], before + size, last
    ids = reader.ids(keys.values())
    return {ordinal: ids[key] for ordinal, key in keys.items()}


def _keys_at(reader: StoreReader, instance: int, after: int, before: int, ordinals: list[int]) -> dict[int, int]:
    """Return the keys at places in the next blocks, which `before` nodes precede, by place; the places are in order."""
    found: dict[int, int] = {}
    rows = reader.connection.execute(_NEXT, (instance, after, _BLOCKS)) if ordinals else ()
    for first_key, size in rows:
        while len(found) < len(ordinals) and (ordinal := ordinals[len(found)]) <= before + size:
            found[ordinal] = first_key + ordinal - before - 1
        if len(found) == len(ordinals):
            break
        before += size
    return found


def read_places(reader: StoreReader, keys: Collection[int]) -> dict[int, NodePlace]:
    """Return the places of nodes that exist, by key."""
    blocks = reader.blocks_of(keys)
    instances = {
        stored.row.key: stored.row.id for stored in reader.instances_of({block.instance for block in blocks.values()})
    }
    found = {key: block for key, block in blocks.items() if block.instance in instances}
    ids, ordinals = reader.ids(found), read_ordinals(reader, found)
    return {key: NodePlace(ids[key], instances[block.instance], ordinals[key]) for key, block in found.items()}


def count_up_to(reader: StoreReader, instance: int, key: int) -> int:
    """Return how many nodes of an instance have this key or a smaller one."""
    (count,) = reader.connection.execute(_UP_TO, (key, key, instance, key)).fetchone()
    return int(count)
