"""What a person asks to see of instances and nodes. What has ended is read from the store, page by page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeVar

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import Malformed
from dagorama_broker.model.domain import ENDED, Failure, Fate, State
from dagorama_broker.model.queries import AskedInstances, StoredInstance, StoredNode
from dagorama_broker.model.rows import OutcomeRow, unpack_keys
from dagorama_broker.rpc.explain import LONGEST_REASON, in_a_line
from dagorama_broker.rpc.failures import failure_message
from dagorama_broker.rpc.fields import PIECE, bounded
from dagorama_broker.rpc.functions import function_message
from dagorama_broker.scheduler import Explainer, Lane, Node

#: How many instances or nodes a page has, unless it is asked for fewer or more; and how many at most.
PAGE, LARGEST_PAGE = 100, 1_000
#: Nodes that a page looks at, where few of them are in the states that are asked for.
LOOKED_AT = 10_000
#: States that one call may name, some of them twice.
MOST_STATES = 100
Info = TypeVar("Info", pb.InstanceInfo, pb.NodeInfo)

SOURCES = 100  #: that are named of a node
_LAST = (1 << 63) - 1
_BAD = frozenset({State.FAILED, State.CANCELLED})


def _page(limit: int) -> int:
    return min(limit or PAGE, LARGEST_PAGE)


# --- instances ------------------------------------------------------------------------------------------


async def instance_info(broker: Broker, id: bytes) -> pb.InstanceInfo:
    """Raises NotKnown."""
    with broker.lookups.holds.on(id):
        return await _info(broker, await broker.lookups.stored_instance(id), broker.scheduler.explainer())


async def list_instances(broker: Broker, request: pb.ListInstancesRequest) -> pb.ListInstancesReply:
    before = min(request.before, _LAST) or _LAST
    asked = AskedInstances(before, _page(request.limit), request.unfinished, request.failed, request.definition)
    await broker.commits.durable()
    found = await broker.commits.in_store(broker.store.list_instances, asked)
    explainer = broker.scheduler.explainer()
    infos = [await _info(broker, stored, explainer) for stored in found.instances]
    fitting = _fitting(infos)
    more = found.more if len(fitting) == len(infos) else found.instances[len(fitting) - 1].row.key
    return pb.ListInstancesReply(instances=fitting, more=more)


async def _info(broker: Broker, stored: StoredInstance, explainer: Explainer) -> pb.InstanceInfo:
    row = stored.row
    live = broker.scheduler.instance(row.id)
    return pb.InstanceInfo(
        instance=row.id, definition=row.definition, entry=row.entry, created=row.created,
        entry_state=pb.NodeState.ValueType(await _state_of(broker, row.entry)), ended=stored.ended is not None,
        failed=stored.failed, unfinished=live.live if live is not None else 0, ended_at=stored.ended or 0.0,
        nodes=await broker.commits.in_store(broker.store.size_of, row.key),
        stuck=in_a_line(standing) if live is not None and (standing := explainer.stuck(live)) is not None else "",
        used_failures=len(await broker.commits.in_store(broker.store.used_failures, row.key)),
    )


async def _state_of(broker: Broker, id: bytes) -> State:
    node = broker.scheduler.node(id)
    if node is None:
        node = (await broker.lookups.find_ended([id])).get(id)
    return State.WAITING if node is None else node.state


# --- nodes ----------------------------------------------------------------------------------------------


async def list_nodes(broker: Broker, instance: bytes, request: pb.ListNodesRequest) -> pb.ListNodesReply:
    """Raises NotKnown or Malformed."""
    if len(request.states) > MOST_STATES:
        raise Malformed(f"{len(request.states)} states are named; {MOST_STATES} are allowed")
    if any(state not in pb.NodeState.values() for state in request.states):
        raise Malformed("there is no such state")
    states = frozenset(map(State, request.states)) or frozenset(State)
    with broker.lookups.holds.on(instance):
        return await _nodes_page(broker, instance, states, request)


async def _nodes_page(
    broker: Broker, instance: bytes, states: Collection[State], request: pb.ListNodesRequest
) -> pb.ListNodesReply:
    key = (await broker.lookups.stored_instance(instance)).row.key
    found, last, is_all = await _in_states(broker, key, states, min(request.after, _LAST), _page(request.limit))
    fitting = _fitting(await _Described(broker).infos(found))
    if len(fitting) < len(found):
        last, is_all = found[len(fitting) - 1].node.key, False
    return pb.ListNodesReply(nodes=fitting, more=0 if is_all else last)


class _Seen(NamedTuple):
    """A node and its state at one moment; it may have ended by the time that it is described."""

    node: StoredNode
    state: State


async def _in_states(
    broker: Broker, instance: int, states: Collection[State], after: int, limit: int
) -> tuple[list[_Seen], int, bool]:
    """Nodes after that key which are in these states, the last key that was looked at, and whether it is the last."""
    found: list[_Seen] = []
    for _ in range(0, LOOKED_AT, LARGEST_PAGE):
        keys = await _keys(broker, instance, states, after)
        for node in await _read(broker, keys):
            if len(found) == limit:
                return found, after, False
            after = node.key
            if (state := _state(broker, node)) in states:
                found.append(_Seen(node, state))
        if len(keys) < LARGEST_PAGE:
            return found, after, True
    return found, after, False


async def _keys(broker: Broker, instance: int, states: Collection[State], after: int) -> list[int]:
    """Up to a page of nodes that may be in these states; those that ended badly are found without looking at others."""
    if _BAD.issuperset(states):
        bad = await broker.commits.in_store(broker.store.bad_ends, instance, after, LARGEST_PAGE)
        return [end.key for end in bad]
    return await broker.commits.in_store(broker.store.node_keys, instance, after, LARGEST_PAGE)


async def _read(broker: Broker, keys: Sequence[int]) -> list[StoredNode]:
    """These nodes, each of which is in memory or has its outcome here until something is awaited."""
    found = await broker.commits.in_store(broker.store.described, keys)
    nodes = broker.scheduler.nodes
    while late := [key for key in keys if key not in nodes and not _has_ended(found[key])]:
        await broker.commits.durable()  # they have ended since
        found |= await broker.commits.in_store(broker.store.described, late)
    return [found[key] for key in keys]


def _has_ended(node: StoredNode) -> bool:
    return node.outcome is not None and node.outcome.state != State.RESOLVING


def _state(broker: Broker, node: StoredNode) -> State:
    live = broker.scheduler.nodes.get(node.key)
    if live is not None:
        return live.state
    assert node.outcome is not None
    return State(node.outcome.state)


class _Described:
    """Nodes as messages; what many of them share is looked up once."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._scheduler = broker.scheduler
        self._ids: dict[int, bytes] = {}
        self._fates: dict[int, Fate] = {}  #: of the eager attempts that made some of them
        self._failures: dict[int, str] = {}  #: by culprit
        self._why_nobody: dict[int, str] = {}  #: by lane

    async def infos(self, nodes: Sequence[_Seen]) -> list[pb.NodeInfo]:
        await self._look_up_ids(seen.node for seen in nodes)
        keys = [seen.node.key for seen in nodes]
        self._fates = await self._broker.commits.in_store(self._broker.store.fates_of, keys)
        return [await self._info(seen) for seen in nodes]

    async def _look_up_ids(self, nodes: Iterable[StoredNode]) -> None:
        keys = {key for node in nodes for key in (node.key, *_sources(node), _culprit(node)) if key}
        self._ids = await self._broker.commits.in_store(self._broker.store.ids, list(keys))

    async def _info(self, seen: _Seen) -> pb.NodeInfo:
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


