"""The tables of paused queues and paused keys: few rows, which are read at a start and replaced one by one."""

from __future__ import annotations

from dagorama_broker.model.key_pauses import KeyPauseRow
from dagorama_broker.model.rows import Changes, PausedQueueRow
from dagorama_broker.store.checksums import checked_rows, summed
from dagorama_broker.store.sql.connection import Connection, replacing, upsert

_QUEUES = upsert("paused_queues", "queue", ("since", "by", "chk"))
_READ_QUEUES = "SELECT queue, since, by, chk FROM paused_queues ORDER BY queue"
_KEYS = (
    "INSERT INTO key_pauses (name, key, of_limit, until, seconds, node, chk) VALUES (?, ?, ?, ?, ?, ?, ?) "
    + replacing("name, key, of_limit", ("until", "seconds", "node", "chk"))
)
_READ_KEYS = "SELECT name, key, of_limit, until, seconds, node, chk FROM key_pauses ORDER BY name, key, of_limit"


def write_pauses(connection: Connection, changes: Changes) -> None:
    """Write which queues and keys are paused by now. Call it in a transaction."""
    many = connection.executemany
    if changes.resumed:
        many("DELETE FROM paused_queues WHERE queue = ?", ((queue,) for queue in changes.resumed))
    if changes.paused:
        many(_QUEUES, summed((queue, float(since), by) for queue, since, by in changes.paused))
    if changes.key_pauses_over:
        many("DELETE FROM key_pauses WHERE name = ? AND key = ? AND of_limit = ?", changes.key_pauses_over)
    if changes.key_pauses:
        latest = {row.paused: row for row in changes.key_pauses}.values()
        many(_KEYS, summed(row._replace(until=float(row.until), seconds=float(row.seconds)) for row in latest))


def read_paused_queues(connection: Connection) -> list[PausedQueueRow]:
    """Return the paused queues by name. Raise StoreError if a row is damaged."""
    return [PausedQueueRow(*row) for row in checked_rows("paused_queues", connection.execute(_READ_QUEUES))]


def read_key_pauses(connection: Connection) -> list[KeyPauseRow]:
    """Return the paused keys in the order of names and keys. Raise StoreError if a row is damaged."""
    return [KeyPauseRow(*row) for row in checked_rows("key_pauses", connection.execute(_READ_KEYS))]
