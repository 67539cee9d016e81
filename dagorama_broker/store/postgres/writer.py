"""Writes the changes of one commit: as one statement, or as a transaction if some tables get many rows.

Each commit runs `fence` with its number. A commit whose outcome is unknown is sent again with the same number: if the
first one was durable, the number is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from dagorama_broker.model.rows import Changes
from dagorama_broker.store.checksums import node_rows, outcome_rows
from dagorama_broker.store.postgres.binary import COPY_BEGIN, COPY_END, copied_nodes, copied_outcomes
from dagorama_broker.store.postgres.connection import Session
from dagorama_broker.store.postgres.tables import COVERED, NODES, OUTCOMES, Row, Table, rows_of
from dagorama_broker.store.sql.writer import revive, write_the_rare

#: Rows of a table from which COPY is faster than arrays.
MANY = 256
#: Rows of a part of a COPY: the server takes in one while the next is made.
PART = 1_000
#: Statements that the server keeps prepared; each is one combination of tables.
KEPT = 256
#: The tables that COPY writes, and how records become its data.
_COPIED: dict[Table, Callable[[Any], bytes]] = {
    NODES: lambda records: copied_nodes(node_rows(records)),
    OUTCOMES: lambda records: copied_outcomes(outcome_rows(records)),
}
_BIGINT = 20
_RARE = tuple(field.name for field in fields(Changes) if field.name not in COVERED)
_COVERED: dict[str, Any] = {name: [] for name in COVERED}
_OK = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)

Rows = Sequence[tuple[Table, list[Row]]]


class Writer:
    """Commits through one session, each time with the numbers of the epoch and of the commit."""

    def __init__(self, session: Session, epoch: int) -> None:
        self.session = session
        self.is_doubtful = False  #: a commit was reported, but its wait for a replica was cancelled
        self._epoch = epoch
        self._prepared: dict[tuple[str, ...], bytes] = {}
        session.raw.add_notice_handler(self._heed)

    def _heed(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.sqlstate == "01000":  # a warning; a cancelled wait for a synchronous replica comes as one
            self.is_doubtful = True

    def commit(self, changes: Changes, number: int) -> None:
        """Write the changes durably in one transaction, all or none. Raise psycopg.Error or StoreError."""
        many = {table: records for table in _COPIED if len(records := getattr(changes, table.name)) >= MANY}
        rows = list(rows_of(replace(changes, **{table.name: [] for table in many}) if many else changes))
        rare = [name for name in _RARE if getattr(changes, name)]
        if not rare and not many and all(len(its) < MANY for _, its in rows):
            self._run(rows, number)
            return

        def write(session: Session) -> None:
            if changes.retried:
                revive(session, changes.retried)
            for table, records in many.items():
                self._copy(table, records)
            if rows:
                self._run(rows, None)
            if rare:
                write_the_rare(session, replace(changes, **_COVERED))

        self.transact(write, number)

    def transact(self, work: Callable[[Session], object], number: int) -> None:
        """Do the work in a transaction that has passed the fence.

        The fence comes first: of a commit that is sent again, its number must be found before one of its rows is.
        """
        with self.session.transaction(f"BEGIN; SELECT fence({self._epoch:d}, {number:d})"):
            work(self.session)

    # --- statements of many rows ----------------------------------------------------------------------

    def _run(self, rows: Rows, number: int | None) -> None:
        """Write rows of several tables by one statement, which is the whole transaction if it has a number."""
        shape = (*(f"{table.name} {table.is_update}" for table, _ in rows), *(() if number is None else ("fence",)))
        name = self._prepared.get(shape) or self._prepare(shape, [table for table, _ in rows], number is not None)
        fence = [] if number is None else [_packed(self._epoch), _packed(number)]
        parameters = [*fence, *(array for table, its in rows for array in table.arrays(its))]
        result = self.session.raw.pgconn.exec_prepared(name, parameters, [pq.Format.BINARY] * len(parameters))
        self._check(result)

    def _prepare(self, shape: tuple[str, ...], tables: Sequence[Table], is_fenced: bool) -> bytes:
        if len(self._prepared) >= KEPT:
            self.session.execute("DEALLOCATE ALL")
            self._prepared.clear()
        steps, oids = [], [_BIGINT, _BIGINT] if is_fenced else []
        for number, table in enumerate(tables):
            steps.append(f"i{number} AS ({table.statement(len(oids) + 1)})")
            oids += table.oids
        # The main query, and so the fence, is run before the inserts, because it reads none of them.
        last = "SELECT fence($1, $2)" if is_fenced else "SELECT 1"
        name = b"commit %d" % len(self._prepared)
        statement = f"WITH {', '.join(steps)} {last}" if steps else last
        self._check(self.session.raw.pgconn.prepare(name, statement.encode(), oids))
        self._prepared[shape] = name
        return name

    def _copy(self, table: Table, records: Sequence[object]) -> None:
        # pgconn's own calls for COPY wait for the server with the GIL, and the broker's loop with them.
        command = f"COPY {table.name} ({', '.join(table.columns)}) FROM STDIN (FORMAT BINARY)"
        with self.session.raw.cursor().copy(command.encode()) as copy:
            copy.write(COPY_BEGIN)
            for first in range(0, len(records), PART):
                copy.write(_COPIED[table](records[first : first + PART]))
            copy.write(COPY_END)

    def _check(self, result: pq.abc.PGresult) -> None:
        if result.status not in _OK:
            raise error_from_result(result)


def _packed(number: int) -> bytes:
    return number.to_bytes(8, "big")
