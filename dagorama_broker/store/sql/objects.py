"""The table that says which object of an object store holds a large value."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dagorama_broker.model.objects import NewObject, ObjectRow, value_in
from dagorama_broker.store.checksums import check_row, summed
from dagorama_broker.store.sql.connection import Connection

_COLUMNS = "sha256, length, object, kept"
_FIND = f"SELECT {_COLUMNS}, chk FROM larges WHERE sha256 = ?"
_NAME = f"INSERT INTO larges ({_COLUMNS}, chk) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_DROP = "DELETE FROM larges WHERE sha256 = ? AND object = ?"
_UNREFERENCED = (
    "SELECT sha256 FROM larges WHERE NOT EXISTS (SELECT 1 FROM large_refs WHERE large_refs.sha256 = larges.sha256)"
)
#: Values that one statement asks for.
_TOGETHER = 500


def find_object(connection: Connection, sha256: bytes) -> ObjectRow | None:
    """Return the row of a value; None if there is none. Raise StoreError if it is damaged."""
    found = find_objects(connection, [sha256])
    return found[0] if found else None


def find_objects(connection: Connection, values: Collection[bytes]) -> list[ObjectRow]:
    """Return the rows of these values, without unknown ones."""
    found, wanted = [], list(values)
    for first in range(0, len(wanted), _TOGETHER):
        some = wanted[first : first + _TOGETHER]
        select = _FIND if len(some) == 1 else _FIND.replace("= ?", f"IN ({', '.join('?' * len(some))})")
        for sha256, length, object, kept, chk in connection.execute(select, some):
            check_row("larges", sha256.hex(), chk, (sha256, length, object, kept))
            found.append(ObjectRow(sha256, length, object, kept))
    return found


def name_objects(connection: Connection, new: Sequence[NewObject]) -> list[ObjectRow]:
    """Let objects be values from now on, each unless another one is already; return the rows that the values have.

    Call it in a transaction.
    """
    lost = [(each.row.sha256, each.replaced) for each in new if each.replaced]
    if lost:
        connection.executemany(_DROP, lost)
    connection.executemany(_NAME, summed(each.row for each in new))
    found = {row.sha256: row for row in find_objects(connection, {each.row.sha256 for each in new})}
    return [found[each.row.sha256] for each in new]


def drop_objects(connection: Connection, rows: Sequence[ObjectRow]) -> None:
    """Delete rows, each unless another object holds its value by now. Call it in a transaction."""
    connection.executemany(_DROP, ((row.sha256, row.object) for row in rows))


def named_objects(connection: Connection, objects: Sequence[str]) -> set[str]:
    """Return which of these objects rows name."""
    values = {value for name in objects if (value := value_in(name)) is not None}
    return {row.object for row in find_objects(connection, values)} & set(objects)


def unreferenced_objects(connection: Connection) -> list[bytes]:
    """Return the values that no node refers to."""
    return [sha256 for (sha256,) in connection.execute(_UNREFERENCED)]
