"""The table of schedules: few rows, which are read at a start and replaced one by one."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama_broker.model.schedules import ScheduleRow
from dagorama_broker.store.checksums import SqlValue, checked_rows, summed
from dagorama_broker.store.sql.connection import Connection, upsert

_COLUMNS = (
    "definition", "function", "arguments", "cron", "zone", "every", "start", "overlap", "catch_up", "paused", "fired",
    "instance", "waiting", "digest", "key", "put", "by", "last", "missed", "missed_at", "uncounted",
)  # fmt: skip
_WRITE = upsert("schedules", "name", (*_COLUMNS, "chk"))
_READ = f"SELECT name, {', '.join(_COLUMNS)}, chk FROM schedules ORDER BY name"


def write_schedules(connection: Connection, rows: Sequence[ScheduleRow], gone: Sequence[str]) -> None:
    """Delete the schedules with the names `gone`, then write `rows`."""
    if gone:
        connection.executemany("DELETE FROM schedules WHERE name = ?", ((name,) for name in gone))
    if rows:
        connection.executemany(_WRITE, summed(map(_plain, rows)))


def _plain(row: ScheduleRow) -> list[SqlValue]:
    """Return a row with numbers as both databases return them, so that checksums agree."""
    return [int(value) if isinstance(value, bool) else _float(value) for value in row]


def _float(value: SqlValue) -> SqlValue:
    return float(value) if isinstance(value, int) else value


def read_schedules(connection: Connection) -> list[ScheduleRow]:
    """Return all schedules by name. Raise StoreError if a row is damaged."""
    found = []
    for row in checked_rows("schedules", connection.execute(_READ)):
        schedule = ScheduleRow(*row)
        found.append(schedule._replace(paused=bool(schedule.paused), uncounted=bool(schedule.uncounted)))
    return found
