"""Access: names of hosts, pages of other sites, tokens, roles, paths; and the headers of each response."""

from __future__ import annotations

import pytest

from dagorama import start
from dagorama.errors import SettingsError
from dagorama.settings import Settings
from dagorama_dashboard.settings import DashboardSettings, dashboard_settings
from tests.dashboard.conftest import Guarded, Seen
from tests.dashboard.serving import SAME_ORIGIN, Dashboard, dashboard
from tests.dashboard.shown_work import Lonely
from tests.support.brokers import launch_broker

PAGES = ("/", "/instances", "/workers", "/queues", "/schedules", "/failures", "/actions")


# --- headers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/login", "/static/app.js", "/nope", "/instances/xyz"])
def test_each_response_has_the_strict_policy_and_is_not_cached(seen: Seen, path: str) -> None:
    headers = seen.pages.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "cache-control" in headers


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_an_inline_script_or_style(seen: Seen, path: str) -> None:
    html = seen.pages.page(path)
    assert "<style" not in html
    assert " style=" not in html
    assert " onclick=" not in html
    assert html.count("<script") == html.count("<script ")


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8088", "localhost.evil.example", "10.0.0.7", ""])
def test_a_foreign_name_that_points_here_is_refused(seen: Seen, host: str) -> None:
    assert seen.pages.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:8088", "[::1]:8088", "[::1]"])
def test_the_names_of_this_machine_are_accepted(seen: Seen, host: str) -> None:
    assert seen.pages.get("/instances", headers={"Host": host}).status_code == 200


def test_an_allowed_name_is_accepted() -> None:
    settings = dashboard_settings(Settings(), "127.0.0.1", 0, ["Board.example"])
    assert settings.accepts_host("board.example:8088")
    assert not settings.accepts_host("board.example.org")


def test_a_dashboard_for_other_machines_is_reached_by_its_addresses_and_allowed_names_only() -> None:
    settings = DashboardSettings(Settings(), "0.0.0.0", 0, frozenset({"board.example"}), tls_cert="c", tls_key="k")
    assert settings.accepts_host("10.0.0.7:8088")
    assert settings.accepts_host("[fe80::1]:8088")
    assert settings.accepts_host("board.example")
    assert not settings.accepts_host("evil.example")


# --- pages of other sites ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
    ],
)
@pytest.mark.parametrize("path", ["/do", "/login", "/logout"])
def test_a_page_of_another_site_can_post_nothing(seen: Seen, path: str, headers: dict[str, str]) -> None:
    response = seen.pages.post(path, {"action": "pause", "name": "q"}, **headers)
    assert response.status_code == 403


def test_a_page_of_the_dashboard_may_post_by_either_header(empty: tuple[Dashboard, object]) -> None:
    pages, _ = empty
    for headers in (SAME_ORIGIN, {"Origin": pages.url}):
        response = pages.post("/do", {"action": "pause", "name": "q"}, **headers)
        assert response.status_code == 303


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_no_other_method_does_anything(seen: Seen, method: str) -> None:
    assert seen.pages.client.request(method, "/do", headers=SAME_ORIGIN).status_code in (405, 413)


@pytest.mark.parametrize("path", ["/do?action=pause&name=q", "/logout"])
def test_looking_changes_nothing(seen: Seen, path: str) -> None:
    assert seen.pages.get(path).status_code == 405


def test_a_large_form_is_refused(seen: Seen) -> None:
    assert seen.pages.post("/do", {"action": "x" * 100_000}).status_code == 413


# --- paths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../settings.py",
        "/static/%2e%2e/settings.py",
        "/static/..%2f..%2fpyproject.toml",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/vendor/..%5c..%5capp.py",
    ],
)
def test_only_static_files_are_served_as_such(seen: Seen, path: str) -> None:
    response = seen.pages.get(path)
    assert response.status_code == 404
    assert "import" not in response.text


@pytest.mark.parametrize(
    "goal", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "//["]
)
def test_no_link_leads_to_another_site_after_an_action_or_a_sign_in(seen: Seen, goal: str) -> None:
    response = seen.pages.post("/do", {"action": "resume", "name": "q", "next": goal})
    assert response.headers["location"] == "/"
    assert goal not in seen.pages.get("/login", params={"next": goal}).text


# --- tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/instances/00000000-0000-0000-0000-000000000000/1"])
def test_without_a_token_every_page_leads_to_the_sign_in(guarded: Guarded, path: str) -> None:
    response = guarded.pages.get(path)
    assert response.status_code == 303
    assert response.headers["location"].startswith("/login")


def test_a_token_of_the_dashboards_own_settings_lets_no_one_in(guarded: Guarded) -> None:
    broker = guarded.broker
    with dashboard(broker.host, broker.port, auth_token=guarded.tokens["admin"]) as pages:
        assert pages.get("/").status_code == 303


def test_after_the_sign_in_the_page_that_was_asked_for_is_shown(guarded: Guarded) -> None:
    login = guarded.pages.get("/workers").headers["location"]
    assert login == "/login?next=%2Fworkers"
    response = guarded.pages.post("/login", {"token": guarded.tokens["reader"], "next": "/workers"})
    assert response.headers["location"] == "/workers"
    assert "reader" in guarded.pages.page("/workers")


