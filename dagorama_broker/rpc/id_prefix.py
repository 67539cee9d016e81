"""IDs by the prefix that a person types, and nodes by their ordinals.

The rule: exactly one match or a refusal, and only a few rows are read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import FailedPrecondition, InvalidArgument, NotFound

_DIGITS = 32
#: IDs that a refusal lists.
NAMED = 3
#: Nodes that one request may name.
NODES = 100


async def find_ids(broker: Broker, request: pb.FindIdsRequest) -> pb.FindIdsReply:
    """Return the IDs with these prefixes. Raise NotFound if none matches, FailedPrecondition if several do."""
    if len(request.node) > NODES:
        raise InvalidArgument(f"the request names {len(request.node)} nodes; {NODES} are allowed")
    between = _range(request.instance)
    wanted = [_ordinal(text) or _range(text) for text in request.node]
    instance = await _instance(broker, request.instance, *between)
    with broker.lookups.holds.on(instance):
        key = (await broker.lookups.stored_instance(instance)).row.key
        at = await _nodes_at(broker, key, {one for one in wanted if isinstance(one, int)})
        nodes = [
            at[one] if isinstance(one, int) else await _node(broker, key, text, *one)
            for text, one in zip(request.node, wanted, strict=True)
        ]
    return pb.FindIdsReply(instance=instance, node=nodes)


async def _instance(broker: Broker, prefix: str, low: bytes, high: bytes) -> bytes:
    if low == high:
        return low  # complete: the look-up says what is wrong with it
    await broker.commits.wait_durable()
    found = await broker.commits.in_view(broker.store.view.instances_between, low, high, NAMED + 1)
    return _only("instance", prefix, found)


async def _node(broker: Broker, instance: int, prefix: str, low: bytes, high: bytes) -> bytes:
    found = await broker.commits.in_view(broker.store.view.nodes_between, instance, low, high, NAMED + 1)
    return _only("node", prefix, found)


async def _nodes_at(broker: Broker, instance: int, ordinals: Set[int]) -> dict[int, bytes]:
    if not ordinals:
        return {}
    found = await broker.commits.in_view(broker.store.view.ids_at, instance, ordinals)
    if missing := sorted(ordinals - found.keys()):
        size = await broker.commits.in_view(broker.store.view.size_of, instance)
        nodes = "1 node" if size == 1 else f"{size} nodes"
        raise NotFound(f"there is no node /{missing[0]}: the instance has {nodes}, and the first is /1")
    return found


def _only(what: str, prefix: str, found: Sequence[bytes]) -> bytes:
    if not found:
        raise NotFound(f"no {what} has an ID that begins with {prefix}")
    if len(found) > 1:
        named = ", ".join(str(UUID(bytes=id)) for id in found[:NAMED])
        more = ", ..." if len(found) > NAMED else ""
        raise FailedPrecondition(
            f"several {what}s have IDs that begin with {prefix}; use a longer prefix: {named}{more}"
        )
    return found[0]


def _ordinal(text: str) -> int:
    """Return the number after a slash, 0 if there is no slash. Raise InvalidArgument."""
    if not text.startswith("/"):
        return 0
    if not re.fullmatch(r"/[1-9][0-9]{0,17}", text):
        raise InvalidArgument("the ordinal of a node is a slash and a number, and the first is /1")
    return int(text[1:])


def _range(prefix: str) -> tuple[bytes, bytes]:
    """Return the smallest and the largest ID with this prefix. Raise InvalidArgument."""
    if not re.fullmatch(f"[0-9a-f]{{4,{_DIGITS}}}", prefix):
        raise InvalidArgument("the prefix of an ID must have 4 to 32 hexadecimal digits")
    return bytes.fromhex(prefix.ljust(_DIGITS, "0")), bytes.fromhex(prefix.ljust(_DIGITS, "f"))
