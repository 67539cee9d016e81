"""The shape of an instance: boxes, edges and their changes."""

import re

from playwright.sync_api import expect

from dagorama.models.state import State
from tests.dashboard.browser.examples import FLOW, diamond, recursion
from tests.dashboard.browser.graph_page import GraphPage
from tests.dashboard.browser.made_up import MadeUpInstance

PLACES = """Object.fromEntries([...document.querySelectorAll(".g-box")].map(
  (box) => [box.querySelector(".g-label").textContent, box.style.transform]))"""


def tops(graph: GraphPage) -> dict[str, float]:
    """Return how far down each box is."""
    labels = graph.page.locator(".g-box .g-label").all_inner_texts()
    boxes = {label: graph.box(label).bounding_box() for label in labels}
    return {label: box["y"] for label, box in boxes.items() if box}


def test_a_diamond_is_a_diamond(graph: GraphPage) -> None:
    graph.open(diamond())
    y = tops(graph)
    assert y["Flow.entrypoint"] < y["Flow.first"] < y["Flow.left"] == y["Flow.right"] < y["Flow.join"]
    assert graph.page.locator(".g-link .g-value").count() == 4
    # Edges from the entry point that other edges imply are left out at first.
    assert graph.page.locator(".g-link .g-created").count() == 1
    graph.page.get_by_role("button", name="Implied edges: 3").click()
    expect(graph.page.locator(".g-link .g-created")).to_have_count(4)


def test_a_box_tells_states_times_and_failures(graph: GraphPage) -> None:
    made = diamond()
    made.add(FLOW + "left", 2_000, run=1_000_000, ended=2_000)
    made.add(FLOW + "left", 3, state=State.FAILED, run=3_000_000, ended=2_000)
    box = graph.open(made).box("Flow.left")
    expect(box).to_have_class(re.compile("g-has-failed"))
    expect(box.get_by_role("link")).to_have_accessible_name(
        "Flow.left 2,004 2,001 done 3 failed mean 1 s · longest 3 s"
    )


def test_a_box_of_what_runs_is_marked(graph: GraphPage) -> None:
    graph.open(diamond())
    marked = graph.page.locator(".g-box.g-runs .g-label").all_inner_texts()
    assert marked == ["Flow.right"]


def test_functions_that_call_one_another_are_one_box_with_a_loop(graph: GraphPage) -> None:
    graph.open(recursion())
    boxes = [box.locator(".g-label").all_inner_texts() for box in graph.page.locator(".g-box").all()]
    assert sorted(boxes) == [["Flow.entrypoint"], ["Flow.fibonacci"], ["Flow.visit", "Flow.expand"]]
    assert graph.box("Flow.fibonacci").locator(".g-loop").inner_text() == "recursive · 7 calls"
    assert graph.box("Flow.visit").locator(".g-loop").inner_text() == "recursive · 4 calls"


def test_a_box_leads_to_the_nodes_of_its_function_in_the_table(graph: GraphPage) -> None:
    graph.open(diamond()).box("Flow.left").get_by_role("link").click()
    graph.page.wait_for_url(f"{graph.site.url}/instances/made-up?view=table&function=flow%3AFlow.left")


def test_counts_change_and_no_box_moves(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made)
    before = graph.model(PLACES)
    made.nodes[3].state, made.nodes[4].state = State.COMPLETED, State.CLAIMED
    graph.site.tell("progress", made.progress())
    expect(graph.box("Flow.join")).to_have_class(re.compile("g-runs"))
    assert graph.model(PLACES) == before


def test_a_new_function_gets_a_box(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made)
    made.add(FLOW + "report", sources=(5,), creator=1, state=State.WAITING)
    graph.site.tell("progress", made.progress())
    expect(graph.box("Flow.report")).to_be_visible()
    y = tops(graph)
    assert y["Flow.report"] > y["Flow.join"]


def test_the_shape_zooms_and_moves_by_keys_and_wheel(graph: GraphPage) -> None:
    graph.open(diamond())
    scene = graph.page.locator(".g-scene")
    transform = "document.querySelector('.g-world').style.transform"
    fitted = graph.model(transform)
    scene.focus()
    graph.press("+", "ArrowRight")
    moved = graph.model(transform)
    assert moved != fitted
    scene.hover()
    graph.page.keyboard.down("Control")
    graph.page.mouse.wheel(0, -200)
    graph.page.keyboard.up("Control")
    graph.until(f"{transform} !== {moved!r}")
    graph.press("0")
    assert graph.model(transform) == fitted


def test_names_of_users_are_text(graph: GraphPage) -> None:
    name = '<img src=x onerror="document.title=1">'
    made = MadeUpInstance()
    made.add(f"flow:{name}", state=State.CLAIMED, worker=name)
    graph.open(made)
    assert graph.page.locator(".g-label").all_inner_texts() == [name]
    for view in ("Quilt", "Focus", "Timeline"):
        graph.show(view)
    graph.page.locator(".g-canvas-view").focus()
    graph.press("ArrowRight")
    expect(graph.page.get_by_role("tooltip")).to_contain_text(name)
    assert graph.page.locator("#graph img").count() == 0
    assert graph.page.title() == "made-up"


def test_an_instance_without_nodes_says_so(graph: GraphPage) -> None:
    graph.open(MadeUpInstance())
    expect(graph.page.locator(".g-notice")).to_contain_text("This instance has no nodes yet.")
    for view in ("Quilt", "Focus", "Timeline"):
        graph.show(view)
        expect(graph.page.locator(".g-notice")).to_be_visible()
