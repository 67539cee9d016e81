"""A web server that stands for the dashboard: its static files, one page and the data of made-up instances."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.dashboard.browser.made_up import CREATED, MadeUpInstance

STATIC = Path(__file__).parents[3] / "dagorama_dashboard" / "static"
STYLES = Path(__file__).with_name("page.css")
TYPES = {".js": "text/javascript", ".css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PAGE = """<!doctype html>
<html lang="en" data-live="live"{theme}>
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css"><link rel="stylesheet" href="/static/graph/graph.css"></head>
<body><main><h1>{name}</h1>
<section id="graph" data-base="/instances/{name}/graph" data-page="/instances/{name}" data-view="{view}"
  data-node="{node}"><p>The drawing needs JavaScript.</p></section></main>
<script type="module" src="/static/graph/main.js"></script></body></html>
"""


class Site:
    """The instances that are served, by name, and the streams that are open."""

    def __init__(self) -> None:
        self.instances: dict[str, MadeUpInstance] = {}
        self.refused: dict[str, int] = {}  #: paths that answer with a status only
        self.streams: list[queue.SimpleQueue[bytes | None]] = []
        self.streaming = threading.Event()
        self.asked: list[str] = []  #: paths with their queries, in order
        self.url = ""

    def tell(self, event: str, data: object) -> None:
        """Send an event to all pages that listen; wait until there is one."""
        assert self.streaming.wait(10), "no page listens"
        for stream in list(self.streams):
            stream.put(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())

    def hang_up(self) -> None:
        """End all streams; browsers then connect again."""
        for stream in list(self.streams):
            stream.put(None)

    def reset(self) -> None:
        self.hang_up()
        self.__dict__.update(Site().__dict__ | {"url": self.url})


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # the page has gone
                self.answer()

        def answer(self) -> None:
            url = urlsplit(self.path)
            site.asked.append(self.path)
            if url.path in site.refused:
                self.send(site.refused[url.path], "text/plain; charset=utf-8", b"A reason.\n")
            elif url.path == "/page.css":
                self.send(HTTPStatus.OK, "text/css", STYLES.read_bytes())
            elif url.path.startswith("/static/"):
                self.file(STATIC / url.path.removeprefix("/static/"))
            else:
                self.instance(url.path.split("/")[2:], {key: values[0] for key, values in parse_qs(url.query).items()})

        def file(self, path: Path) -> None:
            self.send(HTTPStatus.OK, TYPES[path.suffix], path.read_bytes())

        def instance(self, path: list[str], query: dict[str, str]) -> None:
            name, *rest = path or [""]
            instance = site.instances.get(name)
            if instance is None:
                self.send(HTTPStatus.NOT_FOUND, "text/plain", b"")
            elif rest == ["graph", "live"]:
                self.stream()
            elif rest[:1] == ["graph"]:
                data = instance.shape() if rest[1] == "shape" else instance.map(int(query.get("after", 0)))
                self.send(HTTPStatus.OK, "application/json", json.dumps(data).encode())
            else:
                self.page(name, query)

        def page(self, name: str, query: dict[str, str]) -> None:
            theme = f' data-theme="{escape(query["theme"])}"' if "theme" in query else ""
            view, node = query.get("view", "shape"), query.get("node", "")
            text = PAGE.format(name=escape(name), theme=theme, view=escape(view), node=escape(node))
            self.send(HTTPStatus.OK, "text/html; charset=utf-8", text.encode())

        def stream(self) -> None:
            events: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            site.streams.append(events)  # before the answer: a page that hears it misses nothing after it
            site.streaming.set()
            try:
                self.start(HTTPStatus.OK, "text/event-stream")
                self.wfile.write(b"retry: 50\n\n")
                while (event := events.get()) is not None:
                    self.wfile.write(event)
            finally:
                if events in site.streams:
                    site.streams.remove(events)

        def send(self, status: int, kind: str, body: bytes) -> None:
            self.start(status, kind)
            self.wfile.write(body)

        def start(self, status: int, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            """Tell a time half a minute after the made-up instances were created, for short bars of running nodes."""
            return super().date_time_string(int(CREATED) + 30)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: A page asks for thirty modules at once.
    request_queue_size = 128


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()
    server = _Server(("127.0.0.1", 0), _handler(site))
    site.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield site
    finally:
        site.reset()
        server.shutdown()
        server.server_close()
