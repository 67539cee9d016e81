"""The application: its routes, and the pages that it shows for errors."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dagorama.errors import BrokerError
from dagorama_dashboard.broker import Broker
from dagorama_dashboard.pages import actions, graph, instance, instances, logs, node, operation, overview, signals
from dagorama_dashboard.pages.login import login, login_address, logout
from dagorama_dashboard.settings import DashboardSettings
from dagorama_dashboard.web.errors import SIGN_IN, LoginNeeded, Problem, TokensNeeded, problem_of
from dagorama_dashboard.web.look import Site, looking
from dagorama_dashboard.web.rendering import FOLDER, Content, page_routes, whole

log = logging.getLogger("dagorama_dashboard")

INSTANCE = "/instances/{instance}"
NODE = INSTANCE + "/{node}"


def application(settings: DashboardSettings) -> Starlette:
    """Return the dashboard of a broker as an ASGI application, without the guard in front of it."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.site = site = Site(settings, Broker(settings.broker))
        try:
            yield
        finally:
            site.stop()
            await site.broker.close()

    return Starlette(
        routes=_routes(),
        exception_handlers={
            LoginNeeded: _ask_for_token,
            TokensNeeded: _refuse_without_tokens,
            BrokerError: _show_broker_error,
            HTTPException: _show_http_error,
            Exception: _show_fault,
        },
        lifespan=lifespan,
    )


def _routes() -> list[BaseRoute]:
    return [
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/do", looking(actions.perform), methods=["POST"]),
        Route("/signal", looking(signals.send), methods=["POST"]),
        Route(INSTANCE + "/graph/shape", looking(graph.shape)),
        Route(INSTANCE + "/graph/map", looking(graph.node_map)),
        Route(INSTANCE + "/graph/live", looking(graph.live)),
        Route(NODE + "/log", looking(logs.download)),
        Route(NODE + "/log/live", looking(logs.follow)),
        Route("/nodes/{node}", looking(node.by_id)),
        *page_routes("/confirm", actions.confirm),
        *page_routes(NODE + "/stack", node.stack),
        *page_routes(NODE, node.node),
        *page_routes(INSTANCE, instance.instance),
        *page_routes("/instances", instances.instances),
        *page_routes("/workers", operation.workers),
        *page_routes("/queues", operation.queues),
        *page_routes("/schedules", operation.schedules),
        *page_routes("/failures", operation.failures),
        *page_routes("/actions", actions.history),
        *page_routes("/", overview.overview),
    ]


# --- what goes wrong --------------------------------------------------------------------------------------


async def _ask_for_token(request: Request, error: Exception) -> Response:
    if request.url.path.startswith("/live") or "/graph/" in request.url.path or request.method != "GET":
        return _page(request, Problem(HTTPStatus.UNAUTHORIZED, SIGN_IN, f"{error}" or "This broker requires a token."))
    return RedirectResponse(login_address(request), 303)


async def _refuse_without_tokens(request: Request, error: Exception) -> Response:
    return _page(request, Problem(
        HTTPStatus.FORBIDDEN, "The broker requires no tokens",
        "Everyone who can reach this address could do everything. Give the broker tokens (dagorama tokens new), or"
        " serve the dashboard on 127.0.0.1 only.",
    ))  # fmt: skip


async def _show_broker_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrokerError)
    if error.status == "UNAUTHENTICATED":  # the token was revoked, or has expired, a moment ago
        return await _ask_for_token(request, error)
    return _page(request, problem_of(error))


async def _show_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    text = f"There is no page {request.url.path}." if status is HTTPStatus.NOT_FOUND else f"{error.detail}"
    return _page(request, Problem(status, status.phrase, text))


async def _show_fault(request: Request, error: Exception) -> Response:
    return _page(request, Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "A fault of the dashboard",
        f"{type(error).__name__}: the log of the dashboard has the traceback. Please report it.",
    ))  # fmt: skip


def _page(request: Request, problem: Problem) -> Response:
    if "/graph/" in request.url.path:  # a script reads it
        return PlainTextResponse(f"{problem.title}: {problem.text}\n", int(problem.status))
    return whole(None, Content("problem.html", problem.title, {"problem": problem}, is_live=False), int(problem.status))
