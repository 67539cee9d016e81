"""The table of actions, which keeps the latest ones."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama_broker.model.actions import MOST_ACTIONS, ActionRow, ListedActions, StoredAction
from dagorama_broker.store.checksums import checked_rows, summed
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.reader import Reader

_WRITE = "INSERT INTO actions (number, action, by, instance, target, nodes, time, chk) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_READ = (
    "SELECT number, action, by, instance, target, nodes, time, chk FROM actions WHERE number < ?"
    " ORDER BY number DESC LIMIT ?"
)


def write_actions(connection: Connection, rows: Sequence[ActionRow]) -> None:
    """Add actions, and delete the oldest ones. Call it after new instances are written, in the same transaction."""
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM actions").fetchone()
    reader = Reader(connection)
    named = (_with_target(reader, row) for row in rows)
    numbered = ((number, str(row.action), *row[1:]) for number, row in enumerate(named, last + 1))
    connection.executemany(_WRITE, summed(numbered))
    connection.execute("DELETE FROM actions WHERE number <= ?", (last + len(rows) - MOST_ACTIONS,))


def _with_target(reader: Reader, row: ActionRow) -> ActionRow:
    if row.target or not row.instance:
        return row
    stored = reader.instance(row.instance)
    return row if stored is None else row._replace(target=stored.row.definition)


def read_actions(reader: Reader, before: int, limit: int) -> ListedActions:
    """Return the latest actions with a smaller number than `before`."""
    rows = checked_rows("actions", reader.connection.execute(_READ, (before, limit)))
    found = [StoredAction(row[0], ActionRow(*row[1:])) for row in rows]
    first, total = reader.connection.execute("SELECT coalesce(min(number), 0), count(*) FROM actions").fetchone()
    return ListedActions(found, found[-1].number if found and found[-1].number > first else 0, total)
