"""Asks a broker whether it serves, for `dagorama-broker health`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dagorama_broker.settings import Endpoint

if TYPE_CHECKING:
    import grpc

#: Seconds that a broker has to answer a health check.
HEALTH_SECONDS = 3.0


class NoAnswer(Exception):
    """No broker answers at an address, or not to this caller; the message says which."""


def is_healthy(way: Endpoint) -> bool:
    """Return whether a broker is serving. Raise NoAnswer or SettingsError."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before gRPC is loaded: the sentence of NoAnswer is enough
    from grpc_health.v1 import health_pb2

    with _channel(way) as channel:
        # The generated stub has no types.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply = check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def _channel(way: Endpoint) -> Iterator[grpc.Channel]:
    import grpc

    from dagorama_broker.rpc.tls import meaning

    address = f"[{way.host}]:{way.port}" if ":" in way.host else f"{way.host}:{way.port}"
    try:
        with _open(way, address) as channel:
            yield channel
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            may_want_tls = not way.tls_ca and "Socket closed" in str(error.details())
            if meant := meaning(str(error.details())):
                raise NoAnswer(f"cannot connect to a broker at {address}: {meant}") from error
            tls = ", or it requires TLS (set DAGORAMA_TLS_CA)" if may_want_tls else ""
            raise NoAnswer(f"no broker answers at {address}{tls}") from error
        raise NoAnswer(f"the server at {address} answered {error.code().name}: {error.details()}") from error


def _open(way: Endpoint, address: str) -> grpc.Channel:
    import grpc

    from dagorama_broker.rpc.tls import channel_credentials

    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if not way.tls_ca:
        return grpc.insecure_channel(address, options=options)
    if way.tls_name:
        options.append(("grpc.ssl_target_name_override", way.tls_name))
    credentials = channel_credentials(way.tls_ca, way.tls_cert, way.tls_key)
    return grpc.secure_channel(address, credentials, options=options)
