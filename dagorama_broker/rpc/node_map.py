"""Replies to GetMap: the nodes of an instance as columns."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.node_map import MapPage, MapQuery, NodeMaps
from dagorama_broker.model.maps import LAST_KEY
from dagorama_broker.rpc.fields import id_bytes

#: Nodes that one request gets at most.
MOST_NODES = 200_000


async def node_maps(broker: Broker, request: pb.GetMapRequest) -> AsyncGenerator[pb.NodeMap, None]:
    """Yield the nodes of an instance, and at least one message. Raise NotFound or InvalidArgument."""
    instance = id_bytes(request.instance, "an instance")
    with broker.lookups.holds.on(instance):
        key = (await broker.lookups.stored_instance(instance)).row.key
        nodes = await broker.commits.in_view(broker.store.view.size_of, key)
        limit = min(request.limit or MOST_NODES, MOST_NODES)
        after, is_told = min(request.after, LAST_KEY - 1), False
        async with aclosing(NodeMaps(broker.commits).pages(MapQuery(key, after, limit, request.sources))) as pages:
            async for page in pages:
                message = await broker.commits.in_view(_message, page, _function_names(broker, page))
                message.nodes = max(nodes, page.before + len(page.keys))
                yield message
                is_told = True
        if not is_told:
            before = await broker.commits.in_view(broker.store.view.count_up_to, key, after)
            yield pb.NodeMap(before=before, last=after, nodes=nodes)


def _function_names(broker: Broker, page: MapPage) -> dict[int, str]:
    queues = broker.scheduler.function_queues
    return {id: queues[id].function.name for id in dict.fromkeys(page.columns.functions)}


def _message(page: MapPage, function_names: Mapping[int, str]) -> pb.NodeMap:
    """Make the message of a page; it runs in the thread of the view, because a page takes about a millisecond."""
    columns, blocks, functions, workers = page.columns, page.blocks, _Names(), _Names()
    function_of = {id: functions.index(name) for id, name in function_names.items()}
    returned = {key: at / 1_000_000 for key, at in zip(page.keys, columns.returned, strict=True) if at}
    message = pb.NodeMap(
        before=page.before,
        last=page.keys[-1],
        block_key=blocks.first_keys,
        block_size=blocks.sizes,
        block_creator=blocks.creators,
        block_created=[created / 1_000_000 for created in blocks.created],
        state=bytes(columns.states),
        function=[function_of[id] for id in columns.functions],
        ended=[ended / 1_000_000 for ended in columns.ended],
        microseconds=columns.microseconds,
        worker=_worker_column(page, workers),
        failed_attempts=columns.failed_attempts,
        running_key=page.running.keys(),
        running_since=page.running.values(),
        returned_key=returned.keys(),
        returned_at=returned.values(),
        source_count=columns.source_counts if page.sources is not None else (),
        source=page.sources,
    )
    message.functions.extend(functions.indices)
    message.workers.extend(workers.indices)
    return message


def _worker_column(page: MapPage, workers: _Names) -> list[int]:
    """Return 1 + the index of the worker of each node; 0: it has none, or its name is forgotten."""
    of_number = {number: 1 + workers.index(name) for number, name in page.workers.items()}
    column = [of_number.get(number, 0) for number in page.columns.workers]
    for place, name in page.held_by.items():
        column[place] = 1 + workers.index(name)
    return column


class _Names:
    """Names in the order in which they were entered, each once."""

    def __init__(self) -> None:
        self.indices: dict[str, int] = {}

    def index(self, name: str) -> int:
        """Return the index of a name, which is entered if it is new."""
        return self.indices.setdefault(name, len(self.indices))
