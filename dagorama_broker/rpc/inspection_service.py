"""The calls of `dagorama.v1.Broker` by which people inspect a broker. As in `service`, no rules live here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc
import grpc.aio

from dagorama.api import broker_pb2 as pb
from dagorama.api import broker_pb2_grpc as pb_grpc
from dagorama_broker.engine.broker import Broker
from dagorama_broker.rpc import aggregates, inspect, overview
from dagorama_broker.rpc.actions import list_actions
from dagorama_broker.rpc.activity import ActivityReader
from dagorama_broker.rpc.cache import list_cache
from dagorama_broker.rpc.demand import DemandReader, demand_message, demand_query
from dagorama_broker.rpc.events import events
from dagorama_broker.rpc.explain import explain
from dagorama_broker.rpc.explain_node import explain_node
from dagorama_broker.rpc.fields import check_name, id_bytes
from dagorama_broker.rpc.id_prefix import find_ids
from dagorama_broker.rpc.logs import get_logs
from dagorama_broker.rpc.node_changes import watch_nodes
from dagorama_broker.rpc.node_map import node_maps
from dagorama_broker.rpc.permissions import caller, check_logs, is_reader, refuse_reader
from dagorama_broker.rpc.progress import watch
from dagorama_broker.rpc.schedules import list_schedules
from dagorama_broker.rpc.series import SeriesReader
from dagorama_broker.rpc.stacks import get_stack
from dagorama_broker.rpc.status import patient, refusing

Context = grpc.aio.ServicerContext[object, object]


class InspectionService(pb_grpc.BrokerServicer):
    """The part of `dagorama.v1.Broker` that reads, and changes nothing."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._activity = ActivityReader(broker)
        self.demand = DemandReader(broker)
        self._series = SeriesReader(broker)
        self._traffic = broker.traffic

    @refusing
    async def GetInstance(self, request: pb.GetInstanceRequest, context: Context) -> pb.InstanceInfo:
        return await inspect.instance_info(self._broker, request)

    @refusing
    async def ListInstances(self, request: pb.ListInstancesRequest, context: Context) -> pb.ListInstancesReply:
        check_name(request.definition, "the name of a definition")
        return await inspect.list_instances(self._broker, request)

    @refusing
    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesReply:
        return await inspect.list_nodes(self._broker, id_bytes(request.instance, "an instance"), request)

    @refusing
    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> pb.NodeDetails:
        instance, node = id_bytes(request.instance, "an instance"), id_bytes(request.node, "a node")
        if request.arguments or request.value:
            refuse_reader(caller.get())
        details = await inspect.node_details(self._broker, instance, node, request.arguments, request.value)
        return inspect.without_tracebacks(details) if is_reader(caller.get()) else details

    @refusing
    async def ExplainNode(self, request: pb.ExplainNodeRequest, context: Context) -> pb.Explanation:
        instance = id_bytes(request.instance, "an instance")
        return await explain_node(self._broker, instance, id_bytes(request.node, "a node") if request.node else b"")

    @refusing
    async def FindIds(self, request: pb.FindIdsRequest, context: Context) -> pb.FindIdsReply:
        return await find_ids(self._broker, request)

    @refusing
    async def NameNodes(self, request: pb.NameNodesRequest, context: Context) -> pb.NameNodesReply:
        return await aggregates.name_nodes(self._broker, request)

    @refusing
    async def ListFailures(self, request: pb.ListFailuresRequest, context: Context) -> pb.ListFailuresReply:
        check_name(request.definition, "the name of a definition")
        return await aggregates.list_failures(self._broker, request, is_reader(caller.get()))

    @refusing
    async def GetShape(self, request: pb.GetShapeRequest, context: Context) -> pb.Shape:
        return await aggregates.shape_of(self._broker, id_bytes(request.instance, "an instance"))

    @patient
    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.Progress]:
        replies = watch(self._broker, id_bytes(request.instance, "an instance"), request.now)
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    @patient
    async def Events(self, request: pb.EventsRequest, context: Context) -> AsyncIterator[pb.EventBatch]:
        replies = events(self._broker, id_bytes(request.instance, "an instance"))
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    @patient
    async def WatchQueues(self, request: pb.WatchQueuesRequest, context: Context) -> AsyncIterator[pb.Activity]:
        check_name(request.queue, "the name of a queue")
        replies = self._activity.watch(request.queue, request.now)
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    @patient
    async def GetMap(self, request: pb.GetMapRequest, context: Context) -> AsyncIterator[pb.NodeMap]:
        async with aclosing(node_maps(self._broker, request)) as replies:
            async for reply in replies:
                yield reply

    @patient
    async def WatchNodes(self, request: pb.WatchNodesRequest, context: Context) -> AsyncIterator[pb.NodeChanges]:
        async with aclosing(watch_nodes(self._broker, id_bytes(request.instance, "an instance"))) as replies:
            async for reply in replies:
                yield reply

    @refusing
    async def GetSeries(self, request: pb.GetSeriesRequest, context: Context) -> pb.Series:
        return await self._series.read(request.resolution)

    @refusing
    async def ListCache(self, request: pb.ListCacheRequest, context: Context) -> pb.ListCacheReply:
        return list_cache(self._broker)

    @refusing
    async def ListActions(self, request: pb.ListActionsRequest, context: Context) -> pb.ListActionsReply:
        return await list_actions(self._broker, request)

    @refusing
    async def ListSchedules(self, request: pb.ListSchedulesRequest, context: Context) -> pb.ListSchedulesReply:
        return await list_schedules(self._broker, request)

    @patient
    async def GetLogs(self, request: pb.GetLogsRequest, context: Context) -> AsyncIterator[pb.LogPiece]:
        check_logs(caller.get())
        replies = get_logs(self._broker, request)
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    @refusing
    async def GetStack(self, request: pb.GetStackRequest, context: Context) -> pb.NodeStack:
        check_logs(caller.get())
        return await get_stack(self._broker, request)

    @refusing
    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIReply:
        return overview.who_am_i(caller.get())

    @refusing
    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.Status:
        status = overview.status(self._broker, request)
        if request.running:
            await overview.name_running(self._broker, status, request.running)
        status.messages_in, status.messages_out = self._traffic.messages_in, self._traffic.messages_out
        return status

    @refusing
    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainReply:
        return explain(self._broker, request)

    @refusing
    async def Demand(self, request: pb.DemandRequest, context: Context) -> pb.DemandReply:
        return demand_message(self.demand.read(demand_query(request, caller.get())))

    @patient
    async def WatchDemand(self, request: pb.DemandRequest, context: Context) -> AsyncIterator[pb.DemandReply]:
        async with aclosing(self.demand.watch(demand_query(request, caller.get()))) as replies:
            async for reply in replies:
                yield demand_message(reply)
