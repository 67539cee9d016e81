"""Ids by how they begin, as people type them. The rule: one answer or a refusal, and a look at a few rows only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import Malformed, NotAllowedNow, NotKnown

_DIGITS = 32
#: Ids that a refusal names.
NAMED = 3
#: Nodes that one call may ask for.
NODES = 100


async def find_ids(broker: Broker, request: pb.FindIdsRequest) -> pb.FindIdsReply:
    """Raises Malformed, NotKnown if nothing begins so, and NotAllowedNow if several do."""
    if len(request.node) > NODES:
        raise Malformed(f"{len(request.node)} nodes are more than one call may ask for ({NODES})")
    ranges = [_range(prefix) for prefix in (request.instance, *request.node)]
    instance = await _instance(broker, request.instance, *ranges[0])
    with broker.lookups.holds.on(instance):
        key = (await broker.lookups.stored_instance(instance)).row.key
        nodes = [
            await _node(broker, key, prefix, *between) for prefix, between in zip(request.node, ranges[1:], strict=True)
        ]
    return pb.FindIdsReply(instance=instance, node=nodes)


async def _instance(broker: Broker, prefix: str, low: bytes, high: bytes) -> bytes:
    if low == high:
        return low  # whole: what is wrong with it is said when it is looked up
    await broker.commits.durable()
    found = await broker.commits.in_store(broker.store.instances_between, low, high, NAMED + 1)
    return _only("instance", prefix, found)


async def _node(broker: Broker, instance: int, prefix: str, low: bytes, high: bytes) -> bytes:
    found = await broker.commits.in_store(broker.store.nodes_between, instance, low, high, NAMED + 1)
    return _only("node", prefix, found)


def _only(what: str, prefix: str, found: Sequence[bytes]) -> bytes:
    if not found:
        raise NotKnown(f"there is no {what} whose id begins with {prefix}")
    if len(found) > 1:
        named = ", ".join(str(UUID(bytes=id)) for id in found[:NAMED])
        more = ", ..." if len(found) > NAMED else ""
        raise NotAllowedNow(f"the ids of several {what}s begin with {prefix}, so give more of it: {named}{more}")
    return found[0]


def _range(prefix: str) -> tuple[bytes, bytes]:
    """The first and the last id that begin with these digits."""
    if not re.fullmatch(f"[0-9a-f]{{4,{_DIGITS}}}", prefix):
        raise Malformed("an id begins with at least 4 and at most 32 digits from 0 to f")
    return bytes.fromhex(prefix.ljust(_DIGITS, "0")), bytes.fromhex(prefix.ljust(_DIGITS, "f"))
