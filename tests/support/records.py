"""Records that the store's tests keep: a small graph, and how its parts are made."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from struct import pack

from dagorama_broker.model.domain import EagerState, Function, Rate, RetryPolicy, SharedLimit, State, WireProtocol
from dagorama_broker.model.rows import Changes, FunctionRow, InstanceRow, NodeBlockRow, NodeRow, OutcomeRow
from dagorama_broker.store import Store
from dagorama_broker.store.sqlite.store import SqliteStore

ORIGIN = b"origin-of-12"
PLAIN = Function("work:Plain.step", "hash-1", "default")
RICH = Function(
    "work:Rich.step", "hash-2", "heavy", "GPU", RetryPolicy(3, 0.5, 2.0, 60.0, 0.25), True, WireProtocol.LEGACY,
    max_concurrency=3, rate=Rate(5, 0.5), rate_by_key=True, concurrency_of_all=True,
    limit=SharedLimit("api", Rate(500, 60.0), 20),
)  # fmt: skip


def begun(store: Store) -> int:
    """Open it and take it; the new epoch."""
    store.open()
    return store.take()


def restart(store: Store) -> int:
    """Close it and open it again; the new epoch."""
    store.close()
    return begun(store)


@contextmanager
def opened(path: Path, busy: float = 0.0, together: float = 0.0) -> Iterator[SqliteStore]:
    """A store that is open; each commit is counted unless some are counted `together`."""
    store = SqliteStore(path, busy, together)
    begun(store)
    try:
        yield store
    finally:
        store.close()


def keys(*numbers: int) -> bytes:
    return pack(f"<{len(numbers)}q", *numbers)


def node_id(counter: int, origin: bytes = ORIGIN) -> bytes:
    return origin + counter.to_bytes(4, "big")


def instance_row(key: int = 1) -> InstanceRow:
    return InstanceRow(key, key.to_bytes(16, "big"), "work:Plain", node_id(0), 1700000000.5)


def run_row(first: int, size: int, first_key: int, instance: int = 1, origin: bytes = ORIGIN) -> NodeBlockRow:
    return NodeBlockRow(origin, first, size, first_key, instance, b"digest", 0, 1700000000_500000 + first_key)


def node(key: int, *sources: int, instance: int = 1, function: int = 1) -> NodeRow:
    return NodeRow(key, instance, function, keys(*sources), b"arguments of %d" % key)


def completed(key: int, *refs: int, state: State = State.COMPLETED) -> OutcomeRow:
    return OutcomeRow(
        key, int(state), (1 << 40) + key, keys(*refs), b"value of %d" % key, 0, None, 1700000001.25, 250 + key, 1
    )


def failed(key: int, root_cause: int = 0) -> OutcomeRow:
    failure = None if root_cause else b"failure of %d" % key
    return OutcomeRow(
        key, int(State.FAILED), (1 << 40) + key, b"", None, root_cause or key, failure, 1700000002.25, 750, 2
    )


def graph(*nodes: NodeRow, instance: int = 1, origin: bytes = ORIGIN) -> Changes:
    """An instance whose nodes are these, in one run."""
    changes = Changes()
    changes.functions = [FunctionRow(1, PLAIN)] if instance == 1 else []
    changes.instances = [instance_row(instance)]
    changes.blocks = [run_row(0, len(nodes), nodes[0].key, instance, origin)]
    changes.nodes = list(nodes)
    return changes


def dead(store: Store, keys: Sequence[int]) -> set[int]:
    """The nodes among these that an aborted eager attempt created."""
    return {key for key, eager_state in store.eager_states(keys).items() if eager_state is EagerState.ABORTED}
