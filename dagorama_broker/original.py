"""The original's eight calls (dagorama 0.1.10) on the same broker, for its unmodified clients.

Its nodes go only to workers of its calls. Its children are visible at once, its payloads are unsigned and opaque, and a
worker is fenced by the broker's own record of who claimed what.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b
from uuid import UUID, uuid4

import grpc.aio

from dagorama.api import api_pb2 as pb
from dagorama.api import api_pb2_grpc as pb_grpc
from dagorama_broker.broker import Broker
from dagorama_broker.errors import Malformed, NotAllowedNow, NotKnown
from dagorama_broker.model import ENDED, Failure, FoundNode, Function, RetryPolicy, State, World
from dagorama_broker.scheduler import NewRun, Node, Presence, Worker
from dagorama_broker.statuses import refusing

Context = grpc.aio.ServicerContext[object, object]

# The original's client compares these texts.
NO_WORK = "no work available"
INVALIDATED = "worker invalidated"


class OriginalService(pb_grpc.DagoramaServicer):
    """`main.Dagorama`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    @refusing
    async def CreateWorker(self, request: pb.WorkerConfigurationMessage, context: Context) -> pb.WorkerMessage:
        id = uuid4()
        presence = Presence(
            id.bytes, str(id), 1, World.ORIGINAL, frozenset(request.includeQueues),
            frozenset(request.excludeQueues), frozenset(request.queueTolerations),
        )
        self._broker.scheduler.connect_original(presence, self._broker.see_time())
        self._broker.touch()
        return pb.WorkerMessage(identifier=str(id))

    @refusing
    async def CreateInstance(self, request: pb.InstanceConfigurationMessage, context: Context) -> pb.InstanceMessage:
        id = _bytes(request.identifier, "instance")
        # Its nodes bring origins of their own; this one only marks that the instance was made by these calls.
        await self._broker.submit([NewRun(id, id[:12], 0, [], [], creates=("", b""))])
        return pb.InstanceMessage(identifier=request.identifier)

    @refusing
    async def CreateNode(self, request: pb.NodeConfigurationMessage, context: Context) -> pb.NodeMessage:
        id = _bytes(request.identifier, "node")
        sources = [_bytes(source, "source") for source in request.sourceIds]
        distinct = list(dict.fromkeys(sources))
        if id in distinct:
            raise Malformed(f"node {request.identifier} names itself as a source")
        lane = self._broker.scheduler.graph.lane(_function(request))
        run = NewRun(
            _bytes(request.instanceId, "instance"), id[:12], int.from_bytes(id[12:], "big"), [lane],
            [request.arguments], [[-1 - place for place in range(len(distinct))]], distinct,
            digest=blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest(),
        )
        await self._broker.submit([run])
        return pb.NodeMessage(
            identifier=request.identifier, functionName=request.functionName, functionHash=request.functionHash,
            queueName=request.queueName, taintName=request.taintName, arguments=request.arguments,
            instanceId=request.instanceId,
        )

    @refusing
    async def Ping(self, request: pb.WorkerMessage, context: Context) -> pb.PongMessage:
        worker = self._worker(request.identifier)
        now = self._broker.see_time()
        self._broker.scheduler.heard(worker, now)
        return pb.PongMessage(lastPing=int((now + self._broker.scheduler.graph.wall) * 1000))

    @refusing
    async def GetNode(self, request: pb.NodeRetrieveMessage, context: Context) -> pb.NodeMessage:
        id, instance = _bytes(request.identifier, "node"), _bytes(request.instanceId, "instance")
        await self._broker.durable()
        found = (await self._broker.in_store(self._broker.store.find, [id])).get(id)
        if found is None:
            raise NotKnown(f"node {request.identifier} is not known to this broker")
        stored = await self._broker.in_store(self._broker.store.instance, instance)
        if stored is None or stored.row.key != found.instance:
            raise NotKnown(f"instance {request.instanceId} has no node {request.identifier}")
        return await self._message(found, request.instanceId)

    @refusing
    async def GetWork(self, request: pb.WorkerMessage, context: Context) -> pb.NodeMessage:
        worker = self._worker(request.identifier, INVALIDATED)
        now = self._broker.see_time()
        self._broker.scheduler.heard(worker, now)
        granted = self._broker.scheduler.claim(worker, now)
        if granted is None:
            raise NotKnown(NO_WORK)
        await self._broker.durable()
        node = granted.node
        assert node.run is not None
        arguments = (await self._broker.payloads.arguments.get([node.key]))[node.key]
        function = node.lane.function
        return pb.NodeMessage(
            identifier=str(UUID(bytes=node.run.id_of(node.key))), functionName=function.name,
            functionHash=function.hash, queueName=function.queue, taintName=function.taint, arguments=arguments,
            sources=await self._sources(node.sources), instanceId=str(UUID(bytes=node.instance.id)),
        )

    @refusing
    async def SubmitWork(self, request: pb.WorkCompleteMessage, context: Context) -> pb.NodeMessage:
        worker, node = self._claimed(request.workerId, request.nodeId, request.instanceId)
        now = self._broker.see_time()
        attempt = self._broker.scheduler.attempt_of(worker, node)
        self._broker.scheduler.complete(worker, node.key, attempt, request.result, 0, (), (), {}, (), now)
        await self._broker.durable()
        return pb.NodeMessage(
            identifier=request.nodeId, functionName=node.lane.function.name, resolvedValue=request.result,
            completed=True, instanceId=request.instanceId,
        )

    @refusing
    async def SubmitFailure(self, request: pb.WorkFailedMessage, context: Context) -> pb.NodeMessage:
        worker, node = self._claimed(request.workerId, request.nodeId, request.instanceId)
        now = self._broker.see_time()
        attempt = self._broker.scheduler.attempt_of(worker, node)
        last = request.traceback.strip().rsplit("\n", 1)[-1]
        type, _, message = last.partition(": ")
        failure = Failure("", type, message, request.traceback, b"", 0)
        self._broker.scheduler.fail(worker, node.key, attempt, failure, now, random.random())
        await self._broker.durable()
        return pb.NodeMessage(
            identifier=request.nodeId, functionName=node.lane.function.name, instanceId=request.instanceId
        )

    # --- reading --------------------------------------------------------------------------------------

    def _worker(self, identifier: str, text: str = "") -> Worker:
        worker = self._broker.scheduler.dispatch.workers.get(_bytes(identifier, "worker"))
        if worker is None or worker.presence.world is not World.ORIGINAL:
            raise NotAllowedNow(text or f"worker {identifier} is not known to this broker: create it again")
        return worker

    def _claimed(self, worker_id: str, node_id: str, instance_id: str) -> tuple[Worker, Node]:
        worker = self._worker(worker_id)
        self._broker.scheduler.heard(worker, self._broker.see_time())
        node = self._broker.scheduler.graph.find(_bytes(node_id, "node"))
        if node is None:
            raise NotAllowedNow(f"node {node_id} is not claimed: it has ended or was never made")
        if node.instance.id != _bytes(instance_id, "instance"):
            raise NotKnown(f"instance {instance_id} has no node {node_id}")
        return worker, node

    async def _message(self, found: FoundNode, instance_id: str) -> pb.NodeMessage:
        function = self._function(found.function)
        message = pb.NodeMessage(
            identifier=str(UUID(bytes=found.id)), functionName=function.name, functionHash=function.hash,
            queueName=function.queue, taintName=function.taint, instanceId=instance_id,
        )
        message.arguments = (await self._broker.payloads.arguments.get([found.key]))[found.key]
        if found.ended is not None and found.ended.state == State.COMPLETED:
            message.completed = True
            message.resolvedValue = (await self._broker.payloads.values.get([found.key]))[found.key]
        node = self._broker.scheduler.graph.nodes.get(found.key)
        if node is not None:
            message.sources.extend(await self._sources(node.sources))
        return message

    def _function(self, lane_id: int) -> Function:
        return next(lane.function for lane in self._broker.scheduler.graph.lanes.values() if lane.id == lane_id)

    async def _sources(self, nodes: Sequence[Node]) -> list[pb.NodeMessage]:
        """A node's sources, one layer: identifier, and the value of those that have completed."""
        completed = [node.key for node in nodes if node.state is State.COMPLETED]
        values = await self._broker.payloads.values.get(completed)
        ids = await self._broker.in_store(self._broker.store.ids, [node.key for node in nodes]) if nodes else {}
        return [
            pb.NodeMessage(
                identifier=str(UUID(bytes=ids[node.key])), functionName=node.lane.function.name,
                resolvedValue=values.get(node.key, b""), completed=node.state in ENDED,
            )
            for node in nodes
        ]


def _bytes(text: str, what: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        raise Malformed(f"the {what} identifier {text[:80]!r} is not a UUID") from None


def _function(request: pb.NodeConfigurationMessage) -> Function:
    retry = None
    if request.HasField("retry") and request.retry.maxAttempts > 1:
        message = request.retry
        if message.exponentialBase:
            base = float(max(1, message.exponentialBase))
            retry = RetryPolicy(message.maxAttempts, base, base)
        else:
            retry = RetryPolicy(message.maxAttempts, float(max(0, message.staticInterval)))
    return Function(
        request.functionName, request.functionHash, request.queueName or request.functionName, request.taintName,
        retry, False, World.ORIGINAL,
    )
