"""Checks of every request, and the headers of every response.

The rule: a page of another site can neither read nor change anything, even if its name leads here, and no response
can load or run anything from elsewhere.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dagorama_dashboard.settings import DashboardSettings

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
SAFE_METHODS = frozenset({"GET", "HEAD"})
#: Bytes of the body of a request: the IDs of a thousand instances.
LONGEST_BODY = 64 << 10


class RequestGuard:
    """ASGI middleware in front of the application."""

    def __init__(self, app: ASGIApp, settings: DashboardSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, why = refusal
        await PlainTextResponse(f"{why}\n", status)(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> tuple[HTTPStatus, str] | None:
        host = headers.get("host", "")
        if not self._settings.accepts_host(host):
            return HTTPStatus.MISDIRECTED_REQUEST, (
                f"this dashboard is not served as {host!r}: start it with --allowed-host if the name is right"
            )
        if method in SAFE_METHODS:
            return None
        if not is_same_origin(headers):
            return HTTPStatus.FORBIDDEN, "the request comes from a page of another site"
        length = headers.get("content-length", "")
        if not length.isdigit() or len(length) > 9 or int(length) > LONGEST_BODY:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request needs a Content-Length of at most {LONGEST_BODY}"
        return None


def is_same_origin(headers: Headers) -> bool:
    """Return whether a request that changes something comes from a page of this dashboard, or from no page at all."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()


def comes_from_a_browser(headers: Headers) -> bool:
    """Return whether the request says which page it comes from, as browsers do."""
    return "sec-fetch-site" in headers or "origin" in headers
