"""Eager attempts and the nodes that they created: which may still be rolled back, and which were."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from dagorama_broker.model.domain import EagerState
from dagorama_broker.model.rows import EagerAttemptRow, NodeBlockRow
from dagorama_broker.store.checksums import check_row
from dagorama_broker.store.sqlite.reader import Reader

_BROODS = "SELECT attempt, node, within, fate, chk FROM broods"
# Attempts that may be rolled back, and released ones within them.
_LIVE = (
    "WITH RECURSIVE live (attempt) AS (SELECT attempt FROM broods WHERE fate = 0 UNION"
    " SELECT b.attempt FROM live CROSS JOIN broods b ON b.within = live.attempt AND b.within > 0 AND b.fate = 1)"
)
_MADE = "SELECT m.first_key, m.attempt, m.chk FROM live CROSS JOIN brood_runs m ON m.attempt = live.attempt"
_RUNS_AT_ONCE = "SELECT first_key, attempt, chk FROM brood_runs WHERE first_key IN"


def live_eager_attempts(connection: sqlite3.Connection) -> list[EagerAttemptRow]:
    """Return the attempts that may be rolled back, in their order. Raise StoreError if a row is damaged."""
    return [_brood(row) for row in connection.execute(f"{_LIVE} {_BROODS} WHERE attempt IN live ORDER BY attempt")]


def live_runs(reader: Reader) -> list[tuple[int, NodeBlockRow]]:
    """Return the runs that attempts which may be rolled back have created, each with its attempt."""
    makers = {key: _maker(key, attempt, chk) for key, attempt, chk in reader.connection.execute(f"{_LIVE} {_MADE}")}
    runs = [next(reader.runs("WHERE first_key = ?", key)) for key in sorted(makers)]
    return [(makers[run.first_key], run) for run in runs]


def fates_of(reader: Reader, keys: Collection[int]) -> dict[int, EagerState]:
    """Return the states of the eager attempts that created these nodes; nodes that none created are left out."""
    firsts = {key: run.first_key for key in keys if (run := reader.run_of(key)) is not None}
    makers = maker_rows(reader, set(firsts.values()))
    fates = _fates(reader, set(makers.values()))
    return {key: EagerState(fates[makers[first]]) for key, first in firsts.items() if makers.get(first) in fates}


def maker_rows(reader: Reader, runs: Collection[int]) -> dict[int, int]:
    """Return the eager attempts that created these runs, by the first key of the run."""
    return {key: _maker(key, attempt, chk) for key, attempt, chk in reader.by_keys(_RUNS_AT_ONCE, runs)}


def eager_attempt_rows(reader: Reader, attempts: Collection[int]) -> dict[int, EagerAttemptRow]:
    """Return the rows of these eager attempts, by attempt."""
    found = [_brood(row) for row in reader.by_keys(f"{_BROODS} WHERE attempt IN", attempts)]
    return {row.attempt: row for row in found}


def _fates(reader: Reader, attempts: Collection[int]) -> dict[int, int]:
    """Return the state of each attempt; a committed one shares the state of its parent."""
    rows: dict[int, EagerAttemptRow] = {}
    wanted = set(attempts)
    while wanted:
        found = eager_attempt_rows(reader, wanted)
        rows |= found
        wanted = {
            row.parent for row in found.values() if row.parent and row.eager_state == EagerState.COMMITTED
        } - rows.keys()
    fates: dict[int, int] = {}
    for attempt in sorted(rows):  # an attempt is granted before those within it
        row = rows[attempt]
        fates[attempt] = (
            fates.get(row.parent, row.eager_state) if row.eager_state == EagerState.COMMITTED else row.eager_state
        )
    return fates


def _brood(row: tuple[int, ...]) -> EagerAttemptRow:
    check_row("broods", row[0], row[-1], row[:-1])
    return EagerAttemptRow(*row[:-1])


def _maker(first_key: int, attempt: int, chk: int) -> int:
    check_row("brood_runs", first_key, chk, (first_key, attempt))
    return attempt
