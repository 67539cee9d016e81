"""Clients and workers of plain stubs, and a broker in this process, for tests of the broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.api_pb2_grpc import DagoramaStub
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama_broker import server
from dagorama_broker.engine.broker import Broker
from dagorama_broker.settings import Settings

if TYPE_CHECKING:
    from dagorama.api.api_pb2_grpc import DagoramaAsyncStub
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

#: Seconds after which what should happen is taken not to; a busy machine needs several.
PATIENCE = 30.0
FUNCTION = pb.Function(name="work:Task.entrypoint", hash="hash-1")
LEAF = pb.Function(name="work:Task.leaf", hash="hash-2")
#: The ID of a signing key, of which the broker wants to know who holds it.
KEY = b"\x0f" * 8
MEMORY = Settings(port=0, store="memory://", reconnect_wait=0.2)


def envelope(content: bytes) -> bytes:
    """Bytes as a client packs them: a version and no flags before the content."""
    return b"\x01\x00" + content


def signed(
    function: str, *made_with: str, hash: str = "", instance: bytes = b"", key: bytes = KEY
) -> pb.SignedRebinding:
    """A rebinding as a broker can read it, which holds no key to check it; without a hash for the code deployed."""
    rebinding = pb.Rebinding(
        version=1, function=function, made_with=made_with, hash=hash, deployed=not hash, instance=instance
    )
    return pb.SignedRebinding(rebinding=rebinding.SerializeToString(), key_id=key, mac=b"a signature")


@contextmanager
def refused(status: grpc.StatusCode, text: str = "") -> Iterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        yield
    details = refusal.value.details() or ""
    assert refusal.value.code() is status, f"{refusal.value.code()}: {details}"
    assert text in details
    assert details
    assert "Traceback" not in details


async def submit(stub: BrokerAsyncStub, *requests: pb.SubmitRequest, **options: Any) -> pb.SubmitReply:
    """Submit these messages as one submission, which an empty message ends."""

    async def messages() -> AsyncIterator[pb.SubmitRequest]:
        for request in requests:
            yield request
        yield pb.SubmitRequest()

    reply: pb.SubmitReply = await stub.SubmitStream(messages(), **options)
    return reply


# --- a broker ---------------------------------------------------------------------------------------


@dataclass
class Served:
    """A broker that serves in this process, and stubs that reach it."""

    broker: Broker
    port: int
    channel: grpc.aio.Channel
    stub: BrokerAsyncStub
    original: DagoramaAsyncStub
    stop: Callable[[], Any]
    epoch: int = 0
    workers: list[RawWorker] = field(default_factory=list)

    async def worker(self, **hello: Any) -> RawWorker:
        """A worker that has been welcomed; gone when the test ends."""
        worker = RawWorker(self.stub, **hello)
        self.workers.append(worker)
        await worker.connect()
        return worker

    async def status(self) -> pb.Status:
        return await self.stub.GetStatus(pb.GetStatusRequest())

    async def until(self, is_so: Callable[[Broker], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_so(self.broker):
                await asyncio.sleep(0.005)

    async def value(self, instance: bytes, id: bytes) -> bytes:
        """The value of a node that completes."""
        replies = await self.wait(instance, id)
        assert [state for reply in replies for state in reply.state] == [pb.COMPLETED], replies
        return {node: value for reply in replies for node, value in zip(reply.value_node, reply.value, strict=True)}[id]

    async def failure(self, instance: bytes, id: bytes) -> pb.NodeFailure:
        replies = await self.wait(instance, id)
        (failure,) = (failure for reply in replies for failure in reply.failure)
        return failure

    async def wait(self, instance: bytes, *ids: bytes, now: bool = False) -> list[pb.WaitReply]:
        request = pb.WaitRequest(instance=instance, node=ids, now=now)
        return [reply async for reply in self.stub.Wait(request, timeout=PATIENCE)]

    async def states(self, instance: bytes, *ids: bytes) -> list[int]:
        """Return the present state of each of these nodes."""
        found: dict[int, int] = {}
        for reply in await self.wait(instance, *ids, now=True):
            found.update(zip(reply.index, reply.state, strict=True))
        return [found[place] for place in range(len(ids))]


@asynccontextmanager
async def serving(settings: Settings = MEMORY, **changed: Any) -> AsyncIterator[Served]:
    """A broker on a free port, as `server.serve` makes it."""
    brokers: list[Broker] = []

    class Kept(Broker):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            brokers.append(self)

    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "Broker", Kept)
        running = asyncio.create_task(server.serve(replace(settings, **changed), ready.set_result, stop))
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    where: server.Served = ready.result()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{where.port}")
    served = Served(brokers[0], where.port, channel, BrokerStub(channel), DagoramaStub(channel), stop.set, where.epoch)
    try:
        yield served
    finally:
        for worker in served.workers:
            await worker.vanish()
        stop.set()
        try:
            async with asyncio.timeout(PATIENCE):
                await running
        finally:
            await channel.close()


# --- a client --------------------------------------------------------------------------------------


class Dag:
    """The IDs of one instance, and its nodes as a client describes them."""

    def __init__(self) -> None:
        self.instance, self.origin = os.urandom(16), os.urandom(12)

    def id(self, counter: int) -> bytes:
        return self.origin + counter.to_bytes(4, "big")

    @property
    def creates(self) -> pb.NewInstance:
        return pb.NewInstance(definition="work:Task", entry=self.id(0))

    def nodes(self, *arguments: bytes, first: int = 0, function: Any = 0, **columns: Any) -> pb.Nodes:
        """A block of nodes with these arguments, all of one function; `creates=True` makes the instance."""
        creates = columns.pop("creates", False)
        if creates:
            columns["creates"] = self.creates if creates is True else creates
        return pb.Nodes(**{
            "instance": self.instance, "origin": self.origin, "first": first,
            "function": function if isinstance(function, list) else [function] * len(arguments),
            "arguments": list(map(envelope, arguments)), **columns,
        })  # fmt: skip

    def submission(self, *arguments: bytes, functions: Sequence[pb.Function] = (FUNCTION,), **columns: Any) -> Any:
        """The instance and a block of nodes."""
        columns.setdefault("creates", True)
        return pb.SubmitRequest(functions=functions, nodes=[self.nodes(*arguments, **columns)])


async def answers_of(talk: Any) -> list[pb.Response]:
    """The answers in the next message of an open stream."""
    return list((await talk.read()).response)


# --- a worker ---------------------------------------------------------------------------------------


class Given(NamedTuple):
    """A node as a worker gets it."""

    key: int
    attempt: int
    slot: int
    id: bytes
    instance: bytes
    function: pb.Function
    arguments: bytes
    sources: tuple[int, ...]
    values: dict[int, bytes]  #: all that came with its grant
    ids: dict[int, bytes]  #: of the nodes whose values they are
    refs: dict[int, tuple[int, ...]]
    run: int
    made_with: str = ""  #: hash of the code that it was made with, if other code has rebound it
    beside: Sequence[int] = ()  #: the sources whose values do not come, since they are granted before
    rebinding: pb.SignedRebinding | None = None  #: what allows other code to run it


def read_grant(slot: int, body: bytes) -> list[Given]:
    read = pb.GrantBody.FromString(body)
    values = dict(zip(read.value_node, read.value, strict=True))
    ids = dict(zip(read.value_node, read.value_id, strict=True))
    counts = read.value_ref_count or [0] * len(read.value_node)
    refs = dict(zip(read.value_node, _split(read.value_ref, counts), strict=True))
    sources = _split(read.source, read.source_count or [0] * len(read.node))
    none = [0] * len(read.node)
    first, more = [*read.fused_source, *none], _split(read.more_fused, [*read.more_fused_count, *none])
    beside = [(first[place], *more[place]) if first[place] else () for place in range(len(none))]
    return [
        Given(
            key, read.attempt[place], slot, read.id[place], read.instances[read.instance[place]],
            read.functions[read.function[place]], read.arguments[place], sources[place], values, ids, refs,
            read.failed_attempts[place] if read.failed_attempts else 0, read.made_with[place] if read.made_with else "",
            beside[place],
            ([None, *read.rebindings])[read.rebinding[place] if place < len(read.rebinding) else 0],
        )
        for place, key in enumerate(read.node)
    ]  # fmt: skip


def _split(flat: Sequence[int], counts: Sequence[int]) -> list[tuple[int, ...]]:
    rest = iter(flat)
    return [tuple(next(rest) for _ in range(count)) for count in counts]


def identity() -> dict[str, bytes]:
    """A worker's ID and its secret."""
    secret = os.urandom(32)
    return {"worker": sha256(secret).digest()[:16], "secret": secret}