@pytest.mark.parametrize("token", ["", "x", "dgr_wrong", "a b", "ü", "x" * 5_000, "x\r\nSet-Cookie: a=b"])
def test_a_wrong_token_is_refused_with_a_sentence(guarded: Guarded, token: str) -> None:
    response = guarded.pages.sign_in(token)
    assert response.status_code in (400, 403)
    assert "set-cookie" not in response.headers
    assert 'role="alert"' in response.text


def test_a_token_that_is_taken_away_ends_the_session(guarded: Guarded) -> None:
    guarded.pages.sign_in(guarded.tokens["reader"])
    guarded.pages.page("/instances")
    guarded.tokens.take_away("reader")
    guarded.broker.restart()
    assert _status_without_token(guarded) == 303


def _status_without_token(guarded: Guarded) -> int:
    """Return the status of a page once the dashboard has asked the broker again."""
    while (status := guarded.pages.get("/instances").status_code) in (200, 503):
        pass
    return status


def test_a_program_can_send_its_token_itself(guarded: Guarded) -> None:
    headers = {"Authorization": f"Bearer {guarded.tokens['admin']}"}
    assert guarded.pages.get("/", headers=headers).status_code == 200
    paused = guarded.pages.client.post("/do", data={"action": "pause", "name": "q"}, headers=headers)
    assert paused.status_code == 303


def test_a_cookie_does_not_act_for_a_client_that_does_not_say_where_it_comes_from(guarded: Guarded) -> None:
    guarded.pages.sign_in(guarded.tokens["admin"])
    response = guarded.pages.client.post("/do", data={"action": "pause", "name": "q"})
    assert response.status_code == 401


# --- roles ------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(as_admin: Guarded) -> tuple[Guarded, str]:
    instance, _ = start(Lonely())(number=7531)
    return as_admin, f"{instance.instance_id}"


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "cancel"},
        {"action": "retry"},
        {"action": "delete"},
        {"action": "pause", "name": "q"},
        {"action": "resume", "name": "q"},
        {"action": "drain", "name": "00" * 16},
    ],
    ids=lambda fields: str(fields["action"]),
)
def test_a_reader_can_do_nothing_and_is_told_so(waiting: tuple[Guarded, str], fields: dict[str, str]) -> None:
    guarded, instance = waiting
    guarded.pages.sign_in(guarded.tokens["reader"])
    page = guarded.pages.done(id=instance, **fields)
    assert 'class="notice bad"' in page
    assert "role" in page
    assert "<button>Cancel" not in guarded.pages.page("/instances")
    assert "does not allow this" in guarded.pages.page(f"/confirm?action={fields['action']}&id={instance}")


@pytest.mark.parametrize("action", ["retry-new-code", "rebind"])
def test_a_reader_signs_nothing_where_others_may(waiting: tuple[Guarded, str], action: str) -> None:
    guarded, instance = waiting
    with dashboard(guarded.broker.host, guarded.broker.port, new_code=True) as pages:
        pages.sign_in(guarded.tokens["reader"])
        page = pages.done(action=action, id=instance, name="work:Task.entrypoint")
    assert 'class="notice bad"' in page
    assert "role" in page


def test_buttons_are_drawn_for_what_the_token_allows(waiting: tuple[Guarded, str]) -> None:
    guarded, instance = waiting
    for role, cancels, pauses in (("reader", False, False), ("client", True, False), ("admin", True, True)):
        guarded.pages.sign_in(guarded.tokens[role])
        assert ('value="cancel"' in guarded.pages.page(f"/instances/{instance}")) is cancels
        assert ('value="pause"' in guarded.pages.page("/queues")) is pauses


def test_logs_need_a_token_that_allows_them(waiting: tuple[Guarded, str]) -> None:
    guarded, instance = waiting
    guarded.pages.sign_in(guarded.tokens["reader"])
    assert "does not allow logs" in guarded.pages.page(f"/instances/{instance}/1")
    assert guarded.pages.get(f"/instances/{instance}/1/log").status_code == 403
    guarded.pages.sign_in(guarded.tokens["listener"])
    assert "does not allow logs" not in guarded.pages.page(f"/instances/{instance}/1")


# --- where it may listen ----------------------------------------------------------------------------------


def test_other_machines_are_not_served_in_clear_text() -> None:
    with pytest.raises(SettingsError, match="clear text"):
        dashboard_settings(Settings(), "0.0.0.0", 0, [])


@pytest.mark.parametrize("bind", ["0.0.0.0", "127.0.0.1"])
def test_other_machines_are_not_served_for_a_broker_without_tokens(bind: str) -> None:
    with (
        launch_broker(0) as broker,
        dashboard(broker.host, broker.port, bind=bind, behind_proxy=True, hosts=["127.0.0.1"]) as pages,
    ):
        response = pages.get("/")
        assert response.status_code == 403
        assert "dagorama tokens new" in response.text


def test_values_are_shown_to_those_who_may_wait_for_them(waiting: tuple[Guarded, str]) -> None:
    guarded, instance = waiting
    for role, sees in (("reader", False), ("listener", False), ("client", True), ("admin", True)):
        guarded.pages.sign_in(guarded.tokens[role])
        assert ("7531" in guarded.pages.page(f"/instances/{instance}/1")) is sees
