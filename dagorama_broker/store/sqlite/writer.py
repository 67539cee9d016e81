"""Writes the changes of one transaction, table by table."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from dagorama_broker.model.domain import RetryPolicy, State
from dagorama_broker.model.rows import Changes, FunctionRow, InstanceEnd, RetriedRow
from dagorama_broker.store.checksums import (
    SqlValue,
    block_rows,
    node_rows,
    outcome_rows,
    outcome_sum,
    pack_options,
    progress_rows,
    row_sum,
    summed,
)
from dagorama_broker.store.protocol import REMEMBERED
from dagorama_broker.store.sqlite import drafts
from dagorama_broker.store.sqlite.actions import write_actions
from dagorama_broker.store.sqlite.connection import execute_rows
from dagorama_broker.store.sqlite.marks import write_marks
from dagorama_broker.store.sqlite.rebinds import write_rebound
from dagorama_broker.store.sqlite.retention import drop_functions, link, remove

# Most of the rows that are written go through these five statements.
_NODES = "INSERT INTO nodes VALUES {rows}"
_OUTCOMES = "INSERT INTO outcomes VALUES {rows}"
_BLOCKS = (
    "INSERT INTO node_blocks (first_key, origin, first, size, instance, digest, creator, created, chk) VALUES {rows}"
)
_INSTANCES = "INSERT INTO instances (key, id, definition, entry, created, priority, chk, failed, end_chk) VALUES {rows}"
_INSTANCE_ENDS = (
    "WITH ends (key, ended, failed, chk) AS (VALUES {rows})"
    " UPDATE instances SET ended = ends.ended, failed = ends.failed, end_chk = ends.chk"
    " FROM ends WHERE instances.key = ends.key"
)
_RESOLVED = "INSERT INTO resolved (key, state, root_cause, ended, chk) VALUES (?, ?, ?, ?, ?)"
_FUNCTIONS = (
    "INSERT INTO functions (id, name, hash, queue, taint, max_attempts, retry_interval, retry_base,"
    " retry_max_interval, retry_jitter, is_async, protocol, options, chk)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PROGRESS = (
    "INSERT OR REPLACE INTO progress (key, failed_attempts, crashes, worker_losses, retry_at, failure, pause, attempt,"
    " lost_attempt, chk)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_LARGE = "INSERT OR IGNORE INTO large_refs (key, sha256, chk) VALUES (?, ?, ?)"
_KEYS = "INSERT INTO node_keys (key, concurrency_key, chk) VALUES (?, ?, ?)"
_EAGER_ATTEMPTS = (
    "INSERT OR REPLACE INTO eager_attempts (attempt, node, parent, eager_state, chk) VALUES (?, ?, ?, ?, ?)"
)
_EAGER_BLOCKS = "INSERT INTO eager_blocks (first_key, attempt, chk) VALUES (?, ?, ?)"
_TRACES = "INSERT INTO block_traces (first_key, trace, chk) VALUES (?, ?, ?)"
_USED_FAILURES = "INSERT OR REPLACE INTO used_failures (key, instance, chk) VALUES (?, ?, ?)"
_JOINED = "INSERT OR REPLACE INTO workers (id, name, chk) VALUES (?, ?, ?)"
_LEFT = "DELETE FROM workers WHERE id = ?"
_PAUSED = "INSERT OR REPLACE INTO paused_queues (queue, since, by, chk) VALUES (?, ?, ?, ?)"
_COMPLETED = (
    "SELECT chk, attempt, root_cause, ended, microseconds, worker, refs FROM outcomes WHERE key = ? AND state = ?"
)
_WORKER_NAMES = "INSERT INTO worker_names (number, name, chk) VALUES (?, ?, ?)"
_FORGET_WORKER_NAMES = "DELETE FROM worker_names WHERE number <= (SELECT max(number) FROM worker_names) - ?"


def write(connection: sqlite3.Connection, changes: Changes) -> None:
    """Write the changes. Call it in a transaction.

    SQLite raises IntegrityError if a row that may exist only once is already there.
    """
    many = connection.executemany
    if changes.retried:
        _revive(connection, changes.retried)
    if changes.nodes:
        execute_rows(connection, _NODES, 6, node_rows(changes.nodes))
    if changes.outcomes:
        execute_rows(connection, _OUTCOMES, 11, outcome_rows(changes.outcomes))
    if changes.blocks:
        execute_rows(connection, _BLOCKS, 9, block_rows(changes.blocks))
    if changes.resolved:
        many(_RESOLVED, summed((key, int(state), c, float(ended)) for key, state, c, ended in changes.resolved))
    if changes.instances:
        rows = ((*row, row_sum(row), 0, row_sum((row.key, None, 0))) for row in changes.instances)
        execute_rows(connection, _INSTANCES, 9, rows)
    if changes.instance_ends:
        execute_rows(connection, _INSTANCE_ENDS, 4, map(_end, changes.instance_ends))
    _write_the_rare(connection, changes)


def _write_the_rare(connection: sqlite3.Connection, changes: Changes) -> None:
    many = connection.executemany
    if changes.names or changes.labels:
        write_marks(connection, changes.names, changes.labels)
    if changes.functions:
        many(_FUNCTIONS, summed(map(_function, changes.functions)))
    if changes.progress:
        many(_PROGRESS, progress_rows(changes.progress))
    if changes.large:
        many(_LARGE, summed(changes.large))
    if changes.keys:
        many(_KEYS, summed(changes.keys))
    if changes.eager_attempts:
        many(
            _EAGER_ATTEMPTS,
            summed((a, node, parent, int(eager_state)) for a, node, parent, eager_state in changes.eager_attempts),
        )
    if changes.eager_blocks:
        many(_EAGER_BLOCKS, summed(changes.eager_blocks))
    if changes.traces:
        many(_TRACES, summed(changes.traces))
    if changes.rebound:
        write_rebound(connection, changes.rebindings, changes.rebound)
    if changes.used_failures:
        many(_USED_FAILURES, summed(changes.used_failures))
    if changes.workers_joined:
        many(_JOINED, summed(changes.workers_joined))
    if changes.workers_left:
        many(_LEFT, ((worker,) for worker in changes.workers_left))
    if changes.worker_names:
        many(_WORKER_NAMES, summed(changes.worker_names))
        connection.execute(_FORGET_WORKER_NAMES, (REMEMBERED,))
    if changes.resumed:
        many("DELETE FROM paused_queues WHERE queue = ?", ((queue,) for queue in changes.resumed))
    if changes.paused:
        many(_PAUSED, summed((queue, float(since), by) for queue, since, by in changes.paused))
    if changes.actions:
        write_actions(connection, changes.actions)
    if changes.links:
        link(connection, changes.links)
    if changes.removed:
        remove(connection, changes.removed)
    if changes.functions_gone:
        drop_functions(connection, changes.functions_gone)
    if changes.drafts:
        drafts.begin(connection, changes.drafts)
    if changes.given_up:
        drafts.give_up(connection, changes.given_up)
    if changes.drafts_over:
        drafts.end(connection, changes.drafts_over)


def _revive(connection: sqlite3.Connection, revived: Sequence[RetriedRow]) -> None:
    """Delete the outcomes of nodes that are retried. Raise IntegrityError if one has no outcome."""
    again = [(row.key,) for row in revived if row.state != State.RESOLVING]
    for table in ("resolved", "used_failures"):
        connection.executemany(f"DELETE FROM {table} WHERE key = ?", again)
    gone = connection.executemany("DELETE FROM outcomes WHERE key = ?", again).rowcount if again else 0
    if gone != len(again):
        raise sqlite3.IntegrityError("a node that is retried has no row in table outcomes")
    for row in revived:
        if row.state == State.RESOLVING and not _resolves_again(connection, row.key):
            raise sqlite3.IntegrityError("a node whose value is resolved again has not ended with a value")


def _resolves_again(connection: sqlite3.Connection, key: int) -> bool:
    """Make a node that ended with a value RESOLVING again; return whether it had one."""
    if connection.execute("DELETE FROM resolved WHERE key = ?", (key,)).rowcount:
        return True
    # Its promises had all ended when it completed, so its outcome itself says COMPLETED.
    for chk, *row in connection.execute(_COMPLETED, (key, int(State.COMPLETED))).fetchall():
        head = outcome_sum(key, int(State.RESOLVING), *row)
        changed = int(State.RESOLVING), head << 32 | chk & 0xFFFFFFFF, key
        connection.execute("UPDATE outcomes SET state = ?, chk = ? WHERE key = ?", changed)
        return True
    return False


def _end(end: InstanceEnd) -> tuple[SqlValue, ...]:
    ended, failed = None if end.ended is None else float(end.ended), int(end.failed)
    return end.key, ended, failed, row_sum((end.key, ended, failed))


def _function(row: FunctionRow) -> tuple[SqlValue, ...]:
    function = row.function
    who = (row.id, function.name, function.hash, function.queue, function.taint)
    return (*who, *_retry(function.retry), int(function.is_async), int(function.protocol), pack_options(function))


def _retry(retry: RetryPolicy | None) -> tuple[SqlValue, ...]:
    if retry is None:
        return (None,) * 5
    return retry.max_attempts, float(retry.interval), float(retry.base), float(retry.max_interval), float(retry.jitter)
