"""Search in a store in memory, for people: instances, and nodes by the text of their failure."""

from __future__ import annotations

from json import JSONDecodeError
from string import ascii_lowercase, ascii_uppercase

from dagorama_broker.model.domain import Failure, State
from dagorama_broker.model.queries import InstanceMarks, InstanceQuery, StoredInstance
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.store.memory.tables import Tables

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def matches(tables: Tables, stored: StoredInstance, asked: InstanceQuery) -> bool:
    """Return whether an instance is one of the requested ones."""
    is_any = not asked.unfinished and not asked.failed
    in_state = is_any or (asked.unfinished and stored.ended is None) or (asked.failed and stored.failed)
    if not in_state or asked.definition not in ("", stored.row.definition):
        return False
    key = stored.row.key
    marks = tables.marks.of.get(key, InstanceMarks())
    if asked.name not in ("", marks.name) or not set(asked.labels).issubset(marks.labels):
        return False
    if asked.error and not failed_with(tables, key, asked.error, 0, 1):
        return False
    return not asked.function or _has_function(tables, key, asked.function)


def _has_function(tables: Tables, instance: int, name: str) -> bool:
    ids = {id for id, row in tables.functions.items() if row.function.name == name}
    return any(tables.nodes[key].function in ids for key in tables.blocks.keys_of(instance))


def failed_with(tables: Tables, instance: int, text: str, after: int, limit: int) -> list[int]:
    """Return keys of nodes of an instance that failed themselves, with this text in the type or message."""
    wanted = text.translate(_LOWER)
    keys = sorted(key for key in tables.blocks.keys_of(instance) if key > after)
    rows = (tables.outcomes[key] for key in keys if key in tables.outcomes)
    return [row.key for row in rows if wanted in _text_of(row)][:limit] if wanted else []


def _text_of(row: OutcomeRow) -> str:
    if row.state != State.FAILED or row.root_cause != row.key or row.failure is None:
        return ""
    try:
        failure = Failure.unpacked(row.failure)
    except JSONDecodeError:
        return ""
    return f"{failure.type}: {failure.message}".translate(_LOWER)
