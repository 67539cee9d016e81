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
from dagorama_broker.errors import Malformed, NotAllowedNow, NotKnown, TooMuch
from dagorama_broker.model.domain import Failure, Function, RetryPolicy, State, World
from dagorama_broker.model.queries import FoundNode
from dagorama_broker.model.rows import unpack_keys
from dagorama_broker.rpc.failures import LONGEST_MESSAGE
from dagorama_broker.rpc.fields import LONGEST_NAME, bounded, check_name, check_names
from dagorama_broker.rpc.legacy_workers import OriginalWorkers
from dagorama_broker.rpc.limits import MESSAGE
from dagorama_broker.rpc.memory_guard import Memory
from dagorama_broker.rpc.permissions import sharer
from dagorama_broker.rpc.status import refusing
from dagorama_broker.scheduler import Granted, NewRun, Node, Presence, Worker

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


class OriginalService(pb_grpc.DagoramaServicer):
    def __init__(self, broker: Broker, memory: Memory) -> None:
        self._broker = broker
        self._memory = memory
        self._workers = OriginalWorkers(broker.scheduler)

    @refusing
    async def CreateWorker(self, request: pb.WorkerConfigurationMessage, context: Context) -> pb.WorkerMessage:
        check_names((*request.includeQueues, *request.excludeQueues, *request.queueTolerations))
        whose, now = sharer.get(), self._broker.see_time()
        self._workers.take_place(whose, now)
        id = uuid4()
        presence = Presence(
            id.bytes, str(id), 1, World.ORIGINAL, frozenset(request.includeQueues),
            frozenset(request.excludeQueues), frozenset(request.queueTolerations),
        )
        self._workers.made(self._broker.scheduler.connect_original(presence, now), whose)
        self._broker.commits.touch()
        return pb.WorkerMessage(identifier=str(id))

    @refusing
    async def CreateInstance(self, request: pb.InstanceConfigurationMessage, context: Context) -> pb.InstanceMessage:
        id = _bytes(request.identifier, "instance")
        # Not in CreateNode: workers call that too, and running nodes must be able to end.
        self._memory.check()
        # Its nodes bring origins of their own; this one only marks that the instance was made by these calls.
        await self._broker.submissions.submit([NewRun(id, id[:12], 0, (), (), [], creates=(DEFINITION, b""))])
        return pb.InstanceMessage(identifier=request.identifier)

    @refusing
    async def CreateNode(self, request: pb.NodeConfigurationMessage, context: Context) -> pb.NodeMessage:
        id, instance = _bytes(request.identifier, "node"), _bytes(request.instanceId, "instance")
        sources = list(dict.fromkeys(_bytes(source, "source") for source in request.sourceIds))
        if id in sources:
            raise Malformed(f"node {request.identifier} names itself as a source")
        function = _function(request)
        run = NewRun(
            instance, id[:12], int.from_bytes(id[12:], "big"), [function], [0], [request.arguments],
            [[-1 - place for place in range(len(sources))]], sources,
            digest=blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest(),
        )
        await self._broker.submissions.submit([run])
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
            except TooMuch as why:
                self._fail(worker, granted.node, granted.attempt, Failure("", "TooMuch", str(why), "", b"", 0))
            except BaseException:
                # The worker did not receive it: its client hung up, or the store could not be read.
                scheduler, now = self._broker.scheduler, self._broker.see_time()
                scheduler.give_back(worker, granted.node.key, granted.attempt, "", now)
                self._broker.commits.touch()
                raise
        raise NotKnown(NO_WORK)

    async def _until_handed_out(self) -> None:
        """Wait until a restarted broker grants nodes again: clients take an empty answer as the end of all work."""
        scheduler = self._broker.scheduler
        while scheduler.hold_until is not None and scheduler.hold_until > self._broker.see_time():
            await asyncio.sleep(HELD_BACK)

    @refusing
    async def SubmitWork(self, request: pb.WorkCompleteMessage, context: Context) -> pb.NodeMessage:
        worker, node, attempt = self._claimed(request.workerId, request.nodeId, request.instanceId)
        now = self._broker.see_time()
        self._broker.scheduler.complete(worker, node.key, attempt, request.result, 0, (), (), {}, (), now)
        await self._broker.commits.durable()
        return _fitting(pb.NodeMessage(
            identifier=request.nodeId, functionName=node.lane.function.name, resolvedValue=request.result,
            completed=True, instanceId=request.instanceId,
        ))

    @refusing
    async def SubmitFailure(self, request: pb.WorkFailedMessage, context: Context) -> pb.NodeMessage:
        worker, node, attempt = self._claimed(request.workerId, request.nodeId, request.instanceId)
        last = request.traceback.strip().rsplit("\n", 1)[-1]
        type, _, message = last.partition(": ")
        failure = Failure(
            "", bounded(type, LONGEST_NAME), bounded(message, LONGEST_MESSAGE),
            bounded(request.traceback, self._broker.scheduler.limits.longest_traceback), b"", 0,
        )
        self._fail(worker, node, attempt, failure)
        await self._broker.commits.durable()
        return pb.NodeMessage(
            identifier=request.nodeId, functionName=node.lane.function.name, instanceId=request.instanceId
        )

    # --- reading --------------------------------------------------------------------------------------

    def _heard(self, identifier: str) -> Worker:
        """Return the worker that calls. Raises NotAllowedNow if it was lost, or is of an earlier broker."""
        worker = self._broker.scheduler.workers.get(_bytes(identifier, "worker"))
        if worker is None or worker.presence.world is not World.ORIGINAL:
            raise NotAllowedNow(INVALIDATED)
        self._broker.scheduler.heard(worker, self._broker.see_time())
        return worker

    def _claimed(self, worker_id: str, node_id: str, instance_id: str) -> tuple[Worker, Node, int]:
        """Return the worker that calls, the node that it holds and the attempt. Raises a BrokerRefusal."""
        worker = self._heard(worker_id)
        node = self._broker.scheduler.node(_bytes(node_id, "node"))
        if node is None:
            raise NotAllowedNow(f"node {node_id} is not claimed: it has ended or was never made")
        instance = _bytes(instance_id, "instance")
        check_instance(_bytes(node_id, "node"), instance, is_own=node.instance.id == instance)
        return worker, node, self._broker.scheduler.attempt_of(worker, node)

    def _fail(self, worker: Worker, node: Node, attempt: int, failure: Failure) -> None:
        self._broker.scheduler.fail(worker, node.key, attempt, failure, self._broker.see_time(), random.random())
        self._broker.commits.touch()

    # --- answering ------------------------------------------------------------------------------------

    async def _given(self, granted: Granted) -> pb.NodeMessage:
        """Return a claimed node as its worker gets it. Raises TooMuch if its client could not take the message."""
        await self._broker.commits.durable()
        node = granted.node
        assert node.run is not None
        message = _described(node.run.id_of(node.key), node.lane.function, str(UUID(bytes=node.instance.id)))
        message.arguments = (await self._broker.payloads.arguments.get([node.key]))[node.key]
        sources = [source.key for source in node.sources]
        await self._add_sources(message, sources, sources)
        _check_size(message)
        return message

    async def _described(self, found: FoundNode, instance_id: str) -> pb.NodeMessage:
        function = self._function(found.function)
        if function.world is not World.ORIGINAL:
            raise NotKnown(f"node {UUID(bytes=found.id)} was made by the other protocol's calls")
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
        except TooMuch:
            del message.sources[:]
        return message

    def _function(self, lane_id: int) -> Function:
        return self._broker.scheduler.function_queues[lane_id].function

    async def _add_sources(self, message: pb.NodeMessage, keys: Sequence[int], completed: Collection[int]) -> None:
        """Add the direct sources of a node: their ids, and the values of completed ones. Raises TooMuch."""
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
        identifier=str(UUID(bytes=id)), functionName=function.name, functionHash=function.hash,
        queueName=function.queue, taintName=function.taint, instanceId=instance_id,
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
        raise TooMuch(
            f"its arguments and the values of its sources are more than the {MESSAGE} bytes that its worker's client"
            " takes in one message"
        )


def _bytes(text: str, what: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        raise Malformed(f"the {what} identifier {text[:80]!r} is not a UUID") from None


def _function(request: pb.NodeConfigurationMessage) -> Function:
    name = check_name(request.functionName, "the name of a function", least=1)
    retry = None
    if request.HasField("retry") and request.retry.maxAttempts > 1:
        message = request.retry
        if message.exponentialBase:
            base = float(max(1, message.exponentialBase))
            retry = RetryPolicy(message.maxAttempts, base, base)
        else:
            retry = RetryPolicy(message.maxAttempts, float(max(0, message.staticInterval)))
    return Function(
        name, check_name(request.functionHash, "the hash of a function"),
        check_name(request.queueName, "the name of a queue") or name,
        check_name(request.taintName, "the name of a taint"), retry, False, World.ORIGINAL,
    )
