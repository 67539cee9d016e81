"""Reads for a starting broker: one pass over the unfinished instances, then what their nodes depend on."""

from __future__ import annotations

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import State
from dagorama_broker.model.queries import Live, LiveNode
from dagorama_broker.model.rows import NodeBlockRow, ProgressRow, ReboundRow
from dagorama_broker.store.checksums import check_row, checked_rows, damaged, node_sum, outcome_sum, unpack_sources
from dagorama_broker.store.sql.cached import read_cached
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.counters import next_key
from dagorama_broker.store.sql.eager import live_blocks, live_eager_attempts
from dagorama_broker.store.sql.listing import checked_delays
from dagorama_broker.store.sql.marks import live_turns, read_unfinished_hooks
from dagorama_broker.store.sql.pauses import read_key_pauses, read_paused_queues
from dagorama_broker.store.sql.reader import Reader
from dagorama_broker.store.sql.rebinds import checked, rebindings_of
from dagorama_broker.store.sql.schedules import read_schedules
from dagorama_broker.store.sql.signals import read_live_mail


def _of_unfinished(table: str, columns: str) -> str:
    """Return a query for the rows of a table of nodes, called `t`, whose instances have not ended."""
    # CROSS JOIN makes SQLite use this order of tables, so that it never reads what ended long ago.
    return (
        f"SELECT {columns} FROM instances i INDEXED BY unfinished_instances"
        " CROSS JOIN node_blocks r ON r.instance = i.key"
        f" CROSS JOIN {table} t ON t.key BETWEEN r.first_key AND r.first_key + r.size - 1 WHERE i.ended IS NULL"
    )


NODES_QUERY = _of_unfinished("nodes", "t.key, t.chk, t.instance, t.function, t.sources")
OUTCOMES_QUERY = _of_unfinished(
    "outcomes", "t.key, t.chk, t.state, t.attempt, t.root_cause, t.ended, t.microseconds, t.worker, t.refs"
)
PROGRESS_QUERY = _of_unfinished(
    "progress",
    "t.key, t.failed_attempts, t.crashes, t.worker_losses, t.retry_at, t.failure, t.pause, t.attempt, t.lost_attempt,"
    " t.chk",
)
KEYS_QUERY = _of_unfinished("node_keys", "t.key, t.concurrency_key, t.chk")
DELAYS_QUERY = _of_unfinished("node_delays", "t.key, t.seconds, t.until, t.chk")
REBOUND_QUERY = _of_unfinished("rebound_nodes", "t.key, t.function, t.rebinding, t.chk")
TRACES_QUERY = (
    "SELECT t.first_key, t.trace, t.chk FROM instances i INDEXED BY unfinished_instances"
    " CROSS JOIN node_blocks r ON r.instance = i.key CROSS JOIN block_traces t ON t.first_key = r.first_key"
    " WHERE i.ended IS NULL"
)


