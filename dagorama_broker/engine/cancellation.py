"""Cancelling on request: what is named is looked up, the heart is asked, and the answer is durable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import Malformed, NotKnown
from dagorama_broker.scheduler import Node, Tally


async def cancel(broker: Broker, instance: bytes, ids: Sequence[bytes]) -> int:
    """Cancel these nodes of an instance, or all of it, with what depends on them; how many nodes were cancelled.

    What has ended stays as it is. Many are cancelled in slices, and a broker that dies meanwhile has cancelled some of
    them: the client calls again. Raises NotKnown or Malformed, and then nothing has changed.
    """
    nodes: Iterable[Node] = await _live(broker, instance, ids) if ids else await _all(broker, instance)
    tally, step = Tally(), broker.scheduler.limits.step
    nodes = iter(nodes)
    while portion := list(islice(nodes, step)):
        broker.scheduler.cancel(portion, broker.see_time(), tally)
        await broker.durable()
    while tally.open:
        await broker.durable()
    await broker.durable()
    return tally.count


async def _all(broker: Broker, instance: bytes) -> Iterator[Node]:
    if instance not in broker.scheduler.graph.instances:
        await broker.stored_instance(instance)
    return broker.scheduler.graph.unfinished_of(instance)


async def _live(broker: Broker, instance: bytes, ids: Sequence[bytes]) -> list[Node]:
    others = [id for id in ids if broker.scheduler.graph.find(id) is None]
    if others:
        await broker.durable()
        found = await broker.find_ended(others)
        for id in others:
            if id not in found and broker.scheduler.graph.find(id) is None:
                raise _not_known(broker, instance, id)
    nodes = [node for id in ids if (node := broker.scheduler.graph.find(id)) is not None]
    for node in nodes:
        if node.instance.id != instance:
            raise Malformed(f"a node that is to be cancelled is not of instance {instance.hex()}")
    return nodes


def _not_known(broker: Broker, instance: bytes, node: bytes) -> NotKnown:
    if not broker.has_instance(instance) or broker.store.removed(instance) is not None:
        return broker.not_known(instance)
    return NotKnown(f"node {node.hex()} is not known to this broker")
