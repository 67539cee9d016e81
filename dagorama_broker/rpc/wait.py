"""Answers to Wait: what is known of the nodes at once, and then each node when it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.lookups import check_instance, unknown_node
from dagorama_broker.engine.turns import Turn
from dagorama_broker.engine.waiters import LEAVING, NodeWaiter
from dagorama_broker.errors import BrokerRefusal, NotFound, Unavailable
from dagorama_broker.model.domain import ENDED, State, WireProtocol
from dagorama_broker.rpc.fields import id_bytes
from dagorama_broker.rpc.wait_messages import AT_A_TIME, WaitMessages
from dagorama_broker.rpc.wait_request import RequestedNodes
from dagorama_broker.scheduler import Node

T = TypeVar("T")

#: Called with the only reply, or the last one, or None, and with the refusal that ends the wait, or None.
Over = Callable[[pb.WaitReply | None, BrokerRefusal | None], None]
#: Called with the replies that are still to come.
More = Callable[[AsyncGenerator[pb.WaitReply, None]], None]

#: Bytes of a value that is sent immediately to all who wait for it.
AT_ONCE = 16 << 10


async def wait_replies(broker: Broker, request: pb.WaitRequest) -> AsyncGenerator[pb.WaitReply, None]:
    """Yield the replies to a wait. Raise NotFound if the broker has no such node in that instance."""
    wait = _Wait(broker, request)
    try:
        await wait.look_up()
        async for reply in wait.ended_before():
            yield reply
        if request.now:
            async for reply in wait.states():
                yield reply
            return
        while wait.left:
            async for reply in wait.ended(await wait.watch.next()):
                yield reply
    finally:
        wait.over()


def wait_at_once(broker: Broker, request: pb.WaitRequest, over: Over, more: More) -> Callable[[], None] | None:
    """Wait for a single node that has not ended, without a task; return a function that cancels the wait.

    When the node has ended, `over` is called with the reply, or `more` with the replies if one is not enough. The
    returned function may be called later too. Return None for other kinds of waits, which `wait_replies` can answer.
    """
    if request.now or len(request.node) != 1 or request.instances:
        return None
    owner, id = id_bytes(request.instance, "an instance"), id_bytes(request.node[0], "a node")
    node = broker.scheduler.node(id)
    if node is None or node.state in ENDED:
        return None
    _check_ours(node, owner, id)
    return _OneWait(broker, request, node, over, more).call_off


class _OneWait:
    """A wait for a single node."""

    __slots__ = ("_broker", "_listens", "_more", "_node", "_over", "_request")

    def __init__(self, broker: Broker, request: pb.WaitRequest, node: Node, over: Over, more: More) -> None:
        self._broker = broker
        self._request = request
        self._node = node
        self._over = over
        self._more = more
        self._listens = True
        broker.lookups.holds.take(request.instance)
        broker.watching.listen(self, node.key)

    def tell(self, node: Node) -> None:
        """Reply that the node has ended."""
        envelope = self._broker.payloads.values.kept.get(node.key)
        if node.state is State.COMPLETED and not node.refs and envelope is not None and len(envelope) <= AT_ONCE:
            self.call_off()
            reply = pb.WaitReply(value_node=self._request.node, value=[envelope], index=[0], state=[pb.COMPLETED])
            self._over(reply, None)
        else:
            self._more(self._replies())

    def close(self) -> None:
        """End the wait because the broker is shutting down."""
        self.call_off()
        self._over(None, Unavailable(LEAVING))

    def call_off(self) -> None:
        """Stop listening, if this still listens."""
        if self._listens:
            self._listens = False
            self._broker.lookups.holds.let_go(self._request.instance)
            self._broker.watching.remove(self, [self._node.key])

    async def _replies(self) -> AsyncGenerator[pb.WaitReply, None]:
        try:
            wait = _Wait(self._broker, self._request)
            wait.add_ended(self._node)
            async for reply in wait.ended([self._node]):
                yield reply
        finally:
            self.call_off()
            _drop_unwanted(self._broker, self._node)


class _Wait:
    """One caller's wait for any number of nodes, which are processed in turns with other calls."""

    def __init__(self, broker: Broker, request: pb.WaitRequest) -> None:
        self._broker = broker
        self._request = request
        self._turn = Turn()
        self._requested = RequestedNodes(request)
        self._messages = WaitMessages(broker, self._requested, self._turn)
        self._held: set[bytes] = set()  #: instances that are not removed meanwhile
        self._keys: dict[bytes, int] = {}  #: of instances that were read from the store
        self._live: dict[int, Node] = {}  #: nodes that had not ended when they were looked up
        self._recent: list[tuple[Node, bytes]] = []  #: nodes that have just ended, and are reported next
        self._others: list[bytes] = []  #: nodes that are not in memory
        self.watch = NodeWaiter()
        self.left: set[int] = set()  #: keys of nodes that have not ended

    def add_ended(self, node: Node) -> None:
        """Add the only node of the request, which has just ended."""
        self._requested.add(0, self._request.node[0])
        self._live[node.key] = node

    # --- looking up -------------------------------------------------------------------------------

    async def look_up(self) -> None:
        """Find the nodes that are in memory, and listen for their ends from that moment. Raise a BrokerRefusal."""
        turn = self._turn
        await self._requested.read_instances(turn)
        for index, id in enumerate(self._request.node):
            if self._requested.add(index, id):
                self._look_up(self._requested.owner(index), id)
            if turn.is_over:
                await turn.next()

    def _look_up(self, owner: bytes, id: bytes) -> None:
        if owner not in self._held:  # before the look-up, and before anything is awaited after it
            self._held.add(owner)
            self._broker.lookups.holds.take(owner)
        node = self._broker.scheduler.node(id_bytes(id, "a node"))
        if node is None:
            if not self._is_recent(id, owner):
                self._others.append(id)
            return
        _check_ours(node, owner, id)
        if not self._request.now:
            self._broker.watching.listen(self.watch, node.key)
        self._live[node.key] = node
        self.left.add(node.key)

    def _is_recent(self, id: bytes, owner: bytes) -> bool:
        """Return whether a node has just ended; if so, it is reported next."""
        node = self._broker.recent.find(id)
        if node is not None:
            _check_ours(node, owner, id)
            self._recent.append((node, id))
        return node is not None

    def over(self) -> None:
        """Stop listening, and drop values that were kept for this wait."""
        self._broker.watching.remove(self.watch, self._live)
        for node in self._live.values():
            _drop_unwanted(self._broker, node)
        for instance in self._held:
            self._broker.lookups.holds.let_go(instance)

    # --- replies ----------------------------------------------------------------------------------

    async def states(self) -> AsyncIterator[pb.WaitReply]:
        """Yield the states of the nodes that had not ended when they were looked up."""
        for batch in _batches(self._live.values()):
            reply = pb.WaitReply()
            for node in batch:
                indexes = self._requested.indexes_of(_id_of(node))
                # The end of a node that has ended meanwhile may not be durable yet: report it as still claimed.
                state = State.CLAIMED if node.state in ENDED else node.state
                reply.index.extend(indexes)
                reply.state.extend([pb.NodeState.ValueType(state)] * len(indexes))
            yield reply
            await self._turn.share()

    async def ended(self, nodes: Sequence[Node]) -> AsyncIterator[pb.WaitReply]:
        """Yield replies about nodes that have just ended."""
        self.left.difference_update(node.key for node in nodes)
        for batch in _batches(nodes):
            async for reply in self._messages.about([(self._live[node.key], _id_of(node)) for node in batch]):
                yield reply

    async def ended_before(self) -> AsyncIterator[pb.WaitReply]:
        """Yield replies about nodes that are not in the scheduler: they have ended, or do not exist."""
        async for reply in self._tell_recent():
            yield reply
        if not self._others:
            return
        await (
            self._broker.commits.wait_durable()
        )  # a node that has just ended is among the recent ones once it is durable
        for ids in _batches(self._others):
            others = [id for id in ids if not self._is_recent(id, self._requested.owner_of(id))]
            async for reply in self._tell_recent():
                yield reply
            async for reply in self._tell_stored(others):
                yield reply
        self._others = []

    async def _tell_recent(self) -> AsyncIterator[pb.WaitReply]:
        recent, self._recent = self._recent, []
        for batch in _batches(recent):
            async for reply in self._messages.about(batch):
                yield reply

    async def _tell_stored(self, ids: Sequence[bytes]) -> AsyncIterator[pb.WaitReply]:
        """Yield replies about nodes that can only be in the store. Raise NotFound or InvalidArgument if one is not."""
        unread = dict.fromkeys(owner for id in ids if (owner := self._requested.owner_of(id)) not in self._keys)
        if unread:
            stored = await self._broker.lookups.stored_instances(list(unread))
            self._keys.update((owner, each.row.key) for owner, each in stored.items())
        found = await self._broker.lookups.find_ended(ids)
        for id in ids:
            self._check_stored(id, found.get(id))
        async for reply in self._messages.about([(node, id) for id, node in found.items()]):
            yield reply

    def _check_stored(self, id: bytes, node: Node | None) -> None:
        owner = self._requested.owner_of(id)
        if node is None and self._broker.scheduler.node(id) is not None:
            raise Unavailable("a node that had ended was retried just now: wait again")
        if node is None:
            raise unknown_node(id)
        check_instance(id, owner, is_own=node.instance.key == self._keys[owner])
        _check_ours(node, owner, id)


def _drop_unwanted(broker: Broker, node: Node) -> None:
    """Drop the cached value of a node that has ended if no node and no caller waits for it."""
    watched = node.key in broker.watching or node.key in broker.recent
    if node.state in ENDED and not node.consumers and not watched:
        broker.payloads.values.drop(node.key)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, AT_A_TIME)):
        yield batch


def _id_of(node: Node) -> bytes:
    """Return the ID of a node that had not ended when it was looked up."""
    assert node.block is not None
    return node.block.id_of(node.key)


def _check_ours(node: Node, instance: bytes, id: bytes) -> None:
    check_instance(id, instance, is_own=node.instance.id in (b"", instance))
    if node.queue.function.protocol is not WireProtocol.V1:
        raise NotFound(f"node {id.hex()} was created by dagorama 0.1.10; use GetNode for it")
