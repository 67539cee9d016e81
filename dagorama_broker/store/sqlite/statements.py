"""Many rows with each statement.

Around each statement sqlite3 lets other threads run and then waits until it may go on. Beside a busy loop that wait is
most of what a row costs, so a statement takes as many rows as there are, up to a bound.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain

from dagorama_broker.store.checksums import SqlValue

#: Rows of one statement; few sizes, for a connection keeps the statements that it has prepared.
SIZES = (128, 16, 4, 1)
#: Statements that a connection keeps: those of all tables in all sizes, and what is read.
KEPT = 256


def run(connection: sqlite3.Connection, statement: str, width: int, rows: Iterable[Sequence[SqlValue]]) -> None:
    """Run a statement that has `{rows}` where VALUES has them, for all of these rows of so many columns each."""
    values = list(chain.from_iterable(rows))
    at, end = 0, len(values)
    for size in SIZES:
        length = size * width
        while end - at >= length:
            connection.execute(_with_rows(statement, width, size), values[at : at + length])
            at += length


@cache
def _with_rows(statement: str, width: int, size: int) -> str:
    return statement.format(rows=", ".join([f"({', '.join('?' * width)})"] * size))
