"""The pages, of instances that have completed, failed, or can never run."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from html import unescape

import pytest

from dagorama import DAGDefinition, Limit, QueueTimeout, Rate, dagorama, later, resolve, wait_for
from dagorama.client.connection import connection
from dagorama.models.state import State
from dagorama_broker.launch import LaunchedBroker
from tests.dashboard.conftest import Seen
from tests.dashboard.serving import Dashboard, dashboard
from tests.dashboard.shown_work import HOSTILE, Lonely
from tests.support.brokers import launch_broker


class Late(DAGDefinition):
    @dagorama(queue_timeout=0.01).syncfn
    def entrypoint(self) -> int:
        return 1


class Rated(DAGDefinition):
    @dagorama(
        rate=Rate(5, per=60), rate_key="tenant", limit=Limit(f"api {HOSTILE}", rate=Rate(500, per=60), concurrency=20)
    )
    def entrypoint(self, tenant: str) -> str:
        return tenant


class Asked(DAGDefinition):
    def entrypoint(self, count: int) -> int:
        return self.total([wait_for(f"part-{number}", int) for number in range(count)])

    @dagorama
    def total(self, parts: list[int]) -> int:
        return sum(parts)


def test_the_overview_shows_rates_failures_and_what_cannot_run(seen: Seen) -> None:
    page = seen.pages.page("/")
    assert "Work that cannot run" in page
    assert "Lonely.entrypoint" in page
    assert "ValueError" in page
    for name in ("5m", "1h", "24h"):
        assert f'<a href="/?range={name}"' in page


@pytest.mark.parametrize(
    "path",
    ["/", "/instances", "/queues", "/failures", "/instances/{failed}", "/instances/{failed}/1", "/instances/{stuck}/1",
     "/instances/{failed}?view=table", "/instances?q=%3Cimg src=x onerror=alert(1)%3E", "/failures?definition=%3Cb%3E",
     "/confirm?action=pause&name=%3Cimg src=x onerror=alert(1)%3E", "/%3Cimg src=x onerror=alert(1)%3E"],
)  # fmt: skip
def test_text_of_others_is_never_markup(seen: Seen, path: str) -> None:
    html = seen.pages.get(path.format(failed=seen.failed, stuck=seen.stuck)).text
    assert "<img" not in html
    assert "<b>" not in html


def test_instances_are_found_by_id_definition_label_user_id_function_and_error(seen: Seen) -> None:
    for text, found, missing in (
        (f"{seen.failed}"[:8], seen.failed, seen.completed),
        (f"{seen.failed}", seen.failed, seen.completed),
        ("id:broken", seen.failed, seen.completed),
        (f'label:"tenant={HOSTILE}"', seen.completed, None),
        ('error:"no area"', seen.failed, seen.completed),
        (f"function:{Lonely.__module__}:Lonely.entrypoint", seen.stuck, seen.failed),
        (f"definition:{Lonely.__module__}:Lonely", seen.stuck, seen.failed),
    ):
        page = seen.pages.get("/instances", params={"q": text}).text
        assert f"/instances/{found}" in page, text
        assert missing is None or f"/instances/{missing}" not in page, text


def test_a_state_that_does_not_exist_finds_nothing(seen: Seen) -> None:
    page = unescape(seen.pages.get("/instances", params={"state": "odd"}).text)
    assert "state='odd' is none of unfinished, failed" in page
    assert f"/instances/{seen.completed}" not in page
    asked = seen.pages.get("/confirm", params={"action": "delete", "all": "1", "q": "", "state": "odd"})
    assert asked.status_code == 400


def test_the_links_of_labels_find_their_instances(seen: Seen) -> None:
    addresses = set(re.findall('<a class="tag" href="([^"]+)"', seen.pages.page("/instances")))
    assert len(addresses) == 2  # one for each label; all instances have the same ones
    for address in addresses:
        assert f"/instances/{seen.completed}" in seen.pages.page(unescape(address)), address


@pytest.mark.parametrize("text", ["label:x", "deadbeef", "id:nothing", "error:nothing", "label:=x", "nonsense"])
def test_a_search_that_finds_nothing_says_so(seen: Seen, text: str) -> None:
    response = seen.pages.get("/instances", params={"q": text})
    assert response.status_code == 200
    assert 'role="alert"' in response.text or "No instance matches." in response.text


def test_a_filter_by_state_is_in_the_address(seen: Seen) -> None:
    page = seen.pages.page("/instances?state=failed")
    assert f"/instances/{seen.failed}" in page
    assert f"/instances/{seen.completed}" not in page
    assert '<option value="failed" selected>' in page


@pytest.mark.parametrize("query", ["before=x", "before=-1", "before=" + "9" * 30, "q=" + "a" * 3_000])
def test_a_wrong_address_is_refused_with_a_sentence(seen: Seen, query: str) -> None:
    response = seen.pages.get(f"/instances?{query}")
    assert response.status_code in (200, 400)
    assert 'role="alert"' in response.text


def test_a_failed_instance_has_its_failure_at_the_top_and_leads_to_the_node(seen: Seen) -> None:
    page = seen.pages.page(f"/instances/{seen.failed}")
    assert page.index("1 failed node") < page.index('id="graph"')
    assert "no area of" in page
    assert f"/instances/{seen.failed}/" in page


def test_a_stuck_instance_says_why(seen: Seen) -> None:
    page = seen.pages.page(f"/instances/{seen.stuck}")
    assert "Nothing of it can run" in page
    assert "no worker is connected" in page


@pytest.mark.parametrize("view", ["shape", "quilt", "focus", "timeline", "table"])
def test_each_view_has_an_address(seen: Seen, view: str) -> None:
    assert "Shapes" in seen.pages.page(f"/instances/{seen.completed}?view={view}")


def test_an_instance_shows_its_fair_key(seen: Seen) -> None:
    html = seen.pages.page(f"/instances/{seen.completed}")
    assert "<img" not in html
    assert f'<span class="tag">fair: {HOSTILE}</span>' in unescape(html)


def test_an_unknown_view_is_refused(seen: Seen) -> None:
    assert seen.pages.get(f"/instances/{seen.completed}?view=pie").status_code == 400


def test_the_table_shows_failed_nodes_with_their_reason(seen: Seen) -> None:
    page = seen.pages.page(f"/instances/{seen.failed}?view=table&state=failed")
    assert page.count("✕") > 1
    assert "because of" in page
    only = seen.pages.page(f"/instances/{seen.failed}?view=table&error=no+area")
    assert only.count('id="n') == 1


@pytest.mark.parametrize("query", ["slower=0", "retried=1", "worker=nobody", "slower=99999"])
def test_the_table_is_filtered_by_time_attempts_and_worker(seen: Seen, query: str) -> None:
    rows = seen.pages.page(f"/instances/{seen.failed}?view=table&{query}").count('id="n')
    assert rows == {"slower=0": 6, "retried=1": 1}.get(query, 0)


@pytest.mark.parametrize("query", ["slower=x", "slower=-1", "slower=nan", "state=odd", "after=x"])
def test_a_wrong_filter_is_refused(seen: Seen, query: str) -> None:
    assert seen.pages.get(f"/instances/{seen.failed}?view=table&{query}").status_code == 400


def test_a_failed_node_has_its_traceback_and_its_facts(seen: Seen) -> None:
    page = unescape(seen.pages.page(f"/instances/{seen.failed}/{_failed(seen)}"))
    assert "Failed attempts" in page
    assert 'raise ValueError(f"no area of {HOSTILE}")' in page
    assert "ran for" in page
    assert "/instances/" in page


def test_a_failure_that_no_code_has_raised_has_the_address_of_its_documentation_for_a_traceback() -> None:
    with launch_broker(0) as broker, dashboard(broker.host, broker.port) as pages:
        instance, promise = Late()()
        with pytest.raises(QueueTimeout):
            resolve(instance, promise, timeout=30)
        page = pages.page(f"/instances/{instance.instance_id}/1")
        assert ">See docs/reference/errors.md#queuetimeout</pre>" in page
    connection().close_stream()


def test_a_node_of_a_json_function_shows_its_arguments_and_value(seen: Seen) -> None:
    html = seen.pages.page(f"/instances/{seen.completed}/4")
    assert "<img" not in html
    page = unescape(html)
    assert "signatures are not verified here" in page
    for part in ("<dt>number</dt><dd><code>2<", "<dt>is_bad</dt><dd><code>false<", f'<dd><code>"{HOSTILE}"<',
                 "<dt>value</dt><dd><code>4<"):  # fmt: skip
        assert part in page
    assert "signatures are not verified here" not in seen.pages.page(f"/instances/{seen.completed}/1"), "a pickle"


def test_rates_and_limits_are_shown_with_what_is_used_of_them() -> None:
    with launch_broker(0) as broker, dashboard(broker.host, broker.port) as pages:
        instance, _ = Rated()("tenant seven")
        queues, node = pages.page("/queues"), pages.page(f"/instances/{instance.instance_id}/1")
    connection().close_stream()
    assert "<h2>Limits</h2>" in queues
    for text in ("0 of 500 per 60 s", "0 of 20", "tenant seven", "0 of 5 per 60 s", "api &lt;img"):
        assert text in queues, text
    assert "5 per 60 s for each key" in node
    assert "500 per 60 s, 20 at once" in node
    assert "<img" not in queues + node


def test_a_node_that_waits_says_why(seen: Seen) -> None:
    page = seen.pages.page(f"/instances/{seen.stuck}/1")
    assert "Why it is queued" in page
    assert "<li title=" in page


def test_a_node_is_found_by_its_id(seen: Seen) -> None:
    page = seen.pages.page(f"/instances/{seen.completed}/1")
    id = page.split('<code class="id">')[1][:36]
    assert seen.pages.get(f"/nodes/{id}").headers["location"] == f"/instances/{seen.completed}/1"


@pytest.mark.parametrize(
    "path",
    ["/instances/{0}/0", "/instances/{0}/99", "/instances/{0}/99999999999999999999", "/instances/not-an-id",
     "/instances/00000000-0000-0000-0000-000000000000", "/nodes/00000000-0000-0000-0000-000000000000", "/nodes/x",
     "/instances/{0}/x", "/nothing", "/instances/{0}/" + "9" * 5_000],
)  # fmt: skip
def test_what_does_not_exist_is_not_found(seen: Seen, path: str) -> None:
    response = seen.pages.get(path.format(seen.completed))
    assert response.status_code == 404
    assert 'role="alert"' in response.text


def test_the_log_of_a_node_can_be_downloaded(seen: Seen) -> None:
    response = seen.pages.get(f"/instances/{seen.failed}/{_failed(seen)}/log")
    assert response.headers["content-type"].startswith("text/plain")
    assert "attachment" in response.headers["content-disposition"]
    assert f"measuring 2 {HOSTILE}" in response.text
    assert "\x1b" not in response.text


def test_failures_are_grouped(seen: Seen) -> None:
    page = seen.pages.page("/failures")
    assert 'class="count">1 ' in page
    assert "Shapes.measure" in page
    assert "No failures." in seen.pages.page("/failures?definition=nothing:Here")


# --- data of the drawings ---------------------------------------------------------------------------------


def test_the_shape_has_functions_and_both_kinds_of_edges(seen: Seen) -> None:
    shape = seen.pages.get(f"/instances/{seen.completed}/graph/shape").json()
    names = [each["label"] for each in shape["functions"]]
    assert names == ["Shapes.entrypoint", "Shapes.measure", "Shapes.total"]
    edges = {(names[each["from"]], names[each["to"]], each["kind"]): each["count"] for each in shape["edges"]}
    assert edges["Shapes.measure", "Shapes.total", "value"] == 3
    assert edges["Shapes.entrypoint", "Shapes.measure", "created"] == 3
    assert shape["nodes"] == 5
    assert shape["states"][int(State.COMPLETED)] == "COMPLETED"


def test_the_map_has_a_state_a_function_and_the_sources_of_each_node(seen: Seen) -> None:
    found = seen.pages.get(f"/instances/{seen.failed}/graph/map").json()
    assert found["nodes"] == found["count"] == 6
    states = b64decode(found["state"])
    functions = [found["functions"][index] for index in found["function"]]
    assert functions.count("Shapes.measure") == 4
    assert states[functions.index("Shapes.total")] == State.FAILED
    total = functions.index("Shapes.total")
    start = sum(found["sources"]["count"][:total])
    sources = found["sources"]["ordinal"][start : start + found["sources"]["count"][total]]
    assert [functions[ordinal - 1] for ordinal in sources] == ["Shapes.measure"] * 4
    assert all(found["ended"])
    assert found["blocks"][0][:3] == [1, 1, 0]
    assert {block[2] for block in found["blocks"][1:]} == {1}


def test_the_map_after_an_ordinal_has_the_rest(seen: Seen) -> None:
    whole = seen.pages.get(f"/instances/{seen.failed}/graph/map").json()
    rest = seen.pages.get(f"/instances/{seen.failed}/graph/map?after=4").json()
    assert rest["after"] == 4
    assert rest["function"] == whole["function"][4:]
    assert b64decode(rest["state"]) == b64decode(whole["state"])[4:]


def test_data_of_an_unknown_instance_is_not_found(seen: Seen) -> None:
    for part in ("shape", "map", "live"):
        response = seen.pages.get(f"/instances/00000000-0000-0000-0000-000000000000/graph/{part}")
        assert response.status_code == 404


def test_a_node_that_starts_later_is_shown_as_delayed_and_not_as_retried(
    empty: tuple[Dashboard, LaunchedBroker],
) -> None:
    pages, _ = empty
    instance, _ = later(Lonely(), 3_600)()
    page = pages.page(f"/instances/{instance.instance_id}/1")
    assert "Why it is delayed" in page
    assert "retrying" not in page
    assert "retrying" not in pages.page(f"/instances/{instance.instance_id}?view=table")


def test_a_node_that_waits_for_many_functions_says_how_many_are_not_shown(
    empty: tuple[Dashboard, LaunchedBroker],
) -> None:
    pages, _ = empty
    instance, _ = Asked()(7)
    assert "and for 2 other groups of nodes" in pages.page(f"/instances/{instance.instance_id}/8")


# --- no broker --------------------------------------------------------------------------------------------


def test_without_a_broker_the_page_says_so_and_loads_itself_again() -> None:
    with launch_broker(0) as broker:
        host, port = broker.host, broker.port
    with dashboard(host, port) as pages:
        response = pages.get("/")
        assert response.status_code == 503
        assert "No broker answers" in response.text
        assert "data-reload" in response.text


def _failed(seen: Seen) -> int:
    """Return the ordinal of the node that raised an exception."""
    found = seen.pages.get(f"/instances/{seen.failed}/graph/map").json()
    return 1 + next(place for place, failed in enumerate(found["attempts"]) if failed)


def test_data_is_json(seen: Seen) -> None:
    response = seen.pages.get(f"/instances/{seen.failed}/graph/map")
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.text)["created"] > 0
