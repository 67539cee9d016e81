"""The table of failure hooks: one row for each instance that has one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from dagorama_broker.model.hooks import HookRow
from dagorama_broker.store.checksums import check_row, summed
from dagorama_broker.store.sql.connection import Connection, upsert
from dagorama_broker.store.sql.reader import Reader

_COLUMNS = ("function", "arguments", "is_deaf", "failure")
_WRITE = upsert("hooks", "instance", (*_COLUMNS, "chk"))
_READ = f"SELECT t.instance, {', '.join(f't.{column}' for column in _COLUMNS)}, t.chk FROM"
_UNFINISHED = (
    "instances i INDEXED BY unfinished_instances CROSS JOIN hooks t ON t.instance = i.key WHERE i.ended IS NULL"
)


def write_hooks(connection: Connection, rows: Sequence[HookRow]) -> None:
    """Write hooks of new instances, and changed ones."""
    connection.executemany(_WRITE, summed(rows))


def read_hooks(reader: Reader, instances: Collection[int]) -> dict[int, HookRow]:
    """Return the hooks of instances, by the keys of these. Raise StoreError if a row is damaged."""
    return _checked(reader.by_keys(f"{_READ} hooks t WHERE instance IN", instances))


def read_unfinished_hooks(connection: Connection) -> dict[int, HookRow]:
    """Return the hooks of all instances that have not ended, as `read_hooks`."""
    return _checked(connection.execute(f"{_READ} {_UNFINISHED}"))


def _checked(rows: Iterable[Any]) -> dict[int, HookRow]:
    found = {}
    for *row, chk in rows:
        check_row("hooks", row[0], chk, row)
        found[row[0]] = HookRow(*row)
    return found
