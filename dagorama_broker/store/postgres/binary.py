"""Rows in PostgreSQL's binary formats: a column as an array, for `unnest`, and rows as the data of COPY.

psycopg would do this row by row, each time with the GIL; a commit's rows are packed here in a third of that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain, repeat
from struct import Struct
from typing import TypeAlias, cast

from dagorama_broker.store.checksums import SqlValue

#: Object ids of the types of columns, by the letter with which `tables` names them.
OIDS = {"q": 20, "d": 701, "y": 17, "t": 25}
#: Object ids of arrays of these types.
ARRAY_OIDS = {"q": 1016, "d": 1022, "y": 1001, "t": 1009}
_FIXED = "qd"
#: Numbers of an array, at most, whose format is kept: each number takes 64 bytes of a format.
_KEPT = 256
_NULL = b"\xff\xff\xff\xff"
_HEAD = Struct(">iiIii").pack
_LENGTH = Struct(">i").pack
COPY_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"


def pack_array(kind: str, values: Sequence[SqlValue]) -> bytes:
    """Return a column as the binary form of an array. Integers must fit into 64 bits, and text must have no NUL."""
    head = _HEAD(1, None in values, OIDS[kind], len(values), 1)
    if kind in _FIXED:
        if None not in values and len(values) <= _KEPT:
            return head + _fixed(kind, len(values)).pack(*chain.from_iterable(zip(repeat(8), values)))
        one = _fixed(kind, 1).pack
        return b"".join([head, *(_NULL if value is None else one(8, value) for value in values)])
    given = cast("Sequence[str | bytes | None]", values)
    data = [value.encode() if isinstance(value, str) else value for value in given]
    parts = (part for value in data for part in (_NULL if value is None else _LENGTH(len(value)), value or b""))
    return b"".join([head, *parts])


@cache
def _fixed(kind: str, count: int) -> Struct:
    return Struct(">" + f"i{kind}" * count)


# --- the rows of COPY: one loop for each table, inlined, because large commits spend their time here ---------

NodeColumns: TypeAlias = "tuple[int, int, int, int, bytes, bytes]"
OutcomeColumns: TypeAlias = "tuple[int, int, int, int, int, float, int, int, bytes, bytes | None, bytes | None]"


def copied_nodes(rows: Iterable[NodeColumns]) -> bytes:
    """Return rows of `nodes` as data of COPY, between its begin and its end."""
    head = Struct(">h iq iq iq iq i").pack
    parts = (
        part
        for key, chk, instance, function, sources, arguments in rows
        for part in (
            head(6, 8, key, 8, chk, 8, instance, 8, function, len(sources)),
            sources,
            _LENGTH(len(arguments)),
            arguments,
        )
    )
    return b"".join(parts)


def copied_outcomes(rows: Iterable[OutcomeColumns]) -> bytes:
    """Return rows of `outcomes` as data of COPY, between its begin and its end."""
    head = Struct(">h iq iq iq iq iq id iq iq i").pack
    parts = (
        part
        for key, chk, state, attempt, cause, ended, us, worker, refs, value, failure in rows
        for part in (
            head(11, 8, key, 8, chk, 8, state, 8, attempt, 8, cause, 8, ended, 8, us, 8, worker, len(refs)),
            refs,
            _NULL if value is None else _LENGTH(len(value)),
            value or b"",
            _NULL if failure is None else _LENGTH(len(failure)),
            failure or b"",
        )
    )
    return b"".join(parts)
