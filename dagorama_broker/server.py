"""A broker from start to end: store, heart, loop, gRPC. Opens everything, and lets go of everything."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from dagorama.api import api_pb2_grpc, broker_pb2_grpc
from dagorama_broker.bounds import Bounds, Manners
from dagorama_broker.broker import Broker
from dagorama_broker.errors import CannotServe
from dagorama_broker.keeping import Keeping
from dagorama_broker.original import OriginalService
from dagorama_broker.scheduler import Limits, Scheduler, Timing
from dagorama_broker.service import BrokerService
from dagorama_broker.settings import MESSAGE_LIMIT, Settings
from dagorama_broker.store import open_store
from dagorama_broker.store.protocol import Store

log = logging.getLogger("dagorama_broker")

#: Seconds that calls under way have to end when the broker leaves.
GRACE = 2.0
#: Names of parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True, slots=True)
class Served:
    """Where a broker serves and what it took up."""

    host: str
    port: int
    store: str
    epoch: int
    instances: int
    nodes: int

    def __str__(self) -> str:
        restored = f"{self.nodes} unfinished nodes of {self.instances} instances" if self.nodes else "nothing"
        return f"serving on {self.host}:{self.port}, store {self.store}, restored {restored} (epoch {self.epoch})"


async def serve(
    settings: Settings, ready: Callable[[Served], None], stop: asyncio.Event | None = None
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`. Raises StoreError or CannotServe with one sentence."""
    _keep_freed_memory()
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = open_store(settings.store)
    try:
        await _serve(settings, store, ready, stop)
    finally:
        await asyncio.to_thread(store.close)


async def _serve(settings: Settings, store: Store, ready: Callable[[Served], None], stop: asyncio.Event) -> None:
    epoch = await asyncio.to_thread(store.open)
    timing = Timing(settings.lease, settings.original_lease, settings.reconnect_wait)
    limits = Limits(nodes_per_attempt=settings.max_nodes, bytes_per_attempt=settings.max_submission)
    scheduler = Scheduler(epoch, limits, timing)
    now = time.monotonic()
    scheduler.restore(await asyncio.to_thread(store.live), now, time.time() - now)
    broker = Broker(scheduler, store, keeping=_keeping(settings))
    health = HealthServicer()
    folder = await asyncio.to_thread(store.share_large) if settings.shared_files else ("", "")
    server = _server(settings, broker, health, folder)
    port = _bind(server, settings)
    await server.start()
    running = asyncio.create_task(broker.run())
    running.add_done_callback(lambda _: stop.set())
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    graph = scheduler.graph
    ready(Served(settings.host, port, repr(store), epoch, len(graph.instances), len(graph.nodes)))
    try:
        await stop.wait()
    finally:
        await health.enter_graceful_shutdown()
        broker.say_leaving()
        await server.stop(GRACE)
        broker.stop()
        await running


def _keeping(settings: Settings) -> Keeping:
    return Keeping(settings.retention, settings.retention_failed, settings.large_grace)


def _server(
    settings: Settings, broker: Broker, health: HealthServicer, values_folder: tuple[str, str]
) -> grpc.aio.Server:
    server = grpc.aio.server(options=_options(settings))
    bounds = Bounds(settings.max_nodes, settings.max_submission, settings.max_value)
    manners = Manners(settings.heartbeat, settings.large_from, settings.cancel_grace, values_folder)
    broker_pb2_grpc.add_BrokerServicer_to_server(BrokerService(broker, manners, bounds), server)
    api_pb2_grpc.add_DagoramaServicer_to_server(OriginalService(broker), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # Two brokers on one port would each get half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{address}:{settings.port}")
    except RuntimeError:
        port = 0
    if not port:
        raise CannotServe(
            f"cannot listen on {settings.host}:{settings.port}: the port is taken or the address is not this machine's;"
            " choose another with --port or --host"
        )
    return port


def _keep_freed_memory() -> None:
    """Have the C library keep what messages of megabytes leave behind, for the next ones.

    Given back and asked for again, each megabyte is twice as expensive as sending it. Elsewhere than with glibc nothing
    is changed.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 8 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


__all__ = ["Served", "serve"]
