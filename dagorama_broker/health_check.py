"""What the broker's command line asks of a broker that runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the sentence of NoAnswer is enough

import grpc
from grpc_health.v1 import health_pb2

from dagorama_broker.rpc.tls import channel_credentials, meaning
from dagorama_broker.settings import Way

#: How long a broker may take to answer.
SECONDS = 3.0


class NoAnswer(Exception):
    """No broker answers there, or not to this; the message says which."""


def is_healthy(way: Way) -> bool:
    """Whether the broker serves. Raises NoAnswer or SettingsError."""
    with _channel(way) as channel:
        # Its generated stub has no types.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply = check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def _channel(way: Way) -> Iterator[grpc.Channel]:
    address = f"[{way.host}]:{way.port}" if ":" in way.host else f"{way.host}:{way.port}"
    try:
        with _open(way, address) as channel:
            yield channel
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            tls = "" if way.tls_ca else ", or it wants TLS (DAGORAMA_TLS_CA)"
            tls = tls if "Socket closed" in str(error.details()) else ""
            if meant := meaning(str(error.details())):
                raise NoAnswer(f"no broker can be asked at {address}: {meant}") from error
            raise NoAnswer(f"no broker answers at {address}{tls}") from error
        raise NoAnswer(f"what answers at {address} says {error.code().name}: {error.details()}") from error


def _open(way: Way, address: str) -> grpc.Channel:
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if not way.tls_ca:
        return grpc.insecure_channel(address, options=options)
    if way.tls_name:
        options.append(("grpc.ssl_target_name_override", way.tls_name))
    credentials = channel_credentials(way.tls_ca, way.tls_cert, way.tls_key)
    return grpc.secure_channel(address, credentials, options=options)
