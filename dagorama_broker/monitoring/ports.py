"""The HTTP ports of a broker: /livez and /readyz for probes, /metrics for Prometheus.

They are open from before the store is opened until the process ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.recorder import Recorder
from dagorama_broker.errors import BindError, SettingsError
from dagorama_broker.scheduler import Scheduler
from dagorama_broker.settings import Settings
from dagorama_monitoring.health import Health
from dagorama_monitoring.listener import EXTRA, has_extra, listeners

if TYPE_CHECKING:
    from dagorama_broker.monitoring.metrics import Metrics

log = logging.getLogger("dagorama_broker")

RECOVERING = "the broker is reading its store"
AWAY = "the database of the store does not answer"
LEAVING = "the broker is shutting down"
BROKEN = "the store could not be written, and the broker stops"


class Monitoring:
    """The figures of a broker, and why it takes no work now; the ports tell both."""

    def __init__(self, metrics: Metrics | None) -> None:
        self.obstacle = RECOVERING  #: empty: it takes work
        self._metrics = metrics

    def record(self, scheduler: Scheduler) -> Recorder | None:
        """Count what happens, before the scheduler is restored; None: no metrics are served."""
        return None if self._metrics is None else Recorder(scheduler)

    def start(self, broker: Broker, recorder: Recorder | None) -> None:
        """Serve the metrics of this broker, if any are served."""
        if self._metrics is not None and recorder is not None:
            self._metrics.start(broker, recorder)


@asynccontextmanager
async def monitored(settings: Settings) -> AsyncIterator[Monitoring]:
    """Serve the HTTP ports of the settings within the context. Raises BindError or SettingsError."""
    metrics = _metrics(settings)
    monitoring = Monitoring(metrics)
    health = Health(lambda: monitoring.obstacle)
    pages = {} if metrics is None else metrics.pages
    try:
        serving = listeners(settings.health_host, (settings.health_port, health.pages), (settings.metrics_port, pages))
    except OSError as error:
        raise BindError(
            f"{error}; choose another port with --health-port or --metrics-port, or address with --health-host"
        ) from error
    for listener in serving:
        log.info("HTTP at %s: %s", listener.url, ", ".join(listener.pages))
    watching = [asyncio.create_task(health.watch_loop())] if serving else []
    try:
        yield monitoring
    finally:
        for task in watching:
            task.cancel()
        for listener in serving:
            await asyncio.to_thread(listener.close)


def _metrics(settings: Settings) -> Metrics | None:
    if settings.metrics_port is None:
        return None
    if not has_extra():
        raise SettingsError(f"--metrics-port (DAGORAMA_METRICS_PORT) needs a package: {EXTRA}")
    from dagorama_broker.monitoring.metrics import Metrics

    return Metrics()
