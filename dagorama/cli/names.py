"""Names of nodes for people: the first digits of the instance and the ordinal of the node, as in `3f9a1c02/17`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from uuid import UUID

from dagorama.errors import BrokerError

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

#: Digits of the instance in a name: a broker needs about 10,000 instances before two share them with a chance of 1 %.
PREFIX_DIGITS = 8
#: Nodes that one call may ask for.
_NAMED_TOGETHER = 1_000


def node_name(instance: bytes, ordinal: int, id: bytes) -> str:
    """Return the name of a node; its id if the broker has not told its ordinal."""
    return f"{instance.hex()[:PREFIX_DIGITS]}/{ordinal}" if ordinal else str(UUID(bytes=id))


def node_names(broker: Connection, ids: Collection[bytes]) -> dict[bytes, str]:
    """Return the names of nodes by their ids; the name of a node that the broker does not know is its id."""
    names = {id: str(UUID(bytes=id)) for id in ids if id}
    wanted = list(names)
    try:
        for start in range(0, len(wanted), _NAMED_TOGETHER):
            for found in broker.name_nodes(wanted[start : start + _NAMED_TOGETHER]):
                names[found.node] = node_name(found.instance, found.ordinal, found.node)
    except BrokerError as error:
        if error.status != "UNIMPLEMENTED":  # by an older broker
            raise
    return names
