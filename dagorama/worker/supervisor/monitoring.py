"""The HTTP ports of a worker: /livez and /readyz for probes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dagorama.settings import WorkerOptions
from dagorama.worker.supervisor.notices import complain
from dagorama.worker.supervisor.supervisor import Supervisor
from dagorama_monitoring.health import Health
from dagorama_monitoring.listener import listeners


class CannotListen(Exception):
    """A port cannot be bound; the message says which, and what to do."""


@asynccontextmanager
async def monitored(options: WorkerOptions, supervisor: Supervisor) -> AsyncIterator[None]:
    """Serve the HTTP ports of the options within the context. Raises CannotListen."""
    health = Health(lambda: supervisor.obstacle)
    try:
        serving = listeners(options.health_host, (options.health_port, health.pages))
    except OSError as error:
        raise CannotListen(f"{error}; choose another port with --health-port") from error
    for listener in serving:
        complain(f"HTTP at {listener.url}: {', '.join(listener.pages)}")
    watching = asyncio.create_task(health.watch_loop())
    try:
        yield
    finally:
        watching.cancel()
        for listener in serving:
            await asyncio.to_thread(listener.close)
