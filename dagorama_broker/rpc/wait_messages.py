"""Replies about nodes that have ended: the values that they need, and how each has ended, in pieces below the limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MESSAGE_TARGET
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.turns import Turn
from dagorama_broker.errors import StoreError, Unavailable
from dagorama_broker.model.domain import State
from dagorama_broker.rpc.failures import node_failure
from dagorama_broker.rpc.wait_request import RequestedNodes
from dagorama_broker.scheduler import Node

#: Nodes, or values, that are looked up together at most: other calls may use the store in between.
AT_A_TIME = 256
#: Number of values that are read together at first; then as many as come to about this number of bytes.
FEW, READ = 16, 2 << 20


class WaitMessages:
    """Writes the replies of one wait."""

    def __init__(self, broker: Broker, requested: RequestedNodes, turn: Turn) -> None:
        self._broker = broker
        self._requested = requested
        self._turn = turn
        self._reruns = broker.scheduler.reruns
        self._failures: dict[int, pb.NodeFailure] = {}  #: by root cause

    async def about(self, nodes: Sequence[tuple[Node, bytes]]) -> AsyncIterator[pb.WaitReply]:
        """Yield replies about nodes that have ended, which are given with their IDs. Raise a BrokerRefusal."""
        pieces = _Pieces()
        async for id, envelope in self._values_for([node for node, _ in nodes if node.state is State.COMPLETED]):
            for reply in pieces.add(len(envelope), pb.WaitReply(value_node=[id], value=[envelope])):
                yield reply
        # In one piece: when a client is told of an end, it drops the values that came before.
        ends = self._ends([id for node, id in nodes if node.state is State.COMPLETED], State.COMPLETED)
        if ends.index:
            for reply in pieces.add(ends.ByteSize(), ends):
                yield reply
        for node, id in nodes:
            if node.state is not State.COMPLETED:
                ends = self._ends([id], node.state)
                ends.failure.extend([await self._failure(node)] * len(ends.index))
                for reply in pieces.add(ends.ByteSize(), ends):
                    yield reply
        for reply in pieces.rest():
            yield reply
        await self._turn.share()

    def _ends(self, ids: Iterable[bytes], state: State) -> pb.WaitReply:
        """Return a reply that these nodes have ended in this state, without failures."""
        indexes = [index for id in ids for index in self._requested.indexes_of(id)]
        return pb.WaitReply(index=indexes, state=[pb.NodeState.ValueType(state)] * len(indexes))

    # --- values and failures ----------------------------------------------------------------------

    async def _values_for(self, nodes: Iterable[Node]) -> AsyncIterator[tuple[bytes, bytes]]:
        """Yield the values that these nodes need: node IDs and envelopes."""
        needed = await self._with_named(nodes)
        start, most = 0, FEW
        while start < len(needed):
            values = await self._values(needed[start : start + most])
            for value in values.items():
                yield value
            start += most
            most = _how_many(most, sum(map(len, values.values())))
            await self._turn.share()

    async def _with_named(self, nodes: Iterable[Node]) -> list[Node]:
        """Return the nodes, the nodes that their values refer to, and so on, including nodes that were sent before."""
        found, stack = dict[int, Node](), list(nodes)
        while stack:
            if self._turn.is_over:
                await self._turn.next()
            node = stack.pop()
            if node.key not in found:
                found[node.key] = node
                stack.extend(node.refs)
        return list(found.values())

    async def _values(self, nodes: Sequence[Node]) -> dict[bytes, bytes]:
        """Return envelopes by node ID. Raise Unavailable if completed nodes were rerun since this wait began."""
        try:
            found = await self._broker.lookups.values_of(nodes)
        except StoreError:
            self._refuse_stale()
            raise
        self._refuse_stale()
        return found

    def _refuse_stale(self) -> None:
        if self._reruns != self._broker.scheduler.reruns:
            raise Unavailable("nodes that had completed were retried just now: wait again")

    async def _failure(self, node: Node) -> pb.NodeFailure:
        """Return the failure of the node, or of the upstream node that caused it, from the store."""
        root_cause = node.root_cause or node
        failure = self._failures.get(root_cause.key)
        if failure is None:
            failure = await node_failure(self._broker, node)
            if failure is None:
                raise Unavailable("a node that had failed was retried just now: wait again")
            self._failures[root_cause.key] = failure
        return failure


class _Pieces:
    """Merges parts of an answer into messages that stay below the limit."""

    def __init__(self) -> None:
        self._reply, self._size = pb.WaitReply(), 0

    def add(self, size: int, part: pb.WaitReply) -> Iterator[pb.WaitReply]:
        """Add a part; yield the message before it if that is full."""
        if self._size and self._size + size > MESSAGE_TARGET:
            yield from self.rest()
        self._reply.MergeFrom(part)
        self._size += size + 32

    def rest(self) -> Iterator[pb.WaitReply]:
        """Yield the last message if there is one."""
        if self._size:
            yield self._reply
            self._reply, self._size = pb.WaitReply(), 0


def _how_many(before: int, size: int) -> int:
    """Return how many values to read next, if the `before` values before had this size together."""
    return max(1, min(2 * before, before * READ // max(size, 1), AT_A_TIME))
