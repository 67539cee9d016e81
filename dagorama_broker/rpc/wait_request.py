"""The nodes that a request names: each with its instance, and with its indexes in the request."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.turns import Turn
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.rpc.fields import id_bytes


class RequestedNodes:
    """The nodes of a WaitRequest. There may be hundreds of thousands, so little is stored for each."""

    def __init__(self, request: pb.WaitRequest) -> None:
        if not request.node:
            raise InvalidArgument("a wait must name at least one node")
        self._request = request
        self._instances: list[bytes] = []
        self._indexes: dict[bytes, int | list[int]] = {}  #: by ID; a list for a node that is named more than once

    async def read_instances(self, turn: Turn) -> None:
        """Read and check the instances; call this before `add`. Raise InvalidArgument."""
        for id in self._request.instances or [self._request.instance]:
            self._instances.append(id_bytes(id, "an instance"))
            await turn.share()
        check_instances(self._request, len(self._instances))

    def add(self, index: int, id: bytes) -> bool:
        """Add the node at this index; return whether it is the first with this ID. Raise InvalidArgument."""
        before = self._indexes.setdefault(id, index)
        if before is index:
            return True
        indexes = before if isinstance(before, list) else [before]
        if self.owner(indexes[0]) != self.owner(index):
            raise InvalidArgument(f"node {id.hex()} is named with two instances")
        indexes.append(index)
        self._indexes[id] = indexes
        return False

    def owner(self, index: int) -> bytes:
        """Return the instance of the node at this index."""
        return self._instances[self._request.instance_of[index] if self._request.instances else 0]

    def owner_of(self, id: bytes) -> bytes:
        """Return the instance of a node that was added."""
        return self.owner(self.indexes_of(id)[0])

    def indexes_of(self, id: bytes) -> Sequence[int]:
        """Return the indexes of a node that was added."""
        indexes = self._indexes[id]
        return indexes if isinstance(indexes, list) else (indexes,)


def check_instances(request: pb.WaitRequest | pb.ExplainRequest, instances: int) -> None:
    """Raise InvalidArgument if the request does not assign each node to one of this number of instances."""
    instance_of = request.instance_of
    if request.instances and (len(instance_of) != len(request.node) or max(instance_of) >= instances):
        raise InvalidArgument("the instances in the request do not match its nodes")


def owners_of(request: pb.WaitRequest | pb.ExplainRequest) -> dict[bytes, bytes]:
    """Return the instance of each node in the request. Raise InvalidArgument."""
    instances = [id_bytes(id, "an instance") for id in request.instances or [request.instance]]
    check_instances(request, len(instances))
    indexes: Sequence[int] = request.instance_of if request.instances else [0] * len(request.node)
    owners: dict[bytes, bytes] = {}
    for id, index in zip(request.node, indexes, strict=True):
        if owners.setdefault(id, instances[index]) != instances[index]:
            raise InvalidArgument(f"node {id.hex()} is named with two instances")
    return owners
