"""Pages: how their contents become HTML, once as a whole and again as updates of a page that is open."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from dagorama.errors import BrokerError
from dagorama_dashboard.shown import charts, formats
from dagorama_dashboard.web.errors import problem_of
from dagorama_dashboard.web.look import NOTICE_COOKIE, SLOW, Look, look_of

FOLDER = Path(__file__).parents[1]
_LINES = re.compile("\r\n|\r|\n")
#: Seconds from one update of a page to the next at least, and at most if its content shows how old something is.
INTERVAL, LONGEST_INTERVAL = 0.5, 5.0
#: An open page rests this many times as long as its last update took, but not longer than `SLOW`.
SHARE = 10


@dataclass(frozen=True)
class Content:
    """The content of a page: a template with its values."""

    template: str
    title: str
    values: dict[str, Any] = field(default_factory=dict)
    is_live: bool = True  #: an open page follows changes
    section: str = ""  #: the entry of the navigation


Page = Callable[[Look], Awaitable[Content]]


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(formats.FILTERS)
    made.globals.update(
        shown=formats.shown, state_bar=charts.state_bar, ended_bar=charts.ended_bar, slot_bar=charts.slot_bar,
    )  # fmt: skip
    return made


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)


def fragment(look: Look, content: Content) -> str:
    """Return the part of a page that is updated."""
    return render(content.template, look=look, me=look.identity, **content.values)


def whole(look: Look | None, content: Content, status: int = 200) -> HTMLResponse:
    """Return a whole page; without a look it shows no navigation."""
    notice = look.notice() if look is not None else None
    body = render(content.template, look=look, me=look.identity if look else None, **content.values)
    live = ""
    if look is not None and content.is_live and look.pace != "paused":
        live = f"/live{look.address()}"
    html = render("layout.html", look=look, content=content, body=body, notice=notice, live=live)
    response = HTMLResponse(html, status)
    if look is not None:
        look.renew_session(response)
    if notice is not None:
        response.delete_cookie(NOTICE_COOKIE)
    return response


def page_routes(path: str, page: Page) -> list[Route]:
    """Return the routes of a page and of its updates."""

    async def show(request: Request) -> Response:
        look = await look_of(request)
        return whole(look, await page(look))

    async def follow(request: Request) -> Response:
        look = await look_of(request)
        return StreamingResponse(_updates(look, page), media_type="text/event-stream")

    return [Route(path, show), Route(f"/live{path}".rstrip("/") or "/live", follow)]


async def _updates(look: Look, page: Page) -> AsyncIterator[str]:
    """Yield the page whenever it has changed, as server-sent messages."""
    last = ""
    pause = SLOW if look.pace == "5" else INTERVAL
    async with look.site.pulses.listening(look.viewer) as pulse:
        while not look.site.stopping.is_set():
            start, beats = monotonic(), pulse.beats
            message = await _update(look, page)
            if message != last:
                yield message
                last = message
            # A slow page, or a slow broker, is asked less often.
            await _sleep(look, max(pause, min(SHARE * (monotonic() - start), SLOW)))
            await pulse.wait(beats, LONGEST_INTERVAL)


async def _update(look: Look, page: Page) -> str:
    """Return the page as a message; if the broker gives no answer, why, and the page keeps what it shows."""
    try:
        return sent(fragment(look, await page(look)))
    except BrokerError as error:
        problem = problem_of(error)
        return sent(f"{problem.title}: {problem.text}", "trouble")


async def _sleep(look: Look, seconds: float) -> None:
    """Sleep, but not if the dashboard stops."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await look.site.stopping.wait()


def sent(text: str, event: str = "", id: int | None = None) -> str:
    """Return a server-sent message. The browser names the last ID when it opens the stream again.

    A carriage return would end a line, so that text of others could add fields; in HTML it is a newline anyway.
    """
    head = (f"event: {event}\n" if event else "") + (f"id: {id}\n" if id is not None else "")
    return head + "".join(f"data: {line}\n" for line in _LINES.split(text)) + "\n"
