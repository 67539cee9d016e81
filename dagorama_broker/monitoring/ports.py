"""The HTTP ports of a broker: /livez and /readyz for probes, from before the store is opened until the process ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dagorama_broker.errors import BindError
from dagorama_broker.settings import Settings
from dagorama_monitoring.health import Health
from dagorama_monitoring.listener import listeners

log = logging.getLogger("dagorama_broker")

RECOVERING = "the broker is reading its store"
LEAVING = "the broker is leaving"
BROKEN = "the store could not be written, and the broker stops"


class Readiness:
    """Why the broker takes no work now; the ports tell it to probes."""

    def __init__(self) -> None:
        self.obstacle = RECOVERING  #: empty: it takes work


@asynccontextmanager
async def monitored(settings: Settings) -> AsyncIterator[Readiness]:
    """Serve the HTTP ports of the settings within the context. Raises BindError."""
    readiness = Readiness()
    health = Health(lambda: readiness.obstacle)
    try:
        serving = listeners(settings.health_host, (settings.health_port, health.pages))
    except OSError as error:
        raise BindError(f"{error}; choose another port with --health-port, or address with --health-host") from error
    for listener in serving:
        log.info("HTTP at %s: %s", listener.url, ", ".join(listener.pages))
    watching = asyncio.create_task(health.watch_loop())
    try:
        yield readiness
    finally:
        watching.cancel()
        for listener in serving:
            await asyncio.to_thread(listener.close)
