"""Helpers for tests of processes: does one exist, has one ended, and how does the broker at a port answer."""

import os
import select

import grpc
from grpc_health.v1 import health_pb2

from dagorama.api import broker_pb2, broker_pb2_grpc

#: Nothing that works takes so long.
SECONDS = 20


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def has_ended(pid: int) -> bool:
    """Whether a process, anybody's child, ends; returns as soon as it has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(SECONDS * 1000))
    finally:
        os.close(descriptor)


def is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply = check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def status(address: str) -> broker_pb2.Status:
    with grpc.insecure_channel(address) as channel:
        return broker_pb2_grpc.BrokerStub(channel).GetStatus(broker_pb2.GetStatusRequest(), timeout=SECONDS)


def put_value(address: str, content: bytes) -> None:
    with grpc.insecure_channel(address) as channel:
        chunks = iter([broker_pb2.ValueChunk(data=content)])
        broker_pb2_grpc.BrokerStub(channel).PutValue(chunks, timeout=SECONDS)
