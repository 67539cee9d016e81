"""Answers to Wait: what is known of the nodes, and then each as it ends, with the values it needs, in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.lookups import check_instance, unknown_node
from dagorama_broker.engine.turns import Turn
from dagorama_broker.engine.waiters import LEAVING, Watch
from dagorama_broker.errors import BrokerRefusal, Malformed, NotKnown, NotServing, StoreError
from dagorama_broker.model.domain import ENDED, State, World
from dagorama_broker.rpc.failures import node_failure
from dagorama_broker.rpc.fields import PIECE, id_bytes
from dagorama_broker.scheduler import Node

T = TypeVar("T")

#: Gets the only reply, or the last, or None, and the refusal that it ends with, or None.
Over = Callable[[pb.WaitReply | None, BrokerRefusal | None], None]
#: Gets the replies that are still to come.
More = Callable[[AsyncGenerator[pb.WaitReply, None]], None]

#: Nodes that are looked up at a time: others may use the store in between.
AT_A_TIME = 256
#: Values that are read at a time, at first; then as many as come to about this many bytes.
FEW, READ = 16, 2 << 20
#: Bytes of a value that is told in the same moment to all who wait for it.
AT_ONCE = 16 << 10


async def wait_replies(broker: Broker, request: pb.WaitRequest) -> AsyncGenerator[pb.WaitReply, None]:
    """Raises NotKnown where the broker has no such node in that instance."""
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
    """Wait for a single node that has not ended, without a task; returns what calls it off, which does no harm later.

    When it has ended, `over` gets the reply, or `more` the replies where one does not do. None: `wait_replies` has to
    take it, for it is another kind of wait.
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
    """A single node that somebody waits for."""

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
        envelope = self._broker.payloads.values.kept.get(node.key)
        if node.state is State.COMPLETED and not node.refs and envelope is not None and len(envelope) <= AT_ONCE:
            self.call_off()
            reply = pb.WaitReply(value_node=self._request.node, value=[envelope], index=[0], state=[pb.COMPLETED])
            self._over(reply, None)
        else:
            self._more(self._replies())

    def close(self) -> None:
        self.call_off()
        self._over(None, NotServing(LEAVING))

    def call_off(self) -> None:
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
    """One caller's wait: which nodes, where each stands in the request, and what has been said.

    There may be hundreds of thousands of nodes: they are gone through in turns, and little is kept for each.
    """

    def __init__(self, broker: Broker, request: pb.WaitRequest) -> None:
        if not request.node:
            raise Malformed("nothing is waited for")
        self._broker = broker
        self._request = request
        self._instances: list[bytes] = []
        self._held: set[bytes] = set()  #: instances that are not removed meanwhile
        self._keys: dict[bytes, int] = {}  #: of instances that were read from the store
        self._reruns = broker.scheduler.reruns
        self._places: dict[bytes, int | list[int]] = {}  #: by id; a list for one that is asked for several times
        self._live: dict[int, Node] = {}  #: those that had not ended when they were looked up
        self._recent: list[tuple[Node, bytes]] = []  #: that have just ended, and are not told yet
        self._others: list[bytes] = []  #: of which memory knows nothing
        self.watch = Watch()
        self.left: set[int] = set()  #: keys of nodes that have not ended
        self._failures: dict[int, pb.NodeFailure] = {}  #: by culprit
        self._turn = Turn()

    def add_ended(self, node: Node) -> None:
        """The only node that is asked for, which has just ended."""
        self._places[self._request.node[0]] = 0
        self._live[node.key] = node

    async def look_up(self) -> None:
        """Find what is in memory; from the moment in which a node is found its end is heard. Raises a BrokerRefusal."""
        request, turn = self._request, self._turn
        for id in request.instances or [request.instance]:
            self._instances.append(id_bytes(id, "an instance"))
            await turn.share()
        check_instances(request, len(self._instances))
        for place, id in enumerate(request.node):
            self._look_up(place, id)
            if turn.is_over:
                await turn.next()

    def _look_up(self, place: int, id: bytes) -> None:
        before = self._places.setdefault(id, place)
        if before is not place:
            self._add_place(id, before, place)
            return
        owner = self._owner(place)
        if owner not in self._held:  # before it is looked up, and before anything is awaited after that
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

    def _add_place(self, id: bytes, before: int | list[int], place: int) -> None:
        places = before if isinstance(before, list) else [before]
        if self._owner(places[0]) != self._owner(place):
            raise Malformed(f"node {id.hex()} is asked for as of two instances")
        places.append(place)
        self._places[id] = places

    def _owner(self, place: int) -> bytes:
        return self._instances[self._request.instance_of[place] if self._request.instances else 0]

    def _owner_of(self, id: bytes) -> bytes:
        return self._owner(self._places_of(id)[0])

    def _places_of(self, id: bytes) -> Sequence[int]:
        """Where it stands among the nodes that are asked for."""
        places = self._places[id]
        return places if isinstance(places, list) else (places,)

    def over(self) -> None:
        """Nobody waits any more: values that were kept for this are let go."""
        self._broker.watching.remove(self.watch, self._live)
        for node in self._live.values():
            _drop_unwanted(self._broker, node)
        for instance in self._held:
            self._broker.lookups.holds.let_go(instance)

    async def states(self) -> AsyncIterator[pb.WaitReply]:
        """How the nodes stood that had not ended when they were asked for."""
        for batch in _batches(self._live.values()):
            reply = pb.WaitReply()
            for node in batch:
                places = self._places_of(_id_of(node))
                # One that ended meanwhile may not be durable yet: what it was is what is known.
                state = State.CLAIMED if node.state in ENDED else node.state
                reply.index.extend(places)
                reply.state.extend([pb.NodeState.ValueType(state)] * len(places))
            yield reply
            await self._turn.share()

    def _is_recent(self, id: bytes, owner: bytes) -> bool:
        """Whether it has just ended; it is told next."""
        node = self._broker.recent.find(id)
        if node is not None:
            _check_ours(node, owner, id)
            self._recent.append((node, id))
        return node is not None

    async def _tell_recent(self) -> AsyncIterator[pb.WaitReply]:
        recent, self._recent = self._recent, []
        for batch in _batches(recent):
            async for reply in self._tell(batch):
                yield reply

    async def ended_before(self) -> AsyncIterator[pb.WaitReply]:
        """Nodes that the heart has no more: they have ended, or were never made."""
        async for reply in self._tell_recent():
            yield reply
        if not self._others:
            return
        await self._broker.commits.durable()  # what has just ended is among the recent ones when it is on record
        for ids in _batches(self._others):
            others = [id for id in ids if not self._is_recent(id, self._owner_of(id))]
            async for reply in self._tell_recent():
                yield reply
            async for reply in self._tell_stored(others):
                yield reply
        self._others = []

    async def _tell_stored(self, ids: Sequence[bytes]) -> AsyncIterator[pb.WaitReply]:
        """Nodes that only the store knows, if anybody."""
        unread = dict.fromkeys(owner for id in ids if (owner := self._owner_of(id)) not in self._keys)
        if unread:
            stored = await self._broker.lookups.stored_instances(list(unread))
            self._keys.update((owner, each.row.key) for owner, each in stored.items())
        found = await self._broker.lookups.find_ended(ids)
        for id in ids:
            owner = self._owner_of(id)
            if id not in found and self._broker.scheduler.node(id) is not None:
                raise NotServing("a node that had ended was retried just now: wait again")
            if id not in found:
                raise unknown_node(id)
            check_instance(id, owner, is_own=found[id].instance.key == self._keys[owner])
            _check_ours(found[id], owner, id)
        async for reply in self._tell([(node, id) for id, node in found.items()]):
            yield reply

    async def ended(self, nodes: Sequence[Node]) -> AsyncIterator[pb.WaitReply]:
        """Nodes that have just ended."""
        self.left.difference_update(node.key for node in nodes)
        for batch in _batches(nodes):
            async for reply in self._tell([(self._live[node.key], _id_of(node)) for node in batch]):
                yield reply

    async def _tell(self, nodes: Sequence[tuple[Node, bytes]]) -> AsyncIterator[pb.WaitReply]:
        pieces = _Pieces()
        needed = await self._with_named([node for node, _ in nodes if node.state is State.COMPLETED])
        start, most = 0, FEW
        while start < len(needed):
            values = await self._values(needed[start : start + most])
            for id, envelope in values.items():
                for reply in pieces.add(len(envelope), pb.WaitReply(value_node=[id], value=[envelope])):
                    yield reply
            start += most
            most = _how_many(most, sum(map(len, values.values())))
            await self._turn.share()
        # In one piece: a client that hears of an end lets go of the values that came before it.
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
        """That these nodes have ended so, without failures."""
        places = [place for id in ids for place in self._places_of(id)]
        return pb.WaitReply(index=places, state=[pb.NodeState.ValueType(state)] * len(places))

    async def _values(self, nodes: Sequence[Node]) -> dict[bytes, bytes]:
        """Their envelopes. Raises NotServing if nodes that had completed run again since this wait began."""
        try:
            found = await self._broker.lookups.values_of(nodes)
        except StoreError:
            self._refuse_stale()
            raise
        self._refuse_stale()
        return found

    def _refuse_stale(self) -> None:
        if self._reruns != self._broker.scheduler.reruns:
            raise NotServing("nodes that had completed were retried just now: wait again")

    async def _with_named(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes and all that their values name, and so on; also what came with nodes that ended before these."""
        found, stack = dict[int, Node](), list(nodes)
        while stack:
            if self._turn.is_over:
                await self._turn.next()
            node = stack.pop()
            if node.key not in found:
                found[node.key] = node
                stack.extend(node.refs)
        return list(found.values())

    async def _failure(self, node: Node) -> pb.NodeFailure:
        """The failure of the node itself or of the culprit upstream, as the store has it."""
        culprit = node.culprit or node
        failure = self._failures.get(culprit.key)
        if failure is None:
            failure = await node_failure(self._broker, node)
            if failure is None:
                raise NotServing("a node that had failed was retried just now: wait again")
            self._failures[culprit.key] = failure
        return failure


class _Pieces:
    """Parts of an answer, merged into messages that stay under the limit."""

    def __init__(self) -> None:
        self._reply, self._size = pb.WaitReply(), 0

    def add(self, size: int, part: pb.WaitReply) -> Iterator[pb.WaitReply]:
        """Take a part in; yields the message before it, where that is full."""
        if self._size and self._size + size > PIECE:
            yield from self.rest()
        self._reply.MergeFrom(part)
        self._size += size + 32

    def rest(self) -> Iterator[pb.WaitReply]:
        if self._size:
            yield self._reply
            self._reply, self._size = pb.WaitReply(), 0


def _drop_unwanted(broker: Broker, node: Node) -> None:
    """Let go of the value of a node that has ended, where nobody is going to ask for it."""
    watched = node.key in broker.watching or node.key in broker.recent
    if node.state in ENDED and not node.readers and not watched:
        broker.payloads.values.drop(node.key)


def check_instances(request: pb.WaitRequest | pb.ExplainRequest, instances: int) -> None:
    """Raises Malformed where the request does not say of which of so many instances each node is."""
    places = request.instance_of
    if request.instances and (len(places) != len(request.node) or max(places) >= instances):
        raise Malformed("the instances that are named do not fit the nodes that are waited for")


def owners_of(request: pb.WaitRequest | pb.ExplainRequest) -> dict[bytes, bytes]:
    """The instance of each node that is asked for. Raises Malformed."""
    instances = [id_bytes(id, "an instance") for id in request.instances or [request.instance]]
    check_instances(request, len(instances))
    places: Sequence[int] = request.instance_of if request.instances else [0] * len(request.node)
    owners: dict[bytes, bytes] = {}
    for id, place in zip(request.node, places, strict=True):
        if owners.setdefault(id, instances[place]) != instances[place]:
            raise Malformed(f"node {id.hex()} is asked for as of two instances")
    return owners


def _how_many(before: int, size: int) -> int:
    """Values to be read next, if the ones before had so many bytes together."""
    return max(1, min(2 * before, before * READ // max(size, 1), AT_A_TIME))


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, AT_A_TIME)):
        yield batch


def _id_of(node: Node) -> bytes:
    """The id of a node that had not ended when it was looked up."""
    assert node.run is not None
    return node.run.id_of(node.key)


def _check_ours(node: Node, instance: bytes, id: bytes) -> None:
    check_instance(id, instance, is_own=node.instance.id in (b"", instance))
    if node.lane.function.world is not World.OURS:
        raise NotKnown(f"node {id.hex()} was made by the original's calls; GetNode tells of it")
