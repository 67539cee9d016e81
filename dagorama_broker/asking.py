"""What the broker's command line asks of a broker that runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the sentence of NoAnswer is enough

import grpc
from grpc_health.v1 import health_pb2

#: How long a broker may take to answer.
SECONDS = 3.0


class NoAnswer(Exception):
    """No broker answers there, or not to this; the message says which."""


def is_healthy(host: str, port: int) -> bool:
    """Whether the broker serves. Raises NoAnswer."""
    with _channel(host, port) as channel:
        # Its generated stub has no types.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply = check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def _channel(host: str, port: int) -> Iterator[grpc.Channel]:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            yield channel
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise NoAnswer(f"no broker answers at {address}") from error
        raise NoAnswer(f"what answers at {address} says {error.code().name}: {error.details()}") from error
