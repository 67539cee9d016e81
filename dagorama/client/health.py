"""Asks a broker for its health, through grpc.health.v1. The call requires no token."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from dagorama.client.addresses import address
from dagorama.client.channel import sync_channel
from dagorama.client.status import broker_error

if TYPE_CHECKING:
    from dagorama.settings import Settings

#: The service whose health a broker reports, in addition to the health of the whole server.
SERVICE = "dagorama.v1.Broker"


def is_serving(settings: Settings, timeout: float) -> bool:
    """Return whether the broker takes work now.

    Raises BrokerUnavailable if it does not answer within `timeout` seconds, another BrokerError if the server has no
    health check or is no broker, and SettingsError if no channel can be made with these settings.
    """
    from grpc_health.v1 import health_pb2

    with closing(sync_channel(settings)) as channel:
        import grpc

        # The generated stub has no types.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=timeout)
        except grpc.RpcError as error:
            raise broker_error(error, address(settings)) from None
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