class RawWorker:
    """A session with the broker that says what it is told to say and runs nothing by itself."""

    def __init__(self, stub: BrokerAsyncStub, **hello: Any) -> None:
        self._stub = stub
        self.hello = pb.Hello(**{"protocol": 1, **identity(), "name": "raw", "slots": 1, **hello})
        self.sequence = 0
        self.welcome: pb.Welcome | None = None
        self.given: list[Given] = []
        self.grants: list[pb.HeldGrant] = []  #: with their proofs, as they came
        self.acknowledged = 0
        self.refused: list[int] = []
        self.taken_back: list[int] = []
        self.done = self.draining = False
        self.messages: list[pb.BrokerMessage] = []
        self.ended: grpc.aio.AioRpcError | str | None = None
        self._pieces: dict[int, list[bytes]] = {}
        self._news = asyncio.Condition()
        self._listening: asyncio.Task[None] | None = None

    async def connect(self, **changed: Any) -> None:
        """Open a stream; again: a new one, as after a broken connection, with the proofs of all grants so far."""
        self.hello.MergeFrom(pb.Hello(**changed))
        if "grants" not in changed:
            self.hello.grants.extend(self.grants[len(self.hello.grants) :])
        self.welcome, self.ended, self._pieces = None, None, {}
        self._call = await self._greeted()
        self._listening = asyncio.create_task(self._listen(self._call))
        await self.until(lambda: self.welcome or self.ended)

    async def _greeted(self) -> Any:
        """Return a stream on which the hello was sent.

        If the broker ends a stream while the hello is written, grpc.aio loses the status and reports INTERNAL (grpc
        issue 36066). A worker then opens another stream, and so does this one.
        """
        while True:
            call = self._stub.Work()
            try:
                await call.write(pb.WorkerMessage(hello=self.hello))
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INTERNAL:
                    continue
            return call  # if the broker has ended it already, `_listen` hears why

    @property
    def welcomed(self) -> pb.Welcome:
        """The broker's welcome, of which there is one."""
        assert self.welcome is not None
        return self.welcome

    @property
    def identity(self) -> dict[str, Any]:
        """Return the arguments with which another RawWorker goes on as this one: ID, secret and proofs of grants."""
        return {"worker": self.hello.worker, "secret": self.hello.secret, "grants": self.grants}

    async def vanish(self) -> None:
        """Go without a word."""
        self._call.cancel()
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening

    async def _listen(self, call: Any) -> None:
        try:
            async for message in call:
                self._take_in(message)
                async with self._news:
                    self._news.notify_all()
            self.ended = "closed by the broker"
        except grpc.aio.AioRpcError as error:
            self.ended = error
        async with self._news:
            self._news.notify_all()

    def _take_in(self, message: pb.BrokerMessage) -> None:
        self.messages.append(message)
        if message.HasField("welcome"):
            self.welcome = message.welcome
        self.acknowledged = max(self.acknowledged, message.acknowledged)
        self.refused += message.refused
        self.done, self.draining = self.done or message.done, self.draining or message.draining
        for grant in message.grants:
            pieces = self._pieces.setdefault(grant.slot, [])
            pieces.append(grant.body)
            if grant.last:
                self.grants.append(pb.HeldGrant(node=grant.node, attempt=grant.attempt, proof=grant.proof))
                given = read_grant(grant.slot, b"".join(self._pieces.pop(grant.slot)))
                assert [(node.key, node.attempt) for node in given] == list(zip(grant.node, grant.attempt, strict=True))
                self.given += given
        self.taken_back += [attempt for taken in message.take_back for attempt in taken.attempt]

    async def until(self, is_so: Callable[[], Any], patience: float = PATIENCE) -> None:
        async with asyncio.timeout(patience), self._news:
            await self._news.wait_for(is_so)

    async def nodes(self, count: int = 1) -> list[Given]:
        """The next `count` nodes that come, or have come and were not asked for."""
        await self.until(lambda: len(self.given) >= count or self.ended)
        assert len(self.given) >= count, self.ended
        taken, self.given = self.given[:count], self.given[count:]
        return taken

    async def node(self) -> Given:
        return (await self.nodes())[0]

    async def end(self) -> grpc.aio.AioRpcError:
        """The status with which the broker ended the session."""
        await self.until(lambda: self.ended)
        assert isinstance(self.ended, grpc.aio.AioRpcError), self.ended
        return self.ended

    # --- what it says

    async def say(self, **message: Any) -> None:
        await self._call.write(pb.WorkerMessage(**message))

    async def report(self, results: pb.Results, slot: int = 0) -> int:
        self.sequence += 1
        await self.say(reports=[pb.Report(sequence=self.sequence, body=results.SerializeToString(), slot=slot)])
        return self.sequence

    async def complete(self, *nodes: Given, value: bytes = b"done", **columns: Any) -> int:
        return await self.report(results(*nodes, value=value, **columns))

    async def fail(self, node: Given, **failure: Any) -> int:
        failed = pb.Failure(node=node.key, attempt=node.attempt, **{"type": "builtins.ValueError", **failure})
        return await self.report(pb.Results(failures=[failed]))

    async def durable(self, sequence: int) -> None:
        await self.until(lambda: self.acknowledged >= sequence)

    async def run(self, outcome: Callable[[Given], pb.Results]) -> None:
        """Run all that comes, one report for what came together, until cancelled."""
        while True:
            await self.until(lambda: self.given)
            given, self.given = self.given, []
            together, size = pb.Results(), 0
            for node in given:
                one = outcome(node)
                size += one.ByteSize()
                if size > 3 << 20:
                    await self.report(together)
                    together, size = pb.Results(), one.ByteSize()
                together.MergeFrom(one)
            await self.report(together)


