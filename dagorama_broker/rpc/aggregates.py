"""Answers about many nodes at once: their names, the errors of failed ones, and the graph of their functions."""

from __future__ import annotations

import re

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.failure_groups import Group, group_failures
from dagorama_broker.engine.shape import Shape, read_shape
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.domain import Failure
from dagorama_broker.model.queries import NodePlace
from dagorama_broker.rpc.fields import LONGEST_REASON, bounded, id_bytes
from dagorama_broker.rpc.progress import MOST_FUNCTIONS, progress_message

#: Nodes that one request may ask to name.
MOST_NAMED = 1_000
#: Groups of failures in a reply, unless the request says otherwise; and the most that it may ask for.
GROUPS, MOST_GROUPS = 100, 1_000
_PLACE = re.compile(r'^  File ".*$\n?(?:    .*$)?', re.MULTILINE)


async def name_nodes(broker: Broker, request: pb.NameNodesRequest) -> pb.NameNodesReply:
    """Return the instances and ordinals of the nodes that exist. Raise InvalidArgument."""
    if len(request.node) > MOST_NAMED:
        raise InvalidArgument(f"the request names {len(request.node)} nodes; {MOST_NAMED} are allowed")
    ids = [id_bytes(id, "a node") for id in request.node]
    await broker.commits.wait_durable()
    found = await broker.commits.in_view(broker.store.view.places_of, ids)
    return pb.NameNodesReply(names=map(node_name, found))


def node_name(place: NodePlace) -> pb.NodeName:
    """Return the name of a node in its instance."""
    return pb.NodeName(node=place.id, instance=place.instance, ordinal=place.ordinal)


# --- failures ---------------------------------------------------------------------------------------------


async def list_failures(broker: Broker, request: pb.ListFailuresRequest, is_reader: bool) -> pb.ListFailuresReply:
    """Return failed nodes grouped by error; readers do not see tracebacks. Raise NotFound."""
    await broker.commits.wait_durable()
    instances = None
    if request.instance:
        instances = [await broker.lookups.stored_instance(id_bytes(request.instance, "an instance"))]
        if request.definition not in ("", instances[0].row.definition):
            instances = []
    found = await group_failures(broker.commits, instances, request.definition)
    largest = found.largest(min(request.limit or GROUPS, MOST_GROUPS))
    return pb.ListFailuresReply(
        groups=[await _group_message(broker, group, is_reader) for group in largest],
        left_out=len(found.groups) - len(largest),
        nodes=found.nodes,
        downstream=found.downstream,
        more=found.more,
    )


async def _group_message(broker: Broker, group: Group, is_reader: bool) -> pb.FailureGroup:
    places = await broker.commits.in_view(broker.store.view.places, [group.example])  # none if it was removed just now
    return pb.FailureGroup(
        function=group.function or await _function_of(broker, group.example),
        type=group.type,
        message=bounded(group.shown, LONGEST_REASON),
        nodes=group.nodes,
        downstream=group.downstream,
        first=group.first,
        last=group.last,
        example=node_name(places[group.example]) if places else None,
        example_message=bounded(group.message, LONGEST_REASON),
        raised_at="" if is_reader else await _raised_at(broker, group.example),
        instances=len(group.instances),
    )


async def _function_of(broker: Broker, key: int) -> str:
    node = (await broker.commits.in_view(broker.store.view.described, [key]))[key]
    return broker.scheduler.function_queues[node.function].function.name


async def _raised_at(broker: Broker, key: int) -> str:
    """Return the last place in the traceback of a failed node, with the line of code if it has one."""
    outcome = await broker.lookups.outcome(key)
    if outcome is None or outcome.failure is None:
        return ""
    places = _PLACE.findall(Failure.unpacked(outcome.failure).traceback)
    return bounded("\n".join(line.strip() for line in places[-1].splitlines()), LONGEST_REASON) if places else ""


# --- the graph --------------------------------------------------------------------------------------------


async def shape_of(broker: Broker, instance: bytes) -> pb.Shape:
    """Return the functions of an instance and the edges between them. Raise NotFound."""
    with broker.lookups.holds.on(instance):
        stored = await broker.lookups.stored_instance(instance)
        shape = await read_shape(broker.commits, stored.row.key)
        progress = await broker.progress.read(instance)
    message = progress_message(progress)
    names = {name: index for index, name in enumerate(progress.functions) if index < MOST_FUNCTIONS}
    return pb.Shape(
        functions=message.functions,
        edges=_edges(broker, shape, names),
        definition=message.definition,
        ended=message.ended,
        nodes=sum(sum(its.nodes) for its in progress.functions.values()),
        counted=shape.nodes,
    )


def _edges(broker: Broker, shape: Shape, names: dict[str, int]) -> list[pb.FunctionEdge]:
    """Return the edges between named functions; functions that differ in their code only are one."""
    queues, edges = broker.scheduler.function_queues, dict[tuple[int, int], pb.FunctionEdge]()
    for counts, column in ((shape.values, "values"), (shape.created, "created")):
        for (source, target), count in counts.items():
            ends = names.get(queues[source].function.name), names.get(queues[target].function.name)
            if ends[0] is None or ends[1] is None:
                continue
            edge = edges.setdefault((ends[0], ends[1]), pb.FunctionEdge(source=ends[0], target=ends[1]))
            setattr(edge, column, getattr(edge, column) + count)
    return [edges[ends] for ends in sorted(edges)]
