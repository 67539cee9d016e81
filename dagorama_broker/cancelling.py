"""Cancelling on request: what is named is looked up, the heart is asked, and the answer is durable."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama_broker.broker import Broker
from dagorama_broker.errors import Malformed, NotKnown
from dagorama_broker.scheduler import Node


async def cancel(broker: Broker, instance: bytes, ids: Sequence[bytes]) -> int:
    """Cancel these nodes of an instance, or all of it, with what depends on them; how many nodes were cancelled.

    What has ended stays as it is. Raises NotKnown or Malformed, and then nothing has changed.
    """
    nodes = await _live(broker, instance, ids) if ids else await _all(broker, instance)
    cancelled = broker.scheduler.cancel(nodes, broker.see_time())
    await broker.durable()
    return cancelled


async def _all(broker: Broker, instance: bytes) -> list[Node]:
    if instance not in broker.scheduler.graph.instances:
        await broker.stored_instance(instance)
    return broker.scheduler.nodes_of(instance)


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
