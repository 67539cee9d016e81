"""Starts and ends a broker: opens the store, restores the scheduler, and connects both with gRPC."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from dagorama.api import api_pb2_grpc, broker_pb2_grpc, externalscaler_pb2_grpc
from dagorama.api.contract import MESSAGE_LIMIT
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.leadership import Leadership
from dagorama_broker.engine.recorder import Recorder
from dagorama_broker.engine.retention_policy import RetentionPolicy
from dagorama_broker.engine.turns import collect_when_few
from dagorama_broker.errors import BindError
from dagorama_broker.monitoring.ports import AWAY, BROKEN, LEAVING, RECOVERING, Monitoring, monitored
from dagorama_broker.rpc.auth import TokenRegistry
from dagorama_broker.rpc.connections import Connections
from dagorama_broker.rpc.freed_memory import keep_freed_memory, trim
from dagorama_broker.rpc.interceptor import AuthInterceptor
from dagorama_broker.rpc.legacy_service import LegacyService
from dagorama_broker.rpc.limits import CallLimiter, RequestLimits, WorkerConfig
from dagorama_broker.rpc.local_server import LocalServer
from dagorama_broker.rpc.memory_guard import MemoryGuard, most_memory
from dagorama_broker.rpc.permissions import HEALTH
from dagorama_broker.rpc.scaler import ScalerService
from dagorama_broker.rpc.service import BrokerService
from dagorama_broker.rpc.tls import server_credentials
from dagorama_broker.scheduler import Limits, Scheduler, Timing
from dagorama_broker.settings import Settings
from dagorama_broker.store import StoreOptions, open_store
from dagorama_broker.store.descriptors import connections_within_limits
from dagorama_broker.store.protocol import Store
from dagorama_broker.store.sqlite.log_file import LogFile

log = logging.getLogger("dagorama_broker")

#: Seconds that open calls have to end when the broker leaves.
GRACE = 2.0
#: Bytes of memory that the staged children of any attempt may use.
LEAST_STAGED = 1 << 20
#: Milliseconds that a connection may stay open without a call, because it needs no token. Workers and waiting clients
#: always have an open call; other clients reconnect automatically, within a few milliseconds.
IDLE_MS = 30_000
#: Names under which grpc.health.v1 reports the broker; the empty one stands for the whole server.
SERVICES = ("", "dagorama.v1.Broker")
#: Calls of one connection beyond the limit of all calls, which gRPC accepts so that the broker can refuse them.
ROOM_TO_REFUSE = 100


@dataclass(frozen=True, slots=True)
class Served:
    """The address of a running broker and the counts of what it restored."""

    host: str
    port: int
    store: str
    epoch: int
    instances: int
    nodes: int

    def __str__(self) -> str:
        restored = f"{self.nodes} unfinished nodes of {self.instances} instances" if self.nodes else "nothing"
        return f"serving on {self.host}:{self.port}, store {self.store}, restored {restored} (epoch {self.epoch})"


@dataclass(frozen=True, slots=True)
class _Life:
    """How a broker reports that it serves, and learns that it should stop."""

    ready: Callable[[Served], None]
    stop: asyncio.Event
    monitoring: Monitoring


async def serve(settings: Settings, ready: Callable[[Served], None], stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM, SIGINT or `stop`. Raise StoreError or BindError, with one sentence."""
    keep_freed_memory()
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    access = TokenRegistry(Path(settings.tokens)) if settings.tokens else None
    is_signed = settings.values_transfer == "direct"
    options = StoreOptions(settings.values, settings.store_patience, settings.leader_lease, settings.address, is_signed)
    store = open_store(settings.store, options)
    try:
        async with monitored(settings) as monitoring, _watched(access):
            await _serve(settings, store, access, _Life(ready, stop, monitoring))
    finally:
        await asyncio.to_thread(store.close)


@asynccontextmanager
async def _watched(access: TokenRegistry | None) -> AsyncIterator[None]:
    """Read the file of tokens again whenever it changes, and immediately on SIGHUP."""
    if access is None:
        yield
        return
    log.info("%s", access)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, access.read_again)
    watching = loop.create_task(access.watch())
    try:
        yield
    finally:
        watching.cancel()
        loop.remove_signal_handler(signal.SIGHUP)


