"""Answers to requests of people about instances and nodes, page by page. Ended nodes are read from the store."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.firings import fired_by
from dagorama_broker.model.domain import Failure, State, unpack_keys
from dagorama_broker.model.queries import InstanceQuery, StoredInstance, StoredNode
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.rpc.explain import in_a_line
from dagorama_broker.rpc.failures import failure_message
from dagorama_broker.rpc.fields import check_name, fitting, id_bytes
from dagorama_broker.rpc.marks import add_marks, check_user_id, labels_of
from dagorama_broker.rpc.node_filter import NodeFilter, NodeSieve, filter_of
from dagorama_broker.rpc.node_info import NodeInfos, SeenNode, state_of
from dagorama_broker.scheduler import Explainer

#: Instances or nodes on a page, unless the request says otherwise; and the most that it may request.
PAGE, LARGEST_PAGE = 100, 1_000
#: Nodes that are read for one page at most, if few of them are in the requested states.
LOOKED_AT = 10_000

_LAST = (1 << 63) - 1
_BAD = frozenset({State.FAILED, State.CANCELLED})


def _page(limit: int) -> int:
    return min(limit or PAGE, LARGEST_PAGE)


# --- instances ------------------------------------------------------------------------------------------


async def instance_info(broker: Broker, request: pb.GetInstanceRequest) -> pb.InstanceInfo:
    """Return an instance. Raise NotFound or InvalidArgument."""
    if request.name and not request.instance:
        check_name(request.definition, "the name of a definition", 1)
        id = await broker.lookups.instance_named(request.definition, check_user_id(request.name))
    else:
        id = id_bytes(request.instance, "an instance")
    with broker.lookups.holds.on(id):
        return await info_of(broker, await broker.lookups.stored_instance(id), broker.scheduler.explainer())


async def list_instances(broker: Broker, request: pb.ListInstancesRequest) -> pb.ListInstancesReply:
    """Return a page of instances, the latest first."""
    before = min(request.before, _LAST) or _LAST
    asked = InstanceQuery(
        before,
        _page(request.limit),
        request.unfinished,
        request.failed,
        request.definition,
        check_user_id(request.name),
        labels_of(request.labels),
        check_name(request.function, "the name of a function"),
        check_name(request.error, "the text of an error"),
    )
    await broker.commits.wait_durable()
    found = await broker.commits.in_view(broker.store.view.list_instances, asked)
    explainer = broker.scheduler.explainer()
    infos = [await info_of(broker, stored, explainer) for stored in found.instances]
    fits = fitting(infos)
    more = found.more if len(fits) == len(infos) else found.instances[len(fits) - 1].row.key
    total = 0
    if not request.before and not asked.looks_into_nodes:
        total = await broker.commits.in_view(broker.store.view.count_instances, asked)
    return pb.ListInstancesReply(instances=fits, more=more, total=total)


async def info_of(broker: Broker, stored: StoredInstance, explainer: Explainer) -> pb.InstanceInfo:
    """Return an instance as a message."""
    row = stored.row
    live = broker.scheduler.instance(row.id)
    marks = (await broker.commits.in_view(broker.store.view.marks, [row.key])).get(row.key)
    info = pb.InstanceInfo(
        instance=row.id,
        definition=row.definition,
        entry=row.entry,
        created=row.created,
        entry_state=pb.NodeState.ValueType(await _state_of(broker, row.entry)),
        ended=stored.ended is not None,
        failed=stored.failed,
        unfinished=live.live if live is not None else 0,
        ended_at=stored.ended or 0.0,
        nodes=await broker.commits.in_view(broker.store.view.size_of, row.key),
        stuck=in_a_line(standing)
        if live is not None and (standing := explainer.unschedulable_nodes(live)) is not None
        else "",
        used_failures=len(await broker.commits.in_view(broker.store.view.used_failures, row.key)),
    )
    add_marks(info, marks, row.priority)
    if marks is not None and (fired := fired_by(row.definition, marks.name, row.id)) is not None:
        info.schedule = fired[0]
    return info


async def _state_of(broker: Broker, id: bytes) -> State:
    node = broker.scheduler.node(id)
    if node is None:
        node = (await broker.lookups.find_ended([id])).get(id)
    return State.WAITING if node is None else node.state


# --- nodes ----------------------------------------------------------------------------------------------


async def list_nodes(broker: Broker, instance: bytes, request: pb.ListNodesRequest) -> pb.ListNodesReply:
    """Return a page of nodes of an instance. Raise NotFound or InvalidArgument."""
    wanted = filter_of(request)
    with broker.lookups.holds.on(instance):
        return await _nodes_page(broker, instance, wanted, request)


async def _nodes_page(
    broker: Broker, instance: bytes, wanted: NodeFilter, request: pb.ListNodesRequest
) -> pb.ListNodesReply:
    key = (await broker.lookups.stored_instance(instance)).row.key
    found, last, is_all = await _matching(broker, key, wanted, min(request.after, _LAST), _page(request.limit))
    fits = fitting(await NodeInfos(broker).infos(found))
    if len(fits) < len(found):
        last, is_all = found[len(fits) - 1].node.key, False
    return pb.ListNodesReply(nodes=fits, more=0 if is_all else last)


async def _matching(
    broker: Broker, instance: int, wanted: NodeFilter, after: int, limit: int
) -> tuple[list[SeenNode], int, bool]:
    """Return wanted nodes after this key, the last key that was read, and whether it was the last one."""
    sieve, found = NodeSieve(broker, wanted), list[SeenNode]()
    for _ in range(0, LOOKED_AT, LARGEST_PAGE):
        keys = await _keys(broker, instance, wanted, after)
        for node in await _read(broker, keys, sieve):
            if len(found) == limit:
                return found, after, False
            after = node.key
            if (seen := sieve.find(node)) is not None:
                found.append(seen)
        if len(keys) < LARGEST_PAGE:
            return found, after, True
    return found, after, False


async def _keys(broker: Broker, instance: int, wanted: NodeFilter, after: int) -> list[int]:
    """Return up to a page of keys of nodes that may be wanted; the store has an index of failed nodes."""
    in_view, view = broker.commits.in_view, broker.store.view
    if wanted.error:
        return await in_view(view.failed_with, instance, wanted.error, after, LARGEST_PAGE)
    if _BAD.issuperset(wanted.states):
        bad = await in_view(view.failed_ends, instance, after, LARGEST_PAGE)
        return [end.key for end in bad]
    return await in_view(view.node_keys, instance, after, LARGEST_PAGE)


async def _read(broker: Broker, keys: Sequence[int], sieve: NodeSieve | None = None) -> list[StoredNode]:
    """Return these nodes. Until the next await, each of them is in memory or has its outcome here."""
    found = await broker.commits.in_view(broker.store.view.described, keys)
    if sieve is not None:
        await sieve.look_up_workers(found.values())
    nodes = broker.scheduler.nodes
    while late := [key for key in keys if key not in nodes and not _has_ended(found[key])]:
        await broker.commits.wait_durable()  # these nodes have ended since
        again = await broker.commits.in_view(broker.store.view.described, late)
        if sieve is not None:
            await sieve.look_up_workers(again.values())
        found |= again
    return [found[key] for key in keys]


def _has_ended(node: StoredNode) -> bool:
    return node.outcome is not None and node.outcome.state != State.RESOLVING


async def node_details(broker: Broker, instance: bytes, id: bytes, arguments: bool, with_value: bool) -> pb.NodeDetails:
    """Return all that is known of a node, with its envelopes if requested. Raise NotFound or InvalidArgument."""
    with broker.lookups.holds.on(instance):
        found = await broker.lookups.find_node(instance, id)
        (node,) = await _read(broker, [found.key])
        (info,) = await NodeInfos(broker).infos([SeenNode(node, state_of(broker, node))])
        details = await _details(broker, node, found.function, info, arguments)
        if with_value and State(info.state) is State.COMPLETED:
            outcome = await broker.lookups.outcome(node.key)
            details.value = (outcome.value if outcome is not None else None) or b""
        return details


async def _details(
    broker: Broker, node: StoredNode, function: int, info: pb.NodeInfo, arguments: bool
) -> pb.NodeDetails:
    envelope = (await broker.commits.in_view(broker.store.view.arguments, [node.key]))[node.key]
    outcome = await broker.lookups.outcome(node.key)
    value = outcome.value if outcome is not None else None
    queues = broker.scheduler.function_queues
    return pb.NodeDetails(
        info=info,
        failure=await _own_failure(broker, node, outcome),
        argument_bytes=len(envelope),
        made_with=queues[function].function.code if node.function != function else "",
        value_bytes=len(value or b""),
        arguments=envelope if arguments else b"",
        ready_at=await _ready_at(broker, node, info.state),
    )


async def _ready_at(broker: Broker, node: StoredNode, state: int) -> float:
    """Return when the last source of a node ended, or the node was created; 0: it waits, or never was ready."""
    if state == State.WAITING:
        return 0.0
    sources = {abs(key) for key in unpack_keys(node.sources)}
    ends = await broker.commits.in_view(broker.store.view.ends, sources)
    if len(ends) < len(sources):  # it was cancelled, or failed because of another source
        return 0.0
    return max([node.created / 1_000_000, *ends.values()])


async def _own_failure(broker: Broker, node: StoredNode, outcome: OutcomeRow | None) -> pb.NodeFailure | None:
    """Return the failure that ended the node, its own or its root cause's; else its last attempt's."""
    root_cause = outcome.root_cause if outcome is not None and outcome.state != State.RESOLVING else 0
    if root_cause not in (0, node.key):
        outcome = await broker.lookups.outcome(root_cause)
    live = broker.scheduler.nodes.get(node.key)
    packed = outcome.failure if outcome is not None else None
    if live is not None:
        packed = live.failures.failure if live.failures is not None else None
    elif not root_cause:
        packed = node.progress.failure if node.progress is not None else None
    if packed is None:
        return None
    key = root_cause or node.key
    failure = Failure.unpacked(packed)._replace(exception=b"")
    return failure_message(failure, (await broker.commits.in_view(broker.store.view.ids, [key]))[key])


def without_tracebacks(details: pb.NodeDetails) -> pb.NodeDetails:
    """Remove tracebacks from the details, for readers, who may only see the last line of a failure."""
    if details.HasField("failure"):
        details.failure.traceback = ""
        for earlier in details.failure.earlier:
            earlier.traceback = ""
    return details