async def node_details(broker: Broker, instance: bytes, id: bytes, arguments: bool) -> pb.NodeDetails:
    """All that is kept of one node; its `arguments` if they are asked for. Raises NotKnown or Malformed."""
    with broker.lookups.holds.on(instance):
        found = await broker.lookups.find_node(instance, id)
        (node,) = await _read(broker, [found.key])
        (info,) = await _Described(broker).infos([_Seen(node, _state(broker, node))])
        return await _details(broker, node, found.function, info, arguments)


async def _details(
    broker: Broker, node: StoredNode, function: int, info: pb.NodeInfo, arguments: bool
) -> pb.NodeDetails:
    envelope = (await broker.commits.in_store(broker.store.arguments, [node.key]))[node.key]
    outcome = await broker.lookups.outcome(node.key)
    value = outcome.value if outcome is not None else None
    lanes = broker.scheduler.function_queues
    return pb.NodeDetails(
        info=info, failure=await _own_failure(broker, node, outcome), argument_bytes=len(envelope),
        made_with=lanes[function].function.code if node.function != function else "",
        value_bytes=len(value or b""), arguments=envelope if arguments else b"",
    )


async def _own_failure(broker: Broker, node: StoredNode, outcome: OutcomeRow | None) -> pb.NodeFailure | None:
    """The failure that ended it, its own or its culprit's; else that of its last failed run."""
    culprit = outcome.culprit if outcome is not None and outcome.state != State.RESOLVING else 0
    if culprit not in (0, node.key):
        outcome = await broker.lookups.outcome(culprit)
    live = broker.scheduler.nodes.get(node.key)
    packed = outcome.failure if outcome is not None else None
    if live is not None:
        packed = live.trouble.failure if live.trouble is not None else None
    elif not culprit:
        packed = node.progress.failure if node.progress is not None else None
    if packed is None:
        return None
    key = culprit or node.key
    failure = Failure.unpacked(packed)._replace(exception=b"")
    return failure_message(failure, (await broker.commits.in_store(broker.store.ids, [key]))[key])


def without_tracebacks(details: pb.NodeDetails) -> pb.NodeDetails:
    """The same for readers, who get the last line of failures alone."""
    if details.HasField("failure"):
        details.failure.traceback = ""
        for earlier in details.failure.earlier:
            earlier.traceback = ""
    return details


def _fitting(infos: Sequence[Info]) -> list[Info]:
    """As many as go well into one message, and at least one."""
    sizes = accumulate(info.ByteSize() for info in infos)
    return [info for info, size in zip(infos, sizes, strict=True) if size <= PIECE or info is infos[0]]


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
