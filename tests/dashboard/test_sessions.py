"""The session of a person who has signed in, and the cookie that names it."""

from __future__ import annotations

from tests.dashboard.conftest import Guarded
from tests.dashboard.serving import SAME_ORIGIN, dashboard
from tests.support.brokers import launch_broker


def test_the_cookie_holds_no_token_and_no_script_can_read_it(guarded: Guarded) -> None:
    cookie = guarded.pages.sign_in(guarded.tokens["reader"]).headers["set-cookie"]
    assert guarded.tokens["reader"] not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert guarded.pages.get("/workers").headers["set-cookie"] == cookie, "it ends 12 hours after its last use"


def test_over_tls_the_cookie_is_bound_to_this_host() -> None:
    with launch_broker(0) as broker, dashboard(broker.host, broker.port, behind_proxy=True) as pages:
        cookie = pages.client.post("/logout", headers={**SAME_ORIGIN}).headers["set-cookie"]
        assert cookie.startswith("__Host-dagorama=")
        assert "Secure" in cookie


def test_after_the_sign_out_the_session_is_over(guarded: Guarded) -> None:
    session = guarded.pages.sign_in(guarded.tokens["admin"]).cookies
    guarded.pages.page("/")
    guarded.pages.post("/logout", {"next": "/"})
    guarded.pages.client.cookies.update(session)
    assert guarded.pages.get("/").status_code == 303
