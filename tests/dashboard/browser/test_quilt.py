"""The quilt: a cell for each of many nodes."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from dagorama.models.state import State
from tests.dashboard.browser.examples import fan
from tests.dashboard.browser.graph_page import GraphPage
from tests.dashboard.browser.site import Site

#: The colour in the middle of a node's cell, as red, green, blue.
COLOUR = """(() => {
  const {x, y} = view.grid.placeOf(%d - 1), middle = Math.floor(view.grid.cell / 2);
  const canvas = document.querySelector(".g-canvas-view canvas");
  return [...canvas.getContext("2d").getImageData(x + middle, y + middle, 1, 1).data.slice(0, 3)];
})()"""
FAILED, QUEUED = [213, 94, 0], [86, 180, 233]


def close(colour: list[int], wanted: list[int]) -> bool:
    return all(abs(one - other) < 12 for one, other in zip(colour, wanted, strict=True))


def test_twenty_thousand_nodes_are_seen_at_once(graph: GraphPage) -> None:
    graph.open(fan(), "quilt")
    assert graph.model("view.grid.count") == 20_002
    assert graph.model("view.grid.pitch") >= 4
    assert graph.model("view.grid.height <= document.querySelector('.g-canvas-view').clientHeight")
    assert close(graph.model(COLOUR % 2_002), FAILED)
    assert close(graph.model(COLOUR % 19_000), QUEUED)


def test_keys_lead_to_the_failures_and_open_one(graph: GraphPage) -> None:
    graph.open(fan(), "quilt")
    graph.page.locator(".g-canvas-view").focus()
    graph.press("f")
    started = graph.page.evaluate("new Date(1790000002040).toLocaleTimeString('en-GB')")
    assert graph.said() == (
        f"Node 2002, Flow.work. State: failed, Failed attempts: 3, Run time: 20 ms, Started: {started}, Worker: host-1."
    )
    expect(graph.page.get_by_role("tooltip")).to_contain_text("✕ failed")
    graph.press("f")
    assert graph.model("view.cursor") == 4_001
    graph.press("Shift+F", "Home", "End", "ArrowLeft")
    assert graph.model("view.cursor") == 20_000
    assert "node=20001" in graph.page.url
    graph.press("r")
    assert graph.model("view.cursor") == 10_001
    graph.press("Enter")
    graph.page.wait_for_url(f"{graph.site.url}/instances/made-up/10002")


def test_changed_states_are_painted(graph: GraphPage) -> None:
    made = fan()
    graph.open(made, "quilt")
    graph.site.tell("nodes", made.set(19_000, State.FAILED))
    graph.until("graph.store.nodes.state[18999] === 6")
    graph.page.wait_for_function("() => new Promise((painted) => requestAnimationFrame(() => painted(true)))")
    assert close(graph.model(COLOUR % 19_000), FAILED)
    graph.site.tell("nodes", made.set(19_000, State.QUEUED))
    graph.until("graph.store.nodes.state[18999] === 1")
    graph.page.wait_for_function("() => new Promise((painted) => requestAnimationFrame(() => painted(true)))")
    assert close(graph.model(COLOUR % 19_000), QUEUED)


def test_an_update_of_many_nodes_takes_little_time(
    graph: GraphPage, record_property: Callable[[str, object], None]
) -> None:
    made = fan()
    graph.open(made, "quilt")
    changed = list(range(10_100, 10_600))
    for ordinal in changed:
        made.nodes[ordinal - 1].state = State.CLAIMED
    graph.site.tell("nodes", made.change(changed))
    graph.until("graph.store.nodes.state[10598] === 2")
    graph.page.wait_for_function("() => new Promise((painted) => requestAnimationFrame(() => painted(true)))")
    update, paint = graph.model("[graph.lastUpdate, view.lastPaint]")
    record_property("milliseconds of an update of 500 among 20,002 nodes", round(update + paint, 1))
    assert update + paint < 1_000


def test_new_nodes_are_added(graph: GraphPage) -> None:
    made = fan(100)
    graph.open(made, "quilt")
    added = made.add("flow:Flow.more", 50, state=State.QUEUED, creator=1)
    graph.site.tell("nodes", made.change(list(added)))
    graph.until("view.grid.count === 152")
    assert "/instances/made-up/graph/map?after=102" in graph.site.asked
    assert graph.model("graph.store.nodes.functionOf(151).label") == "Flow.more"
    assert graph.model("graph.store.nodes.creator[151]") == 1


def test_everything_is_fetched_again_if_too_much_has_changed(graph: GraphPage) -> None:
    made = fan(100)
    graph.open(made, "quilt")
    for node in made.nodes:
        node.state = State.CANCELLED
    graph.site.tell("nodes", {"all": True})
    graph.until("graph.store.nodes.state.every((state) => state === 7)")


def test_cells_are_grouped_by_function(graph: GraphPage) -> None:
    made = fan(100)
    late = made.add("flow:Flow.work", 1)[0]
    graph.open(made, "quilt").page.get_by_role("button", name="Group by function").click()
    assert graph.model("view.grid.sections.map((section) => section.count)") == [1, 101, 1]
    assert graph.model(f"view.grid.cellOf({late} - 1)") == 101
    place = graph.model(f"view.grid.placeOf({late} - 1)")
    assert graph.model(f"view.grid.at({{x: {place['x']} + 2, y: {place['y']} + 2}})") == late - 1


def test_a_click_opens_a_node(graph: GraphPage) -> None:
    graph.open(fan(100), "quilt")
    place = graph.model("view.grid.placeOf(41)")
    graph.page.locator(".g-canvas-view").click(position={"x": place["x"] + 3, "y": place["y"] + 3})
    graph.page.wait_for_url(f"{graph.site.url}/instances/made-up/42")


def test_a_part_of_a_very_large_instance_says_that_it_is_one(graph: GraphPage) -> None:
    made = fan(100)
    made.total = 1_000_000
    graph.open(made, "quilt")
    expect(graph.page.locator(".g-notice")).to_have_text("The first 102 of 1,000,000 nodes.")


def test_a_tap_shows_what_a_node_is_and_another_one_opens_it(site: Site, new_page: Callable[..., Page]) -> None:
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    graph = GraphPage(page, site).open(fan(100), "quilt")
    place, box = graph.model("view.grid.placeOf(41)"), page.locator(".g-canvas-view").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + place["x"] + 4, box["y"] + place["y"] + 4)
    expect(page.get_by_role("tooltip")).to_contain_text("42 · Flow.work")
    page.touchscreen.tap(box["x"] + place["x"] + 4, box["y"] + place["y"] + 4)
    page.wait_for_url(f"{site.url}/instances/made-up/42")
