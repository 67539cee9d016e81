"""The service `main.Dagorama`: the eight calls of dagorama 0.1.10, for its unmodified clients.

Its nodes go only to workers of these calls. Its children are visible at once, its payloads are unsigned and opaque, and
a worker is fenced by the broker's own record of claims.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence
from hashlib import blake2b
from uuid import UUID, uuid4

import grpc.aio

from dagorama.api import api_pb2 as pb
from dagorama.api import api_pb2_grpc as pb_grpc
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.lookups import check_instance
from dagorama_broker.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from dagorama_broker.model.domain import Failure, Function, State, WireProtocol, unpack_keys
from dagorama_broker.model.queries import FoundNode
from dagorama_broker.rpc.failures import LONGEST_MESSAGE
from dagorama_broker.rpc.fields import LONGEST_NAME, bounded, check_names
from dagorama_broker.rpc.functions import function_of_call
from dagorama_broker.rpc.legacy_workers import LegacyWorkers
from dagorama_broker.rpc.limits import MESSAGE
from dagorama_broker.rpc.memory_guard import MemoryGuard
from dagorama_broker.rpc.permissions import sharer
from dagorama_broker.rpc.status import refusing
from dagorama_broker.scheduler import Granted, NewNodes, Node, Worker, WorkerInfo

Context = grpc.aio.ServicerContext[object, object]

# Clients of 0.1.10 compare these texts, and no statuses.
NO_WORK = "no work available"
INVALIDATED = "worker invalidated"
#: The definition of instances that these calls made.
DEFINITION = "main.Dagorama"
#: Sources whose values are read at a time.
AT_A_TIME = 16
#: Seconds between two checks whether a restarted broker grants nodes again.
HELD_BACK = 0.05


class LegacyService(pb_grpc.DagoramaServicer):
    def __init__(self, broker: Broker, memory: MemoryGuard) -> None:
        self._broker = broker
        self._memory = memory
        self._workers = LegacyWorkers(broker.scheduler)

    @refusing
    async def CreateWorker(self, request: pb.WorkerConfigurationMessage, context: Context) -> pb.WorkerMessage:
        check_names((*request.includeQueues, *request.excludeQueues, *request.queueTolerations))
        whose, now = sharer.get(), self._broker.see_time()
        self._workers.take_place(whose, now)
        id = uuid4()
        presence = WorkerInfo(
            id.bytes,
            str(id),
            1,
            WireProtocol.LEGACY,
            frozenset(request.includeQueues),
            frozenset(request.excludeQueues),
            frozenset(request.queueTolerations),
        )
        self._workers.made(self._broker.scheduler.connect_original(presence, now), whose)
        self._broker.commits.mark_changed()
        return pb.WorkerMessage(identifier=str(id))

    @refusing
    async def CreateInstance(self, request: pb.InstanceConfigurationMessage, context: Context) -> pb.InstanceMessage:
        id = _bytes(request.identifier, "instance")
        # Not in CreateNode: workers call that too, and running nodes must be able to end.
        self._memory.check()
        # Its nodes bring origins of their own; this one only marks that the instance was made by these calls.
        await self._broker.submissions.submit([NewNodes(id, id[:12], 0, (), (), [], creates=(DEFINITION, b""))])
        return pb.InstanceMessage(identifier=request.identifier)

    @refusing
    async def CreateNode(self, request: pb.NodeConfigurationMessage, context: Context) -> pb.NodeMessage:
        id, instance = _bytes(request.identifier, "node"), _bytes(request.instanceId, "instance")
        sources = list(dict.fromkeys(_bytes(source, "source") for source in request.sourceIds))
        if id in sources:
            raise InvalidArgument(f"node {request.identifier} names itself as a source")
        function = function_of_call(request)
        block = NewNodes(
            instance,
            id[:12],
            int.from_bytes(id[12:], "big"),
            [function],
            [0],
            [request.arguments],
            [[-1 - place for place in range(len(sources))]],
            sources,
            digest=blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest(),
        )
        await self._broker.submissions.submit([block])
        message = _described(id, function, request.instanceId)
        message.arguments = request.arguments
        return _fitting(message)

    @refusing
    async def Ping(self, request: pb.WorkerMessage, context: Context) -> pb.PongMessage:
        self._heard(request.identifier)
        scheduler = self._broker.scheduler
        return pb.PongMessage(lastPing=int(scheduler.now + scheduler.wall))

    @refusing
    async def GetNode(self, request: pb.NodeRetrieveMessage, context: Context) -> pb.NodeMessage:
        id, instance = _bytes(request.identifier, "node"), _bytes(request.instanceId, "instance")
        with self._broker.lookups.holds.on(instance):
            found = await self._broker.lookups.find_node(instance, id)
            return _fitting(await self._described(found, request.instanceId))

    @refusing
    async def GetWork(self, request: pb.WorkerMessage, context: Context) -> pb.NodeMessage:
        worker = self._heard(request.identifier)
        await self._until_handed_out()
        while (granted := self._broker.scheduler.claim(worker, self._broker.see_time())) is not None:
            try:
                return await self._given(granted)
            except ResourceExhausted as why:
                self._fail(
                    worker, granted.node, granted.attempt, Failure("", "ResourceExhausted", str(why), "", b"", 0)
                )
            except BaseException:
                # The worker did not receive it: its client hung up, or the store could not be read.
                scheduler, now = self._broker.scheduler, self._broker.see_time()
                scheduler.give_back(worker, granted.node.key, granted.attempt, "", now)
                self._broker.commits.mark_changed()
                raise
        raise NotFound(NO_WORK)

    async def _until_handed_out(self) -> None:
        """Wait until a restarted broker grants nodes again: clients take an empty answer as the end of all work."""
        scheduler = self._broker.scheduler
        while scheduler.dispatch_paused_until is not None and scheduler.dispatch_paused_until > self._broker.see_time():
            await asyncio.sleep(HELD_BACK)

    @refusing
    async def SubmitWork(self, request: pb.WorkCompleteMessage, context: Context) -> pb.NodeMessage:
        worker, node, attempt = self._claimed(request.workerId, request.nodeId, request.instanceId)
        now = self._broker.see_time()
        self._broker.scheduler.complete(worker, node.key, attempt, request.result, 0, (), (), {}, (), now)
        await self._broker.commits.wait_durable()
        return _fitting(
            pb.NodeMessage(
                identifier=request.nodeId,
                functionName=node.queue.function.name,
                resolvedValue=request.result,
                completed=True,
                instanceId=request.instanceId,
            )
        )

    @refusing
    async def SubmitFailure(self, request: pb.WorkFailedMessage, context: Context) -> pb.NodeMessage:
        worker, node, attempt = self._claimed(request.workerId, request.nodeId, request.instanceId)
        last = request.traceback.strip().rsplit("\n", 1)[-1]
        type, _, message = last.partition(": ")
        failure = Failure(
            "",
            bounded(type, LONGEST_NAME),
            bounded(message, LONGEST_MESSAGE),
            bounded(request.traceback, self._broker.scheduler.limits.longest_traceback),
            b"",
            0,
        )
        self._fail(worker, node, attempt, failure)
        await self._broker.commits.wait_durable()
        return pb.NodeMessage(
            identifier=request.nodeId, functionName=node.queue.function.name, instanceId=request.instanceId
        )

    # --- reading --------------------------------------------------------------------------------------

    def _heard(self, identifier: str) -> Worker:
        """Return the worker that calls. Raises FailedPrecondition if it was lost, or is of an earlier broker."""
        worker = self._broker.scheduler.workers.get(_bytes(identifier, "worker"))
        if worker is None or worker.info.protocol is not WireProtocol.LEGACY:
            raise FailedPrecondition(INVALIDATED)
        self._broker.scheduler.record_contact(worker, self._broker.see_time())
        return worker

    def _claimed(self, worker_id: str, node_id: str, instance_id: str) -> tuple[Worker, Node, int]:
        """Return the worker that calls, the node that it holds and the attempt. Raises a BrokerRefusal."""
        worker = self._heard(worker_id)
        node = self._broker.scheduler.node(_bytes(node_id, "node"))
        if node is None:
            raise FailedPrecondition(f"node {node_id} is not claimed: it has ended or was never made")
        instance = _bytes(instance_id, "instance")
        check_instance(_bytes(node_id, "node"), instance, is_own=node.instance.id == instance)
        return worker, node, self._broker.scheduler.attempt_of(worker, node)

    def _fail(self, worker: Worker, node: Node, attempt: int, failure: Failure) -> None:
        self._broker.scheduler.fail(worker, node.key, attempt, failure, self._broker.see_time(), random.random())
        self._broker.commits.mark_changed()

    # --- answering ------------------------------------------------------------------------------------

    async def _given(self, granted: Granted) -> pb.NodeMessage:
        """Return a claimed node as its worker gets it. Raises ResourceExhausted if the message is too large."""
        await self._broker.commits.wait_durable()
        node = granted.node
        assert node.block is not None
        message = _described(node.block.id_of(node.key), node.queue.function, str(UUID(bytes=node.instance.id)))
        message.arguments = (await self._broker.payloads.arguments.get([node.key]))[node.key]
        sources = [source.key for source in node.sources]
        await self._add_sources(message, sources, sources)
        _check_size(message)
        return message

    async def _described(self, found: FoundNode, instance_id: str) -> pb.NodeMessage:
        function = self._function(found.function)
        if function.protocol is not WireProtocol.LEGACY:
            raise NotFound(f"node {UUID(bytes=found.id)} was made by the other protocol's calls")
        message = _described(found.id, function, instance_id)
        if found.ended is not None and found.ended.state == State.COMPLETED:
            message.completed = True
            message.resolvedValue = (await self._broker.payloads.values.get([found.key]))[found.key]
        message.arguments = (await self._broker.payloads.arguments.get([found.key]))[found.key]
        sources = unpack_keys(found.sources)
        ended = await self._broker.commits.in_store(self._broker.store.ended, sources)
        completed = {row.key for row in ended if row.state == State.COMPLETED}
        try:
            await self._add_sources(message, sources, completed)
        except ResourceExhausted:
            del message.sources[:]
        return message

    def _function(self, queue_id: int) -> Function:
        return self._broker.scheduler.function_queues[queue_id].function

    async def _add_sources(self, message: pb.NodeMessage, keys: Sequence[int], completed: Collection[int]) -> None:
        """Add the direct sources of a node: their IDs, and the values of completed ones. Raises ResourceExhausted."""
        for start in range(0, len(keys), AT_A_TIME):
            batch = keys[start : start + AT_A_TIME]
            ids = await self._broker.commits.in_store(self._broker.store.ids, batch)
            values = await self._broker.payloads.values.get(key for key in batch if key in completed)
            message.sources.extend(
                pb.NodeMessage(
                    identifier=str(UUID(bytes=ids[key])), resolvedValue=values.get(key, b""), completed=key in completed
                )
                for key in batch
            )
            _check_size(message)


def _described(id: bytes, function: Function, instance_id: str) -> pb.NodeMessage:
    return pb.NodeMessage(
        identifier=str(UUID(bytes=id)),
        functionName=function.name,
        functionHash=function.hash,
        queueName=function.queue,
        taintName=function.taint,
        instanceId=instance_id,
    )


def _fitting(message: pb.NodeMessage) -> pb.NodeMessage:
    """Return the message, or only the fields that its client reads if all of it is too large."""
    if message.ByteSize() <= MESSAGE:
        return message
    return pb.NodeMessage(
        identifier=message.identifier, resolvedValue=message.resolvedValue, completed=message.completed
    )


def _check_size(message: pb.NodeMessage) -> None:
    if message.ByteSize() > MESSAGE:
        raise ResourceExhausted(
            f"its arguments and the values of its sources are more than the {MESSAGE} bytes that its worker's client"
            " takes in one message"
        )


def _bytes(text: str, what: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        raise InvalidArgument(f"the {what} identifier {text[:80]!r} is not a UUID") from None
