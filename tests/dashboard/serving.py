"""A dashboard in a thread of this process, and the browser-like client that the tests use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from re import sub
from typing import Any

import httpx

from dagorama.settings import Settings
from dagorama_dashboard.app import application
from dagorama_dashboard.server import Server, config_of, listener_of
from dagorama_dashboard.settings import dashboard_settings

#: The header of a browser for a request that a page of the same site has made.
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


class Dashboard:
    """The address of a dashboard, and requests to it."""

    def __init__(self, url: str, stop: Callable[[], None]) -> None:
        self.url = url
        self.stop = stop  #: begin to stop the dashboard
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self.client.get(path, **how)

    def page(self, path: str) -> str:
        """Return a page that there is."""
        response = self.get(path)
        assert response.status_code == 200, problem(response)
        return response.text

    def post(self, path: str, fields: dict[str, str | list[str]], **headers: str) -> httpx.Response:
        """Post a form as a page of the dashboard does, unless other headers are given."""
        return self.client.post(path, data=fields, headers=headers or SAME_ORIGIN)

    def done(self, **fields: str | list[str]) -> str:
        """Do something, and return the page after it."""
        response = self.post("/do", {"next": "/instances", **fields})
        assert response.status_code == 303, problem(response)
        return self.page(response.headers["location"])

    def sign_in(self, token: str) -> httpx.Response:
        return self.post("/login", {"token": token, "next": "/"})


def problem(response: httpx.Response) -> str:
    """Return what a response says, without its frame."""
    return " ".join(sub("<[^>]*>", " ", response.text.rpartition('<main id="main">')[2]).split())


@contextmanager
def dashboard(
    host: str, port: int, *, bind: str = "127.0.0.1", hosts: Sequence[str] = (), auth_token: str = "", **options: Any
) -> Iterator[Dashboard]:
    """Serve the pages of the broker at this address."""
    broker = Settings(host=host, port=port, auth_token=auth_token)
    settings = dashboard_settings(broker, bind, 0, hosts, **options)
    listener, app = listener_of(settings), application(settings)
    server = Server(config_of(settings, app, "warning"), app)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()

    def stop() -> None:
        server.should_exit = True

    served = Dashboard(f"http://127.0.0.1:{listener.getsockname()[1]}", stop)
    try:
        yield served
    finally:
        served.client.close()
        stop()
        thread.join()
