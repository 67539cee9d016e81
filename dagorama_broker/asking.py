"""What the command line asks of a broker that runs elsewhere, and how the answer looks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the sentence of NoAnswer is enough

import grpc
from grpc_health.v1 import health_pb2

from dagorama.api import broker_pb2, broker_pb2_grpc

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


def get_status(host: str, port: int) -> broker_pb2.Status:
    """Raises NoAnswer."""
    with _channel(host, port) as channel:
        return broker_pb2_grpc.BrokerStub(channel).GetStatus(broker_pb2.GetStatusRequest(), timeout=SECONDS)


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
