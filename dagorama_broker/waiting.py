"""Answers to Wait: what is known of the nodes, and then each as it ends, with the values it needs, in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TypeVar

from dagorama.api import broker_pb2 as pb
from dagorama_broker.broker import Broker
from dagorama_broker.culprits import node_failure
from dagorama_broker.errors import BrokerRefusal, Malformed, NotKnown, NotServing, StoreError
from dagorama_broker.messages import PIECE, id_bytes
from dagorama_broker.model import ENDED, State, World
from dagorama_broker.scheduler import Node
from dagorama_broker.watching import LEAVING, Watch

T = TypeVar("T")

#: Gets the only reply, or the last, or None, and the refusal that it ends with, or None.
Over = Callable[[pb.WaitReply | None, BrokerRefusal | None], None]
#: Gets the replies that are still to come.
More = Callable[[AsyncGenerator[pb.WaitReply, None]], None]

#: Nodes, or values, that are read at a time: others may use the store in between.
AT_A_TIME = 256


async def wait_replies(broker: Broker, request: pb.WaitRequest) -> AsyncGenerator[pb.WaitReply, None]:
    """Raises NotKnown where the broker has no such node in that instance."""
    wait = _Wait(broker, request)
    watch = wait.watch()
    with ExitStack() as held:
        for instance in wait.instances:
            held.enter_context(broker.holds.on(instance))
        try:
            async for reply in wait.ended_before():
                yield reply
            if request.now:
                yield wait.states()
                return
            while wait.left:
                async for reply in wait.ended(await watch.next()):
                    yield reply
        finally:
            wait.over(watch)


def wait_at_once(broker: Broker, request: pb.WaitRequest, over: Over, more: More) -> Callable[[], None] | None:
    """Wait for a single node that has not ended, without a task; returns what calls it off, which does no harm later.

    When it has ended, `over` gets the reply, or `more` the replies where one does not do. None: `wait_replies` has to
    take it, for it is another kind of wait.
    """
    if request.now or len(request.node) != 1 or request.instances:
        return None
    owner, id = id_bytes(request.instance, "an instance"), id_bytes(request.node[0], "a node")
    node = broker.scheduler.graph.find(id)
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
        broker.holds.take(request.instance)
        broker.watching.listen(self, node.key)

    def tell(self, node: Node) -> None:
        envelope = self._broker.payloads.values.kept.get(node.key)
        if node.state is State.COMPLETED and not node.refs and envelope is not None:
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
            self._broker.holds.let_go(self._request.instance)
            self._broker.watching.remove(self, [self._node.key])

    async def _replies(self) -> AsyncGenerator[pb.WaitReply, None]:
        try:
            async for reply in _Wait(self._broker, self._request, self._node).ended([self._node]):
                yield reply
        finally:
            self.call_off()
            _drop_unwanted(self._broker, self._node)


class _Wait:
    """One caller's wait: which nodes, where each stands in the request, and what has been said."""

    def __init__(self, broker: Broker, request: pb.WaitRequest, just_ended: Node | None = None) -> None:
        """`just_ended`: the only node that is asked for, known already."""
        if not request.node:
            raise Malformed("nothing is waited for")
        self._broker = broker
        self._owners = owners_of(request)
        self.instances = set(self._owners.values())
        self._now = request.now
        self._reruns = broker.scheduler.reruns
        self._places: dict[bytes, list[int]] = {}
        for place, id in enumerate(request.node):
            self._places.setdefault(id_bytes(id, "a node"), []).append(place)
        self._live: dict[int, tuple[Node, bytes]] = {}
        self._recent: list[tuple[Node, bytes]] = []  #: that have just ended, and are not told yet
        self._known: set[bytes] = set()  #: those that are in either
        for id in self._places:
            if (node := just_ended or broker.scheduler.graph.find(id)) is not None:
                _check_ours(node, self._owners[id], id)
                self._live[node.key] = node, id
                self._known.add(id)
            else:
                self._look_among_recent(id)
        self.left = set(self._live)
        self._failures: dict[int, pb.NodeFailure] = {}  #: by culprit

    def watch(self) -> Watch:
        """To be called before anything is awaited, so that no end is missed."""
        return self._broker.watching.add([] if self._now else self._live)

    def over(self, watch: Watch) -> None:
        """Nobody waits any more: values that were kept for this are let go."""
        self._broker.watching.remove(watch, self._live)
        for node, _ in self._live.values():
            _drop_unwanted(self._broker, node)

    def states(self) -> pb.WaitReply:
        """How the nodes stood that had not ended when they were asked for."""
        reply = pb.WaitReply()
        for node, id in self._live.values():
            # One that ended meanwhile may not be durable yet: what it was is what is known.
            state = State.CLAIMED if node.state in ENDED else node.state
            reply.index.extend(self._places[id])
            reply.state.extend([pb.NodeState.ValueType(state)] * len(self._places[id]))
        return reply

    def _look_among_recent(self, id: bytes) -> None:
        node = self._broker.recent.find(id)
        if node is not None:
            _check_ours(node, self._owners[id], id)
            self._recent.append((node, id))
            self._known.add(id)

    async def _tell_recent(self) -> AsyncIterator[pb.WaitReply]:
        recent, self._recent = self._recent, []
        for batch in _batches(recent):
            async for reply in self._tell(batch):
                yield reply

    def _others(self) -> list[bytes]:
        """Of which nothing is known yet."""
        return [id for id in self._places if id not in self._known]

    async def ended_before(self) -> AsyncIterator[pb.WaitReply]:
        """Nodes that the heart has no more: they have ended, or were never made."""
        async for reply in self._tell_recent():
            yield reply
        others = self._others()
        if not others:
            return
        await self._broker.durable()  # what has just ended is among the recent ones when it is on record
        for id in others:
            self._look_among_recent(id)
        async for reply in self._tell_recent():
            yield reply
        others = self._others()
        if not others:
            return
        stored = await self._broker.stored_instances({self._owners[id] for id in others})
        for ids in _batches(others):
            found = await self._broker.find_ended(ids)
            for id in ids:
                owner = self._owners[id]
                if id not in found:
                    raise NotKnown(f"node {id.hex()} is not known to this broker")
                if found[id].instance.key != stored[owner].row.key:
                    raise Malformed(f"node {id.hex()} is of another instance than {owner.hex()}")
                _check_ours(found[id], owner, id)
            async for reply in self._tell([(node, id) for id, node in found.items()]):
                yield reply

    async def ended(self, nodes: Sequence[Node]) -> AsyncIterator[pb.WaitReply]:
        """Nodes that have just ended."""
        self.left.difference_update(node.key for node in nodes)
        for batch in _batches(nodes):
            async for reply in self._tell([self._live[node.key] for node in batch]):
                yield reply

    async def _tell(self, nodes: Sequence[tuple[Node, bytes]]) -> AsyncIterator[pb.WaitReply]:
        pieces = _Pieces()
        needed = self._with_named([node for node, _ in nodes if node.state is State.COMPLETED])
        for batch in _batches(needed):
            for id, envelope in (await self._values(batch)).items():
                for reply in pieces.add(len(envelope), pb.WaitReply(value_node=[id], value=[envelope])):
                    yield reply
        # In one piece: whoever hears of an end lets go of the values that came before it.
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

    def _ends(self, ids: Iterable[bytes], state: State) -> pb.WaitReply:
        """That these nodes have ended so, without failures."""
        places = [place for id in ids for place in self._places[id]]
        return pb.WaitReply(index=places, state=[pb.NodeState.ValueType(state)] * len(places))

    async def _values(self, nodes: Sequence[Node]) -> dict[bytes, bytes]:
        """Their envelopes. Raises NotServing if nodes that had completed run again since this wait began."""
        try:
            found = await self._broker.values_of(nodes)
        except StoreError:
            self._refuse_stale()
            raise
        self._refuse_stale()
        return found

    def _refuse_stale(self) -> None:
        if self._reruns != self._broker.scheduler.reruns:
            raise NotServing("nodes that had completed were retried just now: wait again")

    def _with_named(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes and all that their values name, and so on; also what came with nodes that ended before these."""
        found, stack = {}, list(nodes)
        while stack:
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


def owners_of(request: pb.WaitRequest | pb.ExplainRequest) -> dict[bytes, bytes]:
    """The instance of each node that is asked for. Raises Malformed."""
    instances = [id_bytes(id, "an instance") for id in request.instances or [request.instance]]
    places: Sequence[int] = request.instance_of if request.instances else [0] * len(request.node)
    if len(places) != len(request.node) or max(places) >= len(instances):
        raise Malformed("the instances that are named do not fit the nodes that are waited for")
    owners: dict[bytes, bytes] = {}
    for id, place in zip(request.node, places, strict=True):
        if owners.setdefault(id, instances[place]) != instances[place]:
            raise Malformed(f"node {id.hex()} is asked for as of two instances")
    return owners


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, AT_A_TIME)):
        yield batch


def _check_ours(node: Node, instance: bytes, id: bytes) -> None:
    if node.instance.id and node.instance.id != instance:
        raise Malformed(f"node {id.hex()} is of instance {node.instance.id.hex()}, not {instance.hex()}")
    if node.lane.function.world is not World.OURS:
        raise NotKnown(f"node {id.hex()} was made by the original's calls; GetNode tells of it")
