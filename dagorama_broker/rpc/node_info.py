"""Nodes as NodeInfo messages: their state, their failure counts, and why they have not ended or how they failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.model.domain import ENDED, Failure, Fate, State
from dagorama_broker.model.queries import StoredNode
from dagorama_broker.model.rows import OutcomeRow, unpack_keys
from dagorama_broker.rpc.explain import LONGEST_REASON
from dagorama_broker.rpc.fields import bounded
from dagorama_broker.rpc.functions import function_message
from dagorama_broker.scheduler import Lane, Node

#: Sources that are listed for a node.
SOURCES = 100


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
    """Writes NodeInfo messages; what several nodes share is looked up once."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._scheduler = broker.scheduler
        self._ids: dict[int, bytes] = {}
        self._fates: dict[int, Fate] = {}  #: of the eager attempts that created some of the nodes
        self._failures: dict[int, str] = {}  #: by culprit
        self._why_nobody: dict[int, str] = {}  #: by lane

    async def infos(self, nodes: Sequence[SeenNode]) -> list[pb.NodeInfo]:
        """Return the messages for these nodes."""
        await self._look_up_ids(seen.node for seen in nodes)
        keys = [seen.node.key for seen in nodes]
        self._fates = await self._broker.commits.in_store(self._broker.store.fates_of, keys)
        return [await self._info(seen) for seen in nodes]

    async def _look_up_ids(self, nodes: Iterable[StoredNode]) -> None:
        keys = {key for node in nodes for key in (node.key, *_sources(node), _culprit(node)) if key}
        self._ids = await self._broker.commits.in_store(self._broker.store.ids, list(keys))

    async def _info(self, seen: SeenNode) -> pb.NodeInfo:
        node, state = seen
        live = self._scheduler.nodes.get(node.key)
        lane = self._scheduler.function_queues[node.function]
        info = pb.NodeInfo(
            node=self._ids[node.key], function=function_message(lane.function),
            state=pb.NodeState.ValueType(state),
            sources=[self._ids[key] for key in _sources(node)],
            dead_attempt=self._fates.get(node.key) is Fate.DEAD, used_failure=node.used_failure,
        )
        if live is not None and live.state is state:
            self._add_live(info, live)
        elif node.outcome is not None and state in ENDED:
            await self._add_ended(info, node, node.outcome)
        return info

    def _add_live(self, info: pb.NodeInfo, node: Node) -> None:
        if node.slot is not None:
            info.worker = node.slot.worker.presence.name
        trouble = node.trouble
        if trouble is not None:
            info.runs, info.deaths, info.lost = trouble.runs, trouble.deaths, trouble.lost
            info.reason = _headline(trouble.failure)
            if node.state is State.BACKOFF:
                info.retry_at = trouble.retry_at + self._scheduler.wall
        if node.state is State.QUEUED and (why := self._nobody(node.lane)):
            info.reason = why

    def _nobody(self, lane: Lane) -> str:
        why = self._why_nobody.get(lane.id)
        if why is None:
            found = self._broker.scheduler.why_nobody(lane) or ""
            why = self._why_nobody[lane.id] = bounded(found, LONGEST_REASON)
        return why

    async def _add_ended(self, info: pb.NodeInfo, node: StoredNode, outcome: OutcomeRow) -> None:
        if node.progress is not None:
            info.runs, info.deaths, info.lost = node.progress.runs, node.progress.deaths, node.progress.lost
        info.ended = outcome.ended
        if outcome.culprit:
            info.culprit = self._ids[outcome.culprit] if outcome.culprit != node.key else b""
            info.reason = await self._failure(outcome.culprit)

    async def _failure(self, culprit: int) -> str:
        known = self._failures.get(culprit)
        if known is None:
            outcome = await self._broker.lookups.outcome(culprit)
            known = self._failures[culprit] = _headline(outcome.failure if outcome is not None else None)
        return known


def _sources(node: StoredNode) -> list[int]:
    return [abs(key) for key in unpack_keys(node.sources[: 8 * SOURCES])]


def _culprit(node: StoredNode) -> int:
    return node.outcome.culprit if node.outcome is not None else 0


def _headline(packed: bytes | None) -> str:
    if packed is None:
        return ""
    failure = Failure.unpacked(packed)
    text = ": ".join(part for part in (failure.type.removeprefix("builtins."), failure.message) if part)
    return bounded(text, LONGEST_REASON)
