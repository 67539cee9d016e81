"""One request of one person: who asks, of which broker, and what they may see and do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_urlsafe
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dagorama.errors import AccessDenied, RequestRejected
from dagorama_dashboard.broker import Broker, Identity, Viewer
from dagorama_dashboard.following.followers import Followers
from dagorama_dashboard.following.progress import ProgressStreams
from dagorama_dashboard.following.pulse import Pulses
from dagorama_dashboard.settings import DashboardSettings
from dagorama_dashboard.web.errors import LoginNeeded, TokensNeeded
from dagorama_dashboard.web.guard import SAFE_METHODS, comes_from_a_browser
from dagorama_dashboard.web.sessions import MOST_NOTICES, MOST_SESSIONS, NOTICE_SECONDS, SESSION_SECONDS, Kept

NOTICE_COOKIE = "dagorama-notice"
#: Seconds between two updates of a page that updates slowly.
SLOW = 5.0
LONGEST_QUERY = 2_000


class Notice(NamedTuple):
    """The effect of an action, for the page after it."""

    text: str
    is_error: bool


@dataclass
class Site:
    """The state that all requests share."""

    settings: DashboardSettings
    broker: Broker
    pulses: Pulses = field(default_factory=Pulses)
    followers: Followers = field(default_factory=Followers)
    progress: ProgressStreams = field(default_factory=ProgressStreams)
    sessions: Kept[str] = field(default_factory=lambda: Kept[str](SESSION_SECONDS, MOST_SESSIONS))
    notices: Kept[Notice] = field(default_factory=lambda: Kept[Notice](NOTICE_SECONDS, MOST_NOTICES))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _recent: dict[tuple[str, str, bytes], tuple[float, Any]] = field(default_factory=dict)

    def stop(self) -> None:
        """End all streams."""
        self.stopping.set()
        self.pulses.ring()
        self.progress.close()
        self.followers.close()

    @property
    def cookie(self) -> str:
        """The name of the cookie of sessions. The prefix makes browsers insist on https, and on this very host."""
        return "__Host-dagorama" if self.settings.is_encrypted else "dagorama"

    def set_session(self, response: Response, name: str) -> None:
        """Let the browser keep the name of a session as long as the session lasts without being used."""
        response.set_cookie(
            self.cookie, name, max_age=int(SESSION_SECONDS), path="/", httponly=True, samesite="strict",
            secure=self.settings.is_encrypted,
        )  # fmt: skip

    async def recent(self, viewer: Viewer, call: str, request: Any, seconds: float) -> Any:
        """Return a reply to the same question of the same person that is at most this old."""
        key = viewer.token, call, request.SerializeToString(deterministic=True)
        now = monotonic()
        found = self._recent.get(key)
        if found is None or now - found[0] >= seconds:
            for old in [name for name, (at, _) in self._recent.items() if now - at > 60]:
                del self._recent[old]
            found = self._recent[key] = now, await viewer.ask(call, request)
        return found[1]


@dataclass
class Look:
    """A request, after the broker has said who asks."""

    request: Request
    site: Site
    viewer: Viewer
    identity: Identity
    #: A random text, which is the same in all updates of a page.
    mark: str = field(default_factory=lambda: token_urlsafe(16))

    async def ask(self, call: str, request: Any) -> Any:
        return await self.viewer.ask(call, request)

    async def recent(self, call: str, request: Any, seconds: float) -> Any:
        """Return a reply that is at most this old in an update of a page, and a new one in a page that is loaded."""
        return await self.site.recent(self.viewer, call, request, seconds if self.is_update else 0.0)

    @property
    def is_update(self) -> bool:
        """Whether the request is for the updates of a page that is open."""
        return self.request.url.path.startswith("/live")

    def may(self, call: str) -> bool:
        return self.identity.may(call)

    def query(self, name: str) -> str:
        """Return a part of the query, or an empty text. Raises RequestRejected if it is too long."""
        text = self.request.query_params.get(name, "")
        if len(text) > LONGEST_QUERY:
            raise RequestRejected(f"{name} has {len(text):,} characters; at most {LONGEST_QUERY:,} are allowed")
        return text

    def number(self, name: str) -> int:
        """Return a part of the query as a number from 0. Raises RequestRejected."""
        text = self.query(name)
        if not text:
            return 0
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise RequestRejected(f"{name}={text!r} is not a number")
        return int(text)

    def address(self, **changed: str | int | None) -> str:
        """Return the address of this page with parts of its query changed; None removes one."""
        items = [(name, value) for name, value in self.request.query_params.multi_items() if name not in changed]
        items += [(name, f"{value}") for name, value in changed.items() if value not in (None, "")]
        path = page_path(self.request)
        return f"{path}?{urlencode(items)}" if items else path

    @property
    def pace(self) -> str:
        """How the pages of this browser update: "live", "5" (every five seconds) or "paused"."""
        pace = self.request.cookies.get("dagorama-live", "")
        return pace if pace in ("5", "paused") else "live"

    @property
    def theme(self) -> str:
        """ "light", "dark", or an empty text for the theme of the system."""
        theme = self.request.cookies.get("dagorama-theme", "")
        return theme if theme in ("light", "dark") else ""

    def back(self, address: str, notice: str, *, is_error: bool = False) -> Response:
        """Return a redirect to a page of ours that shows this notice."""
        response = RedirectResponse(address, 303)
        name = self.site.notices.add(Notice(notice, is_error))
        response.set_cookie(
            NOTICE_COOKIE, name, max_age=int(NOTICE_SECONDS), httponly=True, samesite="strict",
            secure=self.site.settings.is_encrypted,
        )  # fmt: skip
        return response

    def renew_session(self, response: Response) -> None:
        """Let the browser keep its session, if it has one, for as long again."""
        name = self.request.cookies.get(self.site.cookie, "")
        if name and self.viewer.token:
            self.site.set_session(response, name)

    def notice(self) -> Notice | None:
        name = self.request.cookies.get(NOTICE_COOKIE, "")
        return self.site.notices.take(name) if name else None


def page_path(request: Request) -> str:
    """Return the path of the page that a request is about, also if it asks for its live updates."""
    path = request.url.path
    return path.removeprefix("/live") or "/"


async def look_of(request: Request) -> Look:
    """Return who asks. Raises LoginNeeded, TokensNeeded and BrokerError."""
    site: Site = request.app.state.site
    token = _token_of(request, site)
    try:
        identity = await site.broker.identity(token)
    except AccessDenied as error:
        raise LoginNeeded(f"{error}" if token else "") from None
    if not identity.needs_token:
        token = ""
        if site.settings.is_exposed:
            raise TokensNeeded
    return Look(request, site, site.broker.viewer(token), identity)


def _token_of(request: Request, site: Site) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if request.method not in SAFE_METHODS and not comes_from_a_browser(request.headers):
        return ""  # a cookie must not act for a client that does not say which page it comes from
    return site.sessions.get(request.cookies.get(site.cookie, "")) or ""


Endpoint = Callable[[Request], Awaitable[Response]]


def looking(endpoint: Callable[[Look], Awaitable[Response]]) -> Endpoint:
    """Return an endpoint that first asks the broker who asks."""

    async def asked(request: Request) -> Response:
        return await endpoint(await look_of(request))

    return asked