def results(*nodes: Given, value: bytes = b"done", **columns: Any) -> pb.Results:
    """Nodes that completed, all with the same value."""
    return pb.Results(**{
        "node": [node.key for node in nodes], "attempt": [node.attempt for node in nodes],
        "value": [envelope(value)] * len(nodes), "microseconds": [30] * len(nodes), **columns,
    })  # fmt: skip


def children(node: Given, nodes: pb.Nodes) -> pb.Children:
    return pb.Children(node=node.key, attempt=node.attempt, nodes=nodes)


class EagerAttemptRecord:
    """Children that one attempt makes."""

    def __init__(self, parent: Given) -> None:
        self.parent, self.origin = parent, os.urandom(12)

    def id(self, counter: int) -> bytes:
        return self.origin + counter.to_bytes(4, "big")

    def nodes(self, *arguments: bytes, first: int = 0, function: Any = 0, **columns: Any) -> pb.Children:
        nodes = pb.Nodes(**{
            "instance": self.parent.instance, "origin": self.origin, "first": first,
            "function": function if isinstance(function, list) else [function] * len(arguments),
            "arguments": list(map(envelope, arguments)), **columns,
        })  # fmt: skip
        return children(self.parent, nodes)


async def granted(served: Served) -> tuple[Dag, RawWorker, Given]:
    """A worker that was granted a node and whose connection broke."""
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    worker = await served.worker()
    node = await worker.node()
    await worker.vanish()
    await served.until(lambda broker: not broker.sessions)
    return dag, worker, node
