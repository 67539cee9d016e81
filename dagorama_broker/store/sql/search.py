"""Search for people: instances by state, definition, ID, labels, function and error, page by page; nodes by error.

A search in the nodes of an instance is one statement, which runs without the interpreter lock. Checksums of these nodes
are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge

from dagorama_broker.model.queries import InstanceQuery, ListedInstances, StoredInstance
from dagorama_broker.store.sql.store_reader import StoreReader

#: Instances that one page reads at most, if few of them match.
LOOKED_AT = 10_000
#: The same if their nodes are searched.
LOOKED_INTO = 500

_UNFINISHED = "INDEXED BY unfinished_instances WHERE ended IS NULL AND key < ? ORDER BY key DESC"
_FAILED = "INDEXED BY failed_instances WHERE failed = 1 AND key < ? ORDER BY key DESC"
_HAS_FUNCTION = (
    "SELECT 1 FROM node_blocks b CROSS JOIN nodes n ON n.key BETWEEN b.first_key AND b.first_key + b.size - 1"
    " WHERE b.instance = ? AND n.function IN (SELECT id FROM functions WHERE name = ?) LIMIT 1"
)


def read_instances(reader: StoreReader, asked: InstanceQuery) -> ListedInstances:
    """Return a page of matching instances, the latest first."""
    found: list[StoredInstance] = []
    last = 0
    most = LOOKED_INTO if asked.looks_into_nodes else LOOKED_AT
    for count, stored in enumerate(_candidates(reader, asked), 1):
        if len(found) == asked.limit or count > most:
            return ListedInstances(found, last)
        last = stored.row.key
        if _matches(reader, stored, asked):
            found.append(stored)
    return ListedInstances(found, 0)


def _candidates(reader: StoreReader, asked: InstanceQuery) -> Iterator[StoredInstance]:
    """Yield instances that may match."""
    if asked.name or asked.labels:
        yield from _marked(reader, asked)
        return
    if asked.error:  # an instance fails with its first failed node
        yield from reader.instances(_FAILED, asked.before)
        return
    if not asked.unfinished and not asked.failed:
        yield from reader.instances("WHERE key < ? ORDER BY key DESC", asked.before)
        return
    wanted = [query for query, is_wanted in ((_UNFINISHED, asked.unfinished), (_FAILED, asked.failed)) if is_wanted]
    last = 0
    queries = [reader.instances(query, asked.before) for query in wanted]
    for stored in merge(*queries, key=lambda stored: -stored.row.key):
        if stored.row.key != last:  # one may be both
            yield stored
        last = stored.row.key


def _marked(reader: StoreReader, asked: InstanceQuery) -> Iterator[StoredInstance]:
    """Yield instances with the requested ID and labels, in any state and of any definition."""
    tables, where, parameters = _marks(asked)
    query = f"WHERE {where} AND m0.instance < ? ORDER BY m0.instance DESC"
    yield from reader.instances(query, *parameters, asked.before, tables=tables)


def _marks(asked: InstanceQuery) -> tuple[str, str, list[str]]:
    """Return tables, a condition and its parameters that lead to instances with the requested ID and labels.

    The index of the ID or of the first label leads to the instances; the other labels are looked up for each of them.
    """
    named = [("instance_names", "{m}.name = ?", (asked.name,))] if asked.name else []
    marks = [*named, *(("labels", "{m}.label = ? AND {m}.value = ?", label) for label in asked.labels)]
    tables, where, parameters = list[str](), list[str](), list[str]()
    for number, (table, condition, values) in enumerate(marks):
        tables.append(f"{table} m{number}")
        where.append(f"{condition.format(m=f'm{number}')} AND m{number}.instance = m0.instance")
        parameters += values
    return " CROSS JOIN ".join([*tables, "instances"]), " AND ".join([*where, "key = m0.instance"]), parameters


def count_instances(reader: StoreReader, asked: InstanceQuery) -> int:
    """Return how many instances match, in one statement."""
    tables, where, parameters = _marks(asked) if asked.name or asked.labels else ("instances", "TRUE", [])
    states = ["ended IS NULL"] * asked.unfinished + ["failed = 1"] * asked.failed
    if states:
        where += f" AND ({' OR '.join(states)})"
    if asked.definition:
        where += " AND instances.definition = ?"
        parameters = [*parameters, asked.definition]
    found: int = reader.connection.execute(f"SELECT count(*) FROM {tables} WHERE {where}", parameters).fetchone()[0]
    return found


def _matches(reader: StoreReader, stored: StoredInstance, asked: InstanceQuery) -> bool:
    is_any = not asked.unfinished and not asked.failed
    in_state = is_any or (asked.unfinished and stored.ended is None) or (asked.failed and stored.failed)
    if not in_state or asked.definition not in ("", stored.row.definition):
        return False
    key = stored.row.key
    has_error = not asked.error or bool(reader.failed_with(key, asked.error, 0, 1))
    return has_error and (not asked.function or has_function(reader, key, asked.function))


def has_function(reader: StoreReader, instance: int, name: str) -> bool:
    """Return whether an instance has a node of this function."""
    return reader.connection.execute(_HAS_FUNCTION, (instance, name)).fetchone() is not None
