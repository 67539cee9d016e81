"""The page that asks for a token, and the sessions that begin and end with it."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dagorama.errors import AccessDenied, BrokerError
from dagorama_dashboard.web.errors import problem_of
from dagorama_dashboard.web.forms import form_of
from dagorama_dashboard.web.look import Site
from dagorama_dashboard.web.rendering import Content, whole

#: Seconds after which a wrong token is refused, so that many cannot be tried.
DELAY = 0.5
LONGEST_TOKEN = 4_096


def login_address(request: Request) -> str:
    """Return where to send somebody whose request needs a token, and who comes back to it afterwards."""
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"/login?next={quote(path, safe='')}" if request.method == "GET" and path != "/" else "/login"


def own_path(text: str) -> str:
    """Return a path of this dashboard; the first page for anything else."""
    is_own = text.startswith("/") and not text.startswith("//")
    return text if is_own and "\\" not in text and text.isprintable() else "/"


async def login(request: Request) -> Response:
    """Ask for a token; take it, and begin a session."""
    site: Site = request.app.state.site
    if request.method == "GET":
        return _page(own_path(request.query_params.get("next", "/")), "")
    form = await form_of(request)
    token, goal = form.get("token").strip(), own_path(form.get("next", "/"))
    if not token or len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        return _page(goal, "This is not a token: it is a line that `dagorama tokens new` prints.", 400)
    site.broker.forget(token)
    try:
        await site.broker.identity(token)
    except AccessDenied as error:
        await asyncio.sleep(DELAY)
        return _page(goal, f"{error}", 403)
    except BrokerError as error:
        problem = problem_of(error)
        return _page(goal, problem.text, int(problem.status))
    response = RedirectResponse(goal, 303)
    site.set_session(response, site.sessions.add(token))
    return response


async def logout(request: Request) -> Response:
    """End the session."""
    site: Site = request.app.state.site
    site.sessions.take(request.cookies.get(site.cookie, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(site.cookie, path="/", secure=site.settings.is_encrypted, httponly=True)
    return response


def _page(goal: str, problem: str, status: int = 200) -> Response:
    return whole(None, Content("login.html", "Sign in", {"goal": goal, "problem": problem}, is_live=False), status)
