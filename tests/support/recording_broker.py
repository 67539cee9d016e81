"""A broker small enough to read: a real gRPC server that keeps what it is sent, and can run it in this process.

It knows no rules. Tests ask it what came over the wire and what the broker answered.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc

from dagorama.api import api_pb2, api_pb2_grpc, broker_pb2, broker_pb2_grpc
from dagorama.context import current_attempt
from dagorama.definition import instance_within
from dagorama.graph.node_batch import NodeBatch, submit_requests
from dagorama.graph.scope import AttemptScope
from dagorama.serializer import find
from dagorama.values.assembly import decode_promised
from dagorama.values.codec import decode_call, encode
from dagorama.values.envelope import PLAIN, references
from dagorama.values.failures import failed_source
from dagorama.values.out_of_band import Buffer
from dagorama.values.signing import FAILURE, RESULT, SignedValues, code_text, function_digest, keyring
from tests.support.talking_broker import Talking

Nodes = broker_pb2.Nodes


@dataclass
class Node:
    """A node as it was described, and what became of it."""

    id: bytes
    instance: bytes
    function: broker_pb2.Function
    arguments: bytes
    sources: list[bytes]
    tolerated: list[bytes] = field(default_factory=list)
    key: str | None = None
    value: bytes | None = None
    refs: list[bytes] = field(default_factory=list)
    failure: broker_pb2.NodeFailure | None = None
    state: broker_pb2.NodeState.ValueType = broker_pb2.QUEUED

    @property
    def has_ended(self) -> bool:
        return self.state >= broker_pb2.COMPLETED

    @property
    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return decode_call(self.opened, ["a promise"] * len(self.sources))

    @property
    def opened(self) -> bytes:
        """The arguments, as a worker opens them."""
        digest = function_digest(self.function.name, code_text(self.function.hash, self.function.class_code))
        return keyring().open_arguments(self.arguments, self.instance, self.id, digest)

    def signed_failure(self, pickled: bytes) -> bytes:
        """An exception of its own, as a worker sends it."""
        return keyring().sign(PLAIN + pickled, FAILURE, self.instance, self.id)

    def returned(self, envelope: bytes) -> None:
        """It has completed with this value."""
        self.value, self.refs = keyring().sign(envelope, RESULT, self.instance, self.id), references(envelope)
        self.state = broker_pb2.COMPLETED


@dataclass
class RecordingBroker(  # type: ignore[misc]  # both services have a GetNode, which is not called here
    Talking, broker_pb2_grpc.BrokerServicer, api_pb2_grpc.DagoramaServicer
):
    requests: list[broker_pb2.SubmitRequest] = field(default_factory=list)
    submissions: int = 0
    streamed: int = 0
    waits: list[broker_pb2.WaitRequest] = field(default_factory=list)
    instances: dict[bytes, broker_pb2.NewInstance] = field(default_factory=dict)
    nodes: dict[bytes, Node] = field(default_factory=dict)
    large: dict[bytes, bytes] = field(default_factory=dict)
    uploads: int = 0
    folder: broker_pb2.GetSharedFolderReply | None = None
    keeps: bool = True
    explanation: broker_pb2.ExplainReply | None = None  #: None: it is an older broker
    kept: list[broker_pb2.ImportValueRequest] = field(default_factory=list)
    retries: list[broker_pb2.RetryRequest] = field(default_factory=list)
    retried: broker_pb2.RetryReply | None = None  #: what a retry is answered with
    rebindings: list[broker_pb2.RebindRequest] = field(default_factory=list)
    rebindable: broker_pb2.RebindReply | None = None  #: what a rebinding, and a look at one, are answered with
    cancels: list[broker_pb2.CancelRequest] = field(default_factory=list)
    hung_up: list[broker_pb2.WaitRequest] = field(default_factory=list)
    refusal: tuple[grpc.StatusCode, str] | None = None
    replies_to_lose: int = 0
    port: int = 0
    talks_ended: SimpleQueue[str] = field(default_factory=SimpleQueue)
    asked: SimpleQueue[str] = field(default_factory=SimpleQueue)

    # --- the calls

    def submit(self, request: broker_pb2.SubmitRequest, context: grpc.ServicerContext) -> broker_pb2.SubmitReply:
        self._refuse(context)
        self._take(request)
        self.submissions += 1
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        return broker_pb2.SubmitReply()

    def SubmitStream(self, requests: Any, context: grpc.ServicerContext) -> broker_pb2.SubmitReply:
        *parts, last = requests
        assert not last.ByteSize()  # it says that no part is missing
        for request in parts:
            self._take(request)
        self.streamed += 1
        return broker_pb2.SubmitReply()

    def Wait(self, request: broker_pb2.WaitRequest, context: grpc.ServicerContext) -> Iterator[broker_pb2.WaitReply]:
        self._refuse(context)
        self.waits.append(request)
        for node_id in request.node:
            if node_id not in self.nodes:
                context.abort(grpc.StatusCode.NOT_FOUND, f"no node {node_id.hex()}")
                return
        left = dict(enumerate(request.node))
        try:
            while left and context.is_active():
                for index in [index for index, id in left.items() if request.now or self.nodes[id].has_ended]:
                    yield self._reply(index, self.nodes[left.pop(index)])
                _sleep()
        finally:
            if left:
                self.hung_up.append(request)

    def Cancel(self, request: broker_pb2.CancelRequest, context: grpc.ServicerContext) -> broker_pb2.CancelReply:
        self._refuse(context)
        self.cancels.append(request)
        named = request.node or [node.id for node in self.nodes.values() if node.instance == request.instance]
        ended = [node for node in map(self.nodes.__getitem__, named) if not node.has_ended]
        for node in ended:
            failure = broker_pb2.NodeFailure(node=node.id, function=node.function.name)
            node.state, node.failure = broker_pb2.CANCELLED, failure
        return broker_pb2.CancelReply(cancelled=len(ended))

    def Retry(self, request: broker_pb2.RetryRequest, context: grpc.ServicerContext) -> broker_pb2.RetryReply:
        self._refuse(context)
        self.retries.append(request)
        named = request.node or [node.id for node in self.nodes.values() if node.instance == request.instance]
        failed = [node for node in map(self.nodes.__getitem__, named) if node.state == broker_pb2.FAILED]
        for node in failed:
            node.state = broker_pb2.QUEUED
        return self.retried or broker_pb2.RetryReply(queued=len(failed))

    def Rebind(self, request: broker_pb2.RebindRequest, context: grpc.ServicerContext) -> broker_pb2.RebindReply:
        self.rebindings.append(request)
        return self.rebindable or broker_pb2.RebindReply()

    def PutValue(self, chunks: Any, context: grpc.ServicerContext) -> broker_pb2.PutValueReply:
        data = b"".join(chunk.data for chunk in chunks)
        self.uploads += 1
        self.large[sha256(data).digest()] = data
        return broker_pb2.PutValueReply(sha256=sha256(data).digest(), length=len(data))

    def GetValue(self, request: broker_pb2.GetValueRequest, context: Any) -> Iterator[broker_pb2.ValueChunk]:
        data = self.large[request.sha256]
        for start in range(0, len(data), 1024 * 1024):
            yield broker_pb2.ValueChunk(data=data[start : start + 1024 * 1024])

    def GetSharedFolder(
        self, request: broker_pb2.GetSharedFolderRequest, context: Any
    ) -> broker_pb2.GetSharedFolderReply:
        if self.folder is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such call")
        assert self.folder is not None
        return self.folder

    def ImportValue(self, request: broker_pb2.ImportValueRequest, context: Any) -> broker_pb2.ImportValueReply:
        if self.folder is None or not request.unfinished:
            return broker_pb2.ImportValueReply(kept=request.sha256 in self.large)
        self.kept.append(request)
        name = request.sha256.hex()
        file = Path(self.folder.path, name[:2], name)
        if self.keeps:
            file.parent.mkdir(parents=True, exist_ok=True)
            Path(self.folder.path, "unfinished", request.unfinished).replace(file)
        return broker_pb2.ImportValueReply(kept=self.keeps)

    def GetInstance(self, request: broker_pb2.GetInstanceRequest, context: grpc.ServicerContext) -> Any:
        made = self.instances.get(request.instance)
        if made is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such instance")
            return None
        return broker_pb2.InstanceInfo(instance=request.instance, definition=made.definition, entry=made.entry)

    def Explain(self, request: broker_pb2.ExplainRequest, context: grpc.ServicerContext) -> broker_pb2.ExplainReply:
        if self.explanation is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "an older broker")
            raise AssertionError
        return self.explanation

    def CreateInstance(self, request: api_pb2.InstanceConfigurationMessage, context: Any) -> api_pb2.InstanceMessage:
        return api_pb2.InstanceMessage(identifier=request.identifier)

    # --- what tests ask

    @property
    def only(self) -> Node:
        (node,) = self.nodes.values()
        return node

    def called(self, method: str) -> list[Node]:
        return [node for node in self.nodes.values() if node.function.name.partition("@")[0].endswith(f".{method}")]

    def run(self, catch: tuple[type[Exception], ...] = ()) -> None:
        """Run every node that can run, in this process, as a worker would; a node that raises one of `catch` fails."""
        while ready := [node for node in self.nodes.values() if self._is_ready(node)]:
            for node in ready:
                self._run(node, catch)

    def end(self, node_id: bytes, value: object) -> None:
        self.nodes[node_id].returned(encode(value).envelope)

    # --- how it is done

    def _refuse(self, context: grpc.ServicerContext) -> None:
        if self.refusal is not None:
            context.abort(*self.refusal)

    def _take(self, request: broker_pb2.SubmitRequest) -> None:
        self.requests.append(request)
        for run in request.nodes:
            if run.HasField("creates"):
                self.instances[run.instance] = run.creates
            for node in nodes_of(request.functions, run):
                self.nodes[node.id] = node

    def _reply(self, index: int, node: Node) -> broker_pb2.WaitReply:
        reply = broker_pb2.WaitReply(index=[index], state=[node.state])
        if node.failure is not None:
            reply.failure.append(node.failure)
        pending = [node] if node.state == broker_pb2.COMPLETED else []
        while pending:
            found = pending.pop()
            assert found.value is not None
            reply.value_node.append(found.id)
            reply.value.append(found.value)
            pending += [self.nodes[ref] for ref in found.refs]
        return reply

    def _is_ready(self, node: Node) -> bool:
        return node.state == broker_pb2.QUEUED and all(
            self.nodes[source].state != broker_pb2.QUEUED
            and (self.nodes[source].failure is not None or self._is_whole(source))
            for source in node.sources
        )

    def _is_whole(self, node_id: bytes) -> bool:
        node = self.nodes[node_id]
        return node.value is not None and all(map(self._is_whole, node.refs))

    def _run(self, node: Node, catch: tuple[type[Exception], ...]) -> None:
        for source in set(node.sources) - set(node.tolerated):
            if (root_cause := self.nodes[source]).failure is not None:
                node.state, node.failure = root_cause.state, root_cause.failure
                return
        try:
            node.returned(encode(self._result(node), "result").envelope)
        except catch as error:
            node.state, node.failure = broker_pb2.FAILED, failure(node, error)

    def _result(self, node: Node) -> object:
        found = find(node.function.name)
        args, kwargs = decode_call(
            node.opened, [self._filling(source) for source in node.sources], get_large=self.large.__getitem__
        )
        scope = AttemptScope(node.instance, put_large=self._keep)
        token = current_attempt.set(scope)
        try:
            result = found.decorated.function(instance_within(node.instance, found.definition, scope), *args, **kwargs)
            if found.decorated.is_async:
                result = _awaited(result)
        finally:
            current_attempt.reset(token)
            scope.close()
        for run in scope.runs:
            for request in submit_requests([run]):
                self._take(request)
        return result

    def _filling(self, source: bytes) -> object:
        node = self.nodes[source]
        if node.failure is not None:
            return failed_source(node.failure.SerializeToString())
        values = {key: each.value for key, each in self.nodes.items() if each.value is not None}
        return decode_promised(source, SignedValues(keyring(), values))

    def _keep(self, data: Buffer) -> bytes:
        self.large[sha256(data).digest()] = bytes(data)
        return sha256(data).digest()


def failure(node: Node, error: BaseException) -> broker_pb2.NodeFailure:
    kind = type(error)
    return broker_pb2.NodeFailure(
        node=node.id, function=node.function.name, type=f"{kind.__module__}.{kind.__qualname__}", message=str(error),
        traceback=f"Traceback of {error}", attempts=1,
    )  # fmt: skip


def nodes_of(functions: Any, run: broker_pb2.Nodes) -> Iterator[Node]:
    """The nodes that a block's columns describe."""
    ids = [run.origin + ref.to_bytes(4, "big") if ref >= 0 else run.foreign[-1 - ref] for ref in run.source]
    counts = list(run.source_count) or [0] * len(run.function)
    keys = [None, *run.keys]
    end = 0
    for position, (function, arguments, count) in enumerate(zip(run.function, run.arguments, counts, strict=True)):
        start, end = end, end + count
        yield Node(
            id=run.origin + (run.first + position).to_bytes(4, "big"),
            instance=run.instance,
            function=functions[function],
            arguments=arguments,
            sources=ids[start:end],
            tolerated=[ids[place] for place in run.tolerant if start <= place < end],
            key=keys[run.key[position]] if run.key else None,
        )


def block_of(run: NodeBatch) -> list[Node]:
    """Return the nodes of a run that has not been sent."""
    requests = submit_requests([run])
    return [node for request in requests for part in request.nodes for node in nodes_of(request.functions, part)]


def _awaited(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("this runner awaits nothing that takes time")


def _sleep() -> None:
    from time import sleep

    sleep(0.005)


class serving:
    """`with serving() as broker`: it listens on a free port, or on the one that is given."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.broker = RecordingBroker()  # type: ignore[abstract]  # it lacks the calls that no client makes here

    def __enter__(self) -> RecordingBroker:
        self.server = grpc.server(ThreadPoolExecutor(8))
        broker_pb2_grpc.add_BrokerServicer_to_server(self.broker, self.server)
        api_pb2_grpc.add_DagoramaServicer_to_server(self.broker, self.server)
        self.broker.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()
        return self.broker

    def __exit__(self, *_: object) -> None:
        self.server.stop(grace=None).wait()