async def _serve(settings: Settings, store: Store, access: TokenRegistry | None, life: _Life) -> None:
    connections = Connections(connections_within_limits(settings.max_connections), HEALTH)
    await asyncio.to_thread(store.open)
    leadership = Leadership(store, life.stop)
    life.monitoring.obstacle = "" if not store.near else RECOVERING  # a standby is ready to take over
    epoch = await leadership.take()
    if epoch is None:
        return
    life.monitoring.obstacle = RECOVERING
    leadership.keep()
    scheduler = _scheduler(settings, epoch)
    recorder = life.monitoring.record(scheduler)
    await _restore(scheduler, store, recorder)
    cache = min(settings.cache_bytes, most_memory(settings.max_memory) // 3)
    broker = Broker(scheduler, store, cache, _keeping(settings))
    broker.grants_ahead = settings.grant_ahead
    life.monitoring.start(broker, recorder)
    if (path := store.logs_path) is not None:
        broker.logs.use(LogFile(path, settings.logs_max))
    health = HealthServicer()
    folder = await asyncio.to_thread(store.share_large) if settings.shared_files else ("", "")
    memory = MemoryGuard(settings.max_memory, broker.memory_size)
    local = LocalServer(settings, connections.most)
    places = folder, local.announced
    server, door, service = _server(settings, broker, memory, health, access, places, connections)
    port = _bind(server, settings)
    await server.start()
    await local.start(door, service)
    show = _shown(life.monitoring, health)
    helpers = _helpers(broker, connections.watch(port), trim(memory), leadership.watch(show))
    running = asyncio.create_task(broker.run())
    running.add_done_callback(lambda _: life.stop.set())
    await show(True)
    life.ready(Served(settings.host, port, repr(store), epoch, len(scheduler.instances), len(scheduler.nodes)))
    try:
        await life.stop.wait()
    finally:
        life.monitoring.obstacle = BROKEN if running.done() else LEAVING
        await health.enter_graceful_shutdown()
        broker.say_leaving()
        store.stop_waiting()
        await asyncio.gather(server.stop(GRACE), local.stop(GRACE))
        broker.stop()
        for helper in helpers:
            helper.cancel()
        try:
            await running
        finally:
            await broker.logs.close()
            leadership.raise_if_lost()


def _scheduler(settings: Settings, epoch: int) -> Scheduler:
    timing = Timing(settings.lease, settings.legacy_lease, settings.reconnect_wait)
    limits = Limits(
        settings.max_sources, settings.max_nodes, settings.max_submission, longest_traceback=settings.max_traceback,
        memory_per_attempt=2 * settings.max_submission + LEAST_STAGED,
        staged_memory=most_memory(settings.max_memory) // 2,
    )  # fmt: skip
    return Scheduler(epoch, limits, timing)


def _helpers(broker: Broker, *others: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    """Start the tasks that run next to the broker's loop."""
    nodes, logs = broker.scheduler.nodes, broker.logs
    work = (collect_when_few(nodes), logs.remove_unknown(broker.commits), broker.series.run(), *others)
    return [asyncio.create_task(each) for each in work]


def _shown(monitoring: Monitoring, health: HealthServicer) -> Callable[[bool], Awaitable[None]]:
    """Return the object that tells probes whether this broker serves."""

    async def show(serves: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for service in SERVICES:
            await health.set(service, status.SERVING if serves else status.NOT_SERVING)
        monitoring.obstacle = "" if serves else AWAY

    return show


async def _restore(scheduler: Scheduler, store: Store, recorder: Recorder | None) -> None:
    live, now = await asyncio.to_thread(store.live), time.monotonic()
    scheduler.restore(live, now, time.time() - now)
    if recorder is not None:
        recorder.restored(live.instances)


def _keeping(settings: Settings) -> RetentionPolicy:
    return RetentionPolicy(settings.retention, settings.retention_failed, settings.large_grace)


def _server(
    settings: Settings,
    broker: Broker,
    memory: MemoryGuard,
    health: HealthServicer,
    access: TokenRegistry | None,
    places: tuple[tuple[str, str], Callable[[], tuple[str, str]]],
    connections: Connections,
) -> tuple[grpc.aio.Server, AuthInterceptor, BrokerService]:
    """Return a server with its interceptor and service. `places`: folder and socket for this machine, with words."""
    streams = CallLimiter(settings.max_streams)
    door = AuthInterceptor(access, streams, memory)
    server = grpc.aio.server(options=_options(settings, connections.most), interceptors=[door, connections])
    bounds = RequestLimits(settings.max_nodes, settings.max_submission, settings.max_value)
    config = WorkerConfig(settings.heartbeat, settings.large_value_threshold, settings.cancel_grace, *places)
    service = BrokerService(broker, config, bounds, memory, streams)
    broker_pb2_grpc.add_BrokerServicer_to_server(service, server)
    externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server(ScalerService(service.demand), server)
    api_pb2_grpc.add_DagoramaServicer_to_server(LegacyService(broker, memory), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server, door, service


def _options(settings: Settings, connections: int) -> list[tuple[str, int]]:
    return [
        # Two brokers on one port would each get half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message),
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that pings more often than this three times gets ENHANCE_YOUR_CALM and is disconnected. Ours ping
        # every five seconds, and pings may arrive closer together than they were sent.
        ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
        ("grpc.http2.max_ping_strikes", 2),
        # For one connection: a client queues further calls. It is higher than the limit of all calls, so that the
        # interceptor can refuse a call.
        ("grpc.max_concurrent_streams", settings.max_streams + ROOM_TO_REFUSE),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        # A connection without a complete handshake, with TLS if required, is closed after this time.
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_timeout * 1000)),
    ]


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = _listen(server, settings, f"{address}:{settings.port}")
    except RuntimeError:
        port = 0
    if not port:
        raise BindError(
            f"cannot listen on {settings.host}:{settings.port}: the port is in use, or it is not an address of this"
            " machine; choose another with --port or --host"
        )
    return port


def _listen(server: grpc.aio.Server, settings: Settings, address: str) -> int:
    if not settings.tls_cert:
        return server.add_insecure_port(address)
    credentials = server_credentials(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return server.add_secure_port(address, credentials)
