"""The service `externalscaler.ExternalScaler`, with which KEDA scales pools of workers by their demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc.aio

from dagorama.api import externalscaler_pb2 as pb
from dagorama.api import externalscaler_pb2_grpc as pb_grpc
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.rpc.demand import DemandReader, demand_query
from dagorama_broker.rpc.permissions import caller
from dagorama_broker.rpc.scaler_metadata import Trigger, read_trigger
from dagorama_broker.rpc.status import patient, refusing
from dagorama_broker.scheduler import DemandQuery

#: The name of the only metric of a pool.
METRIC = "slots"
#: Seconds without demand after which a pool is inactive.
QUIET = 30.0

Context = grpc.aio.ServicerContext[object, object]


class Activity:
    """Whether a pool is active, as it is told to KEDA: at once if it becomes active, later if it ceases to be.

    A pause between two nodes is no reason to end all pods, and starting them again takes longer than the pause.
    """

    def __init__(self, now: float) -> None:
        self._told: bool | None = None
        self._last = now  #: when there was demand, or else when the watch began

    def see(self, slots: int, now: float) -> bool | None:
        """Return what should be told now that a pool needs this number of slots; None: nothing."""
        if slots:
            self._last = now
        is_active = True if slots else None if now - self._last < QUIET else False
        if is_active is None or is_active == self._told:
            return None
        self._told = is_active
        return is_active


class ScalerService(pb_grpc.ExternalScalerServicer):
    """`externalscaler.ExternalScaler`. The interceptor has checked the token that is in the metadata."""

    def __init__(self, demand: DemandReader) -> None:
        self._demand = demand

    @refusing
    async def IsActive(self, request: pb.ScaledObjectRef, context: Context) -> pb.IsActiveResponse:
        return pb.IsActiveResponse(result=self._demand.read(_query(_trigger(request))).slots > 0)

    @patient
    async def StreamIsActive(self, request: pb.ScaledObjectRef, context: Context) -> AsyncIterator[pb.IsActiveResponse]:
        loop = asyncio.get_running_loop()
        activity = Activity(loop.time())
        async with aclosing(self._demand.looks(_query(_trigger(request)))) as looks:
            async for demand in looks:
                told = activity.see(demand.slots, loop.time())
                if told is not None:
                    yield pb.IsActiveResponse(result=told)

    @refusing
    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: Context) -> pb.GetMetricSpecResponse:
        trigger = _trigger(request)
        _query(trigger)
        target = trigger.slots_per_pod
        spec = pb.MetricSpec(metricName=METRIC, targetSize=target, targetSizeFloat=target)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    @refusing
    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> pb.GetMetricsResponse:
        if request.metricName != METRIC:
            raise InvalidArgument(f"a pool has no metric of this name; its only one is {METRIC!r}")
        slots = self._demand.read(_query(_trigger(request.scaledObjectRef))).slots
        value = pb.MetricValue(metricName=METRIC, metricValue=slots, metricValueFloat=slots)
        return pb.GetMetricsResponse(metricValues=[value])


def _trigger(request: pb.ScaledObjectRef) -> Trigger:
    return read_trigger(request.scalerMetadata)


def _query(trigger: Trigger) -> DemandQuery:
    """Return the pool of a trigger, restricted to what the caller's token allows. Raises as `demand_query` does."""
    return demand_query(trigger.pool, caller.get())._replace(any_key=trigger.any_key)
