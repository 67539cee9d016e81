"""The ids that users give to instances, which are unique within a definition, their labels, and their turns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from dagorama_broker.model.queries import InstanceMarks
from dagorama_broker.model.rows import LabelRow, NameRow, TurnRow
from dagorama_broker.store.checksums import check_row, summed
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.reader import Reader

_WRITE_NAMES = "INSERT INTO instance_names (instance, definition, name, digest, chk) VALUES (?, ?, ?, ?, ?)"
_WRITE_LABELS = "INSERT INTO labels (instance, label, value, chk) VALUES (?, ?, ?, ?)"
_WRITE_TURNS = "INSERT INTO turns (instance, fair, turn, chk) VALUES (?, ?, ?, ?)"
_LIVE_TURNS = (
    "SELECT t.instance, t.fair, t.turn, t.chk FROM instances i INDEXED BY unfinished_instances"
    " CROSS JOIN turns t ON t.instance = i.key WHERE i.ended IS NULL"
)
_NAME = "SELECT instance, definition, name, digest, chk FROM instance_names"


def write_marks(connection: Connection, names: Sequence[NameRow], labels: Sequence[LabelRow]) -> None:
    """Write ids and labels of new instances. SQLite raises IntegrityError if a definition has an id already."""
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
    for *row, chk in rows:
        check_row("turns", row[0], chk, row)
        yield TurnRow(*row)


def read_name(reader: Reader, definition: str, name: str) -> NameRow | None:
    """Return the row of an id of a definition."""
    for *row, chk in reader.connection.execute(f"{_NAME} WHERE name = ? AND definition = ?", (name, definition)):
        check_row("instance_names", row[0], chk, row)
        return NameRow(*row)
    return None


def read_marks(reader: Reader, keys: Collection[int]) -> dict[int, InstanceMarks]:
    """Return the ids, labels and fair keys of instances by key; instances without any are left out."""
    found: dict[int, InstanceMarks] = {}
    for *row, chk in reader.by_keys(f"{_NAME} WHERE instance IN", keys):
        check_row("instance_names", row[0], chk, row)
        instance, _, name, digest = row
        found[instance] = InstanceMarks(name, digest)
    for *row, chk in reader.by_keys("SELECT instance, label, value, chk FROM labels WHERE instance IN", keys):
        check_row("labels", row[0], chk, row)
        instance, label, value = row
        marks = found.get(instance, InstanceMarks())
        found[instance] = marks._replace(labels=tuple(sorted({*marks.labels, (label, value)})))
    for row in _checked_turns(reader.by_keys("SELECT instance, fair, turn, chk FROM turns WHERE instance IN", keys)):
        if row.fair:
            found[row.instance] = found.get(row.instance, InstanceMarks())._replace(fair=row.fair)
    return found
