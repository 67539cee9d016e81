"""Reads of many nodes for people: their places, the failed ones, and the edges between them.

A statement returns one row for up to thousands of nodes, because a busy broker would take the interpreter lock between
two rows. Checksums of these nodes are not compared.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import groupby

from dagorama_broker.model.domain import Failure, State
from dagorama_broker.model.queries import (
    LONGEST_BEGINNING,
    FailurePage,
    NodePlace,
    StructurePage,
    StructureRow,
)
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.sqlite.listing import read_node_keys
from dagorama_broker.store.sqlite.reader import Reader

# --- places -----------------------------------------------------------------------------------------------

_BEFORE = "SELECT coalesce(sum(size), 0) FROM node_blocks WHERE instance = ? AND first_key < ?"
_SIZES = (
    "SELECT group_concat(first_key || ':' || size) FROM"
    " (SELECT first_key, size FROM node_blocks WHERE instance = ? AND first_key BETWEEN ? AND ? ORDER BY first_key)"
)
_NEXT = "SELECT first_key, size FROM node_blocks WHERE instance = ? AND first_key > ? ORDER BY first_key LIMIT ?"
_SUM = f"SELECT coalesce(sum(size), 0), max(first_key) FROM ({_NEXT})"
#: Blocks that one statement adds up.
_BLOCKS = 4_096


def read_ordinals(reader: Reader, keys: Collection[int]) -> dict[int, int]:
    """Return the ordinals of nodes, by key."""
    blocks = reader.blocks_of(keys)
    by_instance = sorted(blocks.items(), key=lambda item: (item[1].instance, item[0]))
    found: dict[int, int] = {}
    for instance, its in groupby(by_instance, key=lambda item: item[1].instance):
        of_instance = dict(its)
        before = _nodes_before(reader, instance, {block.first_key for block in of_instance.values()})
        found |= {key: before[block.first_key] + key - block.first_key + 1 for key, block in of_instance.items()}
    return found


def _nodes_before(reader: Reader, instance: int, blocks: Collection[int]) -> dict[int, int]:
    """Return how many nodes of an instance come before its blocks, by their first keys."""
    first, last = min(blocks), max(blocks)
    (count,) = reader.connection.execute(_BEFORE, (instance, first)).fetchone()
    (sizes,) = reader.connection.execute(_SIZES, (instance, first, last)).fetchone()
    before = {}
    for first_key, size in (map(int, item.split(":")) for item in sizes.split(",")):
        before[first_key] = count
        count += size
    return before


def read_ids_at(reader: Reader, instance: int, ordinals: Collection[int]) -> dict[int, bytes]:
    """Return the ids of the nodes at these places of an instance, by place."""
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


def _keys_at(reader: Reader, instance: int, after: int, before: int, ordinals: list[int]) -> dict[int, int]:
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


def read_places(reader: Reader, keys: Collection[int]) -> dict[int, NodePlace]:
    """Return the places of nodes that exist, by key."""
    blocks = reader.blocks_of(keys)
    instances = {
        stored.row.key: stored.row.id for stored in reader.instances_of({block.instance for block in blocks.values()})
    }
    found = {key: block for key, block in blocks.items() if block.instance in instances}
    ids, ordinals = reader.ids(found), read_ordinals(reader, found)
    return {key: NodePlace(ids[key], instances[block.instance], ordinals[key]) for key, block in found.items()}


# --- failures ---------------------------------------------------------------------------------------------

#: Characters of a stored failure that are read: it begins with its function, type and message, in ASCII.
_BEGINNING = 450
#: A control character, which JSON escapes; and what JSON has between two strings, but never within one.
_BETWEEN, _STRINGS = "\x1f", '", "'
_NAMELESS = '["", "", "", '
_FAILURES = (
    "SELECT group_concat(key), group_concat(ended), group_concat(beginning, char(31)) FROM"
    f" (SELECT o.key, o.ended, CAST(substr(coalesce(o.failure, '{_NAMELESS}'), 1, {_BEGINNING}) AS TEXT) AS beginning"
    " FROM node_blocks b CROSS JOIN outcomes o INDEXED BY failed_outcomes"
    " ON o.key BETWEEN max(b.first_key, ? + 1) AND b.first_key + b.size - 1"
    f" WHERE b.instance = ? AND o.root_cause != 0 AND o.root_cause = o.key AND o.state = {State.FAILED:d}"
    " ORDER BY b.first_key, o.key LIMIT ?)"
)
_DOWNSTREAM = (
    "SELECT root_cause, count(*) FROM {table} INDEXED BY {table}_root_causes"
    " WHERE root_cause != 0 AND root_cause BETWEEN ? AND ? AND key != root_cause GROUP BY root_cause"
)
_CUT_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-f]{0,3})?$")


def read_failures(reader: Reader, instance: int, after: int, limit: int) -> FailurePage:
    """Return nodes of an instance that failed by themselves."""
    keys_text, ended, beginnings = reader.connection.execute(_FAILURES, (after, instance, limit)).fetchone()
    if keys_text is None:
        return FailurePage((), (), (), (), (), {}, 0)
    keys = list(map(int, keys_text.split(",")))
    heads = [beginning.split(_STRINGS, 3) for beginning in beginnings.split(_BETWEEN)]
    if min(map(len, heads)) < 3:
        heads = [_whole(reader, key, head) for key, head in zip(keys, heads, strict=True)]
    return FailurePage(
        keys,
        list(map(float, ended.split(","))),
        _decoded([head[0][2:] for head in heads]),
        _decoded([head[1] for head in heads]),
        [message[:LONGEST_BEGINNING] for message in _decoded([_message(*head[2:]) for head in heads])],
        _downstream(reader, keys),
        keys[-1] if len(keys) == limit else 0,
    )


def _message(body: str, rest: str | None = None) -> str:
    """Return a message in JSON; if it is the end of what was read, without an escape or a quote that was cut."""
    return body if rest is not None else _CUT_ESCAPE.sub(r"\1", body.removesuffix('", ').removesuffix('"'))


def _decoded(bodies: Sequence[str]) -> list[str]:
    """Return texts from the insides of JSON strings, most of which may be equal."""
    distinct = list(dict.fromkeys(bodies))
    decoded = json.loads('["' + '","'.join(distinct) + '"]')
    if len(distinct) == len(bodies):
        return list(decoded)
    texts = dict(zip(distinct, decoded, strict=True))
    return [texts[body] for body in bodies]


def _whole(reader: Reader, key: int, head: list[str]) -> list[str]:
    """Return the head of a failure, read again if its function and type have hundreds of characters."""
    if len(head) >= 3:
        return head
    found = Failure.unpacked(reader.failures([key])[key].failure or b"")
    function, type, message = (json.dumps(text)[1:-1] for text in found[:3])
    return [f'["{function}', type, message, ""]


def _downstream(reader: Reader, keys: Sequence[int]) -> dict[int, int]:
    """Return how many nodes failed because of these, which are in order."""
    found = Counter[int]()
    for table in ("outcomes", "resolved") if keys else ():
        found.update(dict(reader.connection.execute(_DOWNSTREAM.format(table=table), (keys[0], keys[-1]))))
    return {key: found[key] for key in found.keys() & set(keys)}


# --- structure --------------------------------------------------------------------------------------------

_STRUCTURE = (
    "SELECT group_concat(n.key || ':' || n.function || ':' || b.creator || ':' || hex(n.sources))"
    " FROM node_blocks b CROSS JOIN nodes n ON n.key BETWEEN max(b.first_key, ?1) AND min(b.first_key + b.size - 1, ?2)"
    " WHERE b.instance = ?3 AND b.first_key <= ?2 AND b.first_key + b.size > ?1"
)


def read_structure(reader: Reader, instance: int, after: int, limit: int) -> StructurePage:
    """Return nodes of an instance with their functions and edges."""
    keys = read_node_keys(reader, instance, after, limit)
    if not keys:
        return StructurePage([], 0)
    (text,) = reader.connection.execute(_STRUCTURE, (keys[0], keys[-1], instance)).fetchone()
    rows = sorted(map(_structure_row, text.split(","))) if text else []
    return StructurePage(rows, keys[-1] if len(keys) == limit else 0)


def _structure_row(item: str) -> StructureRow:
    key, function, creator, sources = item.split(":")
    return StructureRow(int(key), int(function), int(creator), unpack_sources(bytes.fromhex(sources)))
