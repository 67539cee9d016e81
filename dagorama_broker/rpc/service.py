"""gRPC in, gRPC out: read the message, ask the broker once, write the reply. Rules do not live here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import grpc.aio

from dagorama.api import broker_pb2 as pb
from dagorama.api import broker_pb2_grpc as pb_grpc
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.cancellation import cancel
from dagorama_broker.engine.proofs import check_secret
from dagorama_broker.engine.retries import Asked, look, retry, unservable
from dagorama_broker.engine.turns import Steps
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import Malformed, NotAllowedNow
from dagorama_broker.rpc import costs, inspect, messages, overview, work_messages
from dagorama_broker.rpc.caller import caller, sharer
from dagorama_broker.rpc.explain import explain, unservable_message
from dagorama_broker.rpc.id_prefix import find_ids
from dagorama_broker.rpc.large_values import Uploads
from dagorama_broker.rpc.limits import Bounds, Manners, Streams
from dagorama_broker.rpc.memory_guard import Memory
from dagorama_broker.rpc.permissions import is_reader, kept_to, refuse_reader
from dagorama_broker.rpc.rebind import adopt, adoptable_messages, for_deployed
from dagorama_broker.rpc.reports import take_death, take_report, take_return
from dagorama_broker.rpc.request_stream import Answerer, Talk
from dagorama_broker.rpc.status import refusing
from dagorama_broker.rpc.wait import wait_replies
from dagorama_broker.scheduler import NewRun
from dagorama_broker.store.large_values import is_clients_own

Context = grpc.aio.ServicerContext[object, object]


class BrokerService(pb_grpc.BrokerServicer):
    """`dagorama.v1.Broker`."""

    def __init__(self, broker: Broker, manners: Manners, bounds: Bounds, memory: Memory, streams: Streams) -> None:
        self._broker = broker
        self._streams = streams
        self._memory = memory
        self._manners = manners
        self._bounds = bounds
        self._uploads = Uploads(broker.store, bounds, memory.most)
        self._messages_in = 0
        self._messages_out = 0

    # --- spawners -------------------------------------------------------------------------------------

    @refusing
    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitReply:
        self._messages_in += 1
        with self._memory.hold(await costs.of_submission(request), sharer.get()):
            await self._broker.submit(await self._read_in_slices([request]))
        self._messages_out += 1
        return pb.SubmitReply()

    @refusing
    async def SubmitStream(
        self, request_iterator: AsyncIterator[pb.SubmitRequest], context: Context
    ) -> pb.SubmitReply:
        requests: list[pb.SubmitRequest] = []
        size = 0
        with self._memory.hold(0, sharer.get()) as held:
            async for request in request_iterator:
                self._messages_in += 1
                size += request.ByteSize()
                self._bounds.check_submission(size)
                held.add(await costs.of_submission(request))
                requests.append(request)
            # A stream that breaks off ends like one that is complete, so that its last message has to say which it is.
            if not requests or requests[-1].ByteSize():
                raise Malformed("the submission broke off: its last message is to be an empty one")
            await self._broker.submit(await self._read_in_slices(requests[:-1]))
            self._messages_out += 1
            return pb.SubmitReply()

    async def _read_in_slices(self, requests: list[pb.SubmitRequest]) -> list[NewRun]:
        self._bounds.check_nodes(sum(len(nodes.function) for request in requests for nodes in request.nodes))
        steps, runs = Steps(self._broker.scheduler.limits.step, self._broker.next_turn), list[NewRun]()
        for run in messages.read_runs(self._broker.scheduler, requests):
            await steps.spend(run.weight if run is not None else 1)
            if run is not None:
                runs.append(run)
        return runs

    def _runs_of(self, requests: list[pb.SubmitRequest]) -> list[NewRun]:
        runs = messages.runs_of(self._broker.scheduler, requests)
        self._bounds.check_nodes(sum(len(run.lanes) for run in runs))
        return runs

    @refusing
    async def Wait(self, request: pb.WaitRequest, context: Context) -> AsyncIterator[pb.WaitReply]:
        self._messages_in += 1
        with self._memory.hold(costs.of_wait(request), sharer.get(), is_small_ok=True) as held:
            async with aclosing(wait_replies(self._broker, request)) as replies:
                async for reply in replies:
                    self._messages_out += 1
                    size = reply.ByteSize()
                    held.take(size)
                    yield reply
                    held.take(-size)

    @refusing
    async def Talk(self, request_iterator: AsyncIterator[pb.Asks], context: Context) -> AsyncIterator[pb.Answers]:
        whose = sharer.get()
        answerer = Answerer(
            self._broker, self._runs_of, self._read_in_slices, caller.get(), self._memory, whose
        )
        talk = Talk(answerer, self._streams, whose)
        with self._broker.until_leaving(talk.leave):
            async with aclosing(talk.answers(self._counted(request_iterator))) as answers:
                async for message in answers:
                    self._messages_out += 1
                    yield message

    async def _counted(self, messages: AsyncIterator[pb.Asks]) -> AsyncIterator[pb.Asks]:
        async for message in messages:
            self._messages_in += 1
            yield message

    # --- workers --------------------------------------------------------------------------------------

    @refusing
    async def Work(
        self, request_iterator: AsyncIterator[pb.WorkerMessage], context: Context
    ) -> AsyncIterator[pb.BrokerMessage]:
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("hello"):
            raise Malformed("a worker's first message is its hello")
        session = self._welcome(first.hello)
        yield self._welcome_message()
        reader = asyncio.create_task(self._read(session, first, request_iterator))
        reader.add_done_callback(lambda _: session.wake())
        try:
            while not reader.done():
                news = await session.next()
                async for message in work_messages.messages(self._broker, news):
                    self._messages_out += 1
                    yield message
                if news.draining:
                    session.leaving = True
                    return
                del news  # it names nodes that may have ended by the time there is more to tell
            reader.result()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await reader
            self._goodbye(session)

    def _welcome(self, hello: pb.Hello) -> Session:
        broker, presence = self._broker, kept_to(messages.presence_of(hello), caller.get())
        check_secret(hello)
        proven = broker.proofs.proven(hello)
        known = broker.scheduler.dispatch.workers.get(presence.id)
        presented = list(zip(hello.held_node, hello.held_attempt, hello.held_slot, strict=True))
        held = [(key, attempt, slot) for key, attempt, slot in presented if (key, attempt) in proven]
        worker = broker.scheduler.connect(presence, held, broker.see_time())
        if known is not None and (earlier := broker.sessions.get(known)) is not None:
            earlier.end(NotAllowedNow("this worker has connected again, on another stream"))
        for key, attempt, _ in presented:
            if (key, attempt) not in proven:
                broker.scheduler.refuse(worker, attempt)
        session = broker.sessions[worker] = Session(worker)
        session.log_arrival()
        broker.touch()
        return session

    def _welcome_message(self) -> pb.BrokerMessage:
        manners = self._manners
        self._messages_out += 1
        return pb.BrokerMessage(
            welcome=pb.Welcome(
                epoch=self._broker.scheduler.epoch, heartbeat=manners.heartbeat,
                lease=self._broker.scheduler.timing.lease, large_from=manners.large_from,
                cancel_grace=manners.cancel_grace, values=self._values_folder(),
            )
        )

    def _goodbye(self, session: Session) -> None:
        self._broker.sessions.pop(session.worker, None)
        session.log_end(self._broker.scheduler.dispatch.workers)
        # A broker that leaves has hung up on its workers itself: that is no loss of theirs.
        is_lost = not self._broker.is_leaving
        self._broker.scheduler.disconnect(session.worker, self._broker.see_time(), counts=is_lost)
        with suppress(Exception):
            self._broker.touch()

    async def _read(
        self, session: Session, first: pb.WorkerMessage, rest: AsyncIterator[pb.WorkerMessage]
    ) -> None:
        """Take in what the worker says until it hangs up. Raises a BrokerRefusal where it is to go."""
        await self._take_in(session, first)
        async for message in rest:
            if message.HasField("hello"):
                raise Malformed("a worker says hello once, in its first message")
            await self._take_in(session, message)

    async def _take_in(self, session: Session, message: pb.WorkerMessage) -> None:
        self._messages_in += 1
        broker, worker = self._broker, session.worker
        if broker.scheduler.dispatch.workers.get(worker.presence.id) is not worker:
            raise NotAllowedNow("this worker was silent for longer than its lease and has been given up: connect again")
        broker.scheduler.heard(worker, broker.see_time())
        for report in message.reports:
            await take_report(broker, session, report)
        for returned in message.returns:
            take_return(broker, worker, returned)
        for death in message.deaths:
            take_death(broker, worker, death)
        for index in message.closed_slots:
            broker.scheduler.close_slot(worker, index, broker.see_time())
        if message.draining:
            broker.scheduler.leave(worker)
            session.leaving = True
            session.wake()
        broker.touch()
        if message.reports or message.returns or message.deaths:
            settled = session.settled(broker.scheduler.staged)
            broker.when_durable(lambda error: None if error else session.acknowledge(settled))

    # --- large values ---------------------------------------------------------------------------------

    @refusing
    async def PutValue(self, request_iterator: AsyncIterator[pb.ValueChunk], context: Context) -> pb.PutValueReply:
        sha256, length = await self._uploads.take(aiter(request_iterator), sharer.get())
        return pb.PutValueReply(sha256=sha256, length=length)

    @refusing
    async def GetValue(self, request: pb.GetValueRequest, context: Context) -> AsyncIterator[pb.ValueChunk]:
        sha256 = messages.sha256_bytes(request.sha256)
        async with aclosing(self._uploads.give(sha256, sharer.get())) as chunks:
            async for data in chunks:
                yield pb.ValueChunk(data=data)

    @refusing
    async def ValuesFolder(self, request: pb.ValuesFolderRequest, context: Context) -> pb.ValuesFolderReply:
        return self._values_folder()

    def _values_folder(self) -> pb.ValuesFolderReply:
        path, word = self._manners.values_folder
        return pb.ValuesFolderReply(path=path, word=word)

    @refusing
    async def KeepValue(self, request: pb.KeepValueRequest, context: Context) -> pb.KeepValueReply:
        sha256 = messages.sha256_bytes(request.sha256)
        if request.unfinished and not is_clients_own(request.unfinished):
            raise Malformed("a file of a client in `unfinished` is named by 32 hexadecimal digits")
        return pb.KeepValueReply(kept=await self._uploads.keep(sha256, request.length, request.unfinished))

    # --- looking --------------------------------------------------------------------------------------

    @refusing
    async def GetInstance(self, request: pb.GetInstanceRequest, context: Context) -> pb.InstanceInfo:
        return await inspect.instance_info(self._broker, messages.id_bytes(request.instance, "an instance"))

    @refusing
    async def ListInstances(self, request: pb.ListInstancesRequest, context: Context) -> pb.ListInstancesReply:
        messages.check_name(request.definition, "the name of a definition")
        return await inspect.list_instances(self._broker, request)

    @refusing
    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesReply:
        return await inspect.list_nodes(self._broker, messages.id_bytes(request.instance, "an instance"), request)

    @refusing
    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> pb.NodeDetails:
        instance, node = messages.id_bytes(request.instance, "an instance"), messages.id_bytes(request.node, "a node")
        if request.arguments:
            refuse_reader(caller.get())
        details = await inspect.node_details(self._broker, instance, node, request.arguments)
        return inspect.without_tracebacks(details) if is_reader(caller.get()) else details

    @refusing
    async def FindIds(self, request: pb.FindIdsRequest, context: Context) -> pb.FindIdsReply:
        return await find_ids(self._broker, request)

    @refusing
    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.Status:
        status = overview.status(self._broker, request)
        status.messages_in, status.messages_out = self._messages_in, self._messages_out
        return status

    @refusing
    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainReply:
        return explain(self._broker, request)

    # --- acting ---------------------------------------------------------------------------------------

    @refusing
    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelReply:
        instance = messages.id_bytes(request.instance, "an instance")
        with self._memory.hold(costs.of_ids(request.node), sharer.get(), is_small_ok=True):
            ids = [messages.id_bytes(id, "a node") for id in request.node]
            return pb.CancelReply(cancelled=await cancel(self._broker, instance, ids))

    @refusing
    async def Retry(self, request: pb.RetryRequest, context: Context) -> pb.RetryReply:
        instance = messages.id_bytes(request.instance, "an instance")
        with self._memory.hold(costs.of_ids(request.node), sharer.get(), is_small_ok=True):
            ids = [messages.id_bytes(id, "a node") for id in request.node]
            asked = Asked(instance, ids, request.downstream, request.new_code, for_deployed(request.adoptions))
            if request.look:
                return pb.RetryReply(adoptable=adoptable_messages(await look(self._broker, asked)))
            done = await retry(self._broker, asked)
        nobody = await unservable(self._broker, done.nodes, request.patience if request.patience > 0 else 0.0)
        scheduler, revived = self._broker.scheduler, done.revived
        return pb.RetryReply(
            queued=revived.queued, waiting=revived.waiting, completed=revived.completed, used_failures=revived.used,
            unservable=[unservable_message(scheduler, obstacle) for obstacle in nobody],
            adopted=revived.adopted,
        )

    @refusing
    async def Adopt(self, request: pb.AdoptRequest, context: Context) -> pb.AdoptReply:
        return await adopt(self._broker, request)