def read_live(reader: Reader) -> Live:
    """Return all nodes that have not ended and what they depend on. Raise StoreError if a row is damaged or missing."""
    connection = reader.connection
    blocks = list(reader.blocks("WHERE instance IN (SELECT key FROM instances WHERE ended IS NULL) ORDER BY first_key"))
    nodes, resolving = _unfinished(connection, blocks)
    still = {row.key for row in reader.outcome_heads(resolving.keys()) if row.state == State.RESOLVING}
    nodes += [resolving[key] for key in still]
    nodes.sort()
    sources = {key for node in nodes if node.sources for key in unpack_sources(node.sources)}
    ended = reader.ended_and_named(sources | still)
    unfinished = {node.instance for node in nodes}
    rebound = _rebound(connection, nodes)
    mail, next_signal = read_live_mail(connection)
    instances = [each for each in reader.instances("WHERE ended IS NULL ORDER BY key") if each.row.key in unfinished]
    return Live(
        functions=list(reader.functions()),
        instances=[stored.row for stored in instances],
        blocks=[block for block in blocks if block.instance in unfinished],
        nodes=nodes,
        ended=[ended[key] for key in sorted(ended)],
        progress=_progress(connection, nodes),
        keys=_keys(connection),
        delays=dict(checked_delays(connection.execute(DELAYS_QUERY))),
        rebound={row.key: row.function for row in rebound},
        workers=_workers(connection),
        failed={stored.row.key for stored in instances if stored.failed},
        next_node=next_key(connection, "nodes"),
        next_instance=next_key(connection, "instances"),
        next_function=next_key(connection, "functions", "id"),
        eager_attempts=live_eager_attempts(connection),
        eager_blocks=live_blocks(reader),
        rebindings=rebindings_of(reader, rebound),
        next_rebinding=next_key(connection, "rebindings", "id"),
        paused=read_paused_queues(connection),
        next_worker=next_key(connection, "worker_names", "number"),
        traces=_traces(connection),
        schedules=read_schedules(connection),
        cached=read_cached(connection),
        hooks=read_unfinished_hooks(connection),
        mail=mail,
        next_signal=next_signal,
        key_pauses=read_key_pauses(connection),
        turns={key: row for key, row in live_turns(connection).items() if key in unfinished},
    )


def _unfinished(connection: Connection, blocks: list[NodeBlockRow]) -> tuple[list[LiveNode], dict[int, LiveNode]]:
    """Return the nodes without an outcome, in order, and the nodes whose outcome was RESOLVING when they completed."""
    ended, waiting = _outcome_keys(connection)
    nodes: list[LiveNode] = []
    resolving: dict[int, LiveNode] = {}
    seen = 0
    for key, chk, instance, function, sources in connection.execute(NODES_QUERY):
        seen += 1
        if node_sum(key, instance, function, sources) != chk >> 32:
            raise damaged("nodes", key)
        if key in waiting:
            resolving[key] = LiveNode(key, instance, function, sources)
        elif key not in ended:
            nodes.append(LiveNode(key, instance, function, sources))
    expected = sum(block.size for block in blocks)
    if seen != expected:
        raise StoreError(f"table nodes is damaged: unfinished instances have {expected} nodes and {seen} are there")
    return nodes, resolving


def _outcome_keys(connection: Connection) -> tuple[set[int], set[int]]:
    """Return the keys of the nodes of unfinished instances that have ended, and of those with an outcome RESOLVING."""
    ended, resolving = set[int](), set[int]()
    for key, chk, *outcome in connection.execute(OUTCOMES_QUERY):
        if outcome_sum(key, *outcome) != chk >> 32:
            raise damaged("outcomes", key)
        (resolving if outcome[0] == State.RESOLVING else ended).add(key)
    return ended, resolving


def _progress(connection: Connection, nodes: list[LiveNode]) -> list[ProgressRow]:
    found = {row[0]: ProgressRow(*row) for row in checked_rows("progress", connection.execute(PROGRESS_QUERY))}
    return [found[node.key] for node in nodes if node.key in found] if found else []


def _keys(connection: Connection) -> dict[int, str]:
    keys = {}
    for key, concurrency_key, chk in connection.execute(KEYS_QUERY):
        check_row("node_keys", key, chk, (key, concurrency_key))
        keys[key] = concurrency_key
    return keys


def _traces(connection: Connection) -> dict[int, str]:
    traces = {}
    for first_key, trace, chk in connection.execute(TRACES_QUERY):
        check_row("block_traces", first_key, chk, (first_key, trace))
        traces[first_key] = trace
    return traces


def _rebound(connection: Connection, nodes: list[LiveNode]) -> list[ReboundRow]:
    rows = list(checked(connection.execute(REBOUND_QUERY)))
    unfinished = {node.key for node in nodes} if rows else set()
    return [row for row in rows if row.key in unfinished]


def _workers(connection: Connection) -> list[tuple[bytes, str]]:
    workers = []
    for id, name, chk in connection.execute("SELECT id, name, chk FROM workers"):
        check_row("workers", id, chk, (id, name))
        workers.append((id, name))
    return workers
