"""Writes and reads signals, and the nodes that wait for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.model.rows import Changes
from dagorama_broker.model.signals import Mail, SignalRow, WaitRow
from dagorama_broker.store.checksums import SqlValue, checked_rows, summed
from dagorama_broker.store.sql.connection import Connection, upsert
from dagorama_broker.store.sql.counters import next_key
from dagorama_broker.store.sql.reader import Reader

#: The columns of both tables, in the order of their rows.
WAIT_COLUMNS = (
    "key", "instance", "name", "timeout", "until", "has_default", "schema", "arguments", "how", "by", "ended",
)  # fmt: skip
SIGNAL_COLUMNS = ("number", "instance", "name", "key", "digest", "by", "sent", "value")
_WRITE_WAITS = upsert("signal_waits", "key", (*WAIT_COLUMNS[1:], "chk"))
_WRITE_SIGNALS = upsert("signals", "number", (*SIGNAL_COLUMNS[1:], "chk"))
_WAITS = f"SELECT {', '.join(f't.{column}' for column in WAIT_COLUMNS)}, t.chk FROM signal_waits t"
_SIGNALS = f"SELECT {', '.join(f't.{column}' for column in SIGNAL_COLUMNS)}, t.chk FROM signals t"
_OF_UNFINISHED = "JOIN instances i ON i.key = t.instance WHERE i.ended IS NULL"


def write_signals(connection: Connection, changes: Changes) -> None:
    """Write what has become of signals, and of nodes that wait for them. Call it in a transaction."""
    if changes.waits:
        connection.executemany(_WRITE_WAITS, summed(map(_wait, changes.waits)))
    if changes.signals:
        connection.executemany(_WRITE_SIGNALS, summed(map(_signal, changes.signals)))
    if changes.signals_gone:
        connection.executemany("DELETE FROM signals WHERE number = ?", ((number,) for number in changes.signals_gone))


def _wait(row: WaitRow) -> tuple[SqlValue, ...]:
    return row._replace(timeout=float(row.timeout), until=float(row.until), end=int(row.end), ended=float(row.ended))


def _signal(row: SignalRow) -> tuple[SqlValue, ...]:
    return row._replace(sent=float(row.sent))


def read_mail(connection: Connection, instance: int) -> Mail:
    """Return the signals of an instance. Raise StoreError for a damaged row."""
    waits = connection.execute(f"{_WAITS} WHERE t.instance = ? ORDER BY t.key", (instance,))
    signals = connection.execute(f"{_SIGNALS} WHERE t.instance = ? ORDER BY t.number", (instance,))
    return Mail(list(_waits(waits)), list(_signals(signals)))


def read_with_mail(reader: Reader, id: bytes) -> StoredInstance | None:
    """Return an instance by its 16-byte ID, with its signals."""
    stored = reader.instance(id)
    return None if stored is None else stored._replace(mail=read_mail(reader.connection, stored.row.key))


def read_live_mail(connection: Connection) -> tuple[Mail, int]:
    """Return the signals of all unfinished instances, and the next number. Raise StoreError for a damaged row."""
    waits = connection.execute(f"{_WAITS} {_OF_UNFINISHED} ORDER BY t.key")
    signals = connection.execute(f"{_SIGNALS} {_OF_UNFINISHED} ORDER BY t.number")
    return Mail(list(_waits(waits)), list(_signals(signals))), next_key(connection, "signals", "number")


def read_waits(reader: Reader, keys: Collection[int]) -> dict[int, WaitRow]:
    """Return the waits of nodes by key; nodes that wait for no signal are left out."""
    return {row.key: row for row in _waits(reader.by_keys(f"{_WAITS} WHERE t.key IN", keys))}


def _waits(rows: Iterable[Sequence[Any]]) -> Iterator[WaitRow]:
    return (WaitRow(*row) for row in checked_rows("signal_waits", rows))


def _signals(rows: Iterable[Sequence[Any]]) -> Iterator[SignalRow]:
    return (SignalRow(*row) for row in checked_rows("signals", rows))
