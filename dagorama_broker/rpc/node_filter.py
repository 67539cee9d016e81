"""Which nodes a ListNodes request asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.domain import State
from dagorama_broker.model.queries import StoredNode
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.rpc.fields import check_name
from dagorama_broker.rpc.node_info import SeenNode, last_failure, state_of
from dagorama_broker.scheduler import Node

#: States that one request may name, counting repetitions.
MOST_STATES = 100


class NodeFilter(NamedTuple):
    """The nodes that are listed."""

    states: frozenset[State]
    function: str = ""  #: empty: any
    error: str = ""  #: in the type or message of their failure; empty: any
    worker: str = ""  #: the name of the one that holds them, or ran them last; empty: any
    microseconds: int = 0  #: the least that their last attempt took, or has taken until now
    failed_attempts: int = 0  #: the fewest


def filter_of(request: pb.ListNodesRequest) -> NodeFilter:
    """Return the filter of a request. Raise InvalidArgument."""
    if len(request.states) > MOST_STATES:
        raise InvalidArgument(f"the request names {len(request.states)} states; {MOST_STATES} are allowed")
    if any(state not in pb.NodeState.values() for state in request.states):
        raise InvalidArgument("the request names an unknown state")
    states = frozenset(map(State, request.states)) or frozenset(State)
    return NodeFilter(
        states & {State.FAILED} if request.error else states,
        check_name(request.function, "the name of a function"),
        check_name(request.error, "the text of an error"),
        check_name(request.worker, "the name of a worker"),
        request.min_microseconds,
        request.min_failed_attempts,
    )


class NodeSieve:
    """Finds the wanted ones among nodes."""

    def __init__(self, broker: Broker, wanted: NodeFilter) -> None:
        self._broker = broker
        self._wanted = wanted
        self._workers: dict[int, str] = {}  # names, by number

    async def look_up_workers(self, nodes: Iterable[StoredNode]) -> None:
        """Look up the names of the workers that ran these nodes, if the filter needs them; call it before `find`."""
        numbers = {node.outcome.worker for node in nodes if node.outcome is not None} - {0} - self._workers.keys()
        if self._wanted.worker and numbers:
            self._workers |= await self._broker.commits.in_view(self._broker.store.view.worker_names, numbers)

    def find(self, node: StoredNode) -> SeenNode | None:
        """Return a node, which is in memory or has an outcome, with its present state; None: it is not wanted."""
        wanted, state = self._wanted, state_of(self._broker, node)
        name = self._broker.scheduler.function_queues[node.function].function.name
        if state not in wanted.states or wanted.function not in ("", name):
            return None
        live = self._broker.scheduler.nodes.get(node.key)
        is_wanted = (
            (not wanted.worker or self._worker(node, live) == wanted.worker)
            and (not wanted.microseconds or self._microseconds(node, live) >= wanted.microseconds)
            and (not wanted.failed_attempts or _failed_attempts(node, live) >= wanted.failed_attempts)
        )
        return SeenNode(node, state) if is_wanted else None

    def _worker(self, node: StoredNode, live: Node | None) -> str:
        if live is not None and live.slot is not None:
            return live.slot.worker.info.name
        if live is not None and (failure := last_failure(live)) is not None:
            return failure.worker
        outcome = _result(node, live)
        return self._workers.get(outcome.worker, "") if outcome is not None else ""

    def _microseconds(self, node: StoredNode, live: Node | None) -> int:
        scheduler = self._broker.scheduler
        if live is not None and (since := scheduler.running_since(live)):
            return int((scheduler.now + scheduler.wall - since) * 1_000_000)
        if live is not None and (failure := last_failure(live)) is not None:
            return failure.microseconds
        outcome = _result(node, live)
        return outcome.microseconds if outcome is not None else 0


def _result(node: StoredNode, live: Node | None) -> OutcomeRow | None:
    """Return the outcome of the last attempt; None: there is none, or the node runs again."""
    return node.outcome if live is None or live.state is State.RESOLVING else None


def _failed_attempts(node: StoredNode, live: Node | None) -> int:
    trouble = node.progress if live is None else live.failures
    return 0 if trouble is None else trouble.failed_attempts
