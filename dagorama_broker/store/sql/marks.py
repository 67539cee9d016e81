"""Rows of what instances are started with: IDs of users, which are unique within a definition, labels, turns, hooks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.queries import InstanceMarks
from dagorama_broker.model.rows import LabelRow, NameRow, TurnRow
from dagorama_broker.store.checksums import checked_rows, summed
from dagorama_broker.store.sql.connection import Connection, upsert
from dagorama_broker.store.sql.reader import Reader

_WRITE_NAMES = "INSERT INTO instance_names (instance, definition, name, digest, chk) VALUES (?, ?, ?, ?, ?)"
_WRITE_LABELS = "INSERT INTO labels (instance, label, value, chk) VALUES (?, ?, ?, ?)"
_WRITE_TURNS = "INSERT INTO turns (instance, fair, turn, chk) VALUES (?, ?, ?, ?)"
_LIVE_TURNS = (
    "SELECT t.instance, t.fair, t.turn, t.chk FROM instances i INDEXED BY unfinished_instances"
    " CROSS JOIN turns t ON t.instance = i.key WHERE i.ended IS NULL"
)
_HOOK_COLUMNS = ("function", "arguments", "is_deaf", "failure")
_WRITE_HOOKS = upsert("hooks", "instance", (*_HOOK_COLUMNS, "chk"))
_HOOK = f"SELECT t.instance, {', '.join(f't.{column}' for column in _HOOK_COLUMNS)}, t.chk FROM"
_UNFINISHED_HOOKS = (
    "instances i INDEXED BY unfinished_instances CROSS JOIN hooks t ON t.instance = i.key WHERE i.ended IS NULL"
)
_NAME = "SELECT instance, definition, name, digest, chk FROM instance_names"


def write_marks(connection: Connection, names: Sequence[NameRow], labels: Sequence[LabelRow]) -> None:
    """Write IDs and labels of new instances. SQLite raises IntegrityError if a definition has an ID already."""
    if names:
        connection.executemany(_WRITE_NAMES, summed(names))
    if labels:
        connection.executemany(_WRITE_LABELS, summed(labels))


def write_turns(connection: Connection, turns: Sequence[TurnRow]) -> None:
    """Write the turns of new instances."""
    connection.executemany(_WRITE_TURNS, summed(turns))


def live_turns(connection: Connection) -> dict[int, TurnRow]:
    """Return the turns of unfinished instances that have a row, by key."""
    return {row.instance: row for row in _checked_turns(connection.execute(_LIVE_TURNS))}


def _checked_turns(rows: Iterable[Sequence[Any]]) -> Iterator[TurnRow]:
    return (TurnRow(*row) for row in checked_rows("turns", rows))


def read_name(reader: Reader, definition: str, name: str) -> NameRow | None:
    """Return the row of an ID of a definition."""
    found = reader.connection.execute(f"{_NAME} WHERE name = ? AND definition = ?", (name, definition))
    return next((NameRow(*row) for row in checked_rows("instance_names", found)), None)


def read_marks(reader: Reader, keys: Collection[int]) -> dict[int, InstanceMarks]:
    """Return the IDs, labels and fair keys of instances by key; instances without any are left out."""
    found: dict[int, InstanceMarks] = {}
    for instance, _, name, digest in checked_rows("instance_names", reader.by_keys(f"{_NAME} WHERE instance IN", keys)):
        found[instance] = InstanceMarks(name, digest)
    labels = reader.by_keys("SELECT instance, label, value, chk FROM labels WHERE instance IN", keys)
    for instance, label, value in checked_rows("labels", labels):
        marks = found.get(instance, InstanceMarks())
        found[instance] = marks._replace(labels=tuple(sorted({*marks.labels, (label, value)})))
    for row in _checked_turns(reader.by_keys("SELECT instance, fair, turn, chk FROM turns WHERE instance IN", keys)):
        if row.fair:
            found[row.instance] = found.get(row.instance, InstanceMarks())._replace(fair=row.fair)
    return found


# --- failure hooks ----------------------------------------------------------------------------------------


def write_hooks(connection: Connection, rows: Sequence[HookRow]) -> None:
    """Write hooks of new instances, and changed ones."""
    connection.executemany(_WRITE_HOOKS, summed(rows))


def read_hooks(reader: Reader, instances: Collection[int]) -> dict[int, HookRow]:
    """Return the hooks of instances, by the keys of these. Raise StoreError if a row is damaged."""
    return _checked_hooks(reader.by_keys(f"{_HOOK} hooks t WHERE instance IN", instances))


def read_unfinished_hooks(connection: Connection) -> dict[int, HookRow]:
    """Return the hooks of all instances that have not ended, as `read_hooks`."""
    return _checked_hooks(connection.execute(f"{_HOOK} {_UNFINISHED_HOOKS}"))


def _checked_hooks(rows: Iterable[Any]) -> dict[int, HookRow]:
    return {row[0]: HookRow(*row) for row in checked_rows("hooks", rows)}
