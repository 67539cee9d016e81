"""Nodes as NodeInfo messages: their state, their failure counts, and why they have not ended or how they failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.domain import ENDED, EagerState, Failure, State, unpack_keys
from dagorama_broker.model.queries import NodePlace, StoredNode
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.model.signals import WaitRow
from dagorama_broker.rpc.aggregates import node_name
from dagorama_broker.rpc.failures import headline
from dagorama_broker.rpc.fields import LONGEST_REASON, bounded
from dagorama_broker.rpc.functions import function_message
from dagorama_broker.rpc.logs import report_message
from dagorama_broker.rpc.signals import signal_message, stored_waits
from dagorama_broker.scheduler import FunctionQueue, Node

#: Sources that are listed for a node.
SOURCES = 100
#: Bytes of a packed key.
KEY_BYTES = 8


class SeenNode(NamedTuple):
    """A node and its state at one moment; the node may end before it is described."""

    node: StoredNode
    state: State


def state_of(broker: Broker, node: StoredNode) -> State:
    """Return the current state of a node that is in memory or has an outcome."""
    live = broker.scheduler.nodes.get(node.key)
    if live is not None:
        return live.state
    assert node.outcome is not None
    return State(node.outcome.state)


class NodeInfos:
    """Writes NodeInfo messages; facts that several nodes share are looked up once."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._scheduler = broker.scheduler
        self._ids: dict[int, bytes] = {}
        self._eager_states: dict[int, EagerState] = {}  #: of the eager attempts that created some of the nodes
        self._failures: dict[int, str] = {}  #: by root cause
        self._why_nobody: dict[int, str] = {}  #: by queue
        self._workers: dict[int, str] = {}  #: names, by number
        self._ordinals: dict[int, int] = {}
        self._cached: dict[int, NodePlace] = {}  #: the nodes that have the values of some of the nodes
        self._waits: dict[int, WaitRow] = {}

    async def infos(self, nodes: Sequence[SeenNode]) -> list[pb.NodeInfo]:
        """Return the messages for these nodes."""
        await self._look_up_ids(seen.node for seen in nodes)
        keys = [seen.node.key for seen in nodes]
        in_view, view = self._broker.commits.in_view, self._broker.store.view
        self._eager_states = await in_view(view.eager_states, keys)
        self._ordinals = await in_view(view.ordinals, keys)
        self._cached = await self._look_up_cached([seen.node for seen in nodes])
        self._waits = await stored_waits(self._broker, [seen.node for seen in nodes])
        ran_by = {seen.node.outcome.worker for seen in nodes if seen.node.outcome is not None} - {0}
        self._workers = await in_view(view.worker_names, ran_by) if ran_by else {}
        return [await self._info(seen) for seen in nodes]

    async def _look_up_ids(self, nodes: Iterable[StoredNode]) -> None:
        keys = {key for node in nodes for key in (node.key, node.creator, *_sources(node), _root_cause(node)) if key}
        self._ids = await self._broker.commits.in_view(self._broker.store.view.ids, list(keys))

    async def _look_up_cached(self, nodes: Sequence[StoredNode]) -> dict[int, NodePlace]:
        """Return the nodes whose cached values some nodes have, by the keys of these.

        Such a value is a promise of a node of the same function that the node has not created itself.
        """
        queues, named = self._scheduler.function_queues, dict[int, int]()
        for node in nodes:
            refs = node.outcome.refs if node.outcome is not None else b""
            if queues[node.function].caches and len(refs) == KEY_BYTES:
                named[node.key] = unpack_keys(refs)[0]
        if not named:
            return {}
        in_view, view = self._broker.commits.in_view, self._broker.store.view
        found = await in_view(view.described, list(set(named.values())))
        places = await in_view(view.places, set(named.values()))
        name_of = {node.key: queues[node.function].function.name for node in nodes}
        return {
            key: places[other]
            for key, other in named.items()
            if found[other].creator != key and queues[found[other].function].function.name == name_of[key]
        }

    async def _info(self, seen: SeenNode) -> pb.NodeInfo:
        node, state = seen
        live = self._scheduler.nodes.get(node.key)
        queue = self._scheduler.function_queues[node.function]
        info = pb.NodeInfo(
            node=self._ids[node.key],
            function=function_message(queue.function),
            state=pb.NodeState.ValueType(state),
            sources=[self._ids[key] for key in _sources(node)],
            from_aborted_attempt=self._eager_states.get(node.key) is EagerState.ABORTED,
            used_failure=node.used_failure,
            created=node.created / 1_000_000,
            creator=self._ids[node.creator] if node.creator else b"",
            ordinal=self._ordinals[node.key],
        )
        if (cached := self._cached.get(node.key)) is not None:
            info.cached.CopyFrom(node_name(cached))
        if (wait := live.wait if live is not None else self._waits.get(node.key)) is not None:
            info.signal.CopyFrom(signal_message(wait))
        if live is not None and live.state is state:
            self._add_live(info, live)
            if state is State.RESOLVING and node.outcome is not None:
                self._add_run(info, node.outcome)
        elif node.outcome is not None and state in ENDED:
            await self._add_ended(info, node, node.outcome)
        return info

    def _add_live(self, info: pb.NodeInfo, node: Node) -> None:
        if node.slot is not None:
            info.worker = node.slot.worker.info.name
            info.started = self._scheduler.running_since(node)
            if (report := self._broker.reports.of_node(node)) is not None:
                info.report.CopyFrom(report_message(report))
        if node.delay is not None:
            info.delay, info.not_before = node.delay
        trouble = node.failures
        if trouble is not None:
            info.failed_attempts, info.crashes, info.worker_losses = (
                trouble.failed_attempts,
                trouble.crashes,
                trouble.worker_losses,
            )
            failure = None if trouble.failure is None else Failure.unpacked(trouble.failure)
            info.reason = "" if failure is None else headline(failure)
            if failure is not None and _failed_last(node):
                info.worker, info.microseconds = failure.worker, failure.microseconds
                info.started = failure.ended - failure.microseconds / 1_000_000 if failure.microseconds else 0.0
            if node.state is State.BACKOFF:
                info.retry_at = trouble.retry_at + self._scheduler.wall
        if node.state is State.QUEUED and (why := self._nobody(node.queue)):
            info.reason = why

    def _nobody(self, queue: FunctionQueue) -> str:
        why = self._why_nobody.get(queue.id)
        if why is None:
            found = self._broker.scheduler.unschedulable_reason(queue) or ""
            why = self._why_nobody[queue.id] = bounded(found, LONGEST_REASON)
        return why

    async def _add_ended(self, info: pb.NodeInfo, node: StoredNode, outcome: OutcomeRow) -> None:
        if node.progress is not None:
            info.failed_attempts, info.crashes, info.worker_losses = (
                node.progress.failed_attempts,
                node.progress.crashes,
                node.progress.worker_losses,
            )
        info.ended = outcome.ended
        self._add_run(info, outcome)
        if outcome.root_cause:
            info.root_cause = self._ids[outcome.root_cause] if outcome.root_cause != node.key else b""
            info.reason = await self._failure(outcome.root_cause)

    def _add_run(self, info: pb.NodeInfo, outcome: OutcomeRow) -> None:
        """Add which worker ran the last attempt, and when, of a node that has ended or resolves."""
        info.worker = self._workers.get(outcome.worker, "")
        info.microseconds = outcome.microseconds
        if outcome.microseconds:
            info.started = (outcome.returned or outcome.ended) - outcome.microseconds / 1_000_000

    async def _failure(self, root_cause: int) -> str:
        known = self._failures.get(root_cause)
        if known is None:
            outcome = await self._broker.lookups.outcome(root_cause)
            known = self._failures[root_cause] = _headline(outcome.failure if outcome is not None else None)
        return known


def last_failure(node: Node) -> Failure | None:
    """Return how the last attempt of a node failed that no worker holds now; None: there was none, or it did not."""
    trouble = node.failures
    if trouble is None or trouble.failure is None or not _failed_last(node):
        return None
    return Failure.unpacked(trouble.failure)


def _failed_last(node: Node) -> bool:
    """Return whether the latest attempt is the failed one: no worker holds the node, and none has returned promises."""
    return node.slot is None and node.state is not State.RESOLVING


def _sources(node: StoredNode) -> list[int]:
    return [abs(key) for key in unpack_keys(node.sources[: 8 * SOURCES])]


def _root_cause(node: StoredNode) -> int:
    return node.outcome.root_cause if node.outcome is not None else 0


def _headline(packed: bytes | None) -> str:
    return "" if packed is None else headline(Failure.unpacked(packed))
