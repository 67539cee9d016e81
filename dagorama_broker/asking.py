"""What the command line asks of a broker that runs elsewhere, and how the answer looks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the sentence of NoAnswer is enough

import grpc
from grpc_health.v1 import health_pb2

from dagorama.api import broker_pb2, broker_pb2_grpc
from dagorama_broker.settings import Way
from dagorama_broker.tls import channel_credentials

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


def get_status(way: Way) -> broker_pb2.Status:
    """Raises NoAnswer or SettingsError."""
    bearer = (("authorization", f"Bearer {way.token}"),) if way.token else ()
    with _channel(way) as channel:
        stub = broker_pb2_grpc.BrokerStub(channel)
        return stub.GetStatus(broker_pb2.GetStatusRequest(), timeout=SECONDS, metadata=bearer)


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


def as_text(status: broker_pb2.Status) -> str:
    """For people: what is live, who works, what nobody may run."""
    nodes = [(name, f"{status.nodes[state]}") for name, state in broker_pb2.NodeState.items()]
    workers = [_worker(worker) for worker in status.workers]
    unservable = [(row.function.name, f"{row.queued}", row.reason) for row in status.unservable]
    blocks = [
        f"dagorama {status.version}, epoch {status.epoch}, {status.instances} live instances\n"
        f"since the start: {status.commits} commits, {status.messages_in} messages in, {status.messages_out} out",
        _table(("nodes", "count"), nodes),
        _table(("worker", "slots", "held", "queues", "tolerations"), workers),
        _table(("unservable", "queued", "reason"), unservable) if unservable else "",
    ]
    return "\n\n".join(filter(None, blocks))


def _worker(worker: broker_pb2.WorkerInfo) -> Sequence[str]:
    queues = ",".join(worker.include_queues) or "all"
    if worker.exclude_queues:
        queues += f" but {','.join(worker.exclude_queues)}"
    return worker.name, f"{worker.slots}", f"{worker.held}", queues, ",".join(worker.tolerations) or "-"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)
