"""The HTTP ports of a worker: /livez and /readyz for probes, /metrics for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dagorama.settings import WorkerOptions
from dagorama.worker.supervisor.notices import complain
from dagorama.worker.supervisor.supervisor import Supervisor
from dagorama_monitoring.health import Health
from dagorama_monitoring.listener import EXTRA, Pages, has_extra, listeners


class CannotListen(Exception):
    """A port cannot be served; the message says which, why, and what to do."""


@asynccontextmanager
async def monitored(options: WorkerOptions, supervisor: Supervisor) -> AsyncIterator[None]:
    """Serve the HTTP ports of the options within the context. Raises CannotListen."""
    health = Health(lambda: supervisor.obstacle)
    metrics = _metrics(options, supervisor)
    try:
        serving = listeners(options.health_host, (options.health_port, health.pages), (options.metrics_port, metrics))
    except OSError as error:
        raise CannotListen(f"{error}; choose another port with --health-port or --metrics-port") from error
    for listener in serving:
        complain(f"HTTP at {listener.url}: {', '.join(listener.pages)}")
    watching = asyncio.create_task(health.watch_loop()) if serving else None
    try:
        yield
    finally:
        if watching is not None:
            watching.cancel()
        for listener in serving:
            await asyncio.to_thread(listener.close)


def _metrics(options: WorkerOptions, supervisor: Supervisor) -> Pages:
    if options.metrics_port is None:
        return {}
    if not has_extra():
        raise CannotListen(f"--metrics-port needs a package: {EXTRA}")
    from dagorama.worker.supervisor.metrics import families
    from dagorama_monitoring.exposition import Scrapes

    return Scrapes(asyncio.get_running_loop(), supervisor.figures.taken, families).pages
