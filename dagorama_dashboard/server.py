"""Serves the application over HTTP until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl

import uvicorn
from starlette.applications import Starlette

from dagorama.errors import SettingsError
from dagorama_dashboard.app import application
from dagorama_dashboard.settings import DashboardSettings
from dagorama_dashboard.web.guard import RequestGuard

#: Seconds that open requests get when the dashboard stops; streams end at once.
GRACE = 2
#: How far the process steps back if brokers and workers on the same machine need its processors.
NICENESS = 10
#: Connections that are open at once, streams included.
MOST_CONNECTIONS = 500


class Server(uvicorn.Server):
    """Ends streams before it waits for them."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.site.stop()
        await super().shutdown(sockets)


def serve(settings: DashboardSettings, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError or OSError, each with one sentence."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listener, app = listener_of(settings), application(settings)
    config = config_of(settings, app, log_level)
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.tls_cert else "http"
    print(f"dashboard: {scheme}://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    os.nice(NICENESS)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # uvicorn raises the signal again after it has stopped
    asyncio.run(Server(config, app).serve([listener]))


def config_of(settings: DashboardSettings, app: Starlette, log_level: str) -> uvicorn.Config:
    """Return how to serve the application. Raises SettingsError if the certificate cannot be used."""
    config = uvicorn.Config(
        RequestGuard(app, settings), log_config=None, log_level=log_level, access_log=False, lifespan="on", ws="none",
        server_header=False, limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=GRACE,
        ssl_certfile=settings.tls_cert or None, ssl_keyfile=settings.tls_key or None, proxy_headers=False,
    )  # fmt: skip
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"the certificate {settings.tls_cert} with the key {settings.tls_key} cannot be used: {why}"
        ) from None
    return config


def listener_of(settings: DashboardSettings) -> socket.socket:
    """Return a socket that listens. Raises OSError with one sentence."""
    try:
        family, *_, address = socket.getaddrinfo(
            settings.bind.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"cannot serve HTTP on {settings.bind}:{settings.port}: {why}") from None
