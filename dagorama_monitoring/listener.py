"""A small HTTP server in a thread of its own, for probes and scrapers.

The rule: no client can make it use more than a bounded time, memory and number of connections. It answers GET and HEAD
for a few fixed paths, one request per connection, and reads no bodies.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib.util import find_spec
from threading import Thread
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

#: Connections that are open at once. The oldest one makes room for the next, so that idle clients keep no probe out.
MOST_CONNECTIONS = 64
#: Bytes of a request line with its headers.
LONGEST_HEAD = 8 << 10
#: Seconds that a connection has from its start to the last byte of its answer.
DEADLINE = 15.0
#: Seconds that `close` waits for the thread.
CLOSING = 2.0
#: Seconds between two warnings that connections cannot be accepted.
SILENCE = 60.0
#: The command that installs what the page /metrics needs.
EXTRA = "pip install 'dagorama[metrics]'"
PLAIN = "text/plain; charset=utf-8"


class Request(NamedTuple):
    path: str  #: without a query
    headers: Mapping[str, str]  #: by name in lower case


class Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", PLAIN),)

    @classmethod
    def text(cls, status: HTTPStatus, text: str) -> Answer:
        """Return an answer of one line."""
        return cls(status, f"{text}\n".encode())


Page = Callable[[Request], Awaitable[Answer]]
Pages = Mapping[str, Page]


class Refused(Exception):
    """A request that gets no page."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.answer = Answer.text(status, why)


def has_extra() -> bool:
    """Return whether the packages are installed that the page /metrics needs; see `EXTRA`."""
    return find_spec("prometheus_client") is not None


def listeners(host: str, *wanted: tuple[int | None, Pages]) -> list[Listener]:
    """Return started listeners for pages with their ports; pages of the same port share one, None means no listener.

    Raises OSError, with one sentence, if one cannot be bound.
    """
    by_port: dict[int, dict[str, Page]] = {}
    for port, pages in wanted:
        if port is not None:
            by_port.setdefault(port, {}).update(pages)
    made: list[Listener] = []
    for port, found in by_port.items():
        try:
            made.append(Listener(host, port, found))
        except (OSError, UnicodeError) as error:
            for other in made:
                other.discard()
            why = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
            raise OSError(f"cannot serve HTTP on {host}:{port}: {why}") from error
    for listener in made:
        listener.start()
    return made


class AcceptErrors:
    """Handles exceptions of an event loop: one sentence says that connections cannot be accepted now.

    asyncio would log a traceback for each connection that may wait, every second.
    """

    def __init__(self, log: logging.Logger, connections: str) -> None:
        """Log to `log`; `connections` names them in the sentence."""
        self._log = log
        self._connections = connections
        self._say_at = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "socket" not in context or not isinstance(error, OSError):
            loop.default_exception_handler(context)
        elif loop.time() >= self._say_at:
            self._say_at = loop.time() + SILENCE
            hint = ": raise its limit (ulimit -n, LimitNOFILE= in systemd)" if error.errno == errno.EMFILE else ""
            why = f"{error.strerror}{hint}"
            self._log.warning("%s wait, because this process cannot accept them: %s", self._connections, why)


class Listener:
    """Serves pages at one address."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        """Bind to the address; port 0 takes any free one. Raises OSError."""
        self.pages = dict(pages)  #: by path
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._connections: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._thread = Thread(target=self._run, name="monitoring", daemon=True)

    def start(self) -> None:
        """Serve until `close`."""
        self._thread.start()

    def discard(self) -> None:
        """Release the address of a listener that was not started."""
        self._socket.close()
        self._loop.close()

    def close(self) -> None:
        """Stop serving; open connections are closed."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(CLOSING)

    def _run(self) -> None:
        with self._socket:
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._loop.set_exception_handler(AcceptErrors(log, f"connections to {self.url}"))
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=LONGEST_HEAD)
        await self._closing.wait()
        server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next turn

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        connection = self._loop.create_task(self._converse(reader, writer))
        self._connections[connection] = None

        def end(_: asyncio.Task[None]) -> None:
            self._connections.pop(connection, None)
            writer.transport.abort()  # here, because a task that is cancelled before it begins runs no code

        connection.add_done_callback(end)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                writer.write(await self._reply(reader))
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            pass  # the client has gone, is too slow, or makes room for others

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        is_head = False
        try:
            method, request = _parsed(await _head(reader))
            is_head = method == "HEAD"
            answer = await self._answer(request)
        except Refused as refused:
            answer = refused.answer
        return _encoded(answer, is_head)

    async def _answer(self, request: Request) -> Answer:
        page = self.pages.get(request.path)
        if page is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is {', '.join(self.pages)} here")
        try:
            return await page(request)
        except Refused:
            raise
        except Exception as error:
            log.exception("%s could not be answered", request.path)
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}; see the log") from error


async def _head(reader: asyncio.StreamReader) -> str:
    """Read a request line with its headers. Raises Refused, or EOFError if the client sends less."""
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise Refused(too_large, f"a request may have {LONGEST_HEAD} bytes") from None


def _parsed(head: str) -> tuple[str, Request]:
    """Return the method and the request. Raises Refused."""
    first, *lines = head.rstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refused(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1.1 request")
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return method, Request(target.partition("?")[0], headers)


def _encoded(answer: Answer, is_head: bool) -> bytes:
    status = answer.status
    fixed = (
        ("Content-Length", f"{len(answer.body)}"), ("Connection", "close"), ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"), ("Allow", "GET, HEAD"),
    )  # fmt: skip
    lines = [f"{name}: {value}\r\n" for name, value in (*answer.headers, *fixed)]
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{''.join(lines)}\r\n".encode("latin-1")
    return head if is_head else head + answer.body
