"""All views: themes, widths, errors, the stream, screen readers and the address."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from dagorama.models.state import State
from tests.dashboard.browser.examples import diamond, fan, recursion
from tests.dashboard.browser.graph_page import GraphPage
from tests.dashboard.browser.site import Site

VIEWS = ("shape", "quilt", "focus", "timeline")
BASE = "/instances/made-up/graph"
LISTENING = "graph.store.live.status === 'live'"
#: Open a stream of the test's own; `heard` is then a promise of two events.
ALSO_LISTEN = """(url) => new Promise((opened) => {
  const stream = new EventSource(url);
  let count = 0;
  window.heard = new Promise((done) => stream.addEventListener("nodes", () => ++count === 2 && done(true)));
  stream.addEventListener("open", opened);
})"""


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_wrong(graph: GraphPage, theme: str) -> None:
    made = diamond()
    made.nodes[1].state = State.FAILED
    graph.open(made, theme=theme)
    for view in ("Shape", "Quilt", "Focus", "Timeline"):
        assert graph.show(view).violations() == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_a_telephone(site: Site, new_page: Callable[..., Page], view: str) -> None:
    page = new_page(viewport={"width": 390, "height": 844}, device_scale_factor=3, has_touch=True, is_mobile=True)
    graph = GraphPage(page, site).open(fan(300), view, node=2)
    assert graph.model("document.documentElement.scrollWidth") == 390
    for canvas in page.locator("canvas").all():
        ratio = canvas.evaluate("(canvas) => canvas.width / canvas.clientWidth")
        assert ratio == pytest.approx(3, abs=0.05)


def test_colours_follow_the_theme(site: Site, new_page: Callable[..., Page]) -> None:
    graph = GraphPage(new_page(color_scheme="light"), site).open(fan(300), "quilt")
    pixel = """[...document.querySelector("canvas").getContext("2d").getImageData(
      view.grid.placeOf(301).x + 6, view.grid.placeOf(301).y + 6, 1, 1).data].join()"""
    light = graph.model(pixel)
    graph.page.emulate_media(color_scheme="dark")
    graph.until(f"{pixel} !== '{light}'")
    graph.page.evaluate("document.documentElement.dataset.theme = 'light'")
    graph.page.evaluate("document.dispatchEvent(new Event('dagorama:theme'))")
    graph.until(f"{pixel} === '{light}'")


def test_the_drawing_follows_the_size_of_the_window(graph: GraphPage) -> None:
    graph.open(fan(2_000), "quilt")
    columns = graph.model("view.grid.columns")
    graph.page.set_viewport_size({"width": 700, "height": 800})
    graph.until(f"view.grid.columns < {columns}")


def test_view_and_node_are_in_the_address(graph: GraphPage) -> None:
    graph.open(diamond()).show("Quilt")
    graph.page.locator(".g-canvas-view").focus()
    graph.press("ArrowRight", "ArrowRight")
    assert graph.page.url.endswith("?view=quilt&node=2")
    graph.page.reload()
    assert graph.drawn().model("view.cursor") == 1
    assert graph.page.get_by_role("tab", name="Quilt").get_attribute("aria-selected") == "true"


def test_arrow_keys_walk_through_the_tabs(graph: GraphPage) -> None:
    graph.open(recursion())
    graph.page.get_by_role("tab", name="Shape").focus()
    graph.press("ArrowLeft")
    expect(graph.page.get_by_role("tab", name="Timeline")).to_be_focused()
    assert "view=timeline" in graph.page.url
    assert graph.page.get_by_role("link", name="Table").get_attribute("href") == "/instances/made-up?view=table"


def test_each_view_is_a_table_too(graph: GraphPage) -> None:
    graph.open(diamond(), node=3)
    tables = {"Shape": "Functions", "Quilt": "5 nodes", "Focus": "Around node 3", "Timeline": "Timeline of 4 functions"}
    for view, caption in tables.items():
        graph.show(view)
        expect(graph.page.get_by_role("table", name=caption)).to_have_count(1)
    expect(graph.page.get_by_role("row", name="Flow.left 1 14 ms 20 ms 0")).to_have_count(1)


@pytest.mark.parametrize("path", ["shape", "map"])
def test_data_that_cannot_be_loaded_are_asked_for_again(graph: GraphPage, complaints: list[str], path: str) -> None:
    graph.site.refused[f"{BASE}/{path}"] = 503
    graph.open(diamond(), "shape" if path == "shape" else "quilt")
    alert = graph.page.get_by_role("alert")
    expect(alert).to_contain_text("The data cannot be loaded: HTTP status 503: A reason.")
    expect(alert).to_contain_text("The broker does not answer.")
    graph.site.refused.clear()
    complaints.clear()
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_be_hidden()
    graph.until("graph.store.shape && view.element.isConnected && view.element.clientHeight > 0")


def test_an_ended_session_leads_to_the_login(graph: GraphPage, complaints: list[str]) -> None:
    graph.site.refused[f"{BASE}/shape"] = 401
    graph.open(diamond())
    link = graph.page.get_by_role("alert").get_by_role("link", name="Sign in")
    expect(link).to_have_attribute("href", "/login?next=%2Finstances%2Fmade-up")
    complaints.clear()


def test_a_layout_that_does_not_load_is_told(graph: GraphPage, complaints: list[str]) -> None:
    graph.site.refused["/static/graph/layout_worker.js"] = 404
    graph.open(diamond())
    expect(graph.page.get_by_role("alert")).to_contain_text("The drawing could not be laid out")
    complaints.clear()


def test_paused_pages_do_not_listen_and_catch_up(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made, "quilt")
    graph.until(LISTENING)
    live = "document.documentElement.dataset.live = '{}'; document.dispatchEvent(new Event('dagorama:live'))"
    graph.page.evaluate(live.format("paused"))
    expect(graph.page.get_by_role("status")).to_have_text("paused")
    made.nodes[4].state = State.FAILED
    graph.page.evaluate(live.format("live"))
    graph.until("graph.store.nodes.state[4] === 6")
    expect(graph.page.get_by_role("status")).to_have_text("live")


def test_the_last_state_is_fetched_when_the_instance_has_ended(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made)
    graph.until(LISTENING)
    for node in made.nodes:
        node.state = State.COMPLETED
    made.ended = 1_790_000_040.0
    graph.site.tell("ended", {})
    expect(graph.page.get_by_role("listitem").filter(has_text="done")).to_contain_text("5")
    expect(graph.page.get_by_role("status")).to_have_text("")
    assert graph.model("graph.store.live.status") == "ended"


def test_changes_while_the_stream_was_broken_are_fetched(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made, "quilt")
    graph.until(LISTENING)
    made.nodes[4].state = State.FAILED
    graph.site.hang_up()
    graph.until("graph.store.nodes.state[4] === 6")


def test_a_refused_stream_tells_why(graph: GraphPage, complaints: list[str]) -> None:
    graph.site.refused[f"{BASE}/live"] = 403
    graph.open(diamond())
    graph.until("graph.store.live.status === 'connecting'")
    graph.site.refused[f"{BASE}/shape"] = 403
    graph.page.evaluate("document.dispatchEvent(new Event('dagorama:live'))")
    expect(graph.page.get_by_role("alert")).to_contain_text("HTTP status 403")
    complaints.clear()


def test_changes_come_every_five_seconds_if_the_reader_wants_that(graph: GraphPage) -> None:
    made = diamond()
    graph.page.clock.install()
    graph.open(made, "quilt")
    graph.until(LISTENING)
    graph.page.evaluate("document.documentElement.dataset.live = '5'")
    graph.page.evaluate(ALSO_LISTEN, f"{BASE}/live")
    graph.site.tell("nodes", made.set(5, State.FAILED))
    graph.site.tell("nodes", made.set(1, State.FAILED))
    graph.page.evaluate("window.heard")
    assert graph.model("[...graph.store.nodes.state]") == [5, 5, 5, 2, 0]
    graph.page.clock.run_for(5_000)
    graph.until("[...graph.store.nodes.state].join() === '6,5,5,2,6'")
