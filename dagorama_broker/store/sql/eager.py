"""Eager attempts and the nodes that they created: which may still be rolled back, and which were."""

from __future__ import annotations

from collections.abc import Collection

from dagorama_broker.model.domain import EagerState
from dagorama_broker.model.rows import EagerAttemptRow, NodeBlockRow
from dagorama_broker.store.checksums import check_row
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.reader import Reader

_EAGER_ATTEMPTS = "SELECT attempt, node, parent, eager_state, chk FROM eager_attempts"
# Attempts that may be rolled back, and released ones within them.
_LIVE_ATTEMPTS = (
    "WITH RECURSIVE live (attempt) AS (SELECT attempt FROM eager_attempts WHERE eager_state = 0 UNION"
    " SELECT e.attempt FROM live CROSS JOIN eager_attempts e"
    " ON e.parent = live.attempt AND e.parent > 0 AND e.eager_state = 1)"
)
_MADE = "SELECT m.first_key, m.attempt, m.chk FROM live CROSS JOIN eager_blocks m ON m.attempt = live.attempt"
_BLOCKS_AT_ONCE = "SELECT first_key, attempt, chk FROM eager_blocks WHERE first_key IN"


def live_eager_attempts(connection: Connection) -> list[EagerAttemptRow]:
    """Return the attempts that may be rolled back, in their order. Raise StoreError if a row is damaged."""
    return [
        _eager_attempt(row)
        for row in connection.execute(
            f"{_LIVE_ATTEMPTS} {_EAGER_ATTEMPTS} WHERE attempt IN (SELECT attempt FROM live) ORDER BY attempt"
        )
    ]


def live_blocks(reader: Reader) -> list[tuple[int, NodeBlockRow]]:
    """Return the blocks that attempts which may be rolled back have created, each with its attempt."""
    creators = {
        key: _creator(key, attempt, chk) for key, attempt, chk in reader.connection.execute(f"{_LIVE_ATTEMPTS} {_MADE}")
    }
    blocks = [next(reader.blocks("WHERE first_key = ?", key)) for key in sorted(creators)]
    return [(creators[block.first_key], block) for block in blocks]


def eager_states_of(reader: Reader, keys: Collection[int]) -> dict[int, EagerState]:
    """Return the states of the eager attempts that created these nodes; nodes that none created are left out."""
    firsts = {key: block.first_key for key in keys if (block := reader.block_of(key)) is not None}
    creators = creator_rows(reader, set(firsts.values()))
    eager_states = _eager_states(reader, set(creators.values()))
    return {
        key: EagerState(eager_states[creators[first]])
        for key, first in firsts.items()
        if creators.get(first) in eager_states
    }


def creator_rows(reader: Reader, blocks: Collection[int]) -> dict[int, int]:
    """Return the eager attempts that created these blocks, by the first key of the block."""
    return {key: _creator(key, attempt, chk) for key, attempt, chk in reader.by_keys(_BLOCKS_AT_ONCE, blocks)}


def eager_attempt_rows(reader: Reader, attempts: Collection[int]) -> dict[int, EagerAttemptRow]:
    """Return the rows of these eager attempts, by attempt."""
    found = [_eager_attempt(row) for row in reader.by_keys(f"{_EAGER_ATTEMPTS} WHERE attempt IN", attempts)]
    return {row.attempt: row for row in found}


def _eager_states(reader: Reader, attempts: Collection[int]) -> dict[int, int]:
    """Return the state of each attempt; a committed one shares the state of its parent."""
    rows: dict[int, EagerAttemptRow] = {}
    wanted = set(attempts)
    while wanted:
        found = eager_attempt_rows(reader, wanted)
        rows |= found
        wanted = {
            row.parent for row in found.values() if row.parent and row.eager_state == EagerState.COMMITTED
        } - rows.keys()
    eager_states: dict[int, int] = {}
    for attempt in sorted(rows):  # an attempt is granted before those within it
        row = rows[attempt]
        eager_states[attempt] = (
            eager_states.get(row.parent, row.eager_state)
            if row.eager_state == EagerState.COMMITTED
            else row.eager_state
        )
    return eager_states


def _eager_attempt(row: tuple[int, ...]) -> EagerAttemptRow:
    check_row("eager_attempts", row[0], row[-1], row[:-1])
    return EagerAttemptRow(*row[:-1])


def _creator(first_key: int, attempt: int, chk: int) -> int:
    check_row("eager_blocks", first_key, chk, (first_key, attempt))
    return attempt
