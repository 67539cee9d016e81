"""The service `dagorama.v1.Broker`: reads the message, calls the engine once, writes the reply. Holds no rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc.aio

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.retries import Asked, retry, unservable
from dagorama_broker.engine.turns import Steps
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.rpc import costs, messages
from dagorama_broker.rpc.cache import clear_cache
from dagorama_broker.rpc.control import delete_instance, drain_worker, pause_queue
from dagorama_broker.rpc.explain import unschedulable_message
from dagorama_broker.rpc.fields import check_name, id_bytes, sha256_bytes
from dagorama_broker.rpc.handlers import writer_of
from dagorama_broker.rpc.inspection_service import InspectionService
from dagorama_broker.rpc.large_values import ValueTransfers
from dagorama_broker.rpc.limits import CallLimiter, RequestLimits, WorkerConfig
from dagorama_broker.rpc.memory_guard import MemoryGuard
from dagorama_broker.rpc.permissions import caller, caller_name, sharer
from dagorama_broker.rpc.rebind import for_deployed, look_at_retry, rebind
from dagorama_broker.rpc.request_handler import RequestHandler
from dagorama_broker.rpc.request_stream import RequestStream
from dagorama_broker.rpc.schedules import pause_schedule, put_schedule, remove_schedule
from dagorama_broker.rpc.signals import send_signal
from dagorama_broker.rpc.status import refusing
from dagorama_broker.rpc.wait import wait_replies
from dagorama_broker.rpc.work import WorkerStreams, values_folder
from dagorama_broker.scheduler import NewNodes
from dagorama_broker.store.value_files import is_clients_own

Context = grpc.aio.ServicerContext[object, object]


class BrokerService(InspectionService):
    """`dagorama.v1.Broker`."""

    def __init__(
        self, broker: Broker, config: WorkerConfig, bounds: RequestLimits, memory: MemoryGuard, streams: CallLimiter
    ) -> None:
        super().__init__(broker)
        self._streams = streams
        self._memory = memory
        self._config = config
        self._bounds = bounds
        self._uploads = ValueTransfers(broker, bounds, memory.most)
        self._workers = WorkerStreams(broker, config)

    # --- clients --------------------------------------------------------------------------------------

    @refusing
    async def SubmitStream(self, request_iterator: AsyncIterator[pb.SubmitRequest], context: Context) -> pb.SubmitReply:
        requests: list[pb.SubmitRequest] = []
        size, is_complete = 0, False
        with self._memory.hold(0, sharer.get()) as held:
            async for request in request_iterator:
                self._traffic.messages_in += 1
                if is_complete:
                    raise InvalidArgument("a submission goes on after its final empty message")
                # A stream that breaks off ends like a complete one, so that an empty message marks the end.
                is_complete = not request.ByteSize()
                if is_complete:
                    continue
                size += request.ByteSize()
                self._bounds.check_submission(size)
                held.add(await costs.of_submission(request))
                requests.append(request)
            if not is_complete:
                raise InvalidArgument("incomplete submission: the final empty message is missing")
            await self._broker.submissions.submit(await self._read_in_slices(requests))
            self._traffic.messages_out += 1
            return pb.SubmitReply()

    async def _read_in_slices(self, requests: list[pb.SubmitRequest]) -> list[NewNodes]:
        """Return all blocks of a submission in turns. Raises InvalidArgument or ResourceExhausted."""
        self._bounds.check_nodes(sum(len(nodes.function) for request in requests for nodes in request.nodes))
        steps, blocks = Steps(self._broker.scheduler.limits.step, self._broker.commits.next_turn), list[NewNodes]()
        for block in messages.read_blocks(requests):
            await steps.spend(block.weight if block is not None else 1)
            if block is not None:
                blocks.append(block)
        return blocks

    def _read_blocks_of(self, requests: list[pb.SubmitRequest]) -> list[NewNodes]:
        """Return all blocks of a submission at once. Raises InvalidArgument or ResourceExhausted."""
        blocks = messages.blocks_of(requests)
        self._bounds.check_nodes(sum(block.count for block in blocks))
        return blocks

    @refusing
    async def Wait(self, request: pb.WaitRequest, context: Context) -> AsyncIterator[pb.WaitReply]:
        self._traffic.messages_in += 1
        with self._memory.hold(costs.of_wait(request), sharer.get(), is_small_ok=True) as held:
            async with aclosing(wait_replies(self._broker, request)) as replies:
                async for reply in replies:
                    self._traffic.messages_out += 1
                    size = reply.ByteSize()
                    held.take(size)
                    yield reply
                    held.take(-size)

    @refusing
    async def Exchange(
        self, request_iterator: AsyncIterator[pb.Requests], context: Context
    ) -> AsyncIterator[pb.Responses]:
        whose = sharer.get()
        answerer = RequestHandler(
            self._broker, self._read_blocks_of, self._read_in_slices, caller.get(), self._memory, whose
        )
        talk = RequestStream(answerer, self._streams, whose, writer_of(context))
        with self._broker.until_leaving(talk.leave):
            async with aclosing(talk.answers(request_iterator)) as answers:
                async for message in answers:
                    yield message

    # --- workers --------------------------------------------------------------------------------------

    @refusing
    async def Work(
        self, request_iterator: AsyncIterator[pb.WorkerMessage], context: Context
    ) -> AsyncIterator[pb.BrokerMessage]:
        async with aclosing(self._workers.answer(request_iterator, writer_of(context))) as answers:
            async for message in answers:
                yield message

    # --- large values ---------------------------------------------------------------------------------

    @refusing
    async def PutValue(self, request_iterator: AsyncIterator[pb.ValueChunk], context: Context) -> pb.PutValueReply:
        sha256, length = await self._uploads.take(aiter(request_iterator), sharer.get())
        return pb.PutValueReply(sha256=sha256, length=length)

    @refusing
    async def GetValue(self, request: pb.GetValueRequest, context: Context) -> AsyncIterator[pb.ValueChunk]:
        sha256 = sha256_bytes(request.sha256)
        async with aclosing(self._uploads.give(sha256, sharer.get())) as chunks:
            async for data in chunks:
                yield pb.ValueChunk(data=data)

    @refusing
    async def GetSharedFolder(self, request: pb.GetSharedFolderRequest, context: Context) -> pb.GetSharedFolderReply:
        reply = values_folder(self._config)
        path, word = self._config.local_socket()
        if path:
            reply.socket.path, reply.socket.nonce = path, word
        return reply

    @refusing
    async def ImportValue(self, request: pb.ImportValueRequest, context: Context) -> pb.ImportValueReply:
        sha256 = sha256_bytes(request.sha256)
        if request.unfinished and not is_clients_own(request.unfinished):
            raise InvalidArgument("a file of a client in `unfinished` is named by 32 hexadecimal digits")
        return pb.ImportValueReply(kept=await self._uploads.keep(sha256, request.length, request.unfinished))

    @refusing
    async def KeepValue(self, request: pb.KeepValueRequest, context: Context) -> pb.KeepValueReply:
        return await self._uploads.place(request)

    @refusing
    async def FindValue(self, request: pb.FindValueRequest, context: Context) -> pb.FindValueReply:
        return await self._uploads.find(request)

    # --- operations -----------------------------------------------------------------------------------

    @refusing
    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelReply:
        instance = id_bytes(request.instance, "an instance")
        with self._memory.hold(costs.of_ids(request.node), sharer.get(), is_small_ok=True):
            ids = [id_bytes(id, "a node") for id in request.node]
            return pb.CancelReply(cancelled=await self._broker.cancellation.cancel(instance, ids, caller_name()))

    @refusing
    async def Retry(self, request: pb.RetryRequest, context: Context) -> pb.RetryReply:
        instance = id_bytes(request.instance, "an instance")
        with self._memory.hold(
            costs.of_ids(request.node) + costs.of_ids(request.waits), sharer.get(), is_small_ok=True
        ):
            ids = [id_bytes(id, "a node") for id in request.node]
            rebindings = for_deployed(request.rebindings)
            waits = {id_bytes(each.node, "a node"): each.attempt for each in request.waits}
            asked = Asked(instance, ids, request.downstream, request.new_code, rebindings, caller_name(), waits)
            if request.look:
                return await look_at_retry(self._broker, asked)
            done = await retry(self._broker, asked)
        left = await unservable(self._broker, done.nodes, request.patience if request.patience > 0 else 0.0)
        scheduler, revived = self._broker.scheduler, done.revived
        return pb.RetryReply(
            queued=revived.queued,
            waiting=revived.waiting,
            completed=revived.completed,
            used_failures=revived.used,
            unschedulable=[unschedulable_message(scheduler, obstacle) for obstacle in left],
            rebound=revived.rebound,
        )

    @refusing
    async def PauseQueue(self, request: pb.PauseQueueRequest, context: Context) -> pb.PauseQueueReply:
        queue = check_name(request.queue, "the name of a queue", 1)
        return await pause_queue(self._broker, queue, request.resume, request.keys)

    @refusing
    async def DrainWorker(self, request: pb.DrainWorkerRequest, context: Context) -> pb.DrainWorkerReply:
        return await drain_worker(self._broker, request.worker)

    @refusing
    async def ClearCache(self, request: pb.ClearCacheRequest, context: Context) -> pb.ClearCacheReply:
        return await clear_cache(self._broker, request.function)

    @refusing
    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteReply:
        return await delete_instance(self._broker, id_bytes(request.instance, "an instance"))

    @refusing
    async def SendSignal(self, request: pb.SendSignalRequest, context: Context) -> pb.SendSignalReply:
        with self._memory.hold(request.ByteSize() * costs.COPIES, sharer.get(), is_small_ok=True):
            return await send_signal(self._broker, request)

    @refusing
    async def Rebind(self, request: pb.RebindRequest, context: Context) -> pb.RebindReply:
        return await rebind(self._broker, request)

    # --- schedules ------------------------------------------------------------------------------------

    @refusing
    async def PutSchedule(self, request: pb.PutScheduleRequest, context: Context) -> pb.PutScheduleReply:
        return await put_schedule(self._broker, request)

    @refusing
    async def RemoveSchedule(self, request: pb.RemoveScheduleRequest, context: Context) -> pb.RemoveScheduleReply:
        return await remove_schedule(self._broker, request)

    @refusing
    async def PauseSchedule(self, request: pb.PauseScheduleRequest, context: Context) -> pb.PauseScheduleReply:
        return await pause_schedule(self._broker, request)
