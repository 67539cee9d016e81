"""Search in the nodes of instances, for people: by function, and by the text of a failure.

Each search is one statement, which runs without the interpreter lock. Checksums of these nodes are not compared.
"""

from __future__ import annotations

from dagorama_broker.model.domain import State
from dagorama_broker.store.sqlite.reader import Reader

_HAS_FUNCTION = (
    "SELECT 1 FROM node_blocks b CROSS JOIN nodes n ON n.key BETWEEN b.first_key AND b.first_key + b.size - 1"
    " WHERE b.instance = ? AND n.function IN (SELECT id FROM functions WHERE name = ?) LIMIT 1"
)
#: Type and message of a failure, which are the second and the third item of a JSON array.
_TEXT = "json_extract(CAST(o.failure AS TEXT), '$[1]') || ': ' || json_extract(CAST(o.failure AS TEXT), '$[2]')"
_FAILED_WITH = (
    "SELECT group_concat(key) FROM (SELECT o.key"
    " FROM node_blocks b CROSS JOIN outcomes o INDEXED BY failed_outcomes"
    " ON o.key BETWEEN max(b.first_key, ? + 1) AND b.first_key + b.size - 1"
    f" WHERE b.instance = ? AND o.root_cause != 0 AND o.root_cause = o.key AND o.state = {State.FAILED:d}"
    f" AND CASE WHEN json_valid(CAST(o.failure AS TEXT)) THEN instr(lower({_TEXT}), lower(?)) END"
    " ORDER BY b.first_key, o.key LIMIT ?)"
)


def has_function(reader: Reader, instance: int, name: str) -> bool:
    """Return whether an instance has a node of this function."""
    return reader.connection.execute(_HAS_FUNCTION, (instance, name)).fetchone() is not None


def read_failed_with(reader: Reader, instance: int, text: str, after: int, limit: int) -> list[int]:
    """Return keys of nodes of an instance that failed themselves, with this text in the type or message."""
    (keys,) = reader.connection.execute(_FAILED_WITH, (after, instance, text, limit)).fetchone()
    return [] if keys is None else list(map(int, keys.split(",")))
