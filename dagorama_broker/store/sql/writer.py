"""Writes rows of the tables that get few: every database writes these, and what a retry deletes, in the same way."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import RetryPolicy, State
from dagorama_broker.model.rows import Changes, FunctionRow, InstanceEnd, RetriedRow
from dagorama_broker.store.checksums import SqlValue, outcome_sum, pack_options, progress_rows, row_sum, summed
from dagorama_broker.store.protocol import REMEMBERED
from dagorama_broker.store.sql import drafts
from dagorama_broker.store.sql.actions import write_actions
from dagorama_broker.store.sql.cached import write_cached
from dagorama_broker.store.sql.connection import Connection, upsert
from dagorama_broker.store.sql.marks import write_hooks, write_marks, write_turns
from dagorama_broker.store.sql.pauses import write_pauses
from dagorama_broker.store.sql.rebinds import write_rebound
from dagorama_broker.store.sql.retention import drop_functions, link, remove
from dagorama_broker.store.sql.schedules import write_schedules
from dagorama_broker.store.sql.signals import write_signals

_FUNCTIONS = (
    "INSERT INTO functions (id, name, hash, queue, taint, max_attempts, retry_interval, retry_base,"
    " retry_max_interval, retry_jitter, is_async, protocol, options, chk)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
#: The columns of the largest tables, in the order of their rows.
NODE_COLUMNS = ("key", "chk", "instance", "function", "sources", "arguments")
OUTCOME_COLUMNS = (
    "key", "chk", "state", "attempt", "root_cause", "ended", "microseconds", "worker", "refs", "value", "failure",
)  # fmt: skip
INSTANCE_COLUMNS = ("key", "id", "definition", "entry", "created", "priority", "chk", "ended", "failed", "end_chk")
#: The columns of `progress` after its key.
PROGRESS_COLUMNS = (
    "failed_attempts", "crashes", "worker_losses", "retry_at", "failure", "pause", "attempt", "lost_attempt", "chk",
)  # fmt: skip
_PROGRESS = upsert("progress", "key", PROGRESS_COLUMNS)
_LARGE = "INSERT INTO large_refs (key, sha256, chk) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_DELAYS = "INSERT INTO node_delays (key, seconds, until, chk) VALUES (?, ?, ?, ?)"
_KEYS = "INSERT INTO node_keys (key, concurrency_key, chk) VALUES (?, ?, ?)"
_EAGER_ATTEMPTS = upsert("eager_attempts", "attempt", ("node", "parent", "eager_state", "chk"))
_EAGER_BLOCKS = "INSERT INTO eager_blocks (first_key, attempt, chk) VALUES (?, ?, ?)"
_TRACES = "INSERT INTO block_traces (first_key, trace, chk) VALUES (?, ?, ?)"
_USED_FAILURES = upsert("used_failures", "key", ("instance", "chk"))
_JOINED = upsert("workers", "id", ("name", "chk"))
_LEFT = "DELETE FROM workers WHERE id = ?"
_COMPLETED = (
    "SELECT chk, attempt, root_cause, ended, microseconds, worker, refs FROM outcomes WHERE key = ? AND state = ?"
)
_WORKER_NAMES = "INSERT INTO worker_names (number, name, chk) VALUES (?, ?, ?)"
_FORGET_WORKER_NAMES = "DELETE FROM worker_names WHERE number <= (SELECT max(number) FROM worker_names) - ?"


def write_the_rare(connection: Connection, changes: Changes) -> None:
    """Write all changes that are neither new nodes, blocks and instances, nor their results. Call it in a transaction.

    The database raises an error if a row that may exist only once is already there.
    """
    many = connection.executemany
    if changes.names or changes.labels:
        write_marks(connection, changes.names, changes.labels)
    if changes.turns:
        write_turns(connection, changes.turns)
    if changes.functions:
        many(_FUNCTIONS, summed(map(_function, changes.functions)))
    if changes.progress:
        many(_PROGRESS, progress_rows(changes.progress))
    _write_besides(connection, changes)
    if changes.waits or changes.signals or changes.signals_gone:
        write_signals(connection, changes)
    if changes.rebound:
        write_rebound(connection, changes.rebindings, changes.rebound)
    _write_workers(connection, changes)
    write_pauses(connection, changes)
    if changes.actions:
        write_actions(connection, changes.actions)
    if changes.schedules or changes.schedules_gone:
        write_schedules(connection, changes.schedules, changes.schedules_gone)
    if changes.cached or changes.uncached:
        write_cached(connection, changes.uncached, changes.cached)
    if changes.hooks:
        write_hooks(connection, changes.hooks)
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


def _write_besides(connection: Connection, changes: Changes) -> None:
    """Write the tables in which few nodes and blocks have rows."""
    many = connection.executemany
    if changes.large:
        many(_LARGE, summed(changes.large))
    if changes.keys:
        many(_KEYS, summed(changes.keys))
    if changes.delays:
        many(_DELAYS, summed(changes.delays))
    if changes.eager_attempts:
        many(
            _EAGER_ATTEMPTS,
            summed((a, node, parent, int(eager_state)) for a, node, parent, eager_state in changes.eager_attempts),
        )
    if changes.eager_blocks:
        many(_EAGER_BLOCKS, summed(changes.eager_blocks))
    if changes.traces:
        many(_TRACES, summed(changes.traces))
    if changes.used_failures:
        many(_USED_FAILURES, summed(changes.used_failures))


def _write_workers(connection: Connection, changes: Changes) -> None:
    many = connection.executemany
    if changes.workers_joined:
        many(_JOINED, summed(changes.workers_joined))
    if changes.workers_left:
        many(_LEFT, ((worker,) for worker in changes.workers_left))
    if changes.worker_names:
        many(_WORKER_NAMES, summed(changes.worker_names))
        connection.execute(_FORGET_WORKER_NAMES, (REMEMBERED,))


def revive(connection: Connection, revived: Sequence[RetriedRow]) -> None:
    """Delete the outcomes of nodes that are retried. Raise StoreError if one has no outcome."""
    again = [(row.key,) for row in revived if row.state != State.RESOLVING]
    for table in ("resolved", "used_failures"):
        connection.executemany(f"DELETE FROM {table} WHERE key = ?", again)
    gone = connection.executemany("DELETE FROM outcomes WHERE key = ?", again).rowcount if again else 0
    if gone != len(again):
        raise StoreError("a node that is retried has no row in table outcomes")
    for row in revived:
        if row.state == State.RESOLVING and not _resolves_again(connection, row.key):
            raise StoreError("a node whose value is resolved again has not ended with a value")


def _resolves_again(connection: Connection, key: int) -> bool:
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


def end_row(end: InstanceEnd) -> tuple[SqlValue, ...]:
    """Return the row of an end: key, time, whether a node failed, and the checksum."""
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
